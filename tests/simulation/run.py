"""One run: a guest, some operations on it, and what happens to them; then all is settled."""

from __future__ import annotations

import random
from typing import Any

from qmpsnap.errors import QmpsnapError
from qmpsnap.journal import keep
from qmpsnap.journal.file import Journal
from qmpsnap.operations.requests import DeleteRequest
from tests.rig.doors import Killed
from tests.simulation.block_layer import BlockLayer
from tests.simulation.fate import Call, Doomed, Fate
from tests.simulation.guest import (
    OffGuest,
    SimulatedGuest,
    define,
    defined,
)
from tests.simulation.host import Asked, a_host, conclusions, request, revert_request
from tests.simulation.settling import Settling, seen
from tests.simulation.values import CLUSTERS, UNFINISHED


def one(number: int, calls: list[Call], later: list[Fate]) -> None:
    """One run: a guest, some operations on it, and what happens to them."""
    with a_host(random.Random(number)) as (model, journal):
        for position, call in enumerate(calls):
            if call.back:
                went_back(model, journal, position, call, list(later))
            elif went_on(model, journal, position, call, list(later)).is_ruined:
                return
            for disk in model.chains:
                for cluster in range(CLUSTERS):
                    assert model.read(disk, cluster) == model.possible.get((disk, cluster), [0])[-1]
            for path, content in model.kept.items():
                assert model.on_disk(path) == content, f"{path}, which was kept, has changed"
            assert not list(model.folder.glob(".*"))
            assert set(conclusions.values()) <= {1}
            assert not [one for one in model.jobs.values() if one.status in UNFINISHED]


def went_on(
    model: BlockLayer, journal: Journal, position: int, call: Call, later: list[Fate]
) -> Settling:
    """An operation on the guest, which runs."""
    asked, settling = request(model, position), Settling(model, journal, model.active, later)
    operated(model, journal, asked, Doomed(SimulatedGuest(model), call.fate, call.rival))
    settling.settle_all(call)
    if call.then == "no journal":  # what no marker tells of is found by the same request
        operated(model, journal, asked, Doomed(SimulatedGuest(model)))
        settling.settle_all(Call())
    return settling


def went_back(
    model: BlockLayer, journal: Journal, position: int, call: Call, later: list[Fate]
) -> None:
    """The guest is shut down, disks go back to snapshots, all of them or none, and it starts."""
    asked, before = revert_request(model, position), model.active
    model.flush()
    model.crash()
    define(model, before)
    used = [path for active in before.values() for path in model.by_headers(active)]
    contents = {path: model.on_disk(path) for path in used}
    settling = Settling(model, journal, before, later)
    if asked:
        operated(model, journal, asked, Doomed(OffGuest(model), call.fate))
        settling.settle_all(call)
    active, model.definition = defined(model), ""
    changed = [disk for disk, path in active.items() if path != before[disk]]
    wanted = [one.disk for one in asked] if isinstance(asked, tuple) else []
    assert changed in ([], wanted), changed
    assert [path for path in contents if model.on_disk(path) != contents[path]] == []
    for disk in changed:
        seen["went back"] += 1
        if call.then != "no journal":
            model.kept[before[disk]] = contents[before[disk]]
        below = model.by_headers(active[disk])[1]
        for cluster in range(CLUSTERS):
            model.possible[disk, cluster] = [contents[below].get(cluster, 0)]
    settling.start(active)


def operated(model: BlockLayer, journal: Journal, asked: Asked, guest: Doomed) -> None:
    """Do it, whatever comes of it."""
    host: Any = guest
    try:
        if isinstance(asked, DeleteRequest):
            keep.deleted(journal, host, asked, remove=model.chance.random() < 0.5)
        else:
            keep.created(journal, host, asked)
    except Killed:
        seen["killed"] += 1
    except QmpsnapError as error:
        seen[type(error).__name__] += 1
    else:
        seen["done"] += 1
