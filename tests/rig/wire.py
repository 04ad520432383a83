"""
What QEMU and libvirt were told, below everything that the tool is made of.

QMP is heard in qemu.qmp's client, on the tool's own connections to a guest or to the QEMU that
holds the chain of one that is off; libvirt in its C module, whose functions have the names of
libvirt's API; what goes through passthrough is QMP again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest
from qemu.qmp import QMPClient

from qmpsnap.monitor.abilities import PROBES

Act = tuple[str, str, list[Any]]
"""By whom, what, and with which arguments: values of libvirt's, name and value pairs of QMP's."""

LOOKS: Final = frozenset(
    {
        # QMP
        "query-block",
        "query-block-jobs",
        "query-blockstats",
        "query-jobs",
        "query-migrate",
        "query-name",
        "query-named-block-nodes",
        "query-status",
        "query-version",  # for the streams of QEMU 6 to 9
        "qom-get",
        "qom-list-get",
        "x-debug-query-block-graph",
        # libvirt
        "virConnectClose",
        "virConnectDomainEventDeregisterAny",
        "virConnectDomainEventRegisterAny",
        "virConnectDomainQemuMonitorEventDeregister",
        "virConnectDomainQemuMonitorEventRegister",
        "virConnectGetURI",
        "virConnectIsAlive",
        "virConnectListAllDomains",
        "virConnectOpen",
        "virDomainFree",
        "virDomainGetBlockInfo",
        "virDomainGetBlockJobInfo",
        "virDomainGetID",
        "virDomainGetJobStats",
        "virDomainGetName",
        "virDomainGetState",
        "virDomainGetUUIDString",
        "virDomainGetXMLDesc",
        "virDomainHasManagedSaveImage",
        "virDomainIsActive",
        "virDomainIsPersistent",
        "virDomainListAllCheckpoints",
        "virDomainListAllSnapshots",
        "virDomainLookupByName",
        "virDomainLookupByUUIDString",
        "virDomainSnapshotFree",
        "virEventAddTimeout",
        "virEventRemoveTimeout",
        "virEventRunDefaultImpl",
        "virGetLastError",
        "virResetLastError",
    }
)
"""All that the tool may ask, in any operation and for any plan, but for the probes."""
_HOLDING: Final = ("nbd-server-start", "block-export-add")
"""What locks a chain that was opened for a guest that is off; part of the act `open-chain`."""


class _Libvirt:
    """libvirt's C module, with an ear at each of its functions."""

    def __init__(self, module: Any, heard: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._module, self._heard = module, heard

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if not callable(found) or not name.startswith("vir") or name.endswith("_pointer"):
            return found  # `virConnect_pointer` is the binding's own

        def call(*arguments: Any) -> Any:
            self._heard(name, arguments)
            return found(*arguments)

        return call


@contextmanager
def overheard() -> Iterator[list[Act]]:
    """Hear every act in this process, in order; looks are not acts."""
    acts: list[Act] = []

    def qmp(command: str, arguments: Mapping[str, Any] | None) -> None:
        is_probe = (command, dict(arguments or {})) in PROBES.values()
        if command not in LOOKS and command not in _HOLDING and not is_probe:
            acts.append(("qmp", command, [*(arguments or {}).items()]))

    execute = QMPClient.execute

    async def spoken(
        self: QMPClient, cmd: str, arguments: Mapping[str, Any] | None = None, oob: bool = False
    ) -> object:
        qmp(cmd, arguments)
        return await execute(self, cmd, arguments, oob)

    def called(function: str, arguments: tuple[Any, ...]) -> None:
        if function == "virDomainQemuMonitorCommand":
            request = json.loads(arguments[1])
            qmp(request["execute"], request.get("arguments"))
        elif function not in LOOKS:
            acts.append(("libvirt", function, list(arguments[1:])))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QMPClient, "execute", spoken)
        try:
            import libvirt
            import libvirt_qemu
        except ImportError:
            pass
        else:
            patch.setattr(libvirt, "libvirtmod", _Libvirt(libvirt.libvirtmod, called))
            patch.setattr(
                libvirt_qemu, "libvirtmod_qemu", _Libvirt(libvirt_qemu.libvirtmod_qemu, called)
            )
        yield acts


def planned(steps: list[dict[str, Any]]) -> list[Act]:
    """The acts of a plan's JSON that QEMU and libvirt would hear."""
    return [
        (
            step["by"],
            step["what"],
            [*step["arguments"].items()] if step["by"] == "qmp" else [*step["arguments"].values()],
        )
        for step in steps
        if step["by"] in ("qmp", "libvirt")
    ]
