"""
Somebody's program that uses the library on a libvirt connection of its own.

    python -m tests.support.program EVENTS URI GUEST

Takes snapshots of the guest's disk and deletes them again, each way there is; prints the chain
after each step as a JSON list, and how many threads of ours pump libvirt's events.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Final

import libvirt

from qmpsnap.guests.connect import connect, from_domain
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import CreateRequest, NamedDeleteRequest
from qmpsnap.operations.snapshot import create
from tests.support.rig import DISK


def _pump() -> None:
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, daemon=True).start()


def _libvirtaio() -> None:
    import libvirtaio

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    async def register() -> None:
        libvirtaio.virEventRegisterAsyncIOImpl()

    asyncio.run_coroutine_threadsafe(register(), loop).result()


def _nothing() -> None:
    pass


LOOPS: Final[dict[str, tuple[Callable[[], None], Callable[[], None]]]] = {
    "none": (_nothing, _nothing),
    "pumped": (_pump, _nothing),
    "late": (_nothing, _pump),
    "not-run": (libvirt.virEventRegisterDefaultImpl, _nothing),
    "libvirtaio": (_libvirtaio, _nothing),
}
"""What the program does about libvirt's events before it opens its connection, and after."""
OURS: Final = ("connected", "connected-without-events")
"""Programs that leave the connection to the library."""


def main(events: str, uri: str, name: str) -> None:
    """Run the program."""
    if events in OURS:
        with connect(uri, guest=name, events=events == OURS[0]) as guest:
            print(json.dumps(_use(guest)))
        return
    before, after = LOOPS[events]
    before()
    with closing(libvirt.open(uri)) as connection:
        after()
        with from_domain(connection.lookupByName(name)) as guest:
            told = _use(guest)
        assert connection.lookupByName(name).isActive(), "the connection is still the program's"
        print(json.dumps(told))


def _use(guest: object) -> list[object]:
    assert isinstance(guest, LibvirtGuest)
    told: list[object] = []
    for snapshot in ("a", "b", "c"):
        create(guest, CreateRequest(disk=DISK, new_file=None, snapshot=snapshot))
    for snapshot, method in (("a", "commit"), ("c", "commit"), ("b", "pull")):
        request = NamedDeleteRequest(disk=DISK, snapshot=snapshot, method=method)  # type: ignore[arg-type]
        told.append(delete(guest, request).disk.chain_text)
    pumps = [thread for thread in threading.enumerate() if thread.name == "qmpsnap-libvirt"]
    return [*told, len(pumps)]


if __name__ == "__main__":
    main(*sys.argv[1:])
