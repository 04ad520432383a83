"""What the journal says of files that operations have left, and of those that they have touched."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.guests.files.bytes import keep_from_qemu
from qmpsnap.journal.file import Journal
from qmpsnap.journal.identities import seen
from qmpsnap.journal.left_over import left_by, left_over_among, touched_among
from qmpsnap.journal.record import Conclusion, Seen
from tests.unit.journal_samples import creating, merging


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "volume-1.s1"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return Journal(folder)


def ends(journal: Journal, *conclusions: dict[str, Any]) -> None:
    """Operations one after the other, and what they came to."""
    with journal.opened() as store:
        for number, one in enumerate(conclusions):
            record = replace(creating(f"op{number}"), begun=float(number))
            store.begin(record, [])
            end = Conclusion(**{"outcome": "finished", "ended": number + 0.5, **one})
            store.conclude(record, end)


def looked_at(file: Path) -> Seen:
    found = seen(str(file))
    assert found is not None
    return found


def is_left(journal: Journal, file: Path) -> bool:
    with journal.opened() as store:
        return left_over_among(store, [str(file)]) == (str(file),)


def write(file: Path) -> None:
    """Write to it, at another time than before."""
    file.write_bytes(b"y")
    os.utime(file, ns=(0, (looked_at(file).written or 0) + 1_000_000))


def test_left_until_somebody_writes_to_it(journal: Journal, file: Path) -> None:
    ends(journal, {"left": (looked_at(file),)})
    assert is_left(journal, file)
    write(file)
    assert not is_left(journal, file)


def test_the_clock_of_this_host_was_ahead(journal: Journal, file: Path) -> None:
    """By it, the operation has ended tomorrow."""
    ends(journal, {"left": (looked_at(file),), "ended": time.time() + 86400})
    write(file)
    assert not is_left(journal, file)


def test_of_an_earlier_version(journal: Journal, file: Path) -> None:
    """It did not write down when the file was written, and the end is by this host's clock."""
    ends(journal, {"left": (replace(looked_at(file), written=None),), "ended": time.time() + 1})
    assert not is_left(journal, file)


@pytest.mark.parametrize(
    "then", [{"active": "volume-1.s1"}, {"active": "volume-1.s2", "after": ["volume-1.s1"]}]
)
def test_taken_up_by_a_later_operation(journal: Journal, file: Path, then: dict[str, Any]) -> None:
    active = file.with_name(then["active"])
    later: dict[str, Any] = {
        "active": (str(active),),
        "after": dict.fromkeys(then.get("after", []), "qcow2"),
    }
    other = {"active": (str(file.parent / "state" / file.name),), "after": {file.name: "qcow2"}}
    ends(journal, {"left": (looked_at(file),)}, other)
    assert is_left(journal, file), "the chain of another folder"
    with journal.opened() as store:
        record = replace(creating("last"), begun=9.0)
        store.begin(record, [])
        store.conclude(record, Conclusion(outcome="finished", ended=10.0, **later))
    assert not is_left(journal, file)


def test_taken_up_by_a_chain_of_another_folder(journal: Journal, file: Path) -> None:
    later = {"active": ("/elsewhere/clone",), "elsewhere": (str(file),)}
    ends(journal, {"left": (looked_at(file),)}, later)
    assert not is_left(journal, file)


def test_taken_up_by_an_operation_that_is_open(journal: Journal, file: Path) -> None:
    ends(journal, {"left": (looked_at(file),)})
    record = merging("last")
    assert record.merge is not None
    layers = (replace(record.merge.disk.layers[0], path=str(file)),)
    plan = replace(record.merge, disk=replace(record.merge.disk, layers=layers))
    with journal.opened() as store:
        store.begin(replace(record, begun=9.0, merge=plan), [])
    assert not is_left(journal, file)


def test_not_while_a_guest_has_it_open(journal: Journal, file: Path) -> None:
    """Then it was not left over when its merge was done, and is not now."""
    dropped = merging("a")
    assert dropped.merge is not None
    plan = replace(dropped.merge, dropped=(replace(dropped.merge.dropped[0], path=str(file)),))
    record = replace(dropped, merge=plan)
    ends(journal, {"left": left_by(record, "finished")})
    assert is_left(journal, file)
    with file.open("rb") as held:
        keep_from_qemu(held.fileno())
        assert not is_left(journal, file)
        assert left_by(record, "finished") == ()


def test_left_again(journal: Journal, file: Path) -> None:
    left = {"left": (looked_at(file),)}
    ends(journal, left, {"active": (str(file),)}, left)
    assert is_left(journal, file)


def test_touched_until_somebody_writes_to_it(journal: Journal, file: Path) -> None:
    ends(journal, {"touched": (looked_at(file),)})
    with journal.opened() as store:
        assert touched_among(store, [str(file), str(file.parent / "none")]) == (str(file),)
    write(file)
    with journal.opened() as store:
        assert touched_among(store, [str(file)]) == ()
