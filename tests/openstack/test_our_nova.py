"""Our compute side with an unmodified Cinder: what a user of both sees."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import libvirt

from tests.openstack.rig.cut import SNAPSHOT_CREATE_XML, Cut
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.pairings import OUR_NOVA
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import asked

Told = tuple[dict[str, Any], int]
CREATED: Told = ({"status": "creating", "progress": "90%"}, 202)
DELETED: Told = ({"status": "deleting", "progress": "90%"}, 202)
SLOWLY = replace(OUR_NOVA, nova=(*OUR_NOVA.nova, "qmpsnap.bandwidth=1048576"))
"""A merge does not end before the test wants it to: a pull of this volume takes 17 minutes."""


def concluded(rig: Rig, snapshot: str, running: str) -> str | None:
    """Wait until Cinder has concluded a snapshot; returns what it has become."""
    return read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != running)


@contextmanager
def merging(guest: Guest, snapshot: str) -> Iterator[None]:
    """Have a snapshot deleted slowly; its job runs by now."""
    with guest.rig.configured(SLOWLY, "compute"):
        guest.rig.volumes("DELETE", f"/snapshots/{snapshot}")
        read_until(lambda: guest.domain.blockJobInfo("vda", 0), bool)
        yield


def hurried(guest: Guest, snapshot: str) -> str | None:
    """
    Lift the limit of a merge until Cinder has concluded it; returns what the snapshot has become.

    More than once: whoever takes the job over sets the limit again that was asked for.
    """

    def status() -> str | None:
        with suppress(libvirt.libvirtError):  # it has ended
            guest.domain.blockJobSetSpeed("vda", 0, 0)
        return guest.rig.status("snapshots", snapshot)

    return read_until(status, lambda it: it != "deleting")


class Story:
    """A guest, what was written to it, and the snapshots that were taken; each step is checked."""

    def __init__(self, rig: Rig, guest: Guest) -> None:
        self.rig, self.guest = rig, guest
        self.base = f"volume-{guest.volume}"
        self.files: dict[str, str] = {}
        """The file that holds what changed after a snapshot, as in Cinder's .info."""
        self.layers = [(self.base, "raw")]
        """Active layer first."""
        self.patterns = 0

    def write(self) -> None:
        """Write a mebibyte that nothing else has written."""
        self.guest.io(f"write -P {self.patterns + 1} {self.patterns}M 1M")
        self.patterns += 1

    def create(self) -> str:
        """Take a snapshot."""
        snapshot, became, _ = self.rig.snapshot(self.guest.volume)
        _, error = self.rig.ended("create")
        assert (became, error) == ("available", None)
        self.check_told(snapshot, CREATED)
        self.files[snapshot] = f"{self.base}.{snapshot}"
        self.layers.insert(0, (self.files[snapshot], "qcow2"))
        self.check()
        return snapshot

    def delete(self, snapshot: str) -> None:
        """Delete a snapshot: by a pull where it is the active file's, else by a commit."""
        position = [name for name, _ in self.layers].index(self.files.pop(snapshot))
        became, _ = self.rig.delete(snapshot)
        _, error = self.rig.ended("delete")
        assert (became, error) == (None, None)
        self.check_told(snapshot, CREATED, DELETED)
        gone, _ = self.layers.pop(max(position, 1))  # the active file pulls the one below it
        assert not (self.rig.share / gone).exists()
        for other, file in self.files.items():
            self.files[other] = self.layers[0][0] if file == gone else file
        self.check()

    def check_told(self, snapshot: str, *expected: Told) -> None:
        """What Cinder was told of a snapshot, and what it answered."""
        assert self.rig.updates(snapshot) == [*expected]

    def check(self) -> None:
        """Content, formats, headers, libvirt's chain, connection_info and Cinder's rows."""
        assert self.guest.chain() == self.layers
        assert self.guest.domain.isActive() == 0 or self.guest.live_chain() == self.layers
        name, format_ = self.layers[0]
        told = self.guest.connection
        assert (told["name"], told["format"]) == (name, format_)
        # The call may return while the keeper still follows its letter.
        read_until(
            lambda: self.guest.nova_connection,
            lambda it: (it["name"], it["format"]) == (name, format_),
        )
        for number in range(self.patterns):
            assert self.guest.reads(number + 1, f"{number}M", "1M")
        rows = self.rig.rows(
            "select status from snapshots where volume_id = ? and not deleted", self.guest.volume
        )
        assert rows == [("available",)] * len(self.files)


