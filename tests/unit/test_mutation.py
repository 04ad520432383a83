"""The tool that measures the tests: what it changes, and what it leaves alone."""

from __future__ import annotations

import pytest

from tests.mutation.__main__ import Chosen, chosen, equivalents, stages
from tests.mutation.mutants import Mutant, mutants_of


def changed(source: str) -> list[str]:
    """The source, changed in each way."""
    data = source.encode()
    return [(data[: m.start] + m.new + data[m.end :]).decode() for m in mutants_of(data)]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("a < b", ["a <= b"]),
        ("a not in b", ["a in b"]),
        ("(a) == (b)", ["(a) != (b)"]),
        ("a and b", ["((a) or (b))", "((b))", "((a))"]),
        ("not a", ["a"]),
        ("a + b", ["a - b"]),
        ("x = 3", ["x = 4"]),
        ("x = True", ["x = False"]),
        ("x = 'key'", ["x = 'key_'"]),
        ("x = [i for i in y if i]", ["x = [i for i in y if True]"]),
        ("x = (a, b)", ["x = (b)", "x = (a)"]),
        ("x = {1: a, **b}", ["x = {**b}", "x = {1: a}", "x = {2: a, **b}"]),
        ("x = f(a, k=b)", ["x = f(a)"]),
        ("x = min(a)", ["x = max(a)"]),
        ("f()", ["pass"]),
        ("def f():\n    return a", ["def f():\n    return None"]),
        (
            "if a:\n    raise b",
            ["if True:\n    raise b", "if False:\n    raise b", "if a:\n    pass"],
        ),
    ],
)
def test_changes(source: str, wanted: list[str]) -> None:
    assert sorted(changed(source)) == sorted(wanted)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "import a",
        "x = 'words for people'",
        "x = f'{a + b}'",
        "log.info('word')",
        "msg = 'word'",
        "def f(a: 'word') -> 'word': ...",
        "@word(1)\ndef f(): ...",
        "class A(frozen=True): ...",
        "Kind = Literal['a', 'b']",
        "T = TypeVar('T')",
        "x = zip(a, b, strict=True)",
        "def f():\n    return None",
    ],
)
def test_is_left_alone(source: str) -> None:
    assert changed(source) == []


def test_function_of_a_mutant() -> None:
    """By the line in which the interpreter says that it begins: its decorators'."""
    source = b"x = 1\n@one\n@two\ndef f():\n    return a < b\n"
    assert [mutant.function for mutant in mutants_of(source)] == [None, 2, 2]


def test_same_seed_takes_the_same() -> None:
    sample = chosen(5, 20, "operations/guards.py")
    assert sample == chosen(5, 20, "operations/guards.py")
    assert sample != chosen(6, 20, "operations/guards.py")
    assert len(sample) == 20


def test_own_tests_come_first() -> None:
    calls = {
        "qmpsnap/a/b.py": {"3": ["tests/unit/test_x.py::t", "tests/unit/test_b.py::t"], "9": ["z"]}
    }
    one = Chosen("qmpsnap/a/b.py", Mutant(0, 1, b"", 4, "", 3), "")
    assert stages(one, calls) == [["tests/unit/test_b.py::t", "tests/unit/test_x.py::t"], []]


def test_what_is_executed_at_import_is_tried_with_all_of_the_module() -> None:
    every = [f"tests/unit/test_{name}.py::t" for name in ("b", "docs", "w", "x", "y", "z")]
    calls = {
        "qmpsnap/a/b.py": {"3": ["tests/unit/test_x.py::u"], "9": ["tests/unit/test_y.py::t"]},
        "qmpsnap/c.py": {"1": ["tests/unit/test_docs.py::t", "tests/unit/test_z.py::t"]},
        "": {"0": every},
    }
    one = Chosen("qmpsnap/a/b.py", Mutant(0, 1, b"", 4, "", None), "")
    names = [test.split("test_")[1][:1] for stage in stages(one, calls) for test in stage]
    assert sorted(names) == ["b", "d", "x", "y"], "its own test calls nothing"


def test_equivalents_are_still_in_the_code() -> None:
    """One whose line has changed is not known any more, and has to be looked at again."""
    known = equivalents()
    files = {file.removeprefix("qmpsnap/") for file, _, _ in known}
    there = {one.key for file in files for one in chosen(0, 10**6, file)}
    assert known.keys() <= there
