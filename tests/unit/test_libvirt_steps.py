"""The libvirt road: exactly which calls of its API each operation is made of."""

from __future__ import annotations

import subprocess
import sys

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.steps import disk_steps
from qmpsnap.guests.libvirt.steps import (
    ActiveHeaderOnly,
    GuestSleeps,
    LibvirtComposer,
    NotByLibvirt,
)
from qmpsnap.guests.qmp.flush_steps import heard_flushes
from qmpsnap.operations.guest import Overlay, State
from qmpsnap.operations.job.states import JobReport, JobStatus, JobView, Verb
from qmpsnap.operations.options import DEFAULT_OPTIONS, MergeOptions, OnError, PauseUnsupported
from qmpsnap.operations.plan_header import rewrite
from qmpsnap.operations.plan_merge import MergePlan, plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.unit import samples
from tests.unit.fake_libvirt import LIBVIRT, NUMBERS

STATE = State(run="running")
COMPOSER = LibvirtComposer(LIBVIRT, "web1", passthrough=False)
THROUGH = LibvirtComposer(LIBVIRT, "web1", passthrough=True)
BYTES = {"commit": 16, "pull": 64, "rebase": 64}


def numbered(disk: Disk) -> Disk:
    """Layers as libvirt counts them: `vda[1]` is the active one."""
    layers = (replace(layer, index=number) for number, layer in enumerate(disk.layers, start=1))
    return replace(disk, layers=tuple(layers))


def plan(merge: str | None, target: str | None, *, absolute: bool = False) -> MergePlan:
    disk = numbered(samples.disk(3))
    if absolute:
        disk = samples.changed_layer(disk, 0, backing_name="/share/volume-1.s1")
    request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
    return plan_delete(samples.guest(disk), request)


def commit_into(**base: object) -> MergePlan:
    """A commit into a base with these attributes."""
    disk = samples.changed_layer(numbered(samples.disk(3)), 2, **base)
    request = DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1")
    return plan_delete(samples.guest(disk), request)


COMMIT = commit_into()
ACTIVE = plan("volume-1.s2", "volume-1")
PULL = plan(None, None)
PULL_TO = plan("volume-1", None)


def sent(*steps: Step | None) -> list[tuple[str, dict[str, object]]]:
    return [(step.what, dict(step.arguments)) for step in steps if step is not None]


def words(*steps: Step) -> list[str]:
    return [step.what for step in steps]


def started(plan: MergePlan, bandwidth: int | None = None) -> tuple[str, dict[str, object]]:
    (start,) = sent(COMPOSER.merge(plan, MergeOptions(bandwidth=bandwidth), STATE).start)
    return start


def test_numbers_are_libvirts() -> None:
    """In another process: this one does without libvirt."""
    code = "import libvirt, sys; print(*(getattr(libvirt, f'VIR_{n}') for n in sys.argv[1:]))"
    said = subprocess.run([sys.executable, "-c", code, *NUMBERS], capture_output=True, text=True)
    if said.stderr.rstrip().endswith("No module named 'libvirt'"):
        pytest.skip("libvirt-python is not installed")
    assert [int(number) for number in said.stdout.split()] == [*NUMBERS.values()]


class TestStart:
    @pytest.mark.parametrize(("bandwidth", "bytes_"), [(None, 0), (0, 0), (8, 8)])
    def test_commit(self, bandwidth: int | None, bytes_: int) -> None:
        expected = {"disk": "vda", "base": "vda[3]", "top": "vda[2]", "bandwidth": bytes_}
        expected["flags"] = 16 | 8  # bytes, not MiB; a relative name stays one
        assert started(COMMIT, bandwidth) == ("virDomainBlockCommit", expected)

    def test_commit_below_an_absolute_name(self) -> None:
        assert started(plan("volume-1.s1", "volume-1", absolute=True))[1]["flags"] == 16

    def test_active_commit(self) -> None:
        expected = {"disk": "vda", "base": "vda[3]", "top": None, "bandwidth": 8, "flags": 16 | 4}
        assert started(ACTIVE, 8) == ("virDomainBlockCommit", expected)

    def test_pull_of_everything(self) -> None:
        expected = {"disk": "vda", "bandwidth": 8, "flags": 64}
        assert started(PULL, 8) == ("virDomainBlockPull", expected)

    @pytest.mark.parametrize(("absolute", "flags"), [(False, 64 | 16), (True, 64)])
    def test_pull_down_to_a_base(self, absolute: bool, flags: int) -> None:
        expected = {"disk": "vda", "base": "vda[3]", "bandwidth": 0, "flags": flags}
        merge = plan("volume-1", None, absolute=absolute)
        assert started(merge) == ("virDomainBlockRebase", expected)

    def test_pause_on_an_error(self) -> None:
        with pytest.raises(PauseUnsupported):
            COMPOSER.merge(COMMIT, MergeOptions(on_error=OnError.PAUSE), STATE)


