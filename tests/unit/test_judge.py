"""What a merge came to, by a fresh reading: undone, or of a format that nobody states."""

from __future__ import annotations

import pytest

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.verdict import Evidence, Witness
from qmpsnap.operations.job.loop import Ended
from qmpsnap.operations.job.machine import Why
from qmpsnap.operations.job.states import JobFailed, JobStatus
from qmpsnap.operations.judge import format_of, judged
from qmpsnap.operations.outcome import (
    FormatUnknown,
    NamesAnother,
    OpenedAnother,
    OutcomeUnknown,
    check_names,
)
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import samples


def plan(top: str) -> MergePlan:
    request = DeleteRequest(disk="vda", file_to_merge=top, merge_target_file="volume-1")
    return plan_delete(samples.guest(samples.disk(3)), request)


def test_flush_that_failed_before_the_chain_was_changed() -> None:
    why = "flush of volume-1: no space"
    ended = Ended(status=JobStatus.CONCLUDED, error=why, cancelled=Why.NOT_FLUSHED)
    merge = plan("volume-1.s1")
    with pytest.raises(JobFailed, match=why):
        judged(merge, ended, samples.guest(), merge.disk, room=None, seconds=0, notes=())


def test_format_that_nobody_states() -> None:
    disk = samples.changed_layer(samples.disk(2), 1, format=None)
    assert format_of(disk, "/share/volume-1.s1") == "qcow2"
    with pytest.raises(FormatUnknown, match="nobody states the format of volume-1 now") as caught:
        format_of(disk, "/share/volume-1")
    assert (caught.value.exit_code, caught.value.changed) == (1, "yes")


SAID = {witness: (Evidence(witness=witness, format="qcow2", detail="seen"),) for witness in Witness}


@pytest.mark.parametrize("differences", [(), ("volume-1 leads to another file now",)])
@pytest.mark.parametrize("is_done", [True, False])
def test_qemu_has_opened_another_file(is_done: bool, differences: tuple[str, ...]) -> None:
    """Whether the merge was done, cancelled or failed."""
    disk = samples.changed_layer(samples.disk(3), 2, identity=("file", 1, 2))
    request = DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1")
    merge = plan_delete(samples.guest(disk), request)
    after = samples.disk(3, layers=samples.linked(merge.remaining)) if is_done else disk
    another = {"identity": ("file", 1, 3), "evidence": SAID[Witness.QMP]}
    after = samples.changed_layer(after, 1 if is_done else 2, **another)
    ended = Ended(status=JobStatus.CONCLUDED, error=None, differences=differences)
    with pytest.raises(
        OpenedAnother, match="during the commit QEMU opened /share/volume-1"
    ) as said:
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())
    assert (said.value.path, said.value.chain) == ("/share/volume-1", after.chain_text)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"flags": ("replaced",), "sight": "its name leads to no file any more"}, "to no file"),
        ({"identity": ("file", 1, 3), "flags": ("not-seen",)}, "leads to another file now"),
        ({"identity": ("file", 1, 3), "evidence": SAID[Witness.XML]}, "leads to another file now"),
        ({"identity": ("file", 1, 2)}, None),
        ({"identity": None}, None),
    ],
)
def test_name_that_leads_to_another_file(changes: dict[str, object], why: str | None) -> None:
    disk = samples.changed_layer(samples.disk(3), 2, identity=("file", 1, 2))
    request = DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1")
    merge = plan_delete(samples.guest(disk), request)
    after = samples.disk(3, layers=samples.linked(merge.remaining))
    after = samples.changed_layer(after, 1, **changes)
    ended = Ended(status=JobStatus.CONCLUDED, error=None)
    if why is None:
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())
        return
    with pytest.raises(NamesAnother, match=why) as caught:
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())
    assert (caught.value.path, caught.value.changed) == ("/share/volume-1", "yes")


def test_names_are_compared_after_what_qemu_has_open() -> None:
    """That it has another file is worse than that a name leads to one."""
    before = samples.changed_layer(samples.disk(2), 1, identity=("file", 1, 2))
    after = samples.changed_layer(before, 1, identity=("file", 1, 3))
    with pytest.raises(OpenedAnother):
        check_names("commit", before, after)


def test_layer_without_a_path_is_called_by_its_name() -> None:
    here, there = ("file", 1, 2), ("file", 1, 3)
    before = samples.changed_layer(samples.disk(2), 1, path=None, identity=here)
    after = samples.changed_layer(before, 1, identity=there, flags=("not-seen",))
    with pytest.raises(NamesAnother) as caught:
        check_names("commit", before, after)
    assert caught.value.path == "volume-1"


def test_chain_as_it_was_where_it_cannot_be_seen_which_files_qemu_has() -> None:
    """QEMU still has the chain open, whatever the name leads to by now."""
    disk = samples.changed_layer(samples.disk(3), 0, identity=("file", 1, 2))
    request = DeleteRequest(disk="vda", file_to_merge="volume-1", merge_target_file=None)
    merge = plan_delete(samples.guest(disk), request)
    after = samples.changed_layer(disk, 0, identity=("file", 1, 3), flags=("not-seen",))
    ended = Ended(status=JobStatus.CONCLUDED, error=None)
    with pytest.raises(JobFailed):
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())


@pytest.mark.parametrize(
    ("witness", "identity", "error"),
    [
        (Witness.HEADER, ("file", 1, 3), OutcomeUnknown),
        (Witness.HEADER, ("file", 1, 2), JobFailed),
        (Witness.HEADER, None, JobFailed),
        (Witness.QMP, ("file", 1, 2), JobFailed),
        (Witness.QMP, ("file", 1, 3), OpenedAnother),
    ],
)
def test_chain_as_it_was_by_the_header_of_another_file(
    witness: Witness, identity: tuple[object, ...] | None, error: type[QmpsnapError]
) -> None:
    disk = samples.changed_layer(samples.disk(3), 0, identity=("file", 1, 2))
    request = DeleteRequest(disk="vda", file_to_merge="volume-1", merge_target_file=None)
    merge = plan_delete(samples.guest(disk), request)
    after = samples.changed_layer(disk, 0, identity=identity, evidence=SAID[witness])
    ended = Ended(status=JobStatus.CONCLUDED, error=None)
    with pytest.raises(error):
        judged(merge, ended, samples.guest(), after, room=None, seconds=0, notes=())
