"""
Plans without the numbers of file systems, which change with boot, host and mount.

What is kept of a file is in `Record.files` (`identities`). When an operation is gone on with, each
layer of its plan gets what its name leads to now, if that is the same file as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec.structs import replace

from qmpsnap.formats.layers import Disks, Identity, Layer
from qmpsnap.guests.files.identity import identity
from qmpsnap.journal.identities import is_same, seen
from qmpsnap.journal.record import Record
from qmpsnap.operations.step import Step

T = TypeVar("T")
_ANOTHER: Final[Identity] = ("file", -1, -1)
"""What no file is: nothing is removed in the place of a file that is not the same any more."""
_NUMBERED: Final = "identity"
"""The argument of acts on files that has the number of a file system."""


def unnumbered(plan: T) -> T:
    """A plan whose layers are told by their names alone."""
    return _changed(plan, lambda layer: replace(layer, identity=None))


def unnumbered_step(step: Step) -> Step:
    """The same of an act."""
    if _NUMBERED not in step.arguments:
        return step
    arguments = {name: value for name, value in step.arguments.items() if name != _NUMBERED}
    return replace(step, arguments=arguments)


def known_again(record: Record) -> Record:
    """
    An operation whose plan has what the names of its files lead to now.

    A file that was not looked at before is told by its name alone.
    """
    before = {one.path: one for one in record.files}

    def now(layer: Layer) -> Layer:
        was = None if layer.path is None else before.get(layer.path)
        if layer.path is None or was is None:
            return replace(layer, identity=None)
        is_ = seen(layer.path)
        if is_ is None:
            return replace(layer, identity=None)
        found = identity(layer.path) if is_same(was, is_) else _ANOTHER
        return replace(layer, identity=found)

    return replace(record, creates=_changed(record.creates, now), merge=_changed(record.merge, now))


def in_its_names(record: Record, disks: Disks) -> Disks:
    """
    The disks of a guest, whose files are called as an operation calls them; the same: they are.

    Somebody may have started it by a link to the folder, or by another mount of it.
    """
    names = {key: path for path in sorted(record.paths) if (key := identity(path)) is not None}

    def known(layer: Layer) -> Layer:
        if layer.path is None or layer.path in record.paths:
            return layer
        key = identity(layer.path)
        return layer if key is None else replace(layer, path=names.get(key, layer.path))

    found = tuple(replace(disk, layers=tuple(map(known, disk.layers))) for disk in disks.disks)
    is_same = all(a.paths == b.paths for a, b in zip(found, disks.disks, strict=True))
    return disks if is_same else replace(disks, disks=found)


def _changed(value: T, change: Callable[[Layer], Layer]) -> T:
    """A value in which every layer is changed, wherever it is."""
    if isinstance(value, Layer):
        return cast(T, change(value))
    if isinstance(value, tuple):
        items = tuple(_changed(one, change) for one in cast("tuple[Any, ...]", value))
        return cast(T, items)
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
        parts = {name: _changed(getattr(value, name), change) for name in names}
        return cast(T, replace(value, **parts))
    return value
