"""
Compute as the user nova, with real sudo and rootwrap: what it may not do is done by its helper alone.

The files of the volumes are root's or QEMU's and closed to nova, their folder is root's, and QEMU is
another user's.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.header import read_header
from tests.openstack.guest_header import with_header
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.pairings import AS_NOVA, AS_NOVA_ALONE
from tests.openstack.rig.rig import Rig, as_user
from tests.openstack.rig.unprivileged import UID
from tests.openstack.test_our_nova import Story

QMPSNAP = [sys.executable, "-Wignore", "-m", "qmpsnap"]


@contextmanager
def closed(rig: Rig) -> Iterator[Guest]:
    """A guest that runs on a volume that only its owner may read."""
    volume = rig.create_volume()
    (rig.share / f"volume-{volume}").chmod(0o600)
    guest = Guest(rig, volume)
    guest.start()
    try:
        yield guest
    finally:
        guest.close()


def is_closed(rig: Rig, name: str) -> bool:
    """Whether a file is closed to nova."""
    status = (rig.share / name).stat()
    return status.st_uid != UID and not status.st_mode & stat.S_IRWXO


def operations(rig: Rig, guest: Guest) -> list[dict[str, Any]]:
    """What the journal of compute says of a guest's operations, the last one last."""
    state = f"QMPSNAP_STATE={rig.folder}/state/qmpsnap-state"
    done = as_user(rig.layout, ["env", state, *QMPSNAP, "log", "-o", "json"])
    found: list[dict[str, Any]] = json.loads(done.stdout)["operations"]
    return [one for one in found if one["guest"] == f"rig-{guest.server[:8]}"]


def doctor(rig: Rig) -> dict[str, Any]:
    """What doctor says, by name."""
    words = [*QMPSNAP, "doctor", "--nova", "--config-file", "/etc/nova/nova.conf", "-o", "json"]
    done = as_user(rig.layout, words)
    return {one["name"]: one for one in json.loads(done.stdout)["checks"]}


def test_create_commit_and_pull(each_as_nova: Rig, request: pytest.FixtureRequest) -> None:
    """What is reported is as for root: every format from two witnesses or more, and nothing missing."""
    with closed(each_as_nova) as guest:
        story = Story(each_as_nova, guest)
        story.write()
        first = story.create()
        story.write()
        second = story.create()
        story.write()
        assert all(is_closed(each_as_nova, name) for name, _ in story.layers)
        story.delete(first)
        story.delete(second)
        found = operations(each_as_nova, guest)
        assert [one["kind"] for one in found] == ["create", "create", "commit", "pull"]
        assert [one["outcome"] for one in found] == ["finished"] * 4
        notes = {note for one in found for note in one["notes"]}
        blind = {note for note in notes if "reads these files by other nodes" in note}
        by_xml = request.node.callspec.params["each_as_nova"] is not AS_NOVA
        assert (notes - blind, bool(blind)) == (set(), by_xml)
    assert not [*each_as_nova.share.glob(".qmpsnap-*")]


def test_a_wrong_header_is_mended(each_as_nova: Rig, tmp_path: Path) -> None:
    """D3: stock Cinder writes `qcow2` into the header of an overlay that nova may not even read."""
    volume = with_header(each_as_nova, tmp_path)
    guest = Guest(each_as_nova, volume)
    guest.start()
    guest.io("write -P 7 512M 1M")
    snapshot, became, _ = each_as_nova.snapshot(volume)
    assert (became, each_as_nova.ended("create")[1]) == ("available", None)
    overlay = f"volume-{volume}.{snapshot}"
    assert is_closed(each_as_nova, overlay)
    assert read_header(str(each_as_nova.share / overlay)).backing_format == "raw"
    guest.stop()
    guest.start()
    assert guest.live_chain() == [(overlay, "qcow2"), (f"volume-{volume}", "raw")]
    assert guest.reads(7, "512M", "1M")
    guest.close()


