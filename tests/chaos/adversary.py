"""
The other process of an attack: it moves, links, opens and locks files, as it is told.

    adversary ◄── ["move", "/share/a", "/safe/a"]
    adversary ──► null, or what the system said

Run by its file name, with the standard library alone. Acts that come together in `beside` are done
at its own pace, while whoever told it goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_open: list[int] = []
_locks: list[int] = []
_beside: list[threading.Thread] = []


def fill(path: str, size: int, seed: int) -> None:
    """Make a file of random bytes."""
    with open(path, "wb") as file:
        file.write(random.Random(seed).randbytes(size))


def keep_open(path: str) -> None:
    """Have a file open for reading, as a backup program has."""
    _open.append(os.open(path, os.O_RDONLY))


def lock(path: str, start: int, length: int) -> None:
    """Take an OFD lock for writing on some bytes; length 0: to the end of all files."""
    descriptor = os.open(path, os.O_RDWR)
    _locks.append(descriptor)
    wanted = struct.pack("hhqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)


def let_go(what: str) -> None:
    """Close what is `open`, or what is `locked`."""
    descriptors = _open if what == "open" else _locks
    while descriptors:
        os.close(descriptors.pop())


def beside(acts: list[list[Any]]) -> None:
    """Do acts one after the other, each after its pause in seconds, on a thread."""

    def run() -> None:
        for pause, *act in acts:
            time.sleep(pause)
            try:
                do(act)
            except OSError as error:
                print(f"{act}: {error}", file=sys.stderr)

    _beside.append(threading.Thread(target=run))
    _beside[-1].start()


def join() -> None:
    """Wait until all that was begun beside is done."""
    while _beside:
        _beside.pop().join()


ACTS: dict[str, Callable[..., object]] = {
    "move": os.rename,
    "copy": shutil.copyfile,
    "link": os.link,
    "symlink": os.symlink,
    "unlink": os.unlink,
    "fill": fill,
    "open": keep_open,
    "lock": lock,
    "let go": let_go,
    "beside": beside,
    "join": join,
}


def do(act: list[Any]) -> None:
    """Do one act: its word, and its arguments."""
    word, *arguments = act
    ACTS[word](*arguments)


def main() -> None:
    """Do what is told on standard input, one line each, and answer each line."""
    for line in sys.stdin:
        problem = None
        try:
            do(json.loads(line))
        except OSError as error:
            problem = str(error)
        print(json.dumps(problem), flush=True)


if __name__ == "__main__":
    main()
