"""What the documentation says must be there, and what is there must be in the documentation."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from docs import generate
from docs.situations import PAINS, module_of_pain
from qmpsnap.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_generated_pages_are_current() -> None:
    assert generate.stale() == [], "run python docs/generate.py"


def test_check_tells_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "reference" / "page.md"
    monkeypatch.setattr(generate, "pages", lambda: {page: "text"})
    assert generate.main(["--check"]) == 1
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    page.write_text("old")
    assert generate.main(["--check"]) == 1
    assert page.read_text() == "old"


def test_every_command_and_option_is_named() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "docs/reference/cli.md").read_text()
    commands = [("qmpsnap", cli), *generate.all_commands()]
    assert len(commands) > 15
    for name, command in commands:
        assert name == "qmpsnap" or f"`{name}`" in text, name
        for param in command.params:
            for option in param.opts:
                assert not option.startswith("-") or f"`{option}`" in text, (name, option)


def test_every_exit_code_is_explained() -> None:
    used = {error.exit_code for error in generate.error_classes()}
    assert used < generate.EXIT_CODES.keys()
    readme = (ROOT / "README.md").read_text()
    for code in generate.EXIT_CODES:
        assert f"\n| {code} | " in readme


def test_every_json_schema_is_described() -> None:
    code = "".join(path.read_text() for path in (ROOT / "qmpsnap").rglob("*.py"))
    described = (ROOT / "docs/reference/json.md").read_text()
    schemas = set(re.findall(r'"(qmpsnap\.\w+/\d+)"', code))
    assert schemas
    for schema in schemas:
        assert schema in described


def test_the_picture_of_imports_is_true() -> None:
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)*) ?\|", page, re.MULTILINE)
    said = {package: set(re.findall(r"\w+", imports)) for package, imports in rows}
    found: dict[str, set[str]] = {}
    for path in (ROOT / "qmpsnap").rglob("*.py"):
        package = path.relative_to(ROOT / "qmpsnap").with_suffix("").parts[0]
        if not package.startswith("__"):
            found.setdefault(package, set()).update(_imported(path) - {package})
    assert said == found


def test_the_drawn_picture_is_that_of_its_source() -> None:
    """Graphviz lays it out, which differs by its version; the arrows do not."""
    folder = ROOT / "docs/explanation"
    arrows = re.findall(r'"(\w+)" -> "(\w+)"', (folder / "rooms.dot").read_text())
    drawn = re.findall(r"<title>(\w+)&#45;&gt;(\w+)</title>", (folder / "rooms.svg").read_text())
    assert sorted(drawn) == sorted(arrows) != []


def _imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "qmpsnap":
            modules |= {f"qmpsnap.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {name.split(".")[1] for name in modules if name.startswith("qmpsnap.")}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_resolve(page: Path) -> None:
    for target in _links(page):
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(there), target


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in _links(index)}
    assert set(ROOT.glob("docs/**/*.md")) - {index} <= linked


def test_every_pain_names_its_tests_and_no_other() -> None:
    text = (ROOT / "docs/explanation/pains.md").read_text()
    found = re.findall(r"^## (\d+)\. (.+)$", text, re.MULTILINE)
    assert found == [(str(number), pain) for number, pain in enumerate(PAINS, start=1)]
    chapters = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for number, chapter in enumerate(chapters, start=1):
        module = module_of_pain(number)
        named = re.findall(rf"^\| \[`(\w+)`\]\(\S*/{module.name}\) \|", chapter, re.MULTILINE)
        classes = {
            one for one in ast.parse(module.read_text()).body if isinstance(one, ast.ClassDef)
        }
        assert sorted(named) == sorted(one.name for one in classes if one.name[:4] == "Test")
        assert named


@pytest.mark.parametrize("page", ["pains", "security"])
def test_every_test_that_is_named_is_there(page: str) -> None:
    text = (ROOT / f"docs/explanation/{page}.md").read_text()
    links = re.findall(r"\[`((?:Test|test_)\w+)`\]\(\.\./\.\./([^)\s]+)\)", text)
    assert links
    for name, file in links:
        assert re.search(
            rf"^(?:class|    def|def) {name}\b", (ROOT / file).read_text(), re.MULTILINE
        )


def test_every_attempt_has_its_test() -> None:
    text = (ROOT / "docs/explanation/security.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert sum("shown by" in row for row in rows) == 3  # a guest, a tenant, a local user
    for row in rows:
        assert "(../../tests/" in row or "shown by" in row or set(row) <= set("|- "), row


def test_every_guard_of_a_pain_is_named() -> None:
    text = (ROOT / "docs/explanation/pains.md").read_text()
    chapters = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    for number, chapter in enumerate(chapters, start=1):
        guards = re.findall(r'where="qmpsnap\.([\w.]+)"', module_of_pain(number).read_text())
        assert guards
        assert set(re.findall(r"\(`((?:\w+\.)+\w+)`\)", chapter)) == set(guards)


def _links(page: Path) -> list[str]:
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", _prose(page))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def _anchors(page: Path) -> set[str]:
    """Ids of headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