def test_snapshots_in_any_order_with_restarts_in_between(each_nova: Rig) -> None:
    with attached(each_nova) as guest:
        story = Story(each_nova, guest)
        story.write()
        first = story.create()
        story.write()
        second = story.create()
        story.write()
        third = story.create()
        story.write()
        guest.stop()
        guest.start()
        story.delete(second)
        story.write()
        story.delete(third)
        guest.stop()
        guest.start()
        story.write()
        story.delete(first)
        guest.stop()
        guest.start()
        story.check()


def test_a_guest_that_is_off(each_nova: Rig) -> None:
    with attached(each_nova) as guest:
        story = Story(each_nova, guest)
        story.write()
        guest.stop()
        first = story.create()
        second = story.create()
        guest.start()
        story.write()
        guest.stop()
        story.delete(first)
        story.delete(second)
        guest.start()
        story.write()
        story.check()


def test_a_job_that_was_aborted_is_a_failure_and_can_be_asked_for_again(our_nova: Rig) -> None:
    with attached(our_nova) as guest:
        story = Story(our_nova, guest)
        guest.io("write -P 7 0 16M")
        snapshot = story.create()
        with merging(guest, snapshot):
            guest.domain.blockJobAbort("vda", 0)
            _, error = our_nova.ended("delete")
            assert error is not None
            became = concluded(our_nova, snapshot, "deleting")
        assert became == "error_deleting"
        failed = ({"status": "error_deleting", "progress": "0%"}, 202)
        assert our_nova.updates(snapshot) == [CREATED, failed]
        assert guest.chain() == story.layers
        # D1: with a `90%` that the failure left behind, Cinder would take the retry for done at once.
        assert our_nova.progress(snapshot) == ("error_deleting", "0%")
        # D1b: the row tells up to two seconds before Cinder's driver has noticed.
        log = our_nova.folder / "log/cinder.log"
        read_until(
            lambda: log.read_text(errors="replace"),
            lambda it: f"Unable to delete snapshot {snapshot}" in it,
        )
        again = {"os-reset_status": {"status": "available"}}
        our_nova.volumes("POST", f"/snapshots/{snapshot}/action", again)
        assert our_nova.delete(snapshot)[0] is None
        assert our_nova.ended("delete")[1] is None
        assert our_nova.updates(snapshot) == [CREATED, failed, DELETED]
        assert guest.chain() == story.layers[:1]
        assert guest.reads(7, "0", "16M")


def test_a_guest_that_is_gone_is_told_of_at_once(our_nova: Rig) -> None:
    volume = our_nova.create_volume()
    guest = Guest(our_nova, volume)
    guest.start()
    guest.close()
    snapshot, became, _ = our_nova.snapshot(volume)
    _, error = our_nova.ended("create")
    assert became == "error"
    assert "GuestNotFound" in str(error)
    assert our_nova.updates(snapshot) == [({"status": "error", "progress": "0%"}, 202)]


def test_two_calls_at_once_are_told_apart(our_nova: Rig) -> None:
    with attached(our_nova) as one, attached(our_nova) as other:
        begun = [our_nova.begin_snapshot(guest.volume) for guest in (one, other)]
        assert [concluded(our_nova, one, "creating") for one in begun] == ["available"] * 2
        assert [our_nova.ended("create")[1] for _ in begun] == [None, None]
        for guest, snapshot in zip((one, other), begun, strict=True):
            assert our_nova.updates(snapshot) == [CREATED]
            assert guest.chain()[0][0] == f"volume-{guest.volume}.{snapshot}"


