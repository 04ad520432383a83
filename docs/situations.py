"""The page of situations: what happens, exit code, what to do; from the tests that show it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent

HEAD: Final = """\
# Situations

What happens when something is not as it should be, and what to do about it. Each row is proven by the test in the last column, on each road (QMP, libvirt) that the test runs on; a test fails if none of its commands ends with the exit code given here.

| situation | what happens | exit code | what to do | shown by |
|---|---|---|---|---|
"""

PAINS: Final = (
    "Failed merge taken for success",
    "The manager's record, QEMU and the storage differ after a merge",
    "Wrong or missing format of a base",
    "Data lost by deleting the wrong image",
    "A pivot that is not ready, an active commit that never converges",
    "No space in the middle of a merge",
    "The tool is killed half-way",
    "Bitmaps lost",
    "A freeze that hangs, a thaw that fails",
    "Several disks, not as one",
    "Permissions and owners",
    "libvirt's snapshot metadata",
    "json: names and automatic node names",
    "No view of progress",
    "Encrypted and unusual images",
)
"""The fifteen pains of the users of other tools, in their order; docs/explanation/pains.md."""


KINDS: Final = (
    "A name that is not the file that QEMU has open",
    "Files that others use as well: guests that run or are off, other processes",
    "Two calls on one disk at the same time",
    "A flush that failed",
    "A layer that is shorter than others of its chain",
    "A definition that names the chain, with the guest off",
    "New files where files are not kept",
    "A header or an overlay that changes in between",
    "A job that another client has started",
    "Discards that free no room any more",
    "Ctrl-C, SIGTERM and SIGHUP",
    "What the tool itself has started is in its way",
    "Refusals that come too late, after a plan without complaint",
    "Remedies that do not work in the state in which they are given",
    "libvirt's words, taken for QEMU's",
    "A guest that is off, with a disk that cannot be looked at",
    "One file by two spellings",
    "Snapshots and overlays that share a name",
    "Hostile input that is slow or crashes",
    "Help that says what is no longer so",
    "A guest that is not read because another client streams",
)
"""Kinds of trouble that were met when the tool was tried on what users of other tools report, on
other projects' test data, and by an independent attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One marked test."""

    title: str
    happens: str
    code: int
    then: str
    pain: int | None
    kind: int | None
    test: str
    file: str


def page(notice: str) -> str:
    """Render the page."""
    found = list(situations())
    rows = "".join(
        f"| {one.title} | {one.happens} | {one.code} | {one.then} | "
        f"[`{one.test}`](../../{one.file}) |\n"
        for one in sorted(found, key=lambda one: (one.code, one.title))
    )
    answered = "".join(
        f"| {number} | [{pain}](../explanation/pains.md#{anchor(number)}) | "
        f"{_shown(found, number)} |\n"
        for number, pain in enumerate(PAINS, start=1)
    )
    met = "".join(
        f"| {number} | {kind} | {', '.join(_of_kind(found, number))} |\n"
        for number, kind in enumerate(KINDS, start=1)
    )
    return (
        f"{notice}\n\n{HEAD}{rows}\n## The pains of other tools\n\n"
        "What users of other snapshot tools complain about most. Each pain has tests of its own, with "
        "qmpsnap's guard and without it, and some of the situations above belong to it: "
        "[Pains](../explanation/pains.md).\n\n"
        f"| | pain | tests, and situations |\n|---|---|---|\n{answered}\n"
        "## Kinds of trouble from the field\n\n"
        "What the tool met when it was tried on public problem reports, on other projects' test "
        "data, and by an independent attack. Each kind is shown by some of the situations above; "
        "the files of their tests have more of it.\n\n"
        f"| | kind | shown by |\n|---|---|---|\n{met}"
    )


def anchor(number: int) -> str:
    """Id of a pain's heading in docs/explanation/pains.md, as GitHub and GitLab make it."""
    heading = f"{number}. {PAINS[number - 1]}".lower()
    return re.sub(r"[^\w\- ]", "", heading).replace(" ", "-")


def module_of_pain(number: int) -> Path:
    """The module that shows a pain with its guard and without it."""
    (module,) = (ROOT / "tests" / "pains").glob(f"test_pain_{number:02}_*.py")
    return module


def _shown(found: list[Situation], number: int) -> str:
    module = module_of_pain(number)
    names = {f"[`{one.test}`](../../{one.file})" for one in found if one.pain == number}
    return ", ".join([f"[`{module.stem}`](../../{module.relative_to(ROOT)})", *sorted(names)])


def _of_kind(found: list[Situation], number: int) -> list[str]:
    return sorted({f"[`{one.test}`](../../{one.file})" for one in found if one.kind == number})


def situations() -> Iterator[Situation]:
    """Find the marked tests, without importing them."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "@situation(" not in text:
            continue  # to parse them all takes a second
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef):
                continue
            for decorator in node.decorator_list:
                if (
                    isinstance(decorator, ast.Call)
                    and isinstance(decorator.func, ast.Name)
                    and decorator.func.id == "situation"
                ):
                    yield _situation(decorator, node.name, str(path.relative_to(ROOT)))


def _situation(call: ast.Call, test: str, file: str) -> Situation:
    values = {one.arg: ast.literal_eval(one.value) for one in call.keywords}
    return Situation(
        title=ast.literal_eval(call.args[0]),
        happens=values["happens"],
        code=values["code"],
        then=values["then"],
        pain=values.get("pain"),
        kind=values.get("kind"),
        test=test,
        file=file,
    )
