"""What is compared once everything is settled, and what is waited for until then."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import libvirt_qemu

from qmpsnap.guests.files.bytes import has_lock
from qmpsnap.journal.file import Journal
from qmpsnap.ledger.machine import Control, State
from qmpsnap.ledger.values import Place
from tests.openstack.rig.rig import Rig
from tests.openstack.seen import ledger_of
from tests.openstack.story.volume import BEFORE_S, Volume
from tests.rig.waiting import HANG_S

QUIET: Final = 3
"""Looks in a row that find nobody at work: between two of its steps the manager holds no lock."""
ENDED = ("available", "error", "error_deleting")


def rows_of(volume: Volume) -> dict[str, str]:
    """Status by snapshot, as Cinder has it."""
    query = "select id, status from snapshots where volume_id = ? and not deleted"
    return dict(volume.rig.rows(query, volume.id))


def settle(rig: Rig, volumes: list[Volume]) -> None:
    """
    Wait until nobody is at work on anything.

    Raises:
        TimeoutError: Something never ends; with what.
    """
    end, quiet = time.monotonic() + HANG_S, 0
    while quiet < QUIET:
        left = [
            *_unsettled(rig),
            *_locked(rig),
            *(one for each in volumes for one in _open_on(each)),
        ]
        if time.monotonic() > end:
            # What is left last: of a message as long as this, a log keeps the end.
            raise TimeoutError(f"{rig.tell_threads()}\n{'; '.join(left)}")
        quiet = 0 if left else quiet + 1
        time.sleep(BEFORE_S)


def reset_lost(volumes: list[Volume]) -> int:
    """
    What an operator does about requests that died with Cinder's bus; returns how many there were.

    `fake:/` ends with the process. What is in it has reached nobody, the row says `creating` or
    `deleting` for ever, as with an unmodified Cinder, and the ledger knows of nothing that began. A
    volume is `extending` for ever.
    """
    count = 0
    for volume in volumes:
        ((status,),) = volume.rig.rows("select status from volumes where id = ?", volume.id)
        if status == "extending":
            volume.reset_volume()
            count += 1
        for snapshot, status in rows_of(volume).items():
            with ledger_of(volume.rig).reading() as ledger:
                standing = ledger.snapshot(snapshot)
            state = None if standing is None else standing.state
            begun = {"creating": (None,), "deleting": (None, State.AVAILABLE, State.ERROR)}
            if state in begun.get(status, ()):
                volume.set_state(snapshot, "error")
                count += 1
    return count


def _unsettled(rig: Rig) -> list[str]:
    store = Journal(rig.folder / "state/qmpsnap-state").looked_into()
    if store is None:
        return []
    with store:
        entries = [f"compute: {one.record.id} is open" for one in store.open_entries()]
        letters = [f"compute: letter {one.number} is {one.state}" for one in store.letters.find()]
    return entries + letters


def _locked(rig: Rig) -> list[str]:
    """
    What Cinder's manager is at work on, by its locks.

    It hears of an answer up to five seconds after the API has stored it, and writes the status once
    more then: over what somebody has asked for in between (400, or `deleting` that never ends).
    """
    files = (rig.folder / "locks").glob("cinder-*")
    return [f"cinder: {one.name} is held" for one in files if has_lock(str(one), 0, 0)]


def _open_on(volume: Volume) -> list[str]:
    rows = rows_of(volume)
    left = [f"{one} is {status}" for one, status in rows.items() if status not in ENDED]
    ((status,),) = volume.rig.rows("select status from volumes where id = ?", volume.id)
    if status not in ("available", "in-use", "error_extending"):
        left.append(f"volume {volume.id} is {status}")
    with ledger_of(volume.rig).reading() as ledger:
        left += [
            f"{one.kind} {one.token} is open" for one in ledger.open_operations(volume=volume.id)
        ]
        files = ledger.files(volume.id)
    left += [f"{one.file} has left, and is there" for one in files if one.place is Place.LEFT]
    return left


def compare(volume: Volume) -> None:
    """Everything that is kept of a volume, with what it has to be."""
    rows = rows_of(volume)
    volume.take_in(rows)
    model, rig = volume.model, volume.rig
    problem = model.unexpected(rows)
    assert not problem, (volume.id, problem)
    stated = [(one, model.format(one)) for one in model.layers]
    _owned(volume, rows)
    with ledger_of(rig).reading() as ledger:
        layers = ledger.chain(volume.id).layers
        assert ledger.differences(volume.id) == ()
    assert [(one.file, str(one.format)) for one in layers] == stated
    info = rig.info(volume.id)
    assert info == model.info or (info is None and model.info == {"active": model.base})
    assert rig.metadata(volume.id)["format"] == stated[0][1]
    _headers(rig, stated)
    if volume.guest is not None:
        told = volume.guest.connection
        assert (told["name"], told["format"]) == stated[0]
        nova = volume.guest.nova_connection
        assert (nova["name"], nova.get("format")) == stated[0]
        if volume.guest.domain.isActive():
            volume.guest.io("flush")
            _graph(volume, stated)
    active = rig.share / stated[0][0]
    volume.content.settle(active, stated[0][1])
    assert volume.content.differs_from(active, stated[0][1]) == ""
    volume.try_again(rows)


def _owned(volume: Volume, rows: dict[str, str]) -> None:
    """Each snapshot's state is that of its row, the volume service has it, and says why it is so."""
    with ledger_of(volume.rig).reading() as ledger:
        for snapshot, status in rows.items():
            standing = ledger.snapshot(snapshot)
            if standing is None:  # asked for, and never begun
                assert status == "error", (snapshot, status)
                continue
            assert standing.state.control is Control.VOLUME, standing
            if snapshot not in volume.reset:  # the operator's word stands in the row alone
                assert standing.state.status == status, (standing, status)
                assert status == "available" or standing.why, (snapshot, standing)