def test_cinder_is_down_while_a_snapshot_is_taken(our_nova: Rig) -> None:
    """
    Cinder hears of it later. It has forgotten that it waits, so its row stays `creating`.

    Nova's connection_info is the old one as long, and no start takes the file that it names.
    """
    with attached(our_nova) as guest:
        guest.io("write -P 1 0 1M")
        our_nova.nova("GET", "log")  # what was said before
        our_nova.nova("POST", "delay", {"create": 600})
        snapshot = our_nova.begin_snapshot(guest.volume)
        asked(our_nova, "POST")
        our_nova.stop("cinder")
        try:
            our_nova.nova("POST", "delay", {"create": 0})
            our_nova.nova("POST", "release")
            our_nova.ended("create")
            guest.io("write -P 2 1M 1M")
            overlay = f"volume-{guest.volume}.{snapshot}"
            assert guest.nova_connection["name"] == f"volume-{guest.volume}"
            guest.stop()
            guest.start()  # a hard reboot: connection_info still names the file that the guest has left
            assert guest.live_chain()[0] == (overlay, "qcow2")
            assert guest.reads(1, "0", "1M")
            assert guest.reads(2, "1M", "1M")
        finally:
            our_nova.start("cinder")
        assert read_until(lambda: our_nova.updates(snapshot), bool) == [CREATED]
        assert our_nova.progress(snapshot) == ("creating", "90%")
        assert guest.nova_connection["name"] == f"volume-{guest.volume}"
        guest.stop()
        guest.start()
        assert guest.live_chain()[0] == (overlay, "qcow2")
        assert guest.reads(2, "1M", "1M")


def test_libvirtd_is_killed_during_a_merge(our_nova: Rig) -> None:
    with attached(our_nova) as guest:
        story = Story(our_nova, guest)
        guest.io("write -P 7 0 16M")
        snapshot = story.create()
        with merging(guest, snapshot):
            our_nova.restart("libvirtd", signal.SIGKILL)
            guest.connect()
            became = hurried(guest, snapshot)
            assert our_nova.ended("delete")[1] is None
        assert became is None
        assert our_nova.updates(snapshot) == [CREATED, DELETED]
        assert guest.chain() == story.layers[:1]
        assert guest.reads(7, "0", "16M")


def test_nova_is_killed_during_a_merge_and_the_next_one_tells_cinder(our_nova: Rig) -> None:
    with attached(our_nova) as guest:
        story = Story(our_nova, guest)
        guest.io("write -P 7 0 16M")
        snapshot = story.create()
        with merging(guest, snapshot):
            our_nova.restart("compute", signal.SIGKILL)
            became = hurried(guest, snapshot)
        assert became is None
        assert our_nova.updates(snapshot) == [CREATED, DELETED]
        assert guest.chain() == story.layers[:1]
        assert guest.reads(7, "0", "16M")


def test_a_hard_reboot_in_the_middle_of_a_merge_starts_the_guest(our_nova: Rig) -> None:
    """Nova destroys the guest and asks at once what to start it from; our call has not seen it yet."""
    with attached(our_nova) as guest:
        story = Story(our_nova, guest)
        guest.io("write -P 7 0 16M")
        snapshot = story.create()
        with merging(guest, snapshot):
            guest.stop()
            begins = our_nova.nova("GET", f"start/{guest.volume}")
            assert "error" not in begins, begins
            assert begins["path"].endswith(story.layers[0][0])
            guest.start()
            assert concluded(our_nova, snapshot, "deleting") == "error_deleting"
        assert guest.chain() == story.layers
        assert guest.reads(7, "0", "16M")


