"""
A helper process that thaws the guest when its maker cannot.

The agent has no time limit of its own: what is frozen stays frozen until somebody thaws it. A
`finally` does not run when the process is killed, and does not run in time when it hangs. So before
a freeze this process is started, and told when all is well. If instead its maker's end of the pipe
closes, or the time is over, it thaws the guest, for ten minutes if need be.

    python -m qmpsnap.guests.agent.thawer SECONDS fd NUMBER | domain URI UUID
"""

from __future__ import annotations

import os
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from qmpsnap.errors import QmpsnapError, Unreachable
from qmpsnap.guests.agent.agent import Agent, AgentSocket, AgentUnreachable, DomainAgent
from qmpsnap.monitor.virt import find_domain, open_connection

READY: Final = b"ready\n"
DONE: Final = b"done\n"
START_TIMEOUT_S: Final = 20.0
END_TIMEOUT_S: Final = 5.0
GIVE_UP_S: Final = 600.0
TRY_S: Final = 10.0
PAUSE_S: Final = 0.2


class NoThawer(Unreachable):
    """The helper that would thaw the guest could not be started, so it was not frozen."""

    msg = "the helper process that thaws the guest in an emergency did not start: {self.reason}"
    remedy = "See what `{self.command}` says, and mend that. Or do without: `--quiesce try`."

    reason: str

    @property
    def command(self) -> str:
        """What starts it: where it can be started it tells its arguments."""
        return shlex.join(_command())


def _command(*arguments: str) -> list[str]:
    # -P: nothing from the current folder.
    return [sys.executable, "-P", "-m", __name__, *arguments]


class Thawer:
    """The helper, as its maker sees it."""

    _left: Final[list[subprocess.Popen[bytes]]] = []
    """Those that were left to go on alone."""

    def __init__(self, seconds: float, *road: str, keep: Sequence[int] = ()) -> None:
        """
        Start it, and wait until it could thaw.

        Args:
            seconds: The guest is thawed when this time is over, whatever happens.
            road: How it reaches the agent; see the module.
            keep: Descriptors that it shares.

        Raises:
            NoThawer: It did not start.
        """
        self._left[:] = [one for one in self._left if one.poll() is None]
        # Its own session: the terminal's Ctrl-C is not for it.
        self._process = subprocess.Popen(
            _command(str(seconds), *road),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=keep,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        try:
            with self._process.stdout as answers:
                readable, _, _ = select.select([answers], [], [], START_TIMEOUT_S)
                said = answers.readline() if readable else b""
        except BaseException:  # Ctrl-C
            self._process.kill()
            self._end()
            raise
        if said != READY:
            self._process.kill()
            self._end()
            raise NoThawer("it ended at once" if readable else "it took too long")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def release(self) -> None:
        """The guest is thawed: the helper ends."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its time was over, and it has thawed
            self._process.stdin.write(DONE)
            self._process.stdin.flush()
        self._end()

    def leave(self) -> None:
        """Whether the guest is thawed is not known: let the helper go on alone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._left.append(self._process)

    def _end(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._left.append(self._process)  # it is thawing


def watch(seconds: float, pipe: int, agent: Agent) -> bool:
    """Wait for the word that all is well; without it, thaw. Returns whether it is thawed."""
    readable, _, _ = select.select([pipe], [], [], seconds)
    if readable and os.read(pipe, len(DONE)) == DONE:
        return True
    until = time.monotonic() + GIVE_UP_S
    while time.monotonic() < until:
        try:
            agent.thaw(TRY_S)
            agent.check(TRY_S)
        except AgentUnreachable:
            return False  # the guest is gone, and its freeze with it
        except QmpsnapError:
            time.sleep(PAUSE_S)
        else:
            return True
    return False


def main(arguments: Sequence[str]) -> int:
    """Run the helper; returns its exit code."""
    match arguments:
        case [seconds, "fd", number]:
            agent: Agent = AgentSocket(socket.socket(fileno=int(number)))
        case [seconds, "domain", uri, uuid]:
            agent = DomainAgent(find_domain(open_connection(uri, pump_events=False), uuid))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    print(READY.decode(), end="", flush=True)
    return 0 if watch(float(seconds), sys.stdin.fileno(), agent) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
