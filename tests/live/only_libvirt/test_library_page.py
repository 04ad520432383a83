"""The examples of docs/howto/use-as-a-library.md that go through libvirt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.rig import images, libvirt_machine
from tests.rig.lending import lent
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.page import examples, run
from tests.rig.processes import process_of
from tests.rig.rig import SIZE


def test_examples(connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "library1"
    disks = []
    for target, serial in (("vda", "1234"), ("vdb", "5678")):
        path = tmp_path / f"volume-{serial}"
        images.create_raw(path, SIZE)
        disks.append(LibvirtDisk(path, "raw", target, serial))
    monkeypatch.setattr(
        "qmpsnap.guests.connect.open_connection", lambda *_, **_more: lent(connection)
    )
    monkeypatch.setattr(libvirt, "open", lambda _uri: Only(connection, name))
    with libvirt_machine.run(connection, disks, name, directory=tmp_path, find=process_of):
        words = {"web1": name, "/share/": f"{tmp_path}/"}
        told, printed = run(examples(lambda code: "connect_qmp" not in code), words)
        assert printed == told
        assert len(told) == 4


class Only:
    """A connection that knows one guest, whatever other tests have left."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection, self._name = connection, name

    def listAllDomains(self) -> list[Any]:
        return [self._connection.lookupByName(self._name)]
