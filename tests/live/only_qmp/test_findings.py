"""`verify` and `audit` on guests of which each has one problem, and on clean ones."""

from __future__ import annotations

import io
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.cli.main import run
from qmpsnap.guests.files import qemu_img
from tests.rig import images, qemu_machine
from tests.rig.disks import DiskSpec, qcow2_chain, raw_disk
from tests.rig.qemu_machine import QemuMachine
from tests.rig.rig import MIB, Said, unlocked

TOP, BASE = "volume-1.s1", "volume-1"


def cli(*arguments: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run([*arguments])
    return Said(code, out.getvalue(), err.getvalue())


def verify(guest: QemuMachine, *arguments: str) -> Any:
    """Findings of one guest; the exit code must go with them."""
    said = cli("--qmp", guest.qmp_path, "verify", *arguments, "-o", "json")
    document = said.json
    assert document["schema"] == "qmpsnap.findings/1"
    bad = document["count"]["error"] + document["count"]["warning"]
    assert said.code == (3 if bad else 0), said
    return document["findings"]


def ids(findings: Any) -> list[str]:
    return [one["id"] for one in findings]


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """`volume-1.s1` over the raw `volume-1`."""
    folder = tmp_path / "share"
    folder.mkdir()
    images.create_raw(folder / BASE, MIB)
    images.create_qcow2(folder / TOP, MIB, BASE, "raw")
    return folder


def chain_of(folder: Path, *, id: str = "vda") -> DiskSpec:
    return qcow2_chain([(folder / TOP, "qcow2"), (folder / BASE, "raw")], id, "1")


@contextmanager
def running(folder: Path, *disks: DiskSpec, name: str = "") -> Iterator[QemuMachine]:
    arguments = ["-name", name] if name else []
    with qemu_machine.run(disks, directory=folder.parent, machine_args=arguments) as guest:
        yield guest


def test_a_clean_guest(share: Path) -> None:
    with running(share, chain_of(share), name="web1") as guest:
        assert verify(guest) == []
        said = cli("--qmp", guest.qmp_path, "verify")
        assert said.code == 0
        assert said.err == "1 guest, 1 disk: no findings\n"
        assert cli("--qmp", guest.qmp_path, "create", "vda", "s2").code == 0
        assert cli("--qmp", guest.qmp_path, "create", "vda", "s3").code == 0
        assert cli("--qmp", guest.qmp_path, "delete", "vda", "s2").code == 0
        assert verify(guest) == []


def test_a_header_inside_a_raw_file(share: Path, tmp_path: Path) -> None:
    transcript = tmp_path / "transcript"
    with running(share, raw_disk(share / BASE, "vda", "1")) as guest:
        guest.write_bytes("vda", 0, images.foreign_qcow2_header(MIB, b"/etc/hostname", None))
        (found,) = verify(guest)
        assert found["id"] == "image-header-in-raw"
        assert found["file"] == str(share / BASE)
        said = cli("--qmp", guest.qmp_path, "chain", "-o", "json")
        layers = said.json["disks"][0]["layers"]
        assert (layers[0]["format"], layers[0]["flags"]) == ("raw", [])
        assert cli("--qmp", guest.qmp_path, "record", str(transcript)).code == 0
    said = cli("--replay", str(transcript), "verify", "-o", "json")
    assert said.json["findings"] == []  # a recording has no files
    assert said.json["audited"][0]["source"] == str(transcript)


def test_file_as_the_backing_format(share: Path) -> None:
    top = str(share / TOP)
    qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", BASE, "-F", "file", top)
    with running(share, chain_of(share)) as guest:
        (found,) = verify(guest)
        assert found["id"] == "backing-format-protocol"
        guest.quit()
    remedy = found["remedy"].split("`")[1].split()
    qemu_img.run(remedy[1], top, *remedy[2:])
    with running(share, chain_of(share)) as guest:
        assert verify(guest) == []


def test_file_as_qemu_itself_writes_it(share: Path) -> None:
    """A snapshot by QEMU over a file that it has open without a raw node."""
    disk = raw_disk(share / BASE, "vda", "1", raw_node=False)
    with running(share, disk) as guest:
        new = {"node-name": guest.active_node("vda"), "snapshot-file": str(share / "new")}
        guest.qmp("blockdev-snapshot-sync", {**new, "snapshot-node-name": "new"})
        assert ids(verify(guest)) == ["backing-format-protocol"]


def without_format(share: Path) -> None:
    """Make an overlay whose header says nothing of its backing file's format."""
    header = images.foreign_qcow2_header(MIB, BASE.encode(), None)
    (share / TOP).write_bytes(header.ljust(192 * 1024, b"\0"))


def test_no_backing_format(share: Path) -> None:
    without_format(share)
    with running(share, chain_of(share)) as guest:
        (found,) = verify(guest)
        assert found["id"] == "backing-format-missing"
        assert "-F raw" in found["remedy"]


def test_probed(share: Path) -> None:
    """Opened by the header alone, QEMU looks into the backing file."""
    without_format(share)
    whole = chain_of(share)
    file, overlay = whole.blockdevs[-2:]
    disk = replace(whole, blockdevs=(file, {k: v for k, v in overlay.items() if k != "backing"}))
    with running(share, disk) as guest:
        found = {one["id"]: one for one in verify(guest)}
        assert set(found) == {"opened-by-probing", "backing-format-missing"}
        assert found["opened-by-probing"]["file"] == str(share / BASE)
        assert "-F FORMAT" in found["backing-format-missing"]["remedy"]


def test_data_file(share: Path) -> None:
    file = str(share / "qcow2")
    options = f"data_file={share}/data"
    qemu_img.run("create", file, "-f", "qcow2", "-o", options, file, str(MIB))
    with running(share, qcow2_chain([(file, "qcow2")], "vda")) as guest:
        (found,) = verify(guest)
        assert found["id"] == "data-file"
        assert f"{share}/data" in found["message"]


def test_a_vmdk_with_an_extent(share: Path) -> None:
    file = str(share / "image.vmdk")
    qemu_img.run("create", file, "-f", "vmdk", "-o", "subformat=monolithicFlat", file, "1M")
    with running(share, qcow2_chain([(file, "vmdk")], "vda")) as guest:
        (found,) = verify(guest)
        assert found["id"] == "file-beyond-chain"
        assert found["file"] == str(share / "image-flat.vmdk")


def test_a_backing_file_elsewhere(share: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    images.create_raw(elsewhere, MIB)
    top = str(share / TOP)
    qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", str(elsewhere), "-F", "raw", top)
    with running(share, qcow2_chain([(top, "qcow2"), (elsewhere, "raw")], "vda")) as guest:
        assert ids(verify(guest)) == ["backing-outside-folder"]
    (share / BASE).unlink()
    (share / BASE).symlink_to(elsewhere)
    qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", BASE, "-F", "raw", top)
    with running(share, chain_of(share)) as guest:
        assert ids(verify(guest)) == ["backing-outside-folder"]


def test_a_snapshot_that_no_header_records(share: Path) -> None:
    overlay = share / "new"
    images.create_qcow2(overlay, MIB)
    with running(share, chain_of(share)) as guest:
        file = {"driver": "file", "filename": str(overlay)}
        new = {"driver": "qcow2", "node-name": "new", "file": file, "backing": None}
        guest.qmp("blockdev-add", new)
        guest.qmp("blockdev-snapshot", {"node": guest.active_node("vda"), "overlay": "new"})
        (found,) = verify(guest)
        assert (found["id"], found["file"]) == ("backing-not-recorded", str(overlay))
        guest.quit()
    words = found["remedy"].split("`")[1].split()
    qemu_img.run(words[1], str(overlay), *words[2:])
    disk = qcow2_chain(
        [(overlay, "qcow2"), (share / TOP, "qcow2"), (share / BASE, "raw")], "vda", "1"
    )
    with running(share, disk) as guest:
        assert verify(guest) == []


def test_headers_that_lead_in_a_circle(share: Path) -> None:
    """The running guest does not follow them; the next one cannot start."""
    images.create_qcow2(share / "base", MIB)
    top, base = str(share / TOP), str(share / "base")
    qemu_img.run("rebase", top, "-u", "-f", "qcow2", "-b", "base", "-F", "qcow2", top)
    qemu_img.run("rebase", base, "-u", "-f", "qcow2", "-b", TOP, "-F", "qcow2", base)
    with running(share, qcow2_chain([(top, "qcow2"), (base, "qcow2")], "vda")) as guest:
        (found,) = verify(guest)
        assert (found["id"], found["file"]) == ("chain-loop", base)


def test_a_file_that_was_overwritten_below_the_guest(share: Path) -> None:
    with running(share, chain_of(share)) as guest:
        (share / TOP).write_bytes(bytes(MIB))
        assert ids(verify(guest)) == ["header-invalid"]


def test_one_disk(share: Path) -> None:
    images.create_raw(share / "other", MIB)
    with running(share, chain_of(share), raw_disk(share / "other", "vdb")) as guest:
        guest.write_bytes("vdb", 0, b"conectix".ljust(512, b"\0"))
        assert verify(guest, "vda") == []
        assert ids(verify(guest, "vdb")) == ["image-header-in-raw"]
        said = cli("--qmp", guest.qmp_path, "verify", "vdc")
        assert said.code == 4
        assert "vdc" in said.err


def test_in_a_pipe_each_finding_is_one_line(share: Path) -> None:
    name = share / "a\n\x1b[31mb"
    images.create_raw(name, MIB)
    with running(share, raw_disk(name, "vda")) as guest:
        guest.write_bytes("vda", 0, b"conectix".ljust(512, b"\0"))
        said = cli("--qmp", guest.qmp_path, "verify")
        head, line = said.out.splitlines()
        assert head.split()[:2] == ["SEVERITY", "FINDING"]
        assert "\\n\\x1b[31mb" in line
        sarif = cli("--qmp", guest.qmp_path, "verify", "-o", "sarif")
        assert sarif.code == 3
        (result,) = sarif.json["runs"][0]["results"]
        assert result["ruleId"] == "image-header-in-raw"


class TestAudit:
    def test_three_guests_and_one_file(self, share: Path, tmp_path: Path) -> None:
        """One guest writes to what is a base of the two others."""
        (tmp_path / "link").symlink_to(share / BASE)
        images.create_qcow2(share / "other", MIB, BASE, "raw")
        other = qcow2_chain([(share / "other", "qcow2"), (share / BASE, "raw")], "vda")
        with ExitStack() as stack:
            guests = [
                stack.enter_context(running(share, unlocked(disk), name=name))
                for name, disk in (
                    ("a", chain_of(share)),
                    ("b", other),
                    ("c", raw_disk(tmp_path / "link", "vda")),
                )
            ]
            first, *more = (guest.qmp_path for guest in guests)
            sockets = [word for path in more for word in ("--socket", path)]
            said = cli("--qmp", first, "audit", *sockets, "-o", "json")
            (found,) = said.json["findings"]
            assert said.code == 3
            assert (found["id"], found["guest"]) == ("file-active-and-base", "c")
            assert found["message"] == "vda of c writes to it; a base of vda of a, vda of b"
            assert [one["guest"] for one in said.json["audited"]] == ["a", "b", "c"]
            said = cli("audit", *sockets[:2], "--socket", first)
            assert said.code == 0, said  # two readers of one base
            assert "2 guests, 2 disks: no findings" in said.err

    def test_one_file_active_in_two(self, share: Path) -> None:
        with (
            running(share, unlocked(raw_disk(share / BASE, "vda"))) as a,
            running(share, unlocked(raw_disk(share / BASE, "vda"))) as b,
        ):
            said = cli("audit", "--socket", a.qmp_path, "--socket", b.qmp_path, "-o", "json")
            assert ids(said.json["findings"]) == ["file-active-twice"]
            # The same socket twice is one guest.
            said = cli("--qmp", a.qmp_path, "audit", "--socket", a.qmp_path)
            assert said.code == 0, said

    def test_one_guest_by_two_sockets(self, share: Path, tmp_path: Path) -> None:
        uuid = ["-uuid", "12345678-1234-1234-1234-123456789012"]
        with tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as short:
            second = f"{short}/second"
            arguments = [*uuid, "-qmp", f"unix:{second},server=on,wait=off"]
            disks = [raw_disk(share / BASE, "vda")]
            with qemu_machine.run(disks, directory=tmp_path, machine_args=arguments) as guest:
                said = cli("--qmp", guest.qmp_path, "audit", "--socket", second)
        assert said.code == 0, said
        assert "1 guest, 1 disk" in said.err
        assert f"{second} is a guest that was read by {guest.qmp_path}" in said.err

    def test_a_stopped_guest_does_not_hold_up_the_others(self, share: Path) -> None:
        images.create_raw(share / "other", MIB)
        with (
            running(share, raw_disk(share / BASE, "vda")) as stopped,
            running(share, raw_disk(share / "other", "vda"), name="web2") as guest,
        ):
            guest.write_bytes("vda", 0, b"conectix".ljust(512, b"\0"))
            os.kill(stopped.pid, signal.SIGSTOP)
            try:
                sockets = ["--socket", stopped.qmp_path, "--socket", guest.qmp_path]
                said = cli("audit", *sockets, "--jobs", "1", "--timeout", "60", "-o", "json")
            finally:
                os.kill(stopped.pid, signal.SIGCONT)
        assert said.code == 3
        found = {one["id"]: one["guest"] for one in said.json["findings"]}
        assert found == {"guest-unreadable": stopped.qmp_path, "image-header-in-raw": "web2"}
        assert [one["read"] for one in said.json["audited"]] == [False, True]

    def test_nothing_can_be_reached(self, tmp_path: Path) -> None:
        gone = str(tmp_path / "gone")
        said = cli("audit", "--socket", gone, "-o", "sarif")
        assert said.code == 7
        (run_,) = said.json["runs"]
        assert run_["invocations"][0]["executionSuccessful"] is False
        assert [one["ruleId"] for one in run_["results"]] == ["guest-unreadable"]
        assert json.dumps(run_).count(gone) > 0

    def test_a_transcript_is_not_a_host(self, tmp_path: Path) -> None:
        said = cli("--replay", str(tmp_path), "audit")
        assert said.code == 2
        assert "verify" in said.err
