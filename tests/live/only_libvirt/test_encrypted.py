"""A guest whose disk is encrypted, qcow2 with LUKS inside: it starts again, with all that it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.encrypted import Encrypted, defined, make
from tests.rig.rig import BASE, DISK


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Encrypted]:
    """A guest that is off, with an overlay for its first snapshot."""
    folder = tmp_path / "share"
    folder.mkdir()
    with defined(folder) as guest:
        make(folder / f"{BASE}.s1", BASE)
        yield guest


def test_starts_again_after_a_snapshot(guest: Encrypted) -> None:
    """libvirtd has kept the definition in its memory; it is not read again from its file."""
    with guest.started() as machine:
        said = guest.cli("create", DISK, "s1")
        assert said.code == 0, said
        machine.write(DISK, 0, 4096, 7)
        content = machine.read_sha256(DISK)
    assert guest.content() == content
