"""A guest of Nova's, as the engine takes it: on Nova's own connection, by Nova's rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nova import exception

from qmpsnap.guests.connect import from_domain
from qmpsnap.monitor.virt import GuestNotFound, LibvirtUnreachable, libvirt_module
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.quiesce import Policy, Quiesce


class Lent:
    """A libvirt connection of Nova's: whoever closes it does not."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        """It is Nova's, and others use it."""


def connection_of(host: Any) -> Lent:
    """
    Nova's connection; a new one when libvirtd was restarted.

    Args:
        host: nova.virt.libvirt.host.Host.

    Raises:
        LibvirtUnreachable: libvirtd does not answer.
    """
    try:
        return Lent(host.get_connection())
    except Exception as error:  # Nova sends a notification of it, which may fail as well
        raise LibvirtUnreachable("libvirt", str(error)) from error


@contextmanager
def opened(host: Any, uuid: str, *, passthrough: bool) -> Iterator[Guest]:
    """
    Open the guest of an instance, running or off, for the length of an operation.

    Args:
        host: nova.virt.libvirt.host.Host.
        uuid: Of the instance.
        passthrough: See `from_domain`.

    Raises:
        LibvirtUnreachable: libvirtd does not answer.
        GuestNotFound: There is no such guest any more.
    """
    connection = connection_of(host)
    try:
        domain = connection.lookupByUUIDString(uuid)
    except libvirt_module().libvirtError as error:
        if error.get_error_code() == libvirt_module().VIR_ERR_NO_DOMAIN:
            raise GuestNotFound(uuid, "Nova's libvirt", ()) from error
        raise LibvirtUnreachable("libvirt", str(error)) from error
    with from_domain(domain, passthrough=passthrough, connect=lambda: connection_of(host)) as guest:
        yield guest


def quiesce_of(driver: Any, instance: Any, limit_s: float) -> Quiesce:
    """
    Whether the guest's filesystems are to be frozen, by Nova's rules.

    Only where the image has `hw_qemu_guest_agent`; and where it has `os_require_quiesce`, there is
    no snapshot without.

    Raises:
        NovaException: It is required, and the image or the hypervisor does not allow it.

    Source: LibvirtDriver._volume_snapshot_create, nova/virt/libvirt/driver.py.
    """
    image = instance.image_meta
    required = driver._requires_quiesce(image)
    try:
        driver._can_quiesce(instance, image)
    except (exception.InstanceQuiesceNotSupported, exception.QemuGuestAgentNotEnabled):
        if required:
            raise
        return Quiesce(policy=Policy.NEVER)
    return Quiesce(policy=Policy.REQUIRE if required else Policy.TRY, limit_s=limit_s)
