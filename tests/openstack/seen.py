"""What must hold of a volume between two operations: files, headers, `.info`, rows, ledger."""

from __future__ import annotations

import subprocess
from pathlib import Path

from qmpsnap.guests.files.header import read_header
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Operation
from tests.openstack.rig.databases import engine_of
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until


def ledger_of(rig: Rig) -> Store:
    """The ledger in the rig's Cinder database."""
    return Store(engine_of(rig.folder))


def formats(rig: Rig, volume: str) -> dict[str, str]:
    """What the ledger believes, by the end of the file's name: '' is `volume-<id>` itself."""
    with ledger_of(rig).reading() as ledger:
        layers = ledger.chain(volume).layers
    return {
        one.file.removeprefix(f"volume-{volume}").lstrip("."): str(one.format) for one in layers
    }


def asked(rig: Rig, verb: str) -> None:
    """
    Wait until compute has been asked, since its log was last read.

    Not until there is any line in the log: a call of an earlier test may end just then.

    Args:
        rig: Whose compute.
        verb: `POST` for a create, `DELETE`.
    """
    read_until(lambda: rig.nova("GET", "log"), lambda it: any(one[0] == verb for one in it))


def settled(rig: Rig, volume: str) -> None:
    """Wait until no operation on a volume is open."""

    def look() -> tuple[Operation, ...]:
        with ledger_of(rig).reading() as ledger:
            return ledger.open_operations(volume=volume)

    read_until(look, lambda it: it == ())


def open_operations(rig: Rig) -> tuple[Operation, ...]:
    """What is not settled."""
    with ledger_of(rig).reading() as ledger:
        return ledger.open_operations()


def holds(rig: Rig, volume: str, pattern: int, offset: str, length: str) -> bool:
    """Whether a volume holds a pattern, opened by the ledger's format."""
    with ledger_of(rig).reading() as ledger:
        active = ledger.chain(volume).active
    command = [
        "qemu-io",
        "-r",
        "-U",
        "-f",
        str(active.format),
        "-c",
        f"read -P {pattern} {offset} {length}",
    ]
    done = subprocess.run([*command, rig.share / active.file], capture_output=True, check=False)
    return done.returncode == 0


def check(
    rig: Rig, volume: str, chain: list[str], guest: Guest | None = None, *, nova: bool = True
) -> None:
    """
    Compare everything that is kept of a volume with what its chain is.

    Args:
        rig: Where.
        volume: Its id.
        chain: From the active file down, by the snapshot whose file it is; '' is the first.
        guest: That has it attached.
        nova: Whether Nova has been able to ask Cinder again. (It does so at each start of a guest.)
    """
    name = f"volume-{volume}"
    files = [f"{name}.{one}" if one else name for one in chain]
    settled(rig, volume)
    with ledger_of(rig).reading() as ledger:
        layers = ledger.chain(volume).layers
        assert ledger.differences(volume) == ()
    assert [one.file for one in layers] == files
    assert {one.name for one in rig.share.iterdir() if one.name.startswith(name)} - {
        f"{name}.info"
    } == {*files}
    stated = {one.file: str(one.format) for one in layers}
    assert all(stated[one] == "qcow2" for one in files if one != name)
    for upper, lower in zip(files, [*files[1:], None], strict=True):
        if stated[upper] == "qcow2":
            header = read_header(str(rig.share / upper))
            below = header.backing_file
            assert (None if below is None else Path(below).name) == lower
            assert header.backing_format == (None if lower is None else stated[lower])
    info = rig.info(volume)
    assert (name if info is None else info["active"]) == files[0]
    assert rig.metadata(volume)["format"] == stated[files[0]]
    if guest is not None:
        wanted = (files[0], stated[files[0]])
        assert (guest.connection["name"], guest.connection["format"]) == wanted
        if not nova:
            return
        read_until(
            lambda: guest.nova_connection, lambda it: (it["name"], it.get("format")) == wanted
        )
