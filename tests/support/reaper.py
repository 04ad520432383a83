"""
Reap the QEMUs of libvirt's driver in this process, where the init process takes its time.

Some containers' init process reaps every two seconds only. Until then libvirt waits for the QEMU
that has ended, and while it waits it handles no event of any other guest: a job of a millisecond
takes a second.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
"""Source: linux/prctl.h."""
_OURS: Final = "qemu-system"
"""What libvirt starts; whoever starts other programs here waits for them too."""


def adopt_qemus() -> None:
    """Become the parent of all QEMUs that lose theirs, and reap them on a thread."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    threading.Thread(target=_reap, name="reaper", daemon=True).start()


def _reap() -> None:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:  # there is no child at all
            ended = None
        if ended is not None and _name(ended.si_pid).startswith(_OURS):
            os.waitpid(ended.si_pid, 0)
        else:
            time.sleep(0.01)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:  # reaped by who started it
        return ""