def test_a_guest_that_is_off_is_refused_and_stays_as_it_is(as_nova: Rig) -> None:
    """Its chain is opened by a QEMU of nova's own, to which the helper lends nothing."""
    with closed(as_nova) as guest:
        story = Story(as_nova, guest)
        story.write()
        first = story.create()
        story.write()
        guest.stop()
        second, became, _ = as_nova.snapshot(guest.volume)
        _, error = as_nova.ended("create")
        assert became == "error"
        assert "CannotOpen" in str(error)
        assert "Permission denied" in str(error)
        assert "Nothing was changed" in str(error)
        assert as_nova.updates(second) == [({"status": "error", "progress": "0%"}, 202)]
        assert as_nova.delete(first)[0] == "error_deleting"
        assert "CannotOpen" in str(as_nova.ended("delete")[1])
        guest.start()
        assert guest.live_chain() == guest.chain() == story.layers
        assert guest.reads(1, "0", "1M")
        assert guest.reads(2, "1M", "1M")


def test_doctor_says_that_the_helper_works(as_nova: Rig) -> None:
    with closed(as_nova):
        found = doctor(as_nova)
    for name in ("helper", "QEMU's files", "share"):
        assert found[name]["state"] == "ok", found[name]
    assert str(as_nova.mount.parent) in found["helper"]["found"]


@pytest.mark.parametrize(
    ("place", "word", "allowed"),
    [
        (0, "--config-file", True),
        (1, "/tmp/evil.conf", False),
        (1, "/etc/nova/../../tmp/evil.conf", False),
        (3, "nova.privsep.sys_admin_pctxt", False),
        (5, "/tmp/tmpab_1/privsep.sock --privsep_context nova.privsep.sys_admin_pctxt", False),
        (5, "/etc/passwd", False),
    ],
)
def test_sudo_lets_our_helper_be_started_alone(
    as_nova: Rig, place: int, word: str, allowed: bool
) -> None:
    """The file of rules that is shipped; `sudo -l` says what it would do."""
    words = ["--config-file", "/etc/nova/nova.conf", "--privsep_context"]
    words += ["qmpsnap.openstack.nova.privileged.context", "--privsep_sock_path"]
    words += ["/tmp/tmpab_1/privsep.sock"]
    words[place] = word
    helper = f"{as_nova.layout.prefix}/bin/privsep-helper"
    done = as_user(as_nova.layout, ["sudo", "-n", "-l", helper, *" ".join(words).split()])
    assert (done.returncode == 0) is allowed, done.stderr


