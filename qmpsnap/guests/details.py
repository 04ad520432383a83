"""What does not change while a guest runs and has a device: asked once, in one hop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from qmpsnap.graph.nodes import Device, Graph
from qmpsnap.graph.qmp import serials_from
from qmpsnap.monitor.abilities import Abilities, Ability
from qmpsnap.monitor.base import CommandFailed, Monitor, Query

_ASKED_FOR: Final = "/machine/peripheral"
"""Where QEMU puts the devices of `-device`, and not those that a board has by itself."""


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What stays as it is while a guest runs and has the device."""

    name: str | None
    """Given by `-name`; None without one."""
    serials: Mapping[str, str]
    """Serial number by device name, of the devices that have one: where Nova puts the volume id."""
    types: Mapping[str, str]
    """QOM type by device name (`floppy`, `scsi-cd`, …), of the devices that are no plain disks:
    those with a removable medium, and those that the board has by itself (flash memory)."""


class DetailsReader:
    """Asks through one monitor, and remembers."""

    def __init__(self, monitor: Monitor, abilities: Abilities) -> None:
        """Ask nothing yet."""
        self._monitor = monitor
        self._abilities = abilities
        self._has_name = False
        self._name: str | None = None
        self._properties: dict[tuple[str, str], str] = {}

    def read(self, graph: Graph) -> Details:
        """
        Ask for what is not known yet of a guest and its devices.

        Serial numbers of several devices take one query where QEMU has `qom-list-get` (10.1).

        Source: qom-list-get and qom-get, qapi/qom.json; property `serial` of the block devices.

        Raises:
            MalformedReply: A reply is not as QAPI defines it.
        """
        paths = {device.name: _qom_path(device.qdev) for device in graph.devices if device.qdev}
        odd = {device.name for device in graph.devices if device.qdev and not _plain(device)}
        wanted = [(path, "serial") for path in paths.values()]
        wanted += [(paths[name], "type") for name in paths if name in odd]
        self._properties = {key: value for key, value in self._properties.items() if key in wanted}
        self._ask_all_serials([key for key in wanted if key not in self._properties])
        self._ask([key for key in wanted if key not in self._properties])
        serials = {name: self._properties[path, "serial"] for name, path in paths.items()}
        types = {name: self._properties[paths[name], "type"] for name in paths if name in odd}
        return Details(
            name=self._name,
            serials={name: serial for name, serial in serials.items() if serial},
            types={name: type_ for name, type_ in types.items() if type_},
        )

    def _ask_all_serials(self, new: Sequence[tuple[str, str]]) -> None:
        paths = [path for path, name in new if name == "serial"]
        if len(paths) < 2 or self._abilities.knows(Ability.MANY_PROPERTIES) is False:
            return
        replies = self._monitor.execute_all([("qom-list-get", {"paths": paths})])
        self._abilities.learn([Ability.MANY_PROPERTIES], replies)
        if isinstance(replies[0], CommandFailed):
            return  # a QEMU that lacks it, or a device that was unplugged just now
        for path, serial in zip(paths, serials_from(replies[0], len(paths)), strict=True):
            self._properties[path, "serial"] = serial

    def _ask(self, new: Sequence[tuple[str, str]]) -> None:
        """One hop for the guest's name, the first time, and single properties."""
        queries: list[Query] = [("qom-get", {"path": path, "property": name}) for path, name in new]
        if not self._has_name:
            queries.insert(0, ("query-name", {}))
        replies = self._monitor.execute_all(queries) if queries else []
        if not self._has_name:
            reply = replies.pop(0)
            name = reply.get("name") if isinstance(reply, dict) else None
            self._name = name if isinstance(name, str) else None
            self._has_name = True
        for key, value in zip(new, replies, strict=True):
            # Not every device has this property.
            self._properties[key] = value if isinstance(value, str) else ""


def _plain(device: Device) -> bool:
    """Whether it is a disk by all that is seen: it was asked for, and its medium stays."""
    path = device.qdev or ""
    return not device.removable and (not path.startswith("/") or path.startswith(_ASKED_FOR))


def _qom_path(qdev: str) -> str:
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"