def _headers(rig: Rig, stated: list[tuple[str, str]]) -> None:
    """As qemu-img reads each file, by the format that it has."""
    for (file, format_), below in zip(stated, [*stated[1:], None], strict=True):
        command = [
            "qemu-img",
            "info",
            "-U",
            "-f",
            format_,
            "--output",
            "json",
            str(rig.share / file),
        ]
        found = json.loads(subprocess.check_output(command))
        named = found.get("backing-filename")
        header = (named and Path(named).name, found.get("backing-filename-format"))
        assert header == (below or (None, None)), (file, header)


def _graph(volume: Volume, stated: list[tuple[str, str]]) -> None:
    """As QEMU has the chain open, and that no job is at work on it."""
    assert volume.guest is not None
    asked = [_qmp(volume, one) for one in ("query-named-block-nodes", "query-block")]
    nodes = {one["node-name"]: one for one in asked[0]}
    (top,) = [one["inserted"]["node-name"] for one in asked[1] if "inserted" in one]
    found, image = [], nodes[top]["image"]
    while image is not None:
        # A file that is on top of an option of its own is told as `json:{…}`; a raw one that libvirt
        # gives no other node (11.3) has the driver of its protocol.
        format_ = "raw" if image["format"] == "file" else image["format"]
        found.append((re.findall(r"[^/\"]+", image["filename"].rstrip('"}'))[-1], format_))
        image = image.get("backing-image")
    assert found == stated, found
    assert _qmp(volume, "query-block-jobs") == []
    opened = {Path(one["file"]).name for one in nodes.values() if one["drv"] == "file"}
    expected = {file for file, _ in stated}
    failed = {f"{volume.model.base}.{one}" for one in volume.left_open}
    assert expected <= opened <= expected | failed, (opened, failed)


def _qmp(volume: Volume, command: str) -> Any:
    assert volume.guest is not None
    text = json.dumps({"execute": command})
    return json.loads(libvirt_qemu.qemuMonitorCommand(volume.guest.domain, text, 0))["return"]


def stray(rig: Rig, volumes: list[Volume]) -> set[str]:
    """What lies on the share that nobody holds: files, markers, temporary ones."""
    held = {name for one in volumes for name in (*one.model.layers, f"{one.model.base}.info")}
    return {one.name for one in rig.share.iterdir()} - held
