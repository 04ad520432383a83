"""
A seeded sample of mutants of the code that decides, and the tests that need nothing but Python.

    python -m tests.mutation                       300 mutants, seed 1
    python -m tests.mutation --mutants 50 --seed 7
    python -m tests.mutation --only operations/guards.py

The project is copied first: nothing here is changed. How many of a module are taken goes by the
root of how many it has. A mutant is tried with the tests that call its function, those first that
call little else; one that is
executed at import, with all files of tests that call anything of its module, and those of the
pages. What survives is printed; `equivalent.toml` names those that no test can see, which do not count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Imported before any mutant is tried: each trial is forked from here.
import hypothesis  # noqa: F401
import lxml.etree  # noqa: F401
import msgspec  # noqa: F401

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.trial import UNTOUCHED, passes, survives

ROOT: Final = Path(__file__).resolve().parents[2]
MODULES: Final = (
    "graph/*.py",
    "formats/*.py",
    "operations/*.py",
    "operations/job/*.py",
    "findings/*.py",
    "status.py",
    "guests/*/steps.py",
)
"""The code that decides, below `qmpsnap`."""
TESTS: Final = ("tests/unit", "tests/replay")
OF_THE_PAGES: Final = ("test_docs", "test_errors", "test_tables", "test_public", "test_help")
"""Tests that look at tables and texts as a whole."""
NEAREST: Final = 2
"""Files of tests that a mutant is tried with first."""
SOME: Final = 30
"""Tests that it is tried with before all others that call it."""
WANTED: Final = 95.0
"""Percent that must be killed."""

Calls = dict[str, dict[str, list[str]]]
"""Tests by file and function; of no file all of them."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A mutant of the sample."""

    file: str
    mutant: Mutant
    text: str
    """The line that it is in."""

    def __str__(self) -> str:
        return f"{self.file}:{self.mutant.line}: {self.mutant.what}\n        {self.text}"

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is known by, wherever the line stands."""
        return self.file, self.text, self.mutant.what


def equivalents() -> dict[tuple[str, str, str], str]:
    """Mutants that no test can see, and why."""
    found = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text())
    return {(one["file"], one["line"], one["change"]): one["why"] for one in found["mutant"]}


def chosen(seed: int, count: int, only: str | None) -> list[Chosen]:
    """Take a sample; the same seed takes the same from the same code."""
    chance = random.Random(seed)
    files = sorted(file for pattern in MODULES for file in (ROOT / "qmpsnap").glob(pattern))
    pools = {file: _all_of(file) for file in files if only is None or file.match(only)}
    roots = {file: math.sqrt(len(pool)) for file, pool in pools.items()}
    found: list[Chosen] = []
    for file, pool in pools.items():
        share = round(count * roots[file] / sum(roots.values()))
        found += chance.sample(pool, min(len(pool), share))
    return found


def _all_of(file: Path) -> list[Chosen]:
    source = file.read_bytes()
    lines = source.decode().splitlines()
    return [
        Chosen(file.relative_to(ROOT).as_posix(), mutant, lines[mutant.line - 1].strip())
        for mutant in mutants_of(source)
        if _compiles(source[: mutant.start] + mutant.new + source[mutant.end :])
    ]


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


def copied(folder: Path) -> None:
    """Copy what git knows of, and what is new."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
            os.utime(target, (UNTOUCHED, UNTOUCHED))


