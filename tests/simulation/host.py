"""A simulated host: a guest with some disks, a journal, and what can be asked for."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from qmpsnap.formats.qcow2 import Header
from qmpsnap.guests.files import door
from qmpsnap.journal import identities, named, named_again, outlook, resume, since
from qmpsnap.journal.file import Journal
from qmpsnap.journal.record import Record, Seen
from qmpsnap.journal.store import Store
from qmpsnap.operations.names import snapshots
from qmpsnap.operations.requests import CreateRequest, DeleteRequest
from qmpsnap.operations.step import Step
from tests.simulation.block_layer import BlockLayer
from tests.simulation.guest import (
    disks_of,
    take_file,
)
from tests.simulation.values import CLUSTERS
from tests.unit import samples

DISKS: Final = ("vda", "vdb", "vdc")
conclusions: Counter[str] = Counter()
"""Of each operation of this run."""
Asked = tuple[CreateRequest, ...] | DeleteRequest


@contextmanager
def a_host(chance: random.Random) -> Iterator[tuple[BlockLayer, Journal]]:
    """A guest with some disks, and its journal, in memory."""
    where = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = Path(tempfile.mkdtemp(prefix="simulated-", dir=where))
    try:
        (folder / "share").mkdir()
        (folder / "state").mkdir(mode=0o700)
        model = BlockLayer(folder / "share", chance)
        model.start({disk: a_chain(model, disk) for disk in DISKS[: chance.choice([1, 1, 2, 3])]})
        model.flush()
        with pytest.MonkeyPatch.context() as patch:
            on_the_model(patch, model)
            yield model, Journal(folder / "state")
    finally:
        shutil.rmtree(folder)


def base_of(disk: str) -> str:
    """The lowest file of a disk."""
    return f"volume-{DISKS.index(disk)}"


def a_chain(model: BlockLayer, disk: str) -> str:
    """Make the files of a disk; the active one."""
    chance = model.chance
    path = str(model.folder / base_of(disk))
    model.make(path, chance.choice(["raw", "qcow2"]), None)
    files = [path]
    for number in range(chance.randrange(5)):
        above = f"{model.folder / base_of(disk)}.old{number}"
        model.make(above, "qcow2", os.path.basename(files[-1]))
        files.append(above)
    for one in files:
        for _ in range(chance.randrange(CLUSTERS)):
            model.files[one].memory[chance.randrange(CLUSTERS)] = chance.randrange(1, 1 << 30)
        model.files[one].flush()
    return files[-1]


def on_the_model(patch: pytest.MonkeyPatch, model: BlockLayer) -> None:
    """Have `resume` look at the model's files."""

    def read_header(path: str, *, follow: bool = True) -> Header:
        file = model.files.get(path)
        if file is None:
            raise FileNotFoundError(path)
        return Header(version=3, virtual_size=samples.MIB, backing_file=file.header)

    def is_empty(path: str) -> bool:
        return not model.files[path].disk

    def other_users(paths: list[str], _active: str | None) -> tuple[dict[str, Any], tuple[str]]:
        return {path: ("QEMU",) for path in paths if path in model.nodes.values()}, ("",)

    def modified(path: str) -> int | None:
        return model.files[path].written if path in model.files else None

    def seen_all(paths: Iterable[tuple[str, bool]]) -> tuple[Seen, ...]:
        return tuple(replace(one, written=modified(one.path)) for one in identities.seen_all(paths))

    real = door.take_file

    def take(step: Step) -> object:
        return real(step) if step.what.endswith("-marker") else take_file(model, step)

    patch.setattr("qmpsnap.journal.folder.file_system", lambda _path: "tmpfs")
    patch.setattr(outlook, "read_header", read_header)
    patch.setattr(named, "read_header", read_header)
    patch.setattr(named_again, "read_header", read_header)
    patch.setattr("qmpsnap.guests.files.overlay.read_header", read_header)
    patch.setattr("qmpsnap.journal.since.qemu_img.is_empty", is_empty)
    patch.setattr(outlook, "other_users", other_users)
    patch.setattr(since, "modified", modified)
    patch.setattr("qmpsnap.journal.door.modified", modified)
    patch.setattr("qmpsnap.journal.door.seen_all", seen_all)
    patch.setattr(resume, "take_file", take)
    conclude = Store.conclude

    def concluded(store: Store, record: Record, *rest: Any, **more: Any) -> bool:
        is_first = conclude(store, record, *rest, **more)
        conclusions[record.id] += is_first
        return is_first

    conclusions.clear()
    patch.setattr(Store, "conclude", concluded)


def request(model: BlockLayer, number: int) -> Asked:
    """Something to do that the chains allow; more snapshots than merges while they are short."""
    chance = model.chance
    disk = chance.choice(list(model.chains))
    files = [os.path.basename(model.nodes[node]) for node in model.chains[disk]]
    if len(files) < 2 or (len(files) < 5 and chance.random() < 0.45):
        others = [one for one in model.chains if one != disk and chance.random() < 0.7]
        return tuple(
            CreateRequest(disk=one, new_file=f"{base_of(one)}.s{number}", snapshot=f"s{number}")
            for one in (disk, *others)
        )
    if chance.random() < 0.4:
        base = chance.choice([None, *files[2:]])
        return DeleteRequest(disk=disk, file_to_merge=base, merge_target_file=None)
    top = chance.randrange(len(files) - 1)
    target = chance.randrange(top + 1, len(files))
    return DeleteRequest(disk=disk, file_to_merge=files[top], merge_target_file=files[target])


def revert_request(model: BlockLayer, number: int) -> Asked:
    """Some disks go back to any of their snapshots; empty: no disk has one."""
    asked: list[CreateRequest] = []
    for disk in disks_of(model).disks:
        names = [one.name for one in snapshots(disk)]
        if names and (not asked or model.chance.random() < 0.7):
            asked.append(
                CreateRequest(
                    disk=disk.disk,
                    new_file=f"{base_of(disk.disk)}.r{number}",
                    snapshot=f"r{number}",
                    over=model.chance.choice(names),
                )
            )
    return tuple(asked)
