"""The specification's rule speaks only where nobody else does."""

from __future__ import annotations

import pytest

from qmpsnap.formats.layers import Disks
from qmpsnap.formats.verdict import Verdict, Witness
from qmpsnap.operations import snapshot
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.rule import by_rule
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

SILENT = {"format": None, "verdict": Verdict.UNKNOWN, "evidence": ()}
PATH = "/share/volume-1"


def test_format_that_nobody_states_is_the_one_from_before() -> None:
    after = samples.changed_layer(samples.disk(2), 1, **SILENT)
    upper, lower = by_rule(after, {PATH: "raw"}).layers
    assert upper is after.layers[0]
    assert (lower.format, lower.verdict) == ("raw", Verdict.INFERRED)
    assert [one.witness for one in lower.evidence] == [Witness.RULE]


def test_witness_is_never_overruled() -> None:
    after = samples.disk(2)
    assert by_rule(after, {PATH: "qcow2"}) == after


def test_file_that_was_not_known_before_stays_unknown() -> None:
    after = samples.changed_layer(samples.disk(2), 1, **SILENT)
    assert by_rule(after, {"/share/other": "raw"}) == after


class Forgetful(FakeGuest):
    """A libvirt that states no format of the active layer once the chain has changed."""

    def read(self) -> Disks:
        guest = super().read()
        if not {"switch", "settled"} & {*self.calls}:
            return guest
        return samples.guest(samples.changed_layer(guest.disks[0], 0, **SILENT))


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        (("volume-1.s2", "volume-1"), {"volume-1": "raw"}),
        ((None, None), {"volume-1.s2": "qcow2"}),
    ],
)
def test_after_a_delete(merge: tuple[str | None, str | None], expected: dict[str, str]) -> None:
    request = DeleteRequest(disk="1", file_to_merge=merge[0], merge_target_file=merge[1])
    done = delete(Forgetful(samples.guest(samples.disk(3))), request, poll_s=0)
    assert done.file_format == expected
    assert done.disk.layers[0].verdict is Verdict.INFERRED


def test_after_a_create() -> None:
    request = CreateRequest(disk="1", new_file="volume-1.new", snapshot="new")
    done = snapshot.create(Forgetful(samples.guest(samples.disk(1))), request)
    assert done.file_format == {"volume-1.new": "qcow2"}
    assert done.disk.layers[0].verdict is Verdict.INFERRED
