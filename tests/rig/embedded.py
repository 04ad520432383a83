"""
libvirt's driver in this process: one folder for all tests, and its QEMUs reaped at once.

A process can have one such folder only, and a new one costs a probe of QEMU of 4 s.

Some containers' init process reaps every two seconds only. Until then libvirt waits for the QEMU
that has ended, and while it waits it handles no event of any other guest: a job of a millisecond
takes a second.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
"""Source: linux/prctl.h."""
_QEMU: Final = "qemu-system"


@cache
def embed_root() -> Path:
    """Return the folder of the driver in this process; it goes with the process."""
    _adopt_qemus()
    root = Path(tempfile.mkdtemp(prefix="qs-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _adopt_qemus() -> None:
    """Become the parent of all QEMUs that lose theirs, and reap them on a thread."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    threading.Thread(target=_reap, name="reaper", daemon=True).start()


def _reap() -> None:
    # Not waitid(P_ALL): it tells of one child that has ended, and of that one again and again for as
    # long as nobody waits for it.
    while True:
        for pid in _children():
            if _is_adopted(pid):
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def _children() -> Iterator[int]:
    """Children of all threads; source: proc(5), /proc/PID/task/TID/children."""
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            yield from map(int, file.read_text().split())


def _is_adopted(pid: int) -> bool:
    """
    Whether it is a QEMU that nobody waits for.

    libvirt makes those daemons, in a session of their own; `qemu-system-x86_64 -help` and whatever
    else it waits for itself stays in ours.
    """
    try:
        name = Path(f"/proc/{pid}/comm").read_text()
        return name.startswith(_QEMU) and os.getsid(pid) != os.getsid(0)
    except OSError:  # reaped by who started it
        return False