class TestMerge:
    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL, PULL_TO])
    def test_libvirt_finalizes_and_dismisses_by_itself(self, merge: MergePlan) -> None:
        steps = COMPOSER.merge(merge, DEFAULT_OPTIONS, STATE)
        assert (steps.job, steps.flush, steps.dismiss) == ("vda", None, None)
        assert sent(steps.cancel) == [("virDomainBlockJobAbort", {"disk": "vda", "flags": 1})]
        assert not steps.start.again

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL, PULL_TO])
    def test_only_a_mirror_pivots_and_is_not_waited_for(self, merge: MergePlan) -> None:
        pivot = [("virDomainBlockJobAbort", {"disk": "vda", "flags": 2 | 1})]
        commit = COMPOSER.merge(merge, DEFAULT_OPTIONS, STATE).commit
        assert sent(commit) == (pivot if merge is ACTIVE else [])

    @pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL, PULL_TO])
    def test_what_is_pulled_is_flushed_by_a_resize_in_bytes(self, merge: MergePlan) -> None:
        resize = ("virDomainBlockResize", {"disk": "vda", "size": samples.MIB, "flags": 1})
        settle = COMPOSER.merge(merge, DEFAULT_OPTIONS, STATE).settle
        assert (sent(*settle) == [resize]) is (merge.kind == "pull")

    def test_flush_where_a_resize_is_forbidden(self) -> None:
        files = disk_steps(PULL)
        assert words(*files) == ["fsync", "compare-tables"]
        assert [one.arguments.get("pulled") for one in files] == [None, True]
        committed = disk_steps(commit_into(format="qcow2"))
        assert [one.arguments.get("pulled") for one in committed] == [None, None]
        assert COMPOSER.merge(PULL, DEFAULT_OPTIONS, STATE).otherwise == (files,)
        by_qemu = THROUGH.merge(PULL, DEFAULT_OPTIONS, STATE).otherwise
        assert by_qemu == (heard_flushes(PULL.top), files)

    def test_commit_is_flushed_by_qemu_when_it_has_ended(self) -> None:
        nodes = ("volume-1-node", "volume-1-file")
        steps = THROUGH.merge(commit_into(nodes=nodes), DEFAULT_OPTIONS, STATE)
        asked = [f"qemu-io {node} reopen" for node in nodes]
        assert [one.arguments["command-line"] for one in steps.settle] == asked
        assert (steps.hold, steps.release) == (None, None)
        assert steps.otherwise == (disk_steps(COMMIT),)

    @pytest.mark.parametrize(
        ("composer", "merge"),
        [(COMPOSER, COMMIT), (THROUGH, commit_into(node=None))],
    )
    def test_commit_that_qemu_cannot_be_asked_about(
        self, composer: LibvirtComposer, merge: MergePlan
    ) -> None:
        """The base is opened before the job: only that descriptor hears what went wrong in it."""
        steps = composer.merge(merge, DEFAULT_OPTIONS, STATE)
        assert words(*steps.all) == ["open-file", "virDomainBlockCommit", "fsync", "close-file"]
        assert steps.settle == disk_steps(merge)
        assert steps.otherwise == ()

    def test_a_mirror_flushes_by_itself(self) -> None:
        for composer in (COMPOSER, THROUGH):
            steps = composer.merge(ACTIVE, DEFAULT_OPTIONS, STATE)
            assert (steps.settle, steps.otherwise, steps.hold) == ((), (), None)


