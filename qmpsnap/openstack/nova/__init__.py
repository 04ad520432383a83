"""
The compute side for an unmodified Nova 34: `compute_driver = qmpsnap.LibvirtDriver`.

    driver      Nova's libvirt driver, with volume snapshots of our own
    calls       what is known of one call, for the functions whose arguments Nova has fixed
    engine      a guest of Nova's, as the engine takes it
    options     the section [qmpsnap] of nova.conf
    helper      what this service may not do itself, done by another process
    privileged  that process: what it can be asked for
    confined    where it may look and change
    reports     what is told to Cinder
    missed      what is told to it at the start: calls that have died
    parts       that, in requests that it takes
    doctor      what `qmpsnap doctor --nova` looks at

Names are loaded when they are used: Nova is not everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmpsnap.openstack.nova.driver import LibvirtDriver

__all__ = ["LibvirtDriver"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "LibvirtDriver":
            from qmpsnap.openstack.nova.driver import LibvirtDriver

            return LibvirtDriver
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
