"""What `doctor` says of the journal and of libvirt's hook."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.cli.protection import Protection, protections
from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Addressee, Content, Due, State
from tests.unit.journal_samples import act, creating


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(state))
    return Journal()


def of_journal() -> Protection:
    return next(protections(libvirt=False))


def of_outbox() -> Protection:
    _, one = protections(libvirt=False)
    return one


def test_no_journal_yet(journal: Journal) -> None:
    assert (of_journal().state, of_journal().found) == ("ok", f"{journal.path}: none yet")
    assert not journal.path.exists()


def test_nothing_is_open(journal: Journal) -> None:
    journal.opened().close()
    assert (of_journal().state, of_journal().found) == ("ok", f"{journal.path}: nothing is open")


def test_open(journal: Journal) -> None:
    with journal.opened() as store:
        store.begin(creating("abc"), [act()])
    assert (of_journal().state, "open: abc" in of_journal().found) == ("note", True)


def test_damaged(journal: Journal) -> None:
    journal.path.write_bytes(b"x" * 100)
    assert of_journal().state == "problem"
    assert "is damaged" in of_journal().found


def test_every_update_is_delivered(journal: Journal) -> None:
    journal.opened().close()
    assert of_outbox() == Protection("outbox", "ok", "every update has been delivered")


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (("due",), ("note", "1 due")),
        (("waiting", "waiting", "accepted"), ("note", "2 waiting, 1 accepted")),
        (("dead", "waiting", "closed", "dropped"), ("problem", "1 waiting, 1 dead")),
    ],
)
def test_updates_that_are_not_delivered(
    journal: Journal, states: tuple[State, ...], said: tuple[str, str]
) -> None:
    with journal.opened() as store:
        for number, state in enumerate(states):
            due = Due(kind="create", addressee=Addressee(snapshot="s", volume="v"), since=1.0)
            store.letters.expect(str(number), due)
            store.letters.answer(str(number), Content(outcome="done"), 2.0)
            if state == "due":
                with store.writing() as database:
                    database.execute("UPDATE letter SET state = 'due', content = NULL")
            elif state != "waiting":
                store.letters.note(str(number), state, answer="so", now=3.0)
    assert (of_outbox().state, of_outbox().found) == said


def test_of_another_journal(tmp_path: Path) -> None:
    other = Journal(tmp_path / "other")
    (one,) = protections(libvirt=False, journal=other)
    assert one.found == f"{other.path}: none yet"
    assert [*protections(libvirt=False, journal=None)] == []


@pytest.mark.parametrize("place", ["qemu", "qemu.d/50-qmpsnap", "qemu.d/other"])
def test_hook(tmp_path: Path, place: str) -> None:
    hook = tmp_path / "hooks" / place
    hook.parent.mkdir(parents=True)
    hook.write_text('#!/bin/sh\nexec qmpsnap-libvirt-hook "$@"\n')
    _, found = protections(libvirt=True, hooks=tmp_path / "hooks")
    assert found.state == "note"  # libvirt runs no file that may not be executed
    hook.chmod(0o755)
    _, found = protections(libvirt=True, hooks=tmp_path / "hooks")
    assert (found.state, found.found) == ("ok", str(hook))


def test_hook_by_a_link(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "qmpsnap-libvirt-hook"
    program.parent.mkdir()
    program.write_text("#!/usr/bin/python3\n")
    program.chmod(0o755)
    (tmp_path / "qemu.d").mkdir()
    (tmp_path / "qemu.d" / "x").symlink_to(program)
    _, found = protections(libvirt=True, hooks=tmp_path)
    assert found.state == "ok"


def test_somebody_elses_hook(tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("#!/bin/sh\n")
    (tmp_path / "qemu").chmod(0o755)
    _, found = protections(libvirt=True, hooks=tmp_path)
    assert found.state == "note"
    assert "qmpsnap-libvirt-hook" in found.remedy
