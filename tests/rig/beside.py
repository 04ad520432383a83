"""What is made and run beside a QEMU: programs, NBD servers, loop devices."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.rig import quick_keys
from tests.rig.waiting import HANG_S, until


class NotHere(Exception):
    """A program, device or driver that is needed is missing."""


class Refusal(Exception):
    """A program ended with an error; with what it printed."""


def run(*words: str) -> str:
    """Run a program to its end; returns what it printed."""
    if shutil.which(words[0]) is None:
        raise NotHere(f"{words[0]} is not installed")
    # It may be LUKS that is made.
    environment = quick_keys.environment() if words[:2] == ("qemu-img", "create") else None
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
    )
    if done.returncode != 0:
        raise Refusal(f"{' '.join(words)}: {done.stderr}")
    return done.stdout


@contextmanager
def nbd_server(socket: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a qemu-nbd; it ends by itself when its one client goes, unless `-t` is given."""
    if shutil.which("qemu-nbd") is None:
        raise NotHere("qemu-nbd is not installed")
    with TemporaryDirectory() as folder:
        ready = Path(
            folder, "pid"
        )  # written when it has opened the file; its socket is there before
        words = ["qemu-nbd", "-k", str(socket), f"--pid-file={ready}", *arguments]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as server:
            try:
                until(lambda: ready.exists() or server.poll() is not None)
                assert server.poll() is None, "qemu-nbd ended"
                yield server
            finally:
                server.kill()


@contextmanager
def loop_device(file: Path) -> Iterator[str]:
    """Give a file as a block device."""
    try:
        device = run("losetup", "--find", "--show", str(file)).strip()
    except Refusal as error:
        raise NotHere(f"no loop device can be had: {error}") from error
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextmanager
def device_or_skip(file: Path) -> Iterator[str]:
    """The same for a test, which is skipped with the reason where no loop device can be had."""
    with ExitStack() as stack:
        try:
            device = stack.enter_context(loop_device(file))
        except NotHere as error:
            pytest.skip(str(error))
        yield device
