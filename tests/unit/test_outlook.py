"""What is to be done about an operation that broke off: by the graph, or by the files alone."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.guests.files import qemu_img
from qmpsnap.journal.answers import FAILED
from qmpsnap.journal.file import Journal
from qmpsnap.journal.identities import seen_all
from qmpsnap.journal.outlook import Way, outlook
from qmpsnap.journal.record import Entry, Record
from qmpsnap.journal.resume import CannotTake, Wanted, settle
from qmpsnap.operations.job.states import JobStatus, JobView
from qmpsnap.operations.plan_merge import plan_delete
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.where import Where
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest
from tests.unit.journal_samples import WHERE, act, creating, merging

LayerT = TypeVar("LayerT", bound=Layer)
OFF = replace(WHERE, road="offline", process=None)
OTHER = replace(WHERE, process=(43, 4712))
PIVOT = DeleteRequest(disk="vda", file_to_merge="volume-1.s2", merge_target_file="volume-1.s1")
PULL = DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None)
COMMIT = DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1")

REOPEN: dict[str, object] = {
    "does": "flush",
    "what": "human-monitor-command",
    "arguments": {"command-line": "qemu-io top reopen"},
    "answer": "done",
}
START: dict[str, object] = {"does": "start", "what": "block-commit", "answer": "done"}
NO_SPACE = {**REOPEN, "answer": '"Error flushing drive: no space"'}
FLUSH = {**REOPEN, "arguments": {"command-line": 'qemu-io top "flush"'}}
SYNC: dict[str, object] = {"does": "flush", "by": "file", "what": "fsync", "answer": "done"}
COMPARE = {**SYNC, "what": "compare-tables"}


def merge_of(request: DeleteRequest, share: Path | None = None) -> Record:
    disk = samples.disk(3) if share is None else on(samples.disk(3), share)
    plan = plan_delete(samples.guest(disk), request)
    return merging(merge=plan, kind=plan.kind, deleting=request, deleting_named=None, files=())


def on(disk: Disk, share: Path) -> Disk:
    """The disk with its files in a folder."""
    return replace(
        disk, layers=tuple(replace(one, path=f"{share}/{one.file}") for one in disk.layers)
    )


def guest(*files: str, where: Where = WHERE) -> FakeGuest:
    """A guest whose chain is these layers of the sample."""
    layers = [one for one in samples.disk(3).layers if one.file in files]
    found = FakeGuest(samples.guest(replace(samples.disk(), layers=samples.linked(layers))))
    found.where = where
    return found


def entry(record: Record, *does: str, answers: str | None = None, **more: object) -> Entry:
    acts = [act(number, does=one, answer=answers, **more) for number, one in enumerate(does, 1)]
    return Entry(record=record, acts=tuple(acts))


ALL = ("volume-1.s2", "volume-1.s1", "volume-1")


class TestRunning:
    @pytest.mark.parametrize("where", [WHERE, OTHER])
    def test_a_job_that_is_there(self, where: Where) -> None:
        host = guest(*ALL, where=where)
        host.left_running = True
        assert outlook(entry(merge_of(COMMIT), "start"), host).way is Way.ADOPT
        assert ("read" in host.calls) == (where == OTHER)  # whose job it is, its files tell

    def test_a_job_that_has_ended(self) -> None:
        host = guest(*ALL)
        host.left_running, host.left_as = True, JobView(status=JobStatus.CONCLUDED, error="no")
        assert outlook(entry(merge_of(COMMIT), "start"), host).way is Way.TAKE_BACK

    @pytest.mark.parametrize(
        ("request_", "files"),
        [
            (COMMIT, ("volume-1.s2", "volume-1")),
            (PIVOT, ("volume-1.s1", "volume-1")),
            (PULL, ("volume-1.s2",)),
        ],
    )
    def test_the_same_qemu(self, request_: DeleteRequest, files: tuple[str, ...]) -> None:
        """Its graph tells."""
        broken_off = entry(merge_of(request_), "start", "commit")
        assert outlook(broken_off, guest(*files)).way is Way.FINISH
        # A top that left and came again may have been given its names again.
        again = Way.UNKNOWN if request_ is PIVOT else Way.TAKE_BACK
        assert outlook(broken_off, guest(*ALL)).way is again
        broken_off = replace(broken_off, record=named_once(broken_off.record))
        assert outlook(broken_off, by_qemu(guest(*files))).way is Way.FINISH
        assert outlook(broken_off, by_qemu(guest(*ALL))).way is Way.TAKE_BACK

    @pytest.mark.parametrize(
        ("request_", "files", "way"),
        [
            pytest.param(COMMIT, ("volume-1.s2", "volume-1"), Way.DONE, id="a commit is whole"),
            pytest.param(COMMIT, ALL, Way.TAKE_BACK, id="or not done"),
            pytest.param(PIVOT, ("volume-1.s1", "volume-1"), Way.UNKNOWN, id="from the base"),
            pytest.param(PIVOT, ALL, Way.UNKNOWN, id="from the overlay"),
            pytest.param(PULL, ("volume-1.s2",), Way.UNKNOWN, id="from what may be lost"),
        ],
    )
    def test_another_qemu(self, request_: DeleteRequest, files: tuple[str, ...], way: Way) -> None:
        """Somebody has started the guest, from a file that may be the wrong one."""
        broken_off = entry(merge_of(request_), "start", "commit")
        assert outlook(broken_off, guest(*files, where=OTHER)).way is way

    def test_what_a_commit_could_not_flush(self) -> None:
        """Another QEMU has opened the base without it."""
        acts = (act(1, **START), act(2, **NO_SPACE))
        broken_off = replace(entry(merge_of(COMMIT)), acts=acts)
        host = guest("volume-1.s2", "volume-1", where=OTHER)
        assert outlook(broken_off, host).way is Way.UNKNOWN

    def test_a_base_that_was_never_pivoted_to(self) -> None:
        """Whoever made it active did so without the data that the job had not copied."""
        libvirt = replace(OTHER, road="libvirt")
        record = replace(merge_of(PIVOT), where=replace(WHERE, road="libvirt"))
        host = guest("volume-1.s1", "volume-1", where=libvirt)
        assert outlook(entry(record, "start"), host).way is Way.UNKNOWN
        assert outlook(entry(record, "start", "commit"), host).way is Way.DONE

    def test_a_flush_that_is_proven(self) -> None:
        flush = {"arguments": {"size": 1}}
        done = entry(merge_of(PULL), "flush", answers="done", **flush)
        failed = entry(merge_of(PULL), "flush", answers=f"{FAILED}no space", **flush)
        host = guest("volume-1.s2", where=OTHER)
        assert outlook(done, host).way is Way.DONE
        assert outlook(failed, host).way is Way.UNKNOWN
        assert outlook(entry(merge_of(PULL), "flush", answers="done"), host).way is Way.UNKNOWN

    def test_another_chain(self) -> None:
        assert outlook(entry(merge_of(COMMIT)), guest("volume-1.s2")).way is Way.UNKNOWN

    @pytest.mark.parametrize(("request_", "way"), [(COMMIT, Way.DONE), (PULL, Way.UNKNOWN)])
    def test_one_that_has_moved_on(self, request_: DeleteRequest, way: Way) -> None:
        """Somebody has gone on over it: a commit had been done by then, a pull may not be flushed."""
        host = guest("volume-1") if request_ is COMMIT else guest("volume-1.s2")
        above = samples.layer("volume-1.later")
        layers = samples.linked([above, *host.guest.disks[0].layers])
        host.becomes(layers)
        assert outlook(entry(merge_of(request_), "start"), host).way is way

    def test_no_such_disk(self) -> None:
        """The base alone is plugged in, under another name."""
        host = guest(*ALL)
        host.guest = samples.guest(samples.disk(disk="vdb", serial="2", qdev="b", root="b"))
        found = outlook(entry(merge_of(COMMIT)), host)
        assert found.way is Way.UNKNOWN
        assert "volume-1.s2, which was active, is not in its chain" in found.why


class TestPlugged:
    """The same QEMU, in which disks were unplugged and plugged in."""

    @pytest.mark.parametrize(
        ("request_", "files", "acts", "way"),
        [
            pytest.param(COMMIT, ("volume-1.s2", "volume-1"), (), Way.DONE, id="commit"),
            pytest.param(COMMIT, ALL, (), Way.TAKE_BACK, id="no commit"),
            pytest.param(PULL, ("volume-1.s2",), ("commit",), Way.UNKNOWN, id="not flushed"),
            pytest.param(PIVOT, ALL, (), Way.TAKE_BACK, id="not sent"),
            pytest.param(PIVOT, ALL, ("commit",), Way.UNKNOWN, id="sent"),
            pytest.param(PIVOT, ALL, ("commit", "close"), Way.UNKNOWN, id="proven, and stale"),
            pytest.param(PIVOT, ALL[1:], (), Way.UNKNOWN, id="the base, not sent"),
            pytest.param(PIVOT, ALL[1:], ("commit",), Way.UNKNOWN, id="the base, not proven"),
            pytest.param(PIVOT, ALL[1:], ("commit", "close"), Way.DONE, id="the base, proven"),
        ],
    )
    @pytest.mark.parametrize("road", ["qmp", "libvirt"])
    def test_opened_again(
        self,
        request_: DeleteRequest,
        files: tuple[str, ...],
        acts: tuple[str, ...],
        way: Way,
        road: Literal["qmp", "libvirt"],
    ) -> None:
        """The definition of libvirt says what was plugged in."""
        where = replace(WHERE, road=road)
        record = named_once(replace(merge_of(request_), where=where))
        answers = "done" if "close" in acts else None
        broken_off = entry(record, *acts, answers=answers)
        assert outlook(broken_off, by_qemu(guest(*files, where=where), 9)).way is way

    def test_told_by_xml_alone(self) -> None:
        """Where QMP cannot be had: by the numbers of its sources."""
        record = merge_of(PIVOT)
        assert record.merge is not None
        before = record.merge.disk
        numbered = [replace(one, index=at) for at, one in enumerate(before.layers)]
        record = replace(
            record, merge=replace(record.merge, disk=replace(before, layers=tuple(numbered)))
        )
        broken_off = entry(record, "commit")
        for first, way in ((0, Way.TAKE_BACK), (7, Way.UNKNOWN)):
            host = guest(*ALL)
            layers = [
                replace(one, node=None, protocol_node=None, index=first + at)
                for at, one in enumerate(host.guest.disks[0].layers)
            ]
            host.becomes(layers)
            assert outlook(broken_off, host).way is way

    def test_the_name_is_another_volumes(self) -> None:
        """Its disk is known by the files, and called as the guest calls it now."""
        host = guest("volume-1.s2", "volume-1")
        (mine,) = host.guest.disks
        other = samples.disk(layers=(samples.layer("other"),), serial="2", root="o")
        host.guest = samples.guest(other, replace(mine, disk="vdb"))
        broken_off = entry(named_once(merge_of(COMMIT)), "start", "flush", answers="done")
        assert outlook(broken_off, host).way is Way.DONE
        assert outlook(broken_off, host).disks == ("vdb",)
        host.guest = samples.guest(other)
        assert "no more" in outlook(broken_off, host).why  # by the sample's host

    def test_two_disks_have_its_files(self) -> None:
        """What lies in the other's chain as well is a backup's; of equals the name tells."""
        host = guest(*ALL)
        (mine,) = host.guest.disks
        below = replace(mine, disk="vda", layers=mine.layers[1:])
        broken_off = entry(merge_of(COMMIT), "start")
        host.guest = samples.guest(below, replace(mine, disk="vdb"))
        assert outlook(broken_off, host).disks == ("vdb",)
        host.guest = samples.guest(replace(mine, disk="vdb"), mine)
        assert outlook(broken_off, host).disks == ("vda",)
        host.guest = samples.guest(replace(mine, disk="vdb"), replace(mine, disk="vdc"))
        found = outlook(broken_off, host)
        assert (found.way, "vdb, vdc" in found.why) == (Way.UNKNOWN, True)

    def test_one_of_two_is_unplugged(self) -> None:
        disks = samples.disk(2), samples.disk(layers=(samples.layer("b"),), disk="vdb", serial="2")
        asked = [CreateRequest(disk=one.disk, new_file=None, snapshot="new") for one in disks]
        plans = plan_creates(samples.guest(*disks), asked)
        record = replace(creating(), creates=plans, disks=("vda", "vdb"), made_here=(True, True))
        host = guest("volume-1")
        host.guest = samples.guest(disks[0])
        found = outlook(entry(record, "switch"), host)
        assert (found.way, found.why) == (Way.UNKNOWN, "the guest has vdb no more")

    def test_a_file_of_an_unplugged_disk_is_open(self) -> None:
        """Its nodes may hold what is not in the file."""
        host = guest(*ALL)
        host.guest = Disks(guest="web1", disks=(), open_files=frozenset({"/share/volume-1"}))
        record = replace(merge_of(COMMIT), host=platform.node())
        found = outlook(entry(record, "start"), host)
        assert found.way is Way.UNKNOWN
        assert "still has /share/volume-1 open" in found.why

    def test_an_overlay_without_a_disk_is_open(self) -> None:
        """What was written there may be in memory alone."""
        record = creating()
        (plan,) = record.creates
        host = guest("volume-1.s1", "volume-1")
        assert outlook(entry(record, "switch"), host).way is Way.TAKE_BACK
        host = by_qemu(host)
        assert outlook(entry(record, "switch"), host).way is Way.TAKE_BACK
        host.guest = replace(host.guest, open_files=frozenset({plan.overlay}))
        found = outlook(entry(record, "switch"), host)
        assert (found.way, "new is still open" in found.why) == (Way.UNKNOWN, True)

    def test_a_job_of_the_name_is_another_volumes(self) -> None:
        """libvirt calls a job by its disk."""
        where = replace(WHERE, road="libvirt")
        host = guest(*ALL, where=where)
        host.left_running = True
        broken_off = entry(replace(merge_of(COMMIT), where=where), "start")
        assert outlook(broken_off, host).way is Way.ADOPT
        other = samples.disk(layers=(samples.layer("other"),), serial="2", root="o")
        host.guest = samples.guest(other)
        assert outlook(broken_off, host).way is Way.UNKNOWN


def named_once(record: Record, number: int = 1) -> Record:
    """The operation with nodes that QEMU has named by itself."""
    plan = record.merge
    assert plan is not None
    layers = tuple(renamed(one, number) for one in plan.disk.layers)
    return replace(record, merge=replace(plan, disk=replace(plan.disk, layers=layers)))


def by_qemu(host: FakeGuest, number: int = 1) -> FakeGuest:
    """A guest whose nodes QEMU has named, each time with another number."""
    host.becomes([renamed(one, number) for one in host.guest.disks[0].layers])
    return host


def renamed(layer: LayerT, number: int) -> LayerT:
    return replace(layer, node=f"#block{number}-{layer.file}")


class TestGone:
    """Neither the guest nor its QEMU: headers tell what they can."""

    @pytest.fixture
    def share(self, tmp_path: Path) -> Path:
        qemu_img.run("create", "b", "-q", "-f", "raw", f"{tmp_path}/volume-1", "1M")
        for name, below, format_ in (("s1", "volume-1", "raw"), ("s2", "volume-1.s1", "qcow2")):
            path = f"{tmp_path}/volume-1.{name}"
            qemu_img.create_overlay(
                path, backing_name=below, backing_format=format_, size=samples.MIB
            )
        return tmp_path

    @pytest.mark.parametrize(
        ("request_", "does", "way"),
        [
            pytest.param(COMMIT, ("start",), Way.TAKE_BACK, id="commit"),
            pytest.param(PULL, ("start",), Way.TAKE_BACK, id="pull"),
            pytest.param(PIVOT, ("start",), Way.TAKE_BACK, id="the pivot was not sent"),
            pytest.param(PIVOT, ("start", "commit"), Way.UNKNOWN, id="it was sent"),
        ],
    )
    def test_the_header_is_the_old_one(
        self, share: Path, request_: DeleteRequest, does: tuple[str, ...], way: Way
    ) -> None:
        found = outlook(entry(merge_of(request_, share), *does), None)
        assert found.way is way
        assert found.active[0] == f"{share}/volume-1.s2"

    @pytest.mark.parametrize(
        ("closed", "overlay", "base", "way"),
        [
            pytest.param(900, 900, 800, Way.DONE, id="as it was closed"),
            pytest.param(900, 800, 850, Way.DONE, id="the power failed"),
            pytest.param(900, 800, 700, Way.UNKNOWN, id="the clock was set back"),
            pytest.param(900, 950, 1200, Way.UNKNOWN, id="by a clock that is behind"),
            pytest.param(1100, 1100, 1000, Way.DONE, id="by one that is ahead"),
            pytest.param(None, 900, 950, Way.DONE, id="nobody looked, and the base is newer"),
            pytest.param(None, 900, 850, Way.UNKNOWN, id="nobody looked, and it is older"),
        ],
    )
    def test_a_pivot_that_is_proven(
        self, share: Path, closed: int | None, overlay: int, base: int, way: Way
    ) -> None:
        """Unless the overlay was written since: somebody has started the guest from it."""
        written(f"{share}/volume-1.s2", overlay)
        written(f"{share}/volume-1.s1", base)
        answer = "done" if closed is None else str(closed * 10**9)
        done = entry(merge_of(PIVOT, share), "commit", "close", "dismiss", answers="done")
        acts = tuple(
            replace(one, answer=answer if one.does == "close" else "done") for one in done.acts
        )
        found = outlook(replace(done, acts=acts), None)
        assert found.way is way
        assert f"{share}/volume-1.s1" in found.active

    def test_a_guest_that_was_started_from_the_overlay_of_a_proven_pivot(self) -> None:
        broken_off = entry(merge_of(PIVOT), "commit", "close", answers="done")
        found = outlook(broken_off, guest(*ALL, where=OTHER))
        assert found.way is Way.UNKNOWN
        assert "is proven, and somebody has started" in found.why

    @pytest.mark.parametrize(
        ("request_", "below", "way"),
        [
            (COMMIT, ("-b", "volume-1", "-F", "raw"), Way.NAME_AGAIN),
            (PULL, ("-b", ""), Way.NAME_AGAIN),
            (COMMIT, ("-b", "other", "-F", "raw"), Way.UNKNOWN),
        ],
    )
    def test_the_header_is_a_new_one(
        self, share: Path, request_: DeleteRequest, below: tuple[str, ...], way: Way
    ) -> None:
        top = f"{share}/volume-1.s2"
        qemu_img.run("rebase", top, "-u", "-f", "qcow2", *below, top)
        assert outlook(entry(merge_of(request_, share), "start"), None).way is way

    @pytest.mark.parametrize(
        ("acts", "way"),
        [
            pytest.param([REOPEN], Way.DONE, id="by HMP"),
            pytest.param([{**REOPEN, "answer": '"\\r\\n"'}], Way.DONE, id="an empty line"),
            pytest.param([NO_SPACE], Way.NAME_AGAIN, id="HMP that says an error"),
            pytest.param([{**REOPEN, "answer": None}], Way.NAME_AGAIN, id="not answered"),
            pytest.param([{**REOPEN, "answer": f"{FAILED}no"}], Way.NAME_AGAIN, id="refused"),
            pytest.param([FLUSH], Way.NAME_AGAIN, id="HMP's flush, which tells nothing"),
            pytest.param([REOPEN, {"does": "commit"}], Way.NAME_AGAIN, id="before the commit"),
            pytest.param([{"does": "commit"}, REOPEN], Way.DONE, id="after it"),
            pytest.param([SYNC], Way.NAME_AGAIN, id="not the tables"),
            pytest.param([SYNC, COMPARE], Way.DONE, id="the tables as well"),
            pytest.param(
                [{**SYNC, "answer": '"cannot open"'}, COMPARE], Way.NAME_AGAIN, id="not synced"
            ),
            pytest.param(
                [SYNC, {**COMPARE, "answer": '"do not tell"'}], Way.NAME_AGAIN, id="tables unseen"
            ),
            pytest.param([{"does": "remove"}], Way.DONE, id="removed after the proof"),
        ],
    )
    def test_what_proves_a_pull(self, share: Path, acts: list[dict[str, object]], way: Way) -> None:
        top = f"{share}/volume-1.s2"
        qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", "", top)
        broken_off = replace(
            entry(merge_of(PULL, share)),
            acts=tuple(act(number, **one) for number, one in enumerate(acts, 1)),
        )
        assert outlook(broken_off, None).way is way

    @pytest.mark.parametrize("format_", ["raw", "qcow2"])
    @pytest.mark.parametrize(
        ("acts", "proven"),
        [
            pytest.param([START, REOPEN, {"does": "commit"}], ("raw", "qcow2"), id="beforehand"),
            pytest.param([START, REOPEN], ("qcow2",), id="afterwards, which no raw file hears"),
            pytest.param([START, SYNC], ("raw",), id="synced, which tells nothing of tables"),
            pytest.param([START, SYNC, COMPARE], ("raw", "qcow2"), id="the tables as well"),
            pytest.param([REOPEN, START], (), id="before the job that was started again"),
            pytest.param([START, NO_SPACE], (), id="an error"),
            pytest.param([START, NO_SPACE, REOPEN], ("qcow2",), id="once more, without one"),
        ],
    )
    def test_what_proves_a_commit(
        self, share: Path, acts: list[dict[str, object]], proven: tuple[str, ...], format_: str
    ) -> None:
        broken_off = self.committed(share, acts, format_)
        way = outlook(broken_off, None).way
        assert way is (Way.DONE if format_ in proven else Way.NAME_AGAIN)

    def committed(
        self, share: Path, acts: list[dict[str, object]], format_: str = "qcow2"
    ) -> Entry:
        """A commit that the header of the layer above tells of."""
        top = f"{share}/volume-1.s2"
        qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", "volume-1", "-F", format_, top)
        record = merge_of(COMMIT, share)
        plan = record.merge
        assert plan is not None
        assert plan.base is not None
        plan = replace(plan, base=replace(plan.base, format=format_))
        done = tuple(act(number, **one) for number, one in enumerate(acts, 1))
        return replace(entry(replace(record, merge=plan)), acts=done)

    @pytest.mark.parametrize(
        ("acts", "way"), [([START], Way.DONE), ([START, NO_SPACE], Way.UNKNOWN)]
    )
    def test_a_commit_whose_layer_is_gone(
        self, share: Path, acts: list[dict[str, object]], way: Way
    ) -> None:
        """QEMU flushes at the end of each; only what was heard speaks against it."""
        (share / "volume-1.s1").unlink()
        assert outlook(self.committed(share, acts), None).way is way

    def pulled(self, share: Path, name: str | None, below: str | None = None) -> Entry:
        """A pull that is not proven, by a record that may be forged."""
        top = f"{share}/volume-1.s2"
        qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", "", top)
        record = merge_of(PULL, share)
        plan = record.merge
        assert plan is not None
        layers = [replace(plan.top, backing_name=name), *plan.disk.layers[1:]]
        if below is not None:
            layers[1] = replace(layers[1], path=below)
        disk = replace(plan.disk, layers=tuple(layers))
        plan = replace(plan, top=layers[0], above=layers[0], dropped=tuple(layers[1:]), disk=disk)
        return entry(replace(record, merge=plan), "start")

    @pytest.mark.parametrize(
        ("name", "way"),
        [
            (None, Way.NAME_AGAIN),
            ("volume-1.s1", Way.NAME_AGAIN),
            ("./volume-1.s1", Way.NAME_AGAIN),
            ("volume-1", Way.UNKNOWN),
            ("/etc/hostname", Way.UNKNOWN),
            ("json:{}", Way.UNKNOWN),
        ],
    )
    def test_only_the_old_layer_is_named_again(
        self, share: Path, name: str | None, way: Way
    ) -> None:
        found = outlook(self.pulled(share, name), None)
        assert (found.way, found.active) == (way, (f"{share}/volume-1.s2",))

    def test_a_layer_of_another_folder_is_named_only_if_it_is_known(self, share: Path) -> None:
        (share / "else").mkdir()
        below = f"{share}/else/volume-1.s1"
        Path(below).touch()
        broken_off = self.pulled(share, below, below)
        assert outlook(broken_off, None).way is Way.UNKNOWN
        record = replace(broken_off.record, files=seen_all([(below, False)]))
        assert outlook(replace(broken_off, record=record), None).way is Way.NAME_AGAIN

    @pytest.mark.parametrize("file", ["volume-1", "volume-1.s1"])
    def test_a_layer_that_was_written_since_is_not_named(self, share: Path, file: str) -> None:
        """What reads as zeros now would read what was written there."""
        broken_off = self.pulled(share, "volume-1.s1")
        files = seen_all([(f"{share}/volume-1", False), (f"{share}/volume-1.s1", False)])
        broken_off = replace(broken_off, record=replace(broken_off.record, files=files))
        assert outlook(broken_off, None).way is Way.NAME_AGAIN
        written(f"{share}/{file}", 1000)  # as a power failure may leave it
        assert outlook(broken_off, None).way is Way.NAME_AGAIN
        written(f"{share}/{file}", time.time() + 1)
        found = outlook(broken_off, None)
        assert found.way is Way.UNKNOWN
        assert f"and {file} was written since" in found.why

    def test_what_has_no_zero_clusters_is_not_named(self, share: Path) -> None:
        """What the guest has discarded since would read what lies below."""
        broken_off = self.pulled(share, "volume-1.s1")
        top = f"{share}/volume-1.s2"
        qemu_img.run("amend", top, "-f", "qcow2", "-o", "compat=0.10", top)
        found = outlook(broken_off, None)
        assert found.way is Way.UNKNOWN
        assert "volume-1.s1 would show where the guest has discarded since" in found.why

    def test_a_file_that_is_gone_is_not_named(self, share: Path) -> None:
        broken_off = self.pulled(share, "volume-1.s1")
        Path(f"{share}/volume-1.s1").unlink()
        found = outlook(broken_off, None)
        assert found.way is Way.UNKNOWN
        assert "is gone" in found.why

    @pytest.mark.parametrize(
        "harm",
        [
            lambda share: (share / "volume-1").unlink(),
            lambda share: (share / "volume-1").rename(share / "aside"),
            lambda share: qemu_img.run(
                "rebase", "x", "-u", "-f", "qcow2", "-b", "x", "-F", "raw", f"{share}/volume-1.s1"
            ),
        ],
    )
    def test_a_file_has_changed_since(self, share: Path, harm: Callable[[Path], object]) -> None:
        files = seen_all([(f"{share}/volume-1", False), (f"{share}/volume-1.s1", True)])
        broken_off = entry(replace(merge_of(PULL, share), files=files), "start")
        assert outlook(broken_off, None).way is Way.TAKE_BACK
        harm(share)
        assert outlook(broken_off, None).way is Way.UNKNOWN

    def test_what_it_removed_itself_may_be_gone(self, share: Path) -> None:
        path = f"{share}/volume-1.s1"
        files = seen_all([(path, True)])
        top = f"{share}/volume-1.s2"
        qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", "volume-1", "-F", "raw", top)
        Path(path).unlink()
        record = replace(merge_of(COMMIT, share), files=files)
        assert outlook(entry(record, "start"), None).way is Way.UNKNOWN
        removed = entry(record, "remove", arguments={"path": path})
        assert outlook(removed, None).way is Way.DONE


class TestCreate:
    @pytest.fixture
    def record(self, tmp_path: Path) -> Record:
        disk = on(samples.disk(2), tmp_path)
        request = CreateRequest(disk="vda", new_file=None, snapshot="new")
        plans = plan_creates(samples.guest(disk), [request])
        return replace(creating(), creates=plans)

    @pytest.mark.parametrize("why", ["another host", "it lives"])
    def test_another_guest(self, record: Record, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
        """Found where the operation's was: by the files, and only where that one is gone."""
        host = guest(*ALL, where=OTHER)
        here = replace(record, host=platform.node())
        assert outlook(entry(here, "make"), host).way is Way.TAKE_BACK
        monkeypatch.setattr("qmpsnap.journal.outlook.lives", lambda _: why == "it lives")
        found = outlook(entry(record if why == "another host" else here, "make"), host)
        assert (found.way, "has none of its files" in found.why) == (Way.UNKNOWN, True)

    def test_gone_before_it_was_made(self, record: Record) -> None:
        assert outlook(entry(record, "make"), None).way is Way.TAKE_BACK

    def test_gone_and_empty(self, record: Record) -> None:
        (plan,) = record.creates
        qemu_img.create_overlay(
            plan.overlay, backing_name="volume-1.s1", backing_format="qcow2", size=samples.MIB
        )
        found = outlook(entry(record, "make", "switch"), None)
        assert (found.way, found.active) == (Way.TAKE_BACK, (record.creates[0].active.path,))

    @pytest.mark.parametrize("rests_on", ["the overlay", "the old file"])
    @pytest.mark.parametrize("clock", [-3600, 3600], ids=["clock behind", "clock ahead"])
    @pytest.mark.parametrize(
        ("is_older", "way"), [(True, Way.TAKE_BACK), (False, Way.UNKNOWN)], ids=["before", "since"]
    )
    def test_somebody_has_gone_on(
        self, record: Record, tmp_path: Path, rests_on: str, clock: int, is_older: bool, way: Way
    ) -> None:
        """With another tool, which left an image that is younger by the clock of its share alone."""
        (plan,) = record.creates
        other = f"{tmp_path}/volume-1.other"
        below = plan.file if rests_on == "the overlay" else plan.active.file

        def make(path: str, name: str) -> None:
            qemu_img.create_overlay(
                path, backing_name=name, backing_format="qcow2", size=samples.MIB
            )

        if is_older:
            make(other, below)
        tick(tmp_path)
        Path(plan.active.path).touch()
        files = seen_all([(plan.active.path, False)])
        record = replace(record, files=files, begun=time.time() - clock)
        make(plan.overlay, plan.active.file)
        if not is_older:
            make(other, below)
        broken_off = entry(record, "make", "switch")
        found = outlook(broken_off, None)
        assert found.way is way
        assert way is Way.TAKE_BACK or f"volume-1.other rests on {below}: somebody" in found.why
        assert outlook(broken_off, None, lambda images: images).way is Way.TAKE_BACK
        off = FakeGuest(samples.guest(on(samples.disk(2), tmp_path)))
        off.where = OFF
        expected = way if rests_on == "the overlay" else Way.TAKE_BACK  # the definition tells
        assert outlook(broken_off, off).way is expected
        Path(plan.overlay).unlink()
        if rests_on == "the old file":
            assert outlook(broken_off, None).way is way

    def test_an_image_on_another_share_has_another_clock(
        self, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is seen where the overlay has a name there; that it is older is not known."""
        (plan,) = record.creates
        other = f"{tmp_path}/volume-1.other"
        for path, name in ((other, plan.file), (plan.overlay, plan.active.file)):
            qemu_img.create_overlay(
                path, backing_name=name, backing_format="qcow2", size=samples.MIB
            )
            tick(tmp_path)
        broken_off = entry(record, "make", "switch")
        assert outlook(broken_off, None).way is Way.TAKE_BACK
        monkeypatch.setattr("qmpsnap.journal.since._are_on_one_share", lambda *_: False)
        assert outlook(broken_off, None).way is Way.UNKNOWN


class TestCreateThatWasWritten:
    """The overlay of `vda` holds data, and the guest is gone."""

    @pytest.fixture
    def record(self, tmp_path: Path) -> Record:
        disks = [
            on(samples.disk(2), tmp_path),
            on(samples.disk(1, disk="vdb", serial="2", qdev="b", root="b"), tmp_path / "b"),
        ]
        asked = [CreateRequest(disk=one.disk, new_file=None, snapshot="new") for one in disks]
        plans = plan_creates(samples.guest(*disks), asked)
        (tmp_path / "b").mkdir()
        for plan in plans:
            Path(plan.active.path).touch()
            written(plan.active.path, 1000)
            qemu_img.create_overlay(
                plan.overlay,
                backing_name=plan.backing_name,
                backing_format=plan.backing_format,
                size=plan.virtual_size,
            )
        write(plans[0].overlay)
        return replace(creating(), creates=plans, made_here=(True, True), disks=("vda", "vdb"))

    def test_both_are_switched(self, record: Record) -> None:
        found = outlook(entry(record, "make", "switch"), None)
        assert (found.way, found.active) == (
            Way.DONE,
            tuple(plan.overlay for plan in record.creates),
        )

    def test_the_switch_was_not_sent(self, record: Record) -> None:
        found = outlook(entry(record, "make"), None)
        assert found.way is Way.UNKNOWN
        assert "the switch to it was not sent" in found.why

    def test_one_was_not_made(self, record: Record) -> None:
        Path(record.creates[1].overlay).unlink()
        found = outlook(entry(record, "make", "switch"), None)
        assert found.way is Way.UNKNOWN
        assert "is not there" in found.why

    @pytest.mark.parametrize("number", [0, 1], ids=["of the same disk", "of the other"])
    def test_the_file_below_was_written_since(self, record: Record, number: int) -> None:
        """Somebody has started the guest from there, and ended it again."""
        plan = record.creates[0]
        below = record.creates[number].active
        written(below.path, Path(plan.overlay).stat().st_mtime + 1)
        found = outlook(entry(record, "make", "switch"), None)
        assert found.way is Way.UNKNOWN
        assert f"{below.file} was written after {plan.file}" in found.why

    def test_the_file_below_one_was_written_and_the_overlay_of_another_later(
        self, record: Record
    ) -> None:
        """Somebody has started the guest from a mixture."""
        first, other = record.creates
        write(other.overlay)
        at = Path(first.overlay).stat().st_mtime
        written(first.active.path, at + 1)
        written(other.overlay, at + 2)
        found = outlook(entry(record, "make", "switch"), None)
        assert found.way is Way.UNKNOWN
        assert f"{first.active.file} was written after" in found.why

    def test_a_person_decides_of_all_disks(self, record: Record, tmp_path: Path) -> None:
        (tmp_path / "state").mkdir(mode=0o700)
        journal = Journal(tmp_path / "state")
        broken_off = entry(record, "make")
        for take in ("active", "base"):
            one = replace(broken_off, record=replace(record, id=take))
            settled = settle(journal, one, None, Wanted(take=take))
            files = [
                plan.overlay if take == "active" else plan.active.path for plan in record.creates
            ]
            assert settled.active == tuple(files)

    def test_a_file_that_is_not_there_is_not_right(self, record: Record, tmp_path: Path) -> None:
        """Unless the other ones are gone too; nothing was finished then."""
        (tmp_path / "state").mkdir(mode=0o700)
        journal, broken_off = Journal(tmp_path / "state"), entry(record, "make")
        first, other = record.creates
        write(first.overlay)
        Path(other.overlay).unlink()
        with pytest.raises(CannotTake, match=f"{other.overlay} cannot be right"):
            settle(journal, broken_off, None, Wanted(take="active"))
        Path(other.active.path).unlink()
        settled = settle(journal, broken_off, None, Wanted(take="active"))
        assert (settled.outcome, settled.file_format) == ("rolled-back", {})


def written(path: str, when: float) -> None:
    """Say that a file was written then."""
    os.utime(path, (when, when))


def tick(folder: Path) -> None:
    """Let the clock of a folder's files go on: that of the kernel's timer."""
    times: set[int] = set()
    while len(times) < 2:
        (folder / "tick").touch()
        times.add((folder / "tick").stat().st_mtime_ns)


def write(path: str) -> None:
    """Put data into an overlay whose backing file is empty."""
    image = f"driver=qcow2,file.filename={path},backing="
    command = ["qemu-io", "--image-opts", "-c", "write -P 1 0 64k", image]
    subprocess.run(command, check=True, capture_output=True)
