"""
The door to libvirt's API: calls its functions, and says in the project's words what they answer.

Source: libvirt-domain.h; virErrorNumber, virterror.h.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qmpsnap.errors import QmpsnapError
from qmpsnap.monitor.base import CommandFailed, LostInMidCommand
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.step import Does, NotNow, Step

_MONITOR_BROKEN: Final = (
    "End of file from qemu monitor",
    "Unable to read from monitor",
    "Unable to write to monitor",
)
"""How libvirt words it (qemu_monitor.c) when QEMU ended in the middle of a command."""


def call(domain: Any, name: str, function: Callable[[], Any]) -> Any:
    """
    Call libvirt.

    Args:
        domain: The `virDomain` that it is about.
        name: Of the function, as in libvirt's API.
        function: Calls it.

    Raises:
        CommandFailed: libvirt answered with an error.
        LostInMidCommand: The connection to libvirt, or the guest, went away in mid-call.
    """
    try:
        return function()
    except libvirt_module().libvirtError as error:
        raise _translated(domain, name, error) from error


def take(domain: Any, step: Step) -> object:
    """
    Carry out one act on a guest.

    Raises:
        NotNow: The job is not ready after all, was just cancelled, or is being ended.
        CommandFailed, LostInMidCommand: See `call`.
    """
    libvirt = libvirt_module()
    method = _method(domain, step.what)
    try:
        return method(*step.arguments.values())
    except libvirt.libvirtError as error:
        if step.does in (Does.COMMIT, Does.CANCEL) and _is_too_late(domain, step, error):
            raise NotNow(step.what, str(error)) from error
        raise _translated(domain, step.what, error) from error


def _method(domain: Any, function: str) -> Callable[..., object]:
    """`virDomainBlockCommit` is `domain.blockCommit` in libvirt-python."""
    if function == "virDomainDefineXML":
        define: Callable[..., object] = domain.connect().defineXML
        return define
    name = function.removeprefix("virDomain")
    method: Callable[..., object] = getattr(domain, name[0].lower() + name[1:])
    return method


def _is_too_late(domain: Any, step: Step, error: Any) -> bool:
    libvirt = libvirt_module()
    codes = {libvirt.VIR_ERR_OPERATION_INVALID}
    if step.does is Does.COMMIT:
        codes.add(libvirt.VIR_ERR_BLOCK_COPY_ACTIVE)
    if error.get_error_code() in codes:
        return True
    try:
        return not domain.blockJobInfo(step.arguments["disk"], 0)
    except libvirt.libvirtError:
        return False


def _translated(domain: Any, name: str, error: Any) -> QmpsnapError:
    libvirt = libvirt_module()
    gone = {
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_INTERNAL_ERROR,
    }
    # For a moment after QEMU's end libvirt still calls the guest active.
    broken = any(words in str(error) for words in _MONITOR_BROKEN)
    if error.get_error_code() in gone and (broken or not _alive(domain)):
        return LostInMidCommand(name, str(error))
    return CommandFailed(name, "", str(error), by="libvirt")


def _alive(domain: Any) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt_module().libvirtError:
        return False
