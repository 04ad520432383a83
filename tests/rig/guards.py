"""A merge that a guard refuses, and what makes one do so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rig import images
from tests.rig.beside import nbd_server
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, SIZE, Rig, assert_sound


def refused(rig: Rig, guard: str, *words: str) -> None:
    """Refuse the merge of s1 into the base for one reason, with nothing changed."""
    content, files = rig.guest.read_sha256(DISK), rig.files()
    said = rig.delete(f"{BASE}.s1", BASE)
    assert (said.code, said.status["status"]) == (4, "error_deleting"), said
    assert f"--allow {guard}" in said.err
    assert all(word in said.err for word in words), said.err
    assert (rig.guest.read_sha256(DISK), rig.files()) == (content, files)


def refused_then_done(rig: Rig, guard: str, *words: str) -> None:
    """Refuse the merge, and do it when that is allowed."""
    content = rig.guest.read_sha256(DISK)
    refused(rig, guard, *words)
    done = rig.delete(f"{BASE}.s1", BASE, "--allow", guard)
    assert done.code == 0, done
    assert rig.guest.read_sha256(DISK) == content
    assert_sound(rig.disk())


def beside_a_link(path: Path) -> Path:
    """Move a qcow2 file into another folder, with a link in its place; returns a clone beside it."""
    store = path.parent / "store"
    store.mkdir()
    path.rename(store / "real")
    path.symlink_to("store/real")
    images.create_qcow2(store / "clone", SIZE, "real", "qcow2")
    return store / "clone"


@contextmanager
def read_by_another_process(path: Path, format: str) -> Iterator[None]:
    """An NBD server of another guest, or of a backup, reads the file."""
    # Without force-share its lock would keep the guest from writing, and nothing would be shown.
    image = f"driver={format},force-share=on,read-only=on,file.driver=file,file.filename={path}"
    with nbd_server(Path(f"{path}.nbd"), "-r", "-t", "--image-opts", image):
        yield


def resize(rig: Rig, size: int) -> None:
    """Let the disk have another length, as its road does it."""
    if isinstance(rig.guest, LibvirtMachine):
        rig.guest.domain.blockResize(DISK, size, 1)
    else:
        rig.guest.qmp("block_resize", {"node-name": rig.guest.active_node(DISK), "size": size})
