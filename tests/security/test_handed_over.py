"""
A hostile overlay, handed over by the volume service, and hostile names.

Whoever can write to the share can put a file there under the name that the snapshot is to have.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from qmpsnap.guests.files import qemu_img
from tests.rig import images, qemu_machine
from tests.rig.attacks import Book, Seen, probe
from tests.rig.detector import detecting
from tests.rig.disks import qcow2_chain, raw_disk
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Rig
from tests.rig.roads import direct_rig
from tests.security.conftest import SECRET, MakeRig, Victim

NEW = f"{BASE}.new"
Place = Callable[[Path, Path, ExitStack], None]
"""Puts the file `NEW` into a share, with the path of a victim."""


def _overlay(share: Path, backing: str = BASE, size: int = SIZE) -> Path:
    """A blameless one, but for what is given."""
    new = share / NEW
    options = ("-u", "-f", "qcow2", "-b", backing, "-F", "raw")
    qemu_img.run("create", str(new), "-q", *options, str(new), str(size))
    return new


def _patched(new: Path, offset: int, value: bytes) -> None:
    with new.open("r+b") as file:
        file.seek(offset)
        file.write(value)


def _data_file(share: Path, victim: Path, stack: ExitStack) -> None:
    name = bytes(victim)
    header = images.foreign_qcow2_header(SIZE, backing=BASE.encode(), data_file=name)
    (share / NEW).write_bytes(header + bytes(256 * 1024))


def _empty_data_file_name(share: Path, victim: Path, stack: ExitStack) -> None:
    _patched(_overlay(share), 72, struct.pack(">Q", 1 << 2))


def _backing(share: Path, victim: Path, stack: ExitStack) -> None:
    _overlay(share, str(victim))


def _backing_out_and_in(share: Path, victim: Path, stack: ExitStack) -> None:
    """As text it leads to the active file, for the kernel it does not."""
    elsewhere = victim.with_name("elsewhere")
    (elsewhere / "folder").mkdir(parents=True)
    (elsewhere / BASE).hardlink_to(victim)
    (share / "link").symlink_to(elsewhere / "folder")
    assert (share / "link" / ".." / BASE).samefile(victim)
    _overlay(share, f"link/../{BASE}")


def _backing_json(share: Path, victim: Path, stack: ExitStack) -> None:
    file = {"driver": "file", "filename": str(victim)}
    _overlay(share, "json:" + json.dumps({"driver": "raw", "file": file}))


def _backing_json_of_active(share: Path, victim: Path, stack: ExitStack) -> None:
    """Names the right file, and a slice of it."""
    file = {"driver": "file", "filename": str(share / BASE)}
    _overlay(share, "json:" + json.dumps({"driver": "raw", "offset": 512, "file": file}))


def _backing_url(share: Path, victim: Path, stack: ExitStack) -> None:
    _overlay(share, "nbd:localhost:1")


def _raw(share: Path, victim: Path, stack: ExitStack) -> None:
    images.create_raw(share / NEW, SIZE)


def _symbolic_link(share: Path, victim: Path, stack: ExitStack) -> None:
    (share / NEW).symlink_to(victim)


def _symbolic_link_to_overlay(share: Path, victim: Path, stack: ExitStack) -> None:
    (share / NEW).symlink_to(_overlay(share).rename(share / "fine"))


def _dangling_link(share: Path, victim: Path, stack: ExitStack) -> None:
    """A tool that makes what is missing would make it there."""
    (share / NEW).symlink_to(victim.with_name("not-there"))


def _hard_link(share: Path, victim: Path, stack: ExitStack) -> None:
    (share / NEW).hardlink_to(victim)


def _hard_link_to_overlay(share: Path, victim: Path, stack: ExitStack) -> None:
    """Somebody else's overlay, in everything like the one that is wanted."""
    (share / "somebody-elses").hardlink_to(_overlay(share))


def _fifo(share: Path, victim: Path, stack: ExitStack) -> None:
    os.mkfifo(share / NEW)


