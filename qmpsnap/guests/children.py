"""Programs that this process runs for itself: they end when it does, and take no signal of its terminal."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


def start(command: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
    """
    Start a program that ends with this process, however that ends.

    Ctrl-C of a terminal goes to a whole process group. The program is in one of its own, so this
    process alone hears it, and decides what becomes of the program.

    Args:
        command: The program and its arguments.
        more: As `subprocess.Popen` takes it.

    Raises:
        OSError: It cannot be run.
    """
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def end_with_parent() -> None:
        """Source: prctl(2), PR_SET_PDEATHSIG; kept over execve()."""
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it had ended before
            os._exit(1)

    return subprocess.Popen(command, process_group=0, preexec_fn=end_with_parent, **more)
