"""Who dies, when, and how it comes back: as under a service manager, and an operator of Nova."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import libvirt

from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until

SERVICES: Final = ("cinder", "api", "compute", "libvirtd")


def kill_qemu(guest: Guest) -> None:
    """As the kernel's OOM killer would; returns once libvirt has noticed."""
    name = f"guest=rig-{guest.server[:8]},".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if name in (path / "cmdline").read_bytes():
                os.kill(int(path.name), signal.SIGKILL)
    read_until(guest.domain.isActive, lambda it: not it)


class Death:
    """One death, on a thread of its own; `restarted` has what was killed back up."""

    def __init__(
        self, rig: Rig, victim: str, after_s: float, kill: Callable[[], object] | None
    ) -> None:
        """
        Begin to wait for its moment.

        Args:
            rig: Where.
            victim: A service, or whatever `kill` kills.
            after_s: Seconds from now.
            kill: None: it is a service.
        """
        self._rig, self.victim, self._after_s = rig, victim, after_s
        self._kill = kill
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        time.sleep(self._after_s)
        if self._kill is None:
            self._rig.stop(self.victim, signal.SIGKILL)
        else:
            with suppress(libvirt.libvirtError):
                self._kill()

    def restarted(self) -> None:
        """Wait until it is dead, and start it again where it is a service."""
        self._thread.join()
        if self._kill is None:
            self._rig.start(self.victim)
