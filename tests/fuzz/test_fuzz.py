"""
Mutated replies, XMLs and headers: a typed error or an honest report, in bounded time and memory.

`QMPSNAP_FUZZ_CASES` says how many cases of each kind (2000), `QMPSNAP_FUZZ_SEED` which is the first
(0). A failure prints its seed; to repeat it:

    QMPSNAP_FUZZ_SEED=1234 QMPSNAP_FUZZ_CASES=1 make fuzz ARGS='-k replies'
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fuzz import headers, replies, xmls
from tests.fuzz.run import Cuts

CASES: Final = int(os.environ.get("QMPSNAP_FUZZ_CASES", "2000"))
SEED: Final = int(os.environ.get("QMPSNAP_FUZZ_SEED", "0"))
GROWTH_MIB: Final = 64
"""How much more memory the process may take than after its first case; 44 at most in 100,000."""
TIME_S: Final = 600 + CASES
"""A net only: what takes too long is told by the limits of the process itself."""
ROOT: Final = Path(__file__).parents[2]


def run(kind: str, first: int, cases: int) -> dict[str, Any]:
    """Run the cases in a process of their own, and return its figures."""
    command = [sys.executable, "-m", "tests.fuzz.run", kind, str(first), str(cases)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_S)
    if done.returncode != 0:
        pytest.fail(
            f"{done.stderr[-20_000:]}\nexit code {done.returncode}; repeat a seed with "
            f"QMPSNAP_FUZZ_SEED=<seed> QMPSNAP_FUZZ_CASES=1 make fuzz ARGS='-k {kind}'",
            pytrace=False,
        )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.timeout(TIME_S + 10)
@pytest.mark.parametrize("kind", ["replies", "xmls", "headers", "cuts"])
def test_an_error_of_ours_or_an_honest_report(kind: str) -> None:
    figures = run(kind, SEED, CASES)
    print(kind, json.dumps(figures))
    assert figures["cases"] >= min(CASES, 1)
    assert figures["peak_mib"] - figures["start_mib"] <= GROWTH_MIB
    if CASES >= 1000:  # otherwise it looks at nothing but refusals
        assert figures["outcomes"]["report"] >= 30
        assert len(figures["outcomes"]) >= 2


@pytest.mark.parametrize("case", [replies.case, xmls.case, headers.case])
def test_a_seed_gives_the_same_case_whatever_was_made_before(case: Callable[[int], object]) -> None:
    forward = [case(seed) for seed in range(300)]
    backward = [case(seed) for seed in reversed(range(300))]
    assert forward == backward[::-1]
    assert len(set(forward)) > 250


def test_every_place_can_be_cut_at() -> None:
    cuts = Cuts()
    seeds = list(cuts.seeds(0, 10**9))
    places = sum(len(text) for text in cuts.texts)
    assert len(seeds) == len(cuts.lines) + places
    assert cuts.case(0) == cuts.texts[0].split("\n")[0]
    assert cuts.case(len(cuts.lines)) == ""
    assert cuts.case(seeds[-1]) == cuts.texts[-1][:-1]
    assert 1000 <= len(list(cuts.seeds(0, 1000))) < 2500
    assert list(cuts.seeds(7, 1)) == [7]
