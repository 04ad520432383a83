"""
A guest with a QEMU of its own: starts in 35 ms, needs no rights and no daemon.

QEMU gets two monitors, because one serves one client at a time: `qmp_path` is for the tool that is
shown or tested, and made by QEMU, which the tool then finds at its other end. The other one is this
module's: its socket is made and listened on here and handed over, so that who connects waits for
QEMU's greeting instead of finding no socket. By then the other one is there as well.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from qmpsnap.monitor.base import CommandTimedOut, ConnectionLost, LostInMidCommand
from qmpsnap.monitor.socket import SocketMonitor
from tests.rig.disks import DiskSpec
from tests.rig.machine import Machine
from tests.rig.waiting import HANG_S

_MACHINE: Final = (
    *("-M", "pc", "-accel", "tcg", "-m", "32"),
    *("-S", "-nodefaults", "-no-user-config", "-display", "none"),
)


class QemuMachine(Machine):
    """One QEMU process; made by `run()`."""

    def __init__(
        self,
        *,
        process: subprocess.Popen[bytes],
        monitor: SocketMonitor,
        qmp_path: str,
        disks: Sequence[DiskSpec],
        output: Path,
        scratch: Path,
        directory: Path,
    ) -> None:
        super().__init__(
            qdevs={disk.id: disk.qdev for disk in disks},
            output=output,
            scratch=scratch,
            directory=directory,
        )
        self._process = process
        self._monitor = monitor
        self.qmp_path = qmp_path
        """QMP socket for one client: the tool that is shown or tested."""
        self.disks = tuple(disks)

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """See `Machine.running`."""
        return self._process.poll() is None

    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """See `Machine.qmp`; uses this module's own monitor."""
        return self._monitor.execute(command, arguments)

    def quit(self) -> None:
        """End QEMU in an orderly way: caches are written, files closed. Again: nothing."""
        if self.running:
            with suppress(CommandTimedOut, subprocess.TimeoutExpired):
                # The end of QEMU may be faster than its reply.
                with suppress(ConnectionLost, LostInMidCommand):
                    self._monitor.execute("quit", timeout=HANG_S)
                self._process.wait(HANG_S)
        self.kill()

    def kill(self) -> None:
        """End QEMU by SIGKILL and wait for its end; what it held in memory is lost."""
        self._process.kill()
        self._process.wait()
        self._monitor.close()


@contextmanager
def run(
    disks: Sequence[DiskSpec],
    *,
    directory: str | os.PathLike[str],
    machine_args: Sequence[str] = (),
) -> Iterator[QemuMachine]:
    """
    Run a paused guest for as long as the context is open.

    QEMU also ends when the thread that opened the context ends, however it ends: the kernel sees
    to that.

    Args:
        disks: Its disks; ids and node names must differ.
        directory: Where QEMU's output is kept (`qemu-….log`), and copies of disks are made.
        machine_args: More arguments for QEMU.
    """
    binary = os.environ.get("QMPSNAP_QEMU") or "qemu-system-x86_64"
    folder = Path(directory)
    with ExitStack() as stack:
        # The path of a UNIX socket has at most 107 bytes, and a test's own folder may have more.
        scratch = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="qmpsnap-", dir="/tmp"))
        )
        descriptor, name = tempfile.mkstemp(prefix="qemu-", suffix=".log", dir=folder)
        os.close(descriptor)
        output = Path(name)
        qmp_path, own_path = str(scratch / "qmp.sock"), str(scratch / "own.sock")
        words = ["-qmp", f"unix:{qmp_path},server=on,wait=off", *machine_args]
        process = _spawn(binary, disks, words, own_path, output)
        try:
            monitor = SocketMonitor.connect(own_path, timeout=HANG_S)
        except BaseException as error:
            process.kill()
            process.wait()
            error.add_note(output.read_text(errors="replace"))
            raise
        guest = QemuMachine(
            process=process,
            monitor=monitor,
            qmp_path=qmp_path,
            disks=disks,
            output=output,
            scratch=scratch,
            directory=folder,
        )
        stack.callback(guest.quit)
        yield guest


def _spawn(
    binary: str,
    disks: Sequence[DiskSpec],
    machine_args: Sequence[str],
    own_path: str,
    output: Path,
) -> subprocess.Popen[bytes]:
    arguments = [*_MACHINE]
    if any(disk.bus == "scsi" for disk in disks):
        arguments += ["-device", "virtio-scsi-pci"]
    for disk in disks:
        arguments += disk.arguments()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(own_path)
        listener.listen()
        arguments += [
            *("-chardev", f"socket,id=own,fd={listener.fileno()},server=on,wait=off"),
            *("-mon", "chardev=own,mode=control"),
        ]
        log = stack.enter_context(output.open("ab"))
        # setpriv: as a `preexec_fn` the same would run Python between fork and exec, which is
        # not safe in a process with threads.
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", binary, *arguments, *machine_args],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # the terminal's Ctrl-C is for the tool, not for the guest
        )
