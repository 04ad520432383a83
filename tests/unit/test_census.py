"""Who uses a file: nothing is called unused that anybody uses, or whom nobody could ask about."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.formats.qcow2 import READ_SIZE
from qmpsnap.guests import census as whole
from qmpsnap.guests.census import Answer, CannotList, who_uses
from qmpsnap.guests.files import census, neighbours
from qmpsnap.guests.files.census import Census
from qmpsnap.guests.libvirt import census as of_libvirt
from qmpsnap.guests.libvirt import named
from qmpsnap.guests.libvirt.census import ask_libvirt
from tests.rig import share as shares
from tests.rig.share import Share, StandIn, disk_xml, domain_xml, write_qcow2
from tests.unit import fake_libvirt

URI = "qemu:///system"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt's errors and numbers; and a file system that is this host's alone, with leases."""
    for module in (of_libvirt, named):
        monkeypatch.setattr(module, "libvirt_module", lambda: fake_libvirt.LIBVIRT)
    monkeypatch.setattr(census, "file_system", lambda _folder: "ext4")
    monkeypatch.setattr(whole, "is_open_nowhere", lambda _path: True)


def answers(share: Share) -> dict[str, Answer]:
    """By bare name."""
    asked = who_uses(str(share.folder), lambda folder: ask_libvirt(share, URI, folder))
    return {os.path.basename(one.path): one.answer for one in asked.files}


def gaps(share: Share) -> str:
    asked = who_uses(str(share.folder), lambda folder: ask_libvirt(share, URI, folder))
    return "\n".join(asked.gaps)


@pytest.fixture
def share(tmp_path: Path) -> Share:
    """One file that nobody uses, and no guest."""
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "left").write_bytes(b"\0" * 512)
    return Share(tmp_path / "share")


def guest(share: Share, disks: str, more: str = "", **others: Any) -> None:
    text = domain_xml("web1", disks, more)
    share.domains.append(StandIn("web1", others.pop("active", False), text, text, **others))


@pytest.mark.parametrize("seed", range(6))
def test_a_share(tmp_path: Path, seed: int) -> None:
    made = shares.make(tmp_path, files=300, guests=15, seed=seed)
    found = answers(made)
    assert {name for name, answer in found.items() if answer is not Answer.USED} == made.left
    assert {found[name] for name in made.left} == {Answer.UNUSED}