def _device(share: Path, victim: Path, stack: ExitStack) -> None:
    try:
        os.mknod(share / NEW, 0o020600, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("devices can be made by root only")


def _folder(share: Path, victim: Path, stack: ExitStack) -> None:
    (share / NEW).mkdir()


def _open_elsewhere(share: Path, victim: Path, stack: ExitStack) -> None:
    """Another guest writes to it."""
    images.create_raw(share / "other", SIZE)
    new = _overlay(share)
    disk = qcow2_chain([(new, "qcow2"), (share / "other", "raw")], "other")
    stack.enter_context(qemu_machine.run([disk], directory=victim.parent))


def _content(share: Path, victim: Path, stack: ExitStack) -> None:
    new = _overlay(share)
    (share / "data").write_bytes(b"x" * MIB)
    source, target = str(share / "data"), str(new)
    qemu_img.run("convert", target, "-n", "-f", "raw", "-O", "qcow2", source, target)


def _smaller(share: Path, victim: Path, stack: ExitStack) -> None:
    _overlay(share, size=SIZE // 2)


def _larger(share: Path, victim: Path, stack: ExitStack) -> None:
    _overlay(share, size=SIZE * 2)


def _encrypted(share: Path, victim: Path, stack: ExitStack) -> None:
    _patched(_overlay(share), 32, struct.pack(">I", 1))


def _internal_snapshot(share: Path, victim: Path, stack: ExitStack) -> None:
    """Data that the active state, which is empty, does not show."""
    new = str(_overlay(share))
    # `snapshot` takes no -f; here the driver is said in the name.
    image = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": new}}
    qemu_img.run("snapshot", new, "-c", "s", "json:" + json.dumps(image))


def _unknown_feature(share: Path, victim: Path, stack: ExitStack) -> None:
    _patched(_overlay(share), 72, struct.pack(">Q", 1 << 40))


def _said_to_be_corrupt(share: Path, victim: Path, stack: ExitStack) -> None:
    _patched(_overlay(share), 72, struct.pack(">Q", 1 << 1))


def _cut_off(share: Path, victim: Path, stack: ExitStack) -> None:
    os.truncate(_overlay(share), 50)


HOSTILE: dict[str, tuple[Place, str]] = {
    "data-file": (_data_file, "data file"),
    "data-file without a name": (_empty_data_file_name, "data file"),
    "backing": (_backing, "is backed by"),
    "backing by way of a link": (_backing_out_and_in, "is backed by"),
    "backing json": (_backing_json, "is backed by"),
    "backing json of the active file": (_backing_json_of_active, "is backed by"),
    "backing url": (_backing_url, "is backed by"),
    "raw": (_raw, "not qcow2"),
    "symbolic link": (_symbolic_link, "not a regular file"),
    "symbolic link to an overlay": (_symbolic_link_to_overlay, "not a regular file"),
    "dangling link": (_dangling_link, "not a regular file"),
    "hard link": (_hard_link, "another name"),
    "hard link to an overlay": (_hard_link_to_overlay, "another name"),
    "fifo": (_fifo, "not a regular file"),
    "device": (_device, "not a regular file"),
    "folder": (_folder, "not a regular file"),
    "open elsewhere": (_open_elsewhere, "lock"),
    "content": (_content, "holds data"),
    "smaller": (_smaller, "bytes, the disk has"),
    "larger": (_larger, "bytes, the disk has"),
    "encrypted": (_encrypted, "encrypted"),
    "internal snapshot": (_internal_snapshot, "internal snapshots"),
    "unknown feature": (_unknown_feature, "features"),
    "corrupt": (_said_to_be_corrupt, "corrupt"),
    "cut off": (_cut_off, "not qcow2"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_overlay_is_refused(
    what: str, victim: Victim, volume: Path, share: Path, book: Book
) -> None:
    place, words = HOSTILE[what]
    new = share / NEW
    with direct_rig(share, raw_disk(volume, DISK, SERIAL)) as rig, ExitStack() as stack:
        place(share, victim.path, stack)
        victim.detector.events()
        believed = None
        if new.is_file():
            believed = probe(new, victim.path, SECRET, victim.detector)
        reason = _refused(rig, victim, words)
    book.check("overlays", Seen(what, believed, reason))


@pytest.mark.parametrize("what", ["data-file", "backing by way of a link", "hard link", "fifo"])
def test_a_hostile_overlay_is_refused_under_libvirt(
    what: str, victim: Victim, volume: Path, share: Path, libvirt_start: MakeRig
) -> None:
    place, words = HOSTILE[what]
    with libvirt_start(volume, "raw") as rig, ExitStack() as stack:
        place(share, victim.path, stack)
        _refused(rig, victim, words)


def _refused(rig: Rig, victim: Victim, words: str) -> str:
    """Create fails before anything is touched; returns why."""
    victim.detector.events()
    before = _seen(rig.folder)
    info = {"type": "qcow2", "new_file": NEW, "snapshot_id": "new"}
    said = rig.cli("volume-snapshot-create", SERIAL, json.dumps(info))
    assert said.code == 4, said
    assert words in said.err
    assert said.status == {"status": "error", "progress": "0%"}
    victim.assert_safe(said, folder=rig.folder)
    assert _seen(rig.folder) == before
    assert rig.files() == [BASE]
    assert not victim.path.with_name("not-there").exists()
    reason = said.err.splitlines()[0].partition(" cannot become the overlay: ")[2]
    reason = reason.partition(" (qemu-img: ")[0]  # its words are its own
    return reason.replace(str(victim.path), "VICTIM").replace(f"{rig.folder}/", "")


def _seen(share: Path) -> dict[str, tuple[object, ...]]:
    """Everything in the share that a change would show in; files are not opened for it."""
    told: dict[str, tuple[object, ...]] = {}
    for file in sorted(share.iterdir()):
        status = file.lstat()
        told[file.name] = (status.st_mode, status.st_nlink, status.st_ino, status.st_size)
        if file.suffix != ".log":
            told[file.name] += (status.st_mtime_ns,)
    return told


LEADING_OUT = ("../secret", "SECRET", "./secret", "..", "json:{}", "file:secret", "a\nb", "\0")
"""Names that are not bare ones of a file; SECRET is the victim's full path."""


@pytest.mark.parametrize("field", ["new_file", "file_to_merge", "merge_target_file"])
def test_a_name_that_leads_out(field: str, volume: Path, share: Path, victim: Victim) -> None:
    with direct_rig(share, raw_disk(volume, DISK, SERIAL)) as rig:
        rig.grow(3)
        for name in LEADING_OUT:
            hostile = {field: str(victim.path) if name == "SECRET" else name}
            if field == "new_file":
                info = {"type": "qcow2", "snapshot_id": "new", **hostile}
                said = rig.cli("volume-snapshot-create", SERIAL, json.dumps(info))
                assert said.status == {"status": "error", "progress": "0%"}
            else:
                names = {"file_to_merge": f"{BASE}.s1", "merge_target_file": BASE, **hostile}
                info = {"type": "qcow2", **names}
                said = rig.cli("volume-snapshot-delete", SERIAL, "s1", json.dumps(info))
                assert said.status == {"status": "error_deleting", "progress": "0%"}
            assert said.code == 4, said
            victim.assert_safe(said, folder=share)
        assert rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]


def test_a_snapshot_name_is_no_path(volume: Path, share: Path, victim: Victim) -> None:
    with direct_rig(share, raw_disk(volume, DISK, SERIAL)) as rig:
        for name in ("../secret", "a/../../secret", str(victim.path), "..", "-x", "json:x"):
            said = rig.cli("create", DISK, "--", name)
            assert said.code == 4, said
            victim.assert_safe(said, folder=share)
        assert rig.files() == [BASE]


class TestChainThatLeadsOut:
    """
    The base lies elsewhere: a template of many volumes, or what a hostile header names.

    QEMU may be able to write there; the chain's being so is no permission.
    """

    @pytest.fixture
    def foreign(self, tmp_path: Path) -> Path:
        """A file elsewhere, with the name of the volume."""
        file = tmp_path / "elsewhere" / BASE
        file.parent.mkdir()
        images.create_raw(file, SIZE)
        return file

    @pytest.fixture
    def rig(self, share: Path, foreign: Path) -> Iterator[Rig]:
        """A guest whose active file is in the share."""
        active = share / f"{BASE}.s1"
        images.create_qcow2(active, SIZE, foreign, "raw")
        disk = qcow2_chain([(active, "qcow2"), (foreign, "raw")], DISK, SERIAL)
        with direct_rig(share, disk) as rig:
            rig.guest.write(DISK, 0, 65536, 1)
            yield rig

    def test_no_commit_writes_there(self, rig: Rig, foreign: Path) -> None:
        rig.create("s2")
        with detecting(foreign) as detector:
            for top in (f"{BASE}.s1", f"{BASE}.s2"):
                said = rig.delete(top, BASE)
                assert said.code == 4, said
                assert said.status == {"status": "error_deleting", "progress": "0%"}
            said = rig.cli("delete", DISK, "s1", "--method", "commit")
            assert said.code == 4, said
            assert detector.events() == []
        assert rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]
        assert not any(foreign.read_bytes())

    def test_what_lies_there_is_not_removed(self, rig: Rig, foreign: Path) -> None:
        said = rig.cli("delete", DISK, "s1", "--method", "pull", "--remove-file")
        assert said.code == 0, said
        assert "was not removed: it is not in" in said.err
        assert rig.files() == [f"{BASE}.s1"]
        assert not any(foreign.read_bytes())


def test_a_volume_whose_name_looks_like_a_protocol(share: Path) -> None:
    """QEMU would take `nbd:1` in a header for an address: it must not stand there as it is."""
    volume = share / "nbd:unix:x"
    images.create_raw(volume, SIZE)
    with direct_rig(share, raw_disk(volume, DISK, SERIAL)) as rig:
        rig.guest.write(DISK, 0, 65536, 1)
        content = rig.guest.read_sha256(DISK)
        for name in ("s1", "s2"):
            said = rig.cli("create", DISK, name)
            assert said.code == 0, said
        assert rig.cli("delete", DISK, "s1").code == 0
        active = rig.folder / rig.files()[0]
        rig.kill()
    assert images.sha256_of(active, "qcow2") == content
