"""Findings about operations that a marker beside the files tells of."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from qmpsnap.findings.facts import Seen
from qmpsnap.findings.interrupted import interrupted
from qmpsnap.formats.layers import Disk
from qmpsnap.guests.files.door import take_file
from qmpsnap.journal.markers import steps_for
from qmpsnap.operations.plan_snapshot import plan_creates
from qmpsnap.operations.requests import CreateRequest
from tests.unit import samples
from tests.unit.journal_samples import creating


def seen(folder: Path) -> tuple[Seen, Disk]:
    """A guest with its files in a folder that is there, and one layer that is no file."""
    layers = tuple(replace(one, path=f"{folder}/{one.file}") for one in samples.disk(2).layers)
    for layer in layers:
        Path(str(layer.path)).touch()
    disk = replace(samples.disk(2), layers=layers)
    network = samples.changed_layer(disk, 1, path=None)
    return Seen(guest="web1", report=samples.guest(network)), disk


def test_none(tmp_path: Path) -> None:
    assert interrupted(seen(tmp_path)[0]) == ()


def test_one_that_tells(tmp_path: Path) -> None:
    guest, disk = seen(tmp_path)
    request = CreateRequest(disk="vda", new_file=None, snapshot="new")
    plans = plan_creates(samples.guest(disk), [request])
    for step in steps_for(replace(creating("abc"), creates=plans))[0]:
        take_file(step)
    (found,) = interrupted(guest)
    assert (found.id, found.guest, found.disk) == ("operation-open", "web1", "vda")
    assert found.file == f"{tmp_path}/.qmpsnap-abc"
    assert "operation abc (create) was begun on " in found.message


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    """It may be of these files, so it counts."""
    guest, _ = seen(tmp_path)
    (tmp_path / ".qmpsnap-abc").write_text("{}")
    (found,) = interrupted(guest)
    assert "marks an operation, and cannot be read: " in found.message
