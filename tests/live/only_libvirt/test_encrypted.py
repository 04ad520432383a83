"""A guest whose disk is encrypted, qcow2 with LUKS inside: it starts again, with all that it wrote."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Does
from tests.rig.doors import Killed, dying_at
from tests.rig.encrypted import ENCRYPTION, PASSPHRASE, SECRET, Encrypted, defined, make
from tests.rig.headers import recorded, without_format
from tests.rig.rig import BASE, DISK
from tests.rig.state_folder import own_state

PULL = DeleteRequest(disk=DISK, file_to_merge=None, merge_target_file=None)
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
    own_state(tmp_path_factory, monkeypatch)
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


@pytest.mark.parametrize("ended", [True, False])
def test_pull_that_is_not_proven_is_taken_back(
    guest: Encrypted, journal: Journal, ended: bool
) -> None:
    """Without the key; and the definition names what lies below, with its secret, whether it did or not."""
    with guest.started() as machine:
        machine.write(DISK, 0, 4096, 7)
        assert guest.cli("create", DISK, "s1").code == 0
        machine.write(DISK, 8192, 4096, 8)
        content = machine.read_sha256(DISK)
        with guest.host() as host, pytest.raises(Killed):
            deleted(journal, dying_at(host, Does.FLUSH), PULL)
    overlay = guest.folder / f"{BASE}.s1"
    assert recorded(overlay) == (None, None)
    end = "<backingStore/>" if ended else ""
    guest.define(f"<source file='{overlay}'>{ENCRYPTION}</source>{end}")
    said = guest.cli("resume", "-o", "json")
    assert said.code == 0, said
    (one,) = said.json["operations"]
    assert (one["outcome"], one["active"]) == ("rolled-back", str(overlay))
    assert recorded(overlay) == (BASE, "qcow2")
    assert guest.content() == content
    assert guest.cli("verify").code == 0
    assert not list(guest.folder.glob(".*"))


@pytest.mark.parametrize("told", [f"uuid='{SECRET}'", "usage='qmpsnap'"], ids=["uuid", "usage"])
def test_header_without_a_format_is_written_by_hand(
    guest: Encrypted, tmp_path: Path, told: str
) -> None:
    """With the secret that the definition names; one that it names by its usage is not looked up."""
    encryption = ENCRYPTION.replace(f"uuid='{SECRET}'", told)
    overlay, base = guest.folder / f"{BASE}.s1", guest.folder / BASE
    guest.define(
        f"<source file='{overlay}'>{encryption}</source><backingStore type='file'>"
        f"<format type='qcow2'/><source file='{base}'>{encryption}</source></backingStore>"
    )
    without_format(overlay)
    said = guest.cli("verify", "-o", "json")
    (finding,) = said.json["findings"]
    assert (said.code, finding["id"]) == (3, "backing-format-missing"), said
    (command,) = re.findall("`(.*?)`", finding["remedy"])
    passphrase = tmp_path / "passphrase"
    passphrase.write_text(PASSPHRASE)
    subprocess.run(
        ["sh", "-c", command.replace("PASSPHRASE_FILE", str(passphrase))],
        check=True,
        env={**os.environ, "LIBVIRT_DEFAULT_URI": guest.connection.getURI()},
    )
    assert recorded(overlay) == (BASE, "qcow2")
    assert guest.cli("verify").code == 0
