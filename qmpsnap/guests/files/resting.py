"""
Images beside a chain that rest on its files by their headers alone.

Such an image may be the clone of a guest that is off and known to nobody here, or what somebody's
`revert` has kept. What merges leave rests on a file of the chain as well; but a merge writes to that
file afterwards. So an image that was last written before its backing file was is taken for left
over. That is likely, and not certain: a file's time moves also where nothing changes that is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.birth import born
from qmpsnap.guests.files.census import folders_of, images_in
from qmpsnap.guests.files.identity import identity

MANY: Final = 1000
"""Files of a folder, above which their headers are not read: a tenth of a millisecond each, and
more on a share."""
_NOT_LOOKED_AT: Final = "whether one rests on the chain by its header was not looked at"


class Resting(msgspec.Struct, frozen=True):
    """Images that would see it if something was written below the active layer."""

    younger: Mapping[str, tuple[str, ...]]
    """Those that may be younger than the layer that they name, by its path."""
    older: Mapping[str, tuple[str, ...]]
    """Those that were last written before that layer was, by its path."""
    notes: tuple[str, ...] = ()
    """What was not looked at."""


def resting_on(disk: Disk) -> Resting:
    """Find the images in the folders of a chain that rest on a layer below the active one."""
    below = [layer.path for layer in disk.layers[1:] if layer.path is not None]
    paths = [path for path in disk.paths if path is not None]
    own = {identity(path) for path in paths}
    younger: dict[str, tuple[str, ...]] = {}
    older: dict[str, tuple[str, ...]] = {}
    notes = [
        f"{path} has a name in another folder as well (a hard link): {_NOT_LOOKED_AT} there"
        for path in below
        if _is_named_elsewhere(path)
    ]
    for folder, names in folders_of(paths if below else ()).items():
        try:
            if len(os.listdir(folder)) > MANY:
                notes.append(f"more than {MANY} files lie in {folder}: {_NOT_LOOKED_AT}")
                continue
        except PermissionError:
            notes.append(f"{folder} may not be listed: {_NOT_LOOKED_AT}")
            continue
        except OSError:
            continue
        naming, closed = images_in(folder, names, below)
        if closed:
            notes.append(
                f"{len(closed)} of the files in {folder} may not be read, {closed[0]} for one: "
                f"{_NOT_LOOKED_AT}"
            )
        for path, images in naming.items():
            for image in images:
                if identity(image) not in own:
                    found = younger if _may_be_younger(image, path) else older
                    found[path] = (*found.get(path, ()), image)
    return Resting(younger, older, tuple(notes))


def _is_named_elsewhere(path: str) -> bool:
    """Whether a file has more names than lie in the folders where it is known to have one."""
    try:
        status = os.stat(path)
        if status.st_nlink == 1:
            return False
        here = 0
        for folder in folders_of([path]):
            with os.scandir(folder) as entries:
                # The number of a file is that of its file system; the folder may be on another one.
                near = [entry.path for entry in entries if entry.inode() == status.st_ino]
            here += sum(os.path.samestat(os.lstat(one), status) for one in near)
    except OSError:
        return False  # gone; or a folder that may not be listed, which is said anyway
    return here < status.st_nlink


def _may_be_younger(image: str, path: str) -> bool:
    """
    Whether an image may have been made, or written, after a file was last written.

    Made alone does not tell: QEMU writes to a qcow2 base when it switches to an overlay, which was
    made before. In doubt it may: of equal times, and of a time that is still to come.
    """
    try:
        written = os.stat(path).st_mtime_ns
        made = max(born(image) or 0, os.stat(image).st_mtime_ns)
    except OSError:
        return True
    return made >= written or written > time.time_ns()
