"""The tool that measures the tests: what it changes, and what it leaves alone."""

from __future__ import annotations

import pytest

from tests.mutation.__main__ import Chosen, breadths_of, chosen, equivalents, stages
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
    """By the name that the interpreter has for it."""
    source = b"""x = 1
class A:
    y = 2
    @one
    def f(self):
        def g(): return a < b
        return [i for i in c if i == 3]
"""
    names = [mutant.function for mutant in mutants_of(source)]
    assert list(dict.fromkeys(names)) == [None, "A.f.<locals>.g", "A.f"]


def test_same_seed_takes_the_same() -> None:
    sample = chosen(5, 20, "operations/guards.py")
    assert sample == chosen(5, 20, "operations/guards.py")
    assert sample != chosen(6, 20, "operations/guards.py")
    assert len(sample) == 20


def test_files_whose_tests_call_little_else_come_first() -> None:
    tests = [f"tests/unit/test_{name}.py::t" for name in ("b", "wide", "narrow", "wider")]
    own, wide, narrow, wider = tests
    calls = {
        "qmpsnap/a/b.py": {"f": tests},
        "qmpsnap/c.py": {"f": [own, wide, wider], "g": [own, wide, wider], "h": [own, wider]},
    }
    one = Chosen("qmpsnap/a/b.py", Mutant(0, 1, b"", 4, "", "f"), "")
    breadths = breadths_of(calls)
    assert breadths == {own: 4, wide: 3, narrow: 1, wider: 4}
    assert stages(one, calls, breadths) == [[own, narrow], [wide, wider], []]


def test_what_is_executed_at_import_is_tried_with_all_of_the_module() -> None:
    every = [f"tests/unit/test_{name}.py::t" for name in ("b", "docs", "w", "x", "y", "z")]
    calls = {
        "qmpsnap/a/b.py": {"f": ["tests/unit/test_x.py::u"], "g": ["tests/unit/test_y.py::t"]},
        "qmpsnap/c.py": {"f": ["tests/unit/test_docs.py::t", "tests/unit/test_z.py::t"]},
        "": {"": every},
    }
    one = Chosen("qmpsnap/a/b.py", Mutant(0, 1, b"", 4, "", None), "")
    names = [
        test.split("test_")[1][:1]
        for stage in stages(one, calls, breadths_of(calls))
        for test in stage
    ]
    assert sorted(names) == ["b", "d", "x", "y"], "its own test calls nothing"


def test_equivalents_are_still_in_the_code() -> None:
    """One whose line has changed is not known any more, and has to be looked at again."""
    known = equivalents()
    files = {file.removeprefix("qmpsnap/") for file, _, _ in known}
    there = {one.key for file in files for one in chosen(0, 10**6, file)}
    assert known.keys() <= there