def test_each_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many guests rest on it: what it costs grows with the files, not with the guests."""
    read: list[str] = []

    def beginning(path: str) -> bytes:
        read.append(path)
        return really(path)

    really = census._beginning
    monkeypatch.setattr(census, "_beginning", beginning)
    made = shares.make(tmp_path, files=200, guests=10, seed=1)
    answers(made)
    assert sorted(read) == sorted({*read})
    assert {os.path.basename(one) for one in read} == made.used | made.left


def test_nobody_at_all(share: Share) -> None:
    assert answers(share) == {"left": Answer.UNUSED}


@pytest.mark.parametrize(
    "names",
    [
        "file",
        "./file",
        "../share/file",
        "file:file",
        "{absolute}",
        'json:{"driver":"raw","file":{"driver":"file","filename":"file"}}',
        'json:{"driver":"raw","file.driver":"file","file.filename":"file"}',
    ],
)
def test_names_in_a_header(share: Share, names: str) -> None:
    (share.folder / "file").write_bytes(b"\0")
    write_qcow2(share.folder / "above", names.replace("{absolute}", f"{share.folder}/file"), "raw")
    assert answers(share)["file"] is Answer.USED


@pytest.mark.parametrize("name", ["left", "./left"])
def test_names_in_a_header_behind_a_link(share: Share, tmp_path: Path, name: str) -> None:
    """QEMU looks for them from the folder of the link; the link itself is no file of the folder."""
    (tmp_path / "a").mkdir()
    write_qcow2(tmp_path / "a" / "ov", name, "raw")
    assert answers(share) == {"left": Answer.UNUSED}
    (share.folder / "ov").symlink_to("../a/ov")
    assert answers(share) == {"left": Answer.USED}


def test_links_that_name_nothing(share: Share) -> None:
    (share.folder / "nowhere").symlink_to("gone")
    (share.folder / "through").symlink_to("left/gone")
    (share.folder / "folder").symlink_to("..")
    (share.folder / "null").symlink_to("/dev/null")
    (share.folder / "again").symlink_to("left")
    assert answers(share) == {"left": Answer.UNUSED}
    assert gaps(share) == ""


def test_a_link_that_comes_while_guests_are_asked(share: Share, tmp_path: Path) -> None:
    write_qcow2(tmp_path / "ov", "left", "raw")

    def ask(_folder: str) -> Census:
        (share.folder / "new").symlink_to("../ov")
        return Census()

    (one,) = who_uses(str(share.folder), ask).files
    assert one.answer is Answer.USED


@pytest.mark.parametrize(
    "text", ['RW 1 FLAT "file" 0\n', "file\n", "disk=/x/file,if=none", "a file, b", "\0file\0"]
)
def test_names_in_another_file(share: Share, text: str) -> None:
    (share.folder / "file").write_bytes(b"\0")
    (share.folder / "list").write_text(text)
    assert answers(share)["file"] is Answer.USED


def test_a_name_with_blanks(share: Share) -> None:
    (share.folder / "a b").write_bytes(b"\0")
    (share.folder / "list").write_text('RW 1 FLAT "a b" 0\n')
    assert answers(share)["a b"] is Answer.USED


def test_a_file_that_names_itself(share: Share) -> None:
    (share.folder / "left").write_text('RW 1 SPARSE "left"\n')
    assert answers(share) == {"left": Answer.UNUSED}


@pytest.mark.parametrize("way", ["hard link", "symbolic link", "folder that is a link"])
def test_other_names(share: Share, tmp_path: Path, way: str) -> None:
    other = tmp_path / "other"
    if way == "hard link":
        other.hardlink_to(share.folder / "left")
    elif way == "symbolic link":
        other.symlink_to(share.folder / "left")
    else:
        (tmp_path / "link").symlink_to(share.folder)
        other = tmp_path / "link" / "left"
    guest(share, disk_xml([(str(other), "raw")]))
    assert answers(share) == {"left": Answer.USED}


def test_through_folders_elsewhere(share: Share, tmp_path: Path) -> None:
    """Two overlays that lie elsewhere, over one of the share; the guest is off."""
    write_qcow2(tmp_path / "below", "share/left", "raw")
    write_qcow2(tmp_path / "above", "below", "qcow2")
    guest(share, disk_xml([(str(tmp_path / "above"), "qcow2")]))
    assert answers(share) == {"left": Answer.USED}
    assert gaps(share) == ""


def test_a_data_file(share: Share, tmp_path: Path) -> None:
    """Named by a header beside it, and by one elsewhere, of a guest that is off."""
    (share.folder / "data").write_bytes(b"")
    write_qcow2(share.folder / "left", data_file="./data")
    write_qcow2(tmp_path / "above", data_file="share/left")
    guest(share, disk_xml([(str(tmp_path / "above"), "qcow2")]))
    assert answers(share) == {"data": Answer.USED, "left": Answer.USED}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("no format", "nobody"),
        ("vmdk", "its format is vmdk"),
        ("missing", "cannot be followed"),
        ("broken", "cannot be followed"),
    ],
)
def test_a_chain_that_cannot_be_followed(
    share: Share, tmp_path: Path, made: str, told: str
) -> None:
    """What lies below may be any file: none is called unused."""
    top = tmp_path / "above"
    if made == "no format":
        write_qcow2(top, "below")
        (tmp_path / "below").write_bytes(b"\0")
    elif made == "broken":
        top.write_bytes(b"QFI\xfb")
    guest(share, disk_xml([(str(top), "vmdk" if made == "vmdk" else "qcow2")]))
    assert answers(share) == {"left": Answer.UNKNOWN}
    assert told in gaps(share)


def test_an_active_file_that_is_gone(share: Share) -> None:
    """It is looked for in the folder that was listed: it names nothing."""
    guest(share, disk_xml([(str(share.folder / "gone"), "qcow2")]))
    assert answers(share) == {"left": Answer.UNUSED}


def test_a_header_that_cannot_be_read(share: Share) -> None:
    (share.folder / "other").write_bytes(b"QFI\xfb and no more")
    assert answers(share)["left"] is Answer.UNKNOWN
    assert "begins like a qcow2 image" in gaps(share)


def test_a_folder_that_a_guest_is_given(share: Share, tmp_path: Path) -> None:
    given = f"<filesystem type='mount'><source dir='{tmp_path}'/><target dir='x'/></filesystem>"
    guest(share, "", given)
    assert answers(share) == {"left": Answer.UNKNOWN}
    assert f"guest web1, which is off is given the folder {tmp_path}" in gaps(share)


def test_a_folder_beside(share: Share, tmp_path: Path) -> None:
    (tmp_path / "sharé").mkdir()
    guest(share, "", f"<filesystem><source dir='{tmp_path}/sharé'/></filesystem>")
    assert answers(share) == {"left": Answer.UNUSED}


def test_a_volume_that_is_not_found(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_pool: object, _name: str) -> None:
        raise fake_libvirt.Error("OPERATION_INVALID", "the pool is not active")

    monkeypatch.setattr(shares.Pool, "storageVolLookupByName", fail)
    source = "<source pool='p' volume='v'/><target dev='vda'/>"
    guest(share, f"<disk type='volume'>{source}</disk>")
    assert answers(share) == {"left": Answer.UNKNOWN}
    assert "the pool is not active" in gaps(share)


@pytest.mark.parametrize("error", ["OPERATION_INVALID", "SYSTEM_ERROR"])
@pytest.mark.parametrize("call", ["listAllDomains", "XMLDesc", "listAllSnapshots"])
def test_libvirt_that_does_not_tell(
    share: Share, error: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise fake_libvirt.Error(error)

    guest(share, "")
    monkeypatch.setattr(Share if call == "listAllDomains" else StandIn, call, fail)
    assert answers(share) == {"left": Answer.UNKNOWN}


def test_a_definition_that_cannot_be_read(share: Share) -> None:
    share.domains.append(StandIn("web1", False, "", "<!DOCTYPE x><domain/>"))
    assert answers(share) == {"left": Answer.UNKNOWN}


class TestMarkers:
    """Files that say of images what no image says: nothing of them is ever unused."""

    def test_what_a_marker_names(self, share: Share) -> None:
        (share.folder / "other").write_bytes(b"")
        marker = share.folder / ".qmpsnap-0123"
        filler = "x" * 3 * READ_SIZE
        marker.write_text(f'{{"says": "{filler}", "paths": ["{share.folder}/left"]}}')
        assert answers(share) == {
            ".qmpsnap-0123": Answer.USED,
            "left": Answer.USED,
            "other": Answer.UNUSED,
        }

    def test_one_that_cannot_be_read(self, share: Share) -> None:
        (share.folder / ".qmpsnap-0123").write_bytes(b"\xff")
        assert answers(share) == {".qmpsnap-0123": Answer.USED, "left": Answer.UNKNOWN}
        assert "is a marker and cannot be read" in gaps(share)

    def test_what_a_call_that_died_has_left_is_none(self, share: Share) -> None:
        (share.folder / ".qmpsnap-abc.tmp").write_bytes(b"")
        assert answers(share)[".qmpsnap-abc.tmp"] is Answer.UNUSED


@contextmanager
def opened_by_another(path: Path) -> Iterator[int]:
    program = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        [*command, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


def test_a_process(share: Share) -> None:
    with opened_by_another(share.folder / "left") as pid:
        asked = who_uses(str(share.folder), lambda _folder: Census())
    (one,) = asked.files
    assert f"(pid {pid})" in one.uses[0].who
    assert answers(share) == {"left": Answer.UNUSED}


def test_somebody_who_cannot_be_seen(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "is_open_nowhere", lambda _path: False)
    assert answers(share) == {"left": Answer.UNKNOWN}


def test_processes_that_cannot_be_looked_at(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "processes_with", lambda _wanted: ({}, 10, 3))
    assert answers(share) == {"left": Answer.UNKNOWN}
    assert "3 processes" in gaps(share)


def test_a_loop_device(share: Share, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "block" / "loop7" / "loop").mkdir(parents=True)
    (tmp_path / "block" / "loop7" / "loop" / "backing_file").write_text(f"{share.folder}/left\n")
    monkeypatch.setattr(neighbours, "_LOOP", str(tmp_path / "block"))
    assert answers(share) == {"left": Answer.USED}


def test_what_comes_while_guests_are_asked(share: Share) -> None:
    """A new overlay over a file that nobody named before."""

    def ask(_folder: str) -> Census:
        write_qcow2(share.folder / "new", "left", "raw")
        return Census()

    (one,) = who_uses(str(share.folder), ask).files
    assert (os.path.basename(one.path), one.answer) == ("left", Answer.USED)


def test_one_file_alone(share: Share) -> None:
    guest(share, disk_xml([(str(share.folder / "left"), "raw")]))
    (share.folder / "other").write_bytes(b"")
    path = str(share.folder / "left")
    asked = who_uses(str(share.folder), lambda folder: ask_libvirt(share, URI, folder), only=path)
    (one,) = asked.files
    assert [(use.by, use.who, use.guest) for use in one.uses] == [
        ("guest", "guest web1, which is off", "web1")
    ]
    assert dict(asked.asked) | {"processes of this host": 0} == {
        f"files in {share.folder}": 2,
        f"guests of {URI}": 1,
        "processes of this host": 0,
    }


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotList, match="No such file"):
        who_uses(str(tmp_path / "no"), lambda _folder: Census())


def test_other_hosts(share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "file_system", lambda _folder: "nfs4")
    assert answers(share) == {"left": Answer.UNKNOWN}
    assert "is on nfs4: other hosts" in gaps(share)