class TestSnapshot:
    def steps(self, run: str = "running") -> tuple[str, object, list[str]]:
        disks = [samples.disk(2, disk=name, serial=name) for name in ("vda", "vdb", "vdc")]
        requests = [
            CreateRequest(disk=name, new_file=f"{name}.<&", snapshot="n") for name in ("vda", "vdc")
        ]
        guest = samples.guest(*disks)
        plans = plan_creates(guest, requests)
        overlays = [Overlay(is_there=False)] * 2
        made = COMPOSER.snapshot(guest, plans, overlays, State(run=run))
        assert (made.open, made.close, made.switch.again) == ((), (), False)
        assert [step.arguments["path"] for step in made.discard if step] == [
            plan.overlay for plan in plans
        ]
        files = [str(step.arguments["path"]) for steps in made.make for step in steps]
        return made.switch.what, made.switch.arguments, files

    def test_one_call_for_all_disks_that_leaves_the_others_alone(self) -> None:
        disks = (
            '<disk name="{0}" snapshot="external" type="file"><driver type="qcow2"/>'
            '<source file="/share/{0}.&lt;&amp;"/></disk>'
        )
        text = (
            f"<domainsnapshot><disks>{disks.format('vda')}{disks.format('vdc')}"
            '<disk name="vdb" snapshot="no"/></disks></domainsnapshot>'
        )
        what, arguments, files = self.steps()
        assert what == "virDomainSnapshotCreateXML"
        # No record, disks only, the file is there, all or none.
        assert arguments == {"xmlDesc": text, "flags": 4 | 16 | 32 | 128}
        assert files == ["/share/vda.<&", "/share/vdc.<&"]

    def test_an_encrypted_overlay_is_opened_with_the_secret_of_the_disk(self) -> None:
        (layer,) = samples.disk(base="qcow2").layers
        disk = samples.disk(layers=(replace(layer, flags=("encrypted",), secret="5e"),))
        guest = samples.guest(disk, samples.disk(disk="vdb", serial="2"))
        request = CreateRequest(disk="vda", new_file="volume-1.n", snapshot="n")
        made = COMPOSER.snapshot(
            guest, plan_creates(guest, [request]), [Overlay(is_there=True)], STATE
        )
        assert made.make == ((),)
        assert (
            '<source file="/share/volume-1.n"><encryption format="luks" engine="qemu">'
            '<secret type="passphrase" uuid="5e"/></encryption></source>'
        ) in str(made.switch.arguments["xmlDesc"])

    def test_guest_that_sleeps(self) -> None:
        with pytest.raises(GuestSleeps, match="web1"):
            self.steps("suspended")
        assert self.steps("paused")


class TestHeader:
    def test_of_the_active_file(self) -> None:
        disk = numbered(samples.disk(3))
        upper, lower, _ = disk.layers
        steps = COMPOSER.header(rewrite(disk, upper, lower, lower.file))
        expected = {"disk": "vda", "base": "vda[2]", "bandwidth": 0, "flags": 64 | 16}
        assert sent(*steps.all) == [
            ("virDomainBlockRebase", expected),
            ("fsync", {"path": "/share/volume-1.s2"}),
        ]

    def test_of_a_lower_one(self) -> None:
        disk = numbered(samples.disk(3))
        _, upper, lower = disk.layers
        with pytest.raises(ActiveHeaderOnly, match=r"volume-1\.s1"):
            COMPOSER.header(rewrite(disk, upper, lower, lower.file))


class TestVerbs:
    def test_cancel_does_not_wait(self) -> None:
        assert sent(COMPOSER.verb(Verb.CANCEL, "vda")) == [
            ("virDomainBlockJobAbort", {"disk": "vda", "flags": 1})
        ]

    def test_bandwidth_is_in_bytes(self) -> None:
        """Without the flag libvirt takes it for MiB a second."""
        assert sent(COMPOSER.verb(Verb.SET_SPEED, "vda", 10)) == [
            ("virDomainBlockJobSetSpeed", {"disk": "vda", "bandwidth": 10, "flags": 1})
        ]

    @pytest.mark.parametrize("verb", [Verb.PAUSE, Verb.RESUME])
    def test_that_libvirt_does_not_have(self, verb: Verb) -> None:
        with pytest.raises(NotByLibvirt, match=f"cannot {verb} the job of vda"):
            COMPOSER.verb(verb, "vda")


def test_libvirt_clears_away_by_itself() -> None:
    view = JobView(status=JobStatus.CONCLUDED)
    job = JobReport(id="vda", type="stream", disk="vda", view=view, bandwidth=0, ours=True)
    assert COMPOSER.unsafe([job]) == COMPOSER.leftovers(samples.guest(), [job]) == ()
    assert COMPOSER.dismiss(job) is None


@pytest.mark.parametrize("composer", [COMPOSER, THROUGH])
def test_flush_of_a_disk(composer: LibvirtComposer) -> None:
    """A resize in bytes to the size that it has: without the flag libvirt takes it for KiB."""
    layer = ACTIVE.disk.layers[0]
    step = composer.flush(layer, "vda")
    assert sent(step) == [
        ("virDomainBlockResize", {"disk": "vda", "size": layer.virtual_size, "flags": 1})
    ]
    assert step is not None
    assert (step.does, step.by, step.again) == (Does.FLUSH, "libvirt", True)


def test_freeze_and_thaw() -> None:
    steps = COMPOSER.freeze(1)
    limit = {"limit_s": 1}
    assert sent(*steps) == [("virDomainFSFreeze", limit), ("virDomainFSThaw", limit)]
    assert [step.does for step in steps] == [Does.FREEZE, Does.THAW]