@pytest.fixture
def traps(as_nova: Rig) -> Iterator[None]:
    """A share on which everything lies that is not to be opened, and a secret beside it."""
    share, secret = as_nova.share, as_nova.folder / "secret"
    secret.write_bytes(b"QFI\xfb secret")
    secret.chmod(0o600)
    overlay = share / "overlay"
    qemu_img.create_overlay(
        str(overlay), backing_name="volume-1", backing_format="raw", size=1 << 30
    )
    overlay.chmod(0o600)
    (share / "raw").write_bytes(b"guest's data")
    (share / "link").symlink_to(secret)
    (share / "folder").symlink_to(as_nova.folder)
    os.link(secret, share / "hard")
    os.mkfifo(share / "fifo")
    os.mknod(share / "device", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    (share / "huge").write_bytes(overlay.read_bytes())
    os.truncate(share / "huge", 1 << 30)
    yield
    for name in ("overlay", "raw", "link", "folder", "hard", "fifo", "device", "huge"):
        (share / name).unlink()


REFUSALS = {
    "denied": "Permission denied",
    "raw-whole": "does not begin as a qcow2 file",
    "dots": "simplest form",
    "outside": "not below",
    "shadow": "not below",
    "link": "no regular file",
    "folder-link": "is a link",
    "hard-link": "another name",
    "device": "no regular file",
    "fifo": "no regular file",
    "huge": "1073741824 bytes, more than an overlay",
    "lock-link": "no regular file",
    "mend": "no valid qcow2 header",
    "marker-name": "no name of a marker",
    "marker-outside": "not below",
    "marker-folder-link": "is a link",
    "remove": "no name of a marker",
    "reused": "another process by now",
    "no-qemu": "another process by now",
    "own": "another process by now",
    "in-root": "not below",
    "function": "not exported",
    "function-below": "is not a package",
}


def test_somebody_who_has_taken_over_compute(as_nova: Rig, traps: None) -> None:
    """Everything that goes beyond is refused by the helper itself, whatever it is asked."""
    with closed(as_nova) as guest:
        pid = as_user(
            as_nova.layout, ["pgrep", "-f", f"guest=rig-{guest.server[:8]}"]
        ).stdout.split()
        words = [sys.executable, "-Wignore", "-m", "tests.openstack.rig.attack"]
        done = as_user(as_nova.layout, [*words, str(as_nova.folder), str(as_nova.mount), pid[0]])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("held").startswith("got ")
    assert found.pop("raw") == "got b''"
    assert found.pop("race") == "QFI\xfb own"
    assert {name: said for name, said in found.items() if REFUSALS[name] not in said} == {}
    assert found.keys() == REFUSALS.keys()
    assert not Path("/etc/.qmpsnap-1f").exists()


def test_without_the_helper_a_closed_overlay_is_refused(as_nova_alone: Rig) -> None:
    with closed(as_nova_alone) as guest:
        before = guest.live_chain()
        snapshot, became, _ = as_nova_alone.snapshot(guest.volume)
        _, error = as_nova_alone.ended("create")
        assert became == "error"
        assert "OverlayUnsuitable" in str(error)
        assert "cannot be read" in str(error)
        assert as_nova_alone.updates(snapshot) == [({"status": "error", "progress": "0%"}, 202)]
        assert guest.live_chain() == before


def test_without_the_helper_no_header_is_mended(as_nova_alone: Rig, tmp_path: Path) -> None:
    volume = with_header(as_nova_alone, tmp_path)
    guest = Guest(as_nova_alone, volume)
    guest.start()
    _, became, _ = as_nova_alone.snapshot(volume)
    assert became == "error"
    as_nova_alone.ended("create")
    assert guest.live_chain() == [(f"volume-{volume}", "raw")]
    guest.close()


def test_without_the_helper_each_missing_witness_is_named(as_nova_alone: Rig) -> None:
    """With files that everybody may read, as Cinder makes them without its secure permissions."""
    open_to_all = replace(AS_NOVA_ALONE, cinder=())
    with as_nova_alone.configured(open_to_all, "cinder"), attached(as_nova_alone) as guest:
        story = Story(as_nova_alone, guest)
        story.write()
        first = story.create()
        story.write()
        story.delete(first)
        found = {one["kind"]: one for one in operations(as_nova_alone, guest)}
        assert found.keys() == {"create", "pull"}
        for one in found.values():
            assert any("another user's" in note for note in one["notes"]), one
            assert one["removed"] == []
    said = doctor(as_nova_alone)["helper"]
    assert said["state"] == "note"
    assert "the helper cannot be started" in said["found"]
    for witness in ("not-seen", "headers", "marker"):
        assert witness in said["found"]
    log = (as_nova_alone.folder / "log/compute.out").read_text()
    assert "the helper cannot be started" in log
    assert "what QEMU has open is `not-seen`" in log


def test_the_helper_ends_with_compute_and_is_started_again(as_nova: Rig) -> None:
    def helpers() -> list[str]:
        text = "privsep_context qmpsnap.openstack.nova"
        done = subprocess.run(["pgrep", "-f", text], capture_output=True, text=True, check=False)
        return done.stdout.split()

    with closed(as_nova) as guest:
        story = Story(as_nova, guest)
        story.create()
        (mine,) = [one for one in helpers() if is_in(as_nova, one)]
        os.kill(int(mine), 9)
        story.create()
        assert [note for one in operations(as_nova, guest) for note in one["notes"]] == []
        assert mine not in helpers()


def is_in(rig: Rig, pid: str) -> bool:
    """Whether a process is in the namespaces of a rig."""
    init = (rig.folder / "init.pid").read_text()
    return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{init}/ns/pid")
