"""
Where Nova finds a driver that is not Nova's: `compute_driver = qmpsnap.LibvirtDriver`.

Nova loads `nova.virt.` and what is configured, and nothing else (load_compute_driver(),
nova/virt/driver.py). `qmpsnap-nova.pth`, in site-packages, is carried out at every start of Python.
So it imports nothing of this package: it puts a finder of one line in, and that asks here when
Nova's name is wanted.
"""

from __future__ import annotations

from importlib import import_module
from importlib.machinery import ModuleSpec


class _Loader:
    """Loads the driver's module under its second name."""

    def create_module(self, spec: ModuleSpec) -> object:
        """The real module: one module, two names."""
        return import_module("qmpsnap.openstack.nova")

    def exec_module(self, module: object) -> None:
        """It is executed already."""


def spec(name: str) -> ModuleSpec:
    """A spec of its own: the real module's would be filed under the real name."""
    return ModuleSpec(name, _Loader())  # type: ignore[arg-type]
