"""A guest whose disk is encrypted, qcow2 with LUKS inside: it starts again, with all that it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.step import Does
from tests.rig.doors import Killed, dying_at
from tests.rig.encrypted import ENCRYPTION, Encrypted, defined, make
from tests.rig.rig import BASE, DISK

CREATE = CreateRequest(disk=DISK, new_file=f"{BASE}.s1", snapshot="s1")


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Encrypted]:
    """A guest that is off, with an overlay for its first snapshot."""
    folder = tmp_path / "share"
    folder.mkdir()
    with defined(folder) as guest:
        make(folder / f"{BASE}.s1", BASE)
        yield guest


@pytest.fixture
def journal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Journal:
    folder = tmp_path_factory.mktemp("journal")
    folder.chmod(0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(folder))
    return Journal()


def test_starts_again_after_a_snapshot(guest: Encrypted) -> None:
    """libvirtd has kept the definition in its memory; it is not read again from its file."""
    with guest.started() as machine:
        said = guest.cli("create", DISK, "s1")
        assert said.code == 0, said
        machine.write(DISK, 0, 4096, 7)
        content = machine.read_sha256(DISK)
    assert guest.content() == content


@pytest.mark.parametrize("place", ["source", "disk"])
def test_definition_that_was_not_saved(guest: Encrypted, journal: Journal, place: str) -> None:
    """`resume` names the overlay, with its secret; the file below, whose secret no header tells, too."""
    source = f"<source file='{guest.folder / BASE}'"
    old = f"{source}>{ENCRYPTION}</source>" if place == "source" else f"{source}/>{ENCRYPTION}"
    guest.define(old)
    with guest.started() as machine:
        with guest.host() as host, pytest.raises(Killed):
            created(journal, dying_at(host, Does.SWITCH, "after"), (CREATE,))
        machine.write(DISK, 0, 4096, 7)
        content = machine.read_sha256(DISK)
    guest.define(old)
    said = guest.cli("resume", "-o", "json")
    assert said.code == 0, said
    (one,) = said.json["operations"]
    assert (one["outcome"], one["active"]) == ("finished", str(guest.folder / f"{BASE}.s1"))
    assert guest.content() == content