def test_a_state_that_is_reset_is_no_conclusion(our_nova: Rig) -> None:
    """A stock Cinder that was killed forgets what it waited for, and its connection_info stays as it was."""
    with attached(our_nova) as guest:
        guest.io("write -P 1 0 1M")
        our_nova.nova("POST", "delay", {"create": 600})
        snapshot = our_nova.begin_snapshot(guest.volume)
        asked(our_nova, "POST")
        our_nova.restart("cinder", signal.SIGKILL)
        our_nova.nova("POST", "delay", {"create": 0})
        our_nova.nova("POST", "release")
        read_until(lambda: our_nova.progress(snapshot), lambda it: it[1] == "90%")
        body = {"os-reset_status": {"status": "error"}}
        our_nova.volumes("POST", f"/snapshots/{snapshot}/action", body)
        assert our_nova.ended("create")[1] is None
        guest.io("write -P 2 0 1M")
        guest.stop()
        begins = our_nova.nova("GET", f"start/{guest.volume}")
        assert begins["path"].endswith(f"volume-{guest.volume}.{snapshot}"), begins
        assert begins["format"] == "qcow2"
        assert guest.reads(2, "0", "1M")


def test_libvirtd_is_killed_before_it_has_seen_a_snapshot(our_nova: Rig) -> None:
    """What was not carried out is told as an error, once the look at the guest has shown it."""
    with attached(our_nova) as guest:
        guest.io("write -P 7 0 1M")
        our_nova.nova("POST", "delay", {"create": 2})
        snapshot = our_nova.begin_snapshot(guest.volume)
        our_nova.stop("libvirtd", signal.SIGKILL)
        our_nova.nova("POST", "delay", {"create": 0})
        try:
            assert our_nova.ended("create")[1] is not None
        finally:
            our_nova.start("libvirtd")
        guest.connect()
        became = concluded(our_nova, snapshot, "creating")
        assert became == "error"
        assert our_nova.updates(snapshot) == [({"status": "error", "progress": "0%"}, 202)]
        assert guest.live_chain() == [(f"volume-{guest.volume}", "raw")]


@contextmanager
def cuttable(rig: Rig) -> Iterator[Cut]:
    """Let nova-compute reach libvirtd over a connection that can be cut."""
    path = rig.folder / "cut"
    cut = Cut(path, rig.folder / "libvirt/run/libvirt-sock")
    uri = f"libvirt.connection_uri=qemu+unix:///system?socket={path}"
    try:
        with rig.configured(replace(OUR_NOVA, nova=(*OUR_NOVA.nova, uri)), "compute"):
            yield cut
    finally:
        cut.close()
        path.unlink()


def test_the_connection_is_cut_when_a_snapshot_is_carried_out(our_nova: Rig) -> None:
    """What the guest writes to is told, although libvirt's answer was never heard."""
    with cuttable(our_nova) as cut, attached(our_nova) as guest:
        story = Story(our_nova, guest)
        story.write()
        was = guest.live_chain()
        cut.after(SNAPSHOT_CREATE_XML, lambda: read_until(guest.live_chain, lambda now: now != was))
        snapshot = our_nova.begin_snapshot(guest.volume)
        assert concluded(our_nova, snapshot, "creating") == "available"
        assert cut.times == 1
        our_nova.ended("create")
        assert our_nova.updates(snapshot) == [CREATED]
        story.files[snapshot] = f"{story.base}.{snapshot}"
        story.layers.insert(0, (story.files[snapshot], "qcow2"))
        read_until(lambda: guest.nova_connection["name"], lambda it: it == story.files[snapshot])
        story.check()
        story.delete(snapshot)


def test_the_connection_is_cut_before_a_snapshot_is_carried_out(our_nova: Rig) -> None:
    """Nothing was done, and once that is seen, an error is told; never before."""
    with cuttable(our_nova) as cut, attached(our_nova) as guest:
        story = Story(our_nova, guest)
        story.write()
        cut.before(SNAPSHOT_CREATE_XML)
        snapshot = our_nova.begin_snapshot(guest.volume)
        became = concluded(our_nova, snapshot, "creating")
        assert cut.times == 1
        our_nova.ended("create")
        assert (became, our_nova.updates(snapshot)) == (
            "error",
            [({"status": "error", "progress": "0%"}, 202)],
        )
        assert guest.live_chain() == guest.chain() == story.layers
        assert guest.reads(1, "0", "1M")
