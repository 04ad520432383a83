"""
Nothing but a door changes a file: seen by Python's audit events while tests run.

The hook cannot be taken out again (PEP 578), so it is put in once and switched on for each test.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import qmpsnap

DOORS: Final = {
    ("guests/files/door.py", "take_file"),
    ("guests/files/locks.py", "_take"),
    ("guests/offline/guest.py", "_hold"),
    ("guests/offline/guest.py", "_release"),
    ("cli/connection.py", "record"),
}
"""Where files of a guest are changed, or opened for writing to have a lock on them, and the QEMU is
run that holds a chain; and where a transcript is written, which somebody has asked for by its name.
Nowhere else."""
_TESTS: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep
_PRODUCT: Final = os.path.dirname(qmpsnap.__file__) + os.sep
_READS: Final = {
    ("qemu-img", "check"),
    ("qemu-img", "info"),
    ("qemu-img", "map"),
    ("qemu-nbd", "-r"),
    ("nbdcopy", "nbd+unix"),
}
"""Programs that only read, by their first argument."""
_LENT: Final = {
    "guests/children.py",
    "guests/files/qemu_img.py",
    "guests/offline/block_layer.py",
}
"""Modules that tests use for images of their own."""
_CHANGES: Final = {
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.mkdir",
    "os.rmdir",
}

_found: list[str] | None = None
_folder = ""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _found is None:
        return
    if event == "open":
        path, _, flags = arguments
        changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        names = [path] if changes else []
    elif event == "subprocess.Popen":
        names = [] if _reads(arguments[1]) else [*arguments[1]]
    else:
        names = [*arguments] if event in _CHANGES else []
    if any(_folder in os.fsdecode(name) for name in names if isinstance(name, (str, bytes))):
        where = _outside_a_door(sys._getframe(1))
        if where is not None:
            _found.append(f"{event} {names} at {where}")


def _reads(command: Any) -> bool:
    words = [os.fsdecode(word) for word in command] if isinstance(command, (list, tuple)) else []
    program = os.path.basename(words[0]) if words else ""
    return any(program == name and words[1].startswith(first) for name, first in _READS)


def _outside_a_door(frame: FrameType | None) -> str | None:
    """The innermost place in the product, where no door leads to it; None for what tests do."""
    innermost = None
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_TESTS) and innermost is None and name != __file__:
            return None
        if name.startswith(_PRODUCT):
            place = name.removeprefix(_PRODUCT)
            if (place, frame.f_code.co_name) in DOORS:
                return None
            if place in _LENT:
                frame = frame.f_back
                continue
            innermost = innermost or f"{place}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return innermost


@contextmanager
def on_guard(folder: str) -> Iterator[None]:
    """Fail when the tool changes a file below `folder` but through a door."""
    global _found, _folder
    if not _is_in.done:
        sys.addaudithook(_hook)
        _is_in.done = True
    _found, _folder = [], folder
    try:
        yield
        assert not _found, _found
    finally:
        _found = None


class _IsIn:
    done = False


_is_in = _IsIn()
