"""
Operations, rivals, crashes and resumes on a simulated QEMU, in orders that no machine can time.

The operations, the loop, the journal and `resume` are the product's. Whatever happens, nothing that
the guest had flushed is lost, no file is removed that a chain, a header or a revert holds, disks of
one operation change together, and each operation is concluded once. `QMPSNAP_SIMULATIONS` sets how
many runs there are, `QMPSNAP_SIMULATION_SEED` the first choice; a failure is made small by
hypothesis, and printed. `test_planted.py` shows that the runs can fail.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.simulation.fate import Call, Fate
from tests.simulation.run import one
from tests.simulation.seed import RUNS, SEED
from tests.simulation.settling import seen

PARTS: Final = max(4, RUNS // 500)
"""A test of ten minutes is stopped."""

fates = st.builds(
    Fate,
    what=st.sampled_from(["nothing", "tool", "qemu", "both", "reply"]),
    number=st.integers(1, 12),
    when=st.sampled_from(["before", "after"]),
)
calls = st.builds(
    Call,
    fate=fates,
    rival=st.booleans(),
    back=st.sampled_from([False, False, False, True]),
    then=st.sampled_from(
        ["", "right", "stale", "written", "elsewhere", "no journal", "plugged", "plugged stale"]
    ),
)


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_lost(part: int) -> None:
    @seed(SEED + part)
    @settings(
        max_examples=max(1, RUNS // PARTS),
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        number=st.integers(0, 1 << 32),
        calls=st.lists(calls, min_size=1, max_size=4),
        later=st.lists(fates, max_size=3),
    )
    def run(number: int, calls: list[Call], later: list[Fate]) -> None:
        one(number, calls, later)

    run()
    print(f"{RUNS // PARTS} runs, QMPSNAP_SIMULATION_SEED={SEED}, part {part}: {dict(seen)}")


def test_a_job_ends_after_resume_has_seen_it() -> None:
    """Its pivot was sent before the tool died; in one of these runs it ends just then."""
    for number in range(40):
        one(number, [Call(), Call(fate=Fate("tool", 2, "after"))], [])


def test_resume_has_no_room_for_the_header_of_an_overlay_that_lies_over_a_rivals() -> None:
    """Found in one of 100,000 runs. It stays open as long as the header would mislead the next start."""
    away = Call(back=True)
    died = Call(fate=Fate("tool", 4, "after"), rival=True, then="no journal")
    one(906646, [Call(rival=True, then="no journal"), away, away, died], [])
    assert seen["header tried again by a person"]
