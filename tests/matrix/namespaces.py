"""
Mount and process namespaces of our own: whatever ends the run, the kernel clears up after it.

    python -m tests.matrix …            the parent; ends by itself, or is killed
     └ unshare --kill-child             ends with the parent
        └ init (PID 1 in there)         reaps what is orphaned; when it ends, everything in there
           └ python -m tests.matrix …   does, and with the last process all mounts go
              ├ libvirtd, QEMUs
              └ pytest

A libvirtd whose init process does not reap takes 44 s for each start of a guest; many a
container's does not, and this one does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import Final

_INSIDE: Final = "QMPSNAP_MATRIX_INSIDE"
_PR_SET_PDEATHSIG: Final = 1


class NoNamespaces(Exception):
    """The kernel, or the container, does not let this process make them."""


def is_inside() -> bool:
    """Whether this process runs in namespaces made by `enter`."""
    return _INSIDE in os.environ


def enter(arguments: list[str]) -> int:
    """
    Run this program again, inside; return its exit code.

    Raises:
        NoNamespaces: They cannot be made.
    """
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*unshare, "true"], check=False).returncode:
        raise NoNamespaces("it needs root, and in a container the right to mount (privileged)")
    init = [sys.executable, "-m", "tests.matrix.namespaces", *arguments]
    inside = subprocess.Popen(
        [*unshare, *init], env={**os.environ, _INSIDE: "1"}, preexec_fn=_die_with_parent
    )
    while True:
        try:
            return inside.wait()
        except KeyboardInterrupt:
            continue  # those inside got it as well


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _init(arguments: list[str]) -> int:
    """Be PID 1: start the program, reap everything, and end with the program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.matrix", *arguments],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while True:
        pid, status = os.wait()
        if pid == program.pid:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(_init(sys.argv[1:]))