def stages(one: Chosen, calls: Calls, breadths: Mapping[str, int]) -> list[list[str]]:
    """
    The tests for a mutant, in the order in which they are tried.

    Most are killed by the files with tests that call little else: few files are read quickly.
    """
    of_file = calls.get(one.file, {})
    if one.mutant.function is None:
        # A test that compares a constant calls nothing: all of its file are taken.
        files = {test.partition("::")[0] for those in of_file.values() for test in those}
        tests = {
            test
            for test in calls.get("", {}).get("", ())
            if test.partition("::")[0] in files
            or any(f"/{name}." in test for name in (*OF_THE_PAGES, f"test_{Path(one.file).stem}"))
        }
    else:
        tests = set(of_file.get(one.mutant.function, ()))
    stem, ordered = Path(one.file).stem, list[str]()
    for test in sorted(tests, key=lambda test: (f"_{stem}" not in test, breadths[test], test)):
        file = test.partition("::")[0]
        if file not in ordered:
            ordered.append(file)
    near = {test for test in tests if test.partition("::")[0] in ordered[:NEAREST]}
    others = sorted(tests - near)
    random.Random(0).shuffle(others)
    return [sorted(near), sorted(others[:SOME]), sorted(others[SOME:])]


def breadths_of(calls: Calls) -> Counter[str]:
    """How many functions of the product each test calls."""
    return Counter(
        test for file in calls if file for those in calls[file].values() for test in those
    )


def survivors(sample: Sequence[Chosen], calls: Calls, copies: Sequence[Path]) -> list[Chosen]:
    """Try all of them, with one process a copy."""
    pipes, breadths = [], breadths_of(calls)
    for number, copy in enumerate(copies):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.chdir(copy)
            for position in range(number, len(sample), len(copies)):
                one = sample[position]
                lives = survives(copy / one.file, one.mutant, stages(one, calls, breadths))
                if lives:
                    print(f"{position + 1} of {len(sample)} survives: {one}", file=sys.stderr)
                os.write(writer, f"{position} {int(lives)}\n".encode())
            os._exit(0)
        os.close(writer)
        pipes.append(os.fdopen(reader))
    said = [line.split() for pipe in pipes for line in pipe]
    assert len(said) == len(sample), "a process of this one has ended too early"
    return [
        sample[position]
        for position, lives in sorted((int(where), lives) for where, lives in said)
        if lives == "1"
    ]


def main() -> int:
    """Try a sample; 1 when too few are killed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one module, as `operations/guards.py`")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--calls", help="keep in this file which test calls what, for the next run")
    parser.add_argument("--list", action="store_true", help="show the sample, and try nothing")
    options = parser.parse_args()
    known = equivalents()
    sample = chosen(options.seed, options.mutants, options.only)
    if options.list:
        print(*sample, sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        options.calls = options.calls and str(Path(options.calls).absolute())
        copies = [Path(folder, str(number)) for number in range(options.workers)]
        for copy in copies:
            copied(copy)
        os.chdir(copies[0])
        _forget_the_checkout()
        file = Path(options.calls or Path(folder, "calls.json"))
        if not file.exists():
            watching = ["-p", "tests.mutation.calls", "--calls", str(file), *TESTS]
            assert passes(watching, shown=True), "the tests fail without any mutant"
        calls: Calls = json.loads(file.read_text())
        left = survivors(sample, calls, copies)
    return report(sample, left, known)


def _forget_the_checkout() -> None:
    """What is imported from now on comes from the copy."""
    sys.path[:] = [one for one in sys.path if one and Path(one).resolve() != ROOT]
    os.environ.pop("PYTHONPATH", None)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "qmpsnap")]:
        del sys.modules[name]


def report(
    sample: Sequence[Chosen],
    left: Sequence[Chosen],
    known: dict[tuple[str, str, str], str],
) -> int:
    """Print the score; the exit code."""
    counted = [one for one in sample if one.key not in known]
    real = [one for one in left if one.key not in known]
    by_file, alive = Counter(one.file for one in counted), Counter(one.file for one in real)
    for name, count in sorted(by_file.items()):
        print(f"{name:45} {count - alive[name]:4} of {count:4}")
    print(*(f"survives: {one}" for one in real), sep="\n")
    score = 100 * (len(counted) - len(real)) / max(1, len(counted))
    print(
        f"{score:.1f} % of {len(counted)} mutants are killed; "
        f"{len(sample) - len(counted)} more are equivalent"
    )
    return 0 if score >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
