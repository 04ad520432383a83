"""
A process that has imported what a service needs, and forks for each start of it.

To import Nova or Cinder takes two seconds of a processor, and a test that kills a service starts it
again. Nothing is configured, connected or started before the fork.

    python -m tests.openstack.rig.warm IMPORTS SERVICE WORD…

Both are modules. For each line of its input the service is started with the words, and its process
id is the answer. What is printed goes where its own errors go.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class Starter:
    """Such a process, from outside."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        """Start it; what the service prints is appended to the log."""
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )

    def start(self) -> int:
        """Start the service; returns its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main(imports: str, service: str, *words: str) -> None:
    """See above."""
    importlib.import_module(imports)
    assert threading.active_count() == 1, threading.enumerate()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever has ended is buried by the kernel
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _be(service, words)
        print(pid, flush=True)


def _be(service: str, words: Sequence[str]) -> None:
    """Go on as if the service had been executed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    os.close(nothing)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.argv = [service, *words]
    runpy.run_module(service, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main(*sys.argv[1:])
