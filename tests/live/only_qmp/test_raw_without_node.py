"""
A raw file that the guest has open without a raw node, as libvirt 11.3 and later attach it.

The same operations under a writer are in `test_operations.py`, over a raw node; here it is the
layout that matters.
"""

from __future__ import annotations

import pytest

from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.headers import masks, recorded
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, Rig, assert_sound
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.situations import situation

BASE_IS = "raw-without-node"


def _holds(rig: Rig, content: str) -> None:
    assert_sound(rig.disk())
    assert rig.disk().layers[-1].format in ("raw", "qcow2")
    assert rig.guest.read_sha256(DISK) == content
    rig.guest.qemu_io(DISK, "flush")
    active = rig.disk().layers[0]
    rig.kill()
    assert images.sha256_of(active.path or "", active.format or "") == content


def test_create_says_raw_in_the_header(make_rig: MakeRig) -> None:
    with make_rig(BASE_IS) as rig:
        rig.grow(4)
        _holds(rig, rig.guest.read_sha256(DISK))


def test_active_commit(make_rig: MakeRig) -> None:
    with make_rig(BASE_IS) as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        for snapshot in ("s2", "s1"):
            assert rig.cli("delete", DISK, snapshot).code == 0
        assert rig.files() == [BASE]
        _holds(rig, content)


def test_pull_and_commit_above_the_base(make_rig: MakeRig) -> None:
    with make_rig(BASE_IS) as rig:
        rig.grow(4)
        content = rig.guest.read_sha256(DISK)
        assert rig.delete(f"{BASE}.s2", f"{BASE}.s1").code == 0
        assert rig.delete(None, None).code == 0
        assert rig.files() == [f"{BASE}.s3"]
        _holds(rig, content)


KINDS = {"commit": (f"{BASE}.s1", BASE), "pull": (BASE, None)}
COMMANDS = {"commit": "block-commit", "pull": "block-stream"}


@situation(
    "A merge over a base without a raw node, where QEMU before 9.0 would record `file` as the backing format",
    happens="refused",
    code=4,
    then="Delete the newest snapshots first, or pull the whole chain; or use QEMU 9.0 or later.",
    pain=3,
)
@remedy("FormatNotRecordable")
@pytest.mark.parametrize("way", ["newest first", "whole chain", "raw node"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_would_say_file_is_refused(make_rig: MakeRig, kind: str, way: str) -> None:
    with make_rig(BASE_IS) as rig:
        if masks(rig, COMMANDS[kind]):
            pytest.skip("this QEMU has backing-mask-protocol")
        rig.grow(3)
        before, content = rig.files(), rig.guest.read_sha256(DISK)
        said = rig.delete(*KINDS[kind])
        assert said.code == 4, said
        assert said.status == {"status": "error_deleting", "progress": "0%"}
        assert "'file'" in said.err
        assert rig.files() == before
        if way == "newest first":
            for snapshot in ("s2", "s1"):
                assert rig.cli("delete", DISK, snapshot, "--method", "commit").code == 0
            assert rig.files() == [BASE]
        elif way == "whole chain":
            assert rig.delete(None, None).code == 0
            assert rig.files() == [f"{BASE}.s2"]
        else:
            rig.guest.qemu_io(DISK, "flush")
            rig.kill()
            formats = ("qcow2", "qcow2", "raw")
            files = [(rig.folder / name, one) for name, one in zip(before, formats, strict=True)]
            with direct_rig(rig.folder, qcow2_chain(files, DISK, SERIAL)) as started:
                assert started.delete(*KINDS[kind]).code == 0
                _holds(started, content)
            return
        _holds(rig, content)


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_says_raw_where_qemu_can_be_told(make_rig: MakeRig, kind: str) -> None:
    with make_rig(BASE_IS) as rig:
        if not masks(rig, COMMANDS[kind]):
            pytest.skip("this QEMU has no backing-mask-protocol")
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        said = rig.delete(*KINDS[kind])
        assert said.code == 0, said
        assert recorded(rig.folder / f"{BASE}.s2") == (BASE, "raw")
        _holds(rig, content)
