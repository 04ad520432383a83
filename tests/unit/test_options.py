"""Wishes for a merge: what no job can fulfil is refused before anything is touched."""

from __future__ import annotations

import pytest

from qmpsnap.operations.options import BANDWIDTH_LIMIT, BadOption, MergeOptions


@pytest.mark.parametrize("value", [-1, BANDWIDTH_LIMIT + 1])
def test_bandwidth(value: int) -> None:
    with pytest.raises(BadOption, match=str(value)) as caught:
        MergeOptions(bandwidth=value)
    assert (caught.value.option, caught.value.value) == ("bandwidth", str(value))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_timeout(value: float) -> None:
    with pytest.raises(BadOption, match="timeout") as caught:
        MergeOptions(timeout_s=value)
    assert caught.value.option == "timeout"


def test_limit_of_the_wire() -> None:
    """An int64."""
    assert BANDWIDTH_LIMIT == 0x7FFF_FFFF_FFFF_FFFF


def test_good_ones() -> None:
    assert MergeOptions(bandwidth=0, timeout_s=0.1).bandwidth == 0
    assert MergeOptions(bandwidth=BANDWIDTH_LIMIT).timeout_s is None
