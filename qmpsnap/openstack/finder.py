"""
Where Nova finds a driver that is not Nova's: `compute_driver = qmpsnap.LibvirtDriver`.

Nova loads `nova.virt.` and what is configured, and nothing else (load_compute_driver(),
nova/virt/driver.py). `qmpsnap-nova.pth`, in site-packages, calls `install` at every start of
Python, so this module imports nothing but what Python has loaded by then.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

_NAME = "nova.virt.qmpsnap"
_HOME = "qmpsnap.openstack.nova"


class _Finder:
    """Finds one module, under a second name."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec of its own: the real module's would be filed under the real name."""
        return ModuleSpec(name, self) if name == _NAME else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> object:
        """The real module: one module, two names."""
        from importlib import import_module

        return import_module(_HOME)

    def exec_module(self, module: object) -> None:
        """It is executed already."""


def install() -> None:
    """Let Python ask this finder last."""
    if not any(isinstance(one, _Finder) for one in sys.meta_path):
        sys.meta_path.append(_Finder())
