"""SIGINT, SIGTERM and SIGHUP at calls of an operation; off guests: `only_libvirt/test_offline`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from qmpsnap.operations.step import Does
from tests.rig.doors import at, patch
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, Rig, Said
from tests.rig.roads import MakeRig, Road
from tests.rig.signals import (
    CALLS,
    Signalled,
    calls,
    check,
    guest_class,
    handlers,
    signal_at_calls,
    told,
)
from tests.rig.situations import situation

Guests = Callable[[str], AbstractContextManager[Signalled]]
CREATE: Final = {"type": "qcow2", "new_file": f"{BASE}.new", "snapshot_id": "new"}
DELETES: Final = {
    "commit": (f"{BASE}.s1", BASE, [f"{BASE}.s2", BASE]),
    "active commit": (f"{BASE}.s2", f"{BASE}.s1", [f"{BASE}.s1", BASE]),
    "pull": (None, None, [f"{BASE}.s2"]),
}


def signalled(rig: Rig, road: Road, operation: str, *options: str) -> Signalled:
    def cli() -> Said:
        if operation == "create":
            return rig.cli("volume-snapshot-create", SERIAL, json.dumps(CREATE), *options)
        top, base, _ = DELETES[operation]
        return rig.delete(top, base, *options)

    def jobs() -> int:
        with rig.host() as host:
            return len(host.jobs())

    done = [f"{BASE}.new", f"{BASE}.s2", f"{BASE}.s1", BASE]
    return Signalled(
        kind=guest_class(road),
        cli=cli,
        files=rig.files,
        done=done if operation == "create" else DELETES[operation][2],
        jobs=jobs,
        content=lambda: rig.guest.read_sha256(DISK),
        ends_by_itself=road == "libvirt",
    )


@pytest.fixture
def guests(road: Road, make_rig: MakeRig, tmp_path: Path) -> Guests:
    """Makes a new guest for each signal, in an empty folder, for an operation."""

    @contextmanager
    def made(operation: str) -> Iterator[Signalled]:
        for path in (tmp_path / "share").glob("*"):
            path.unlink()
        with make_rig("raw") as rig:
            rig.grow(3)
            yield signalled(rig, road, operation)

    return made


@pytest.mark.parametrize("operation", ["create", *DELETES])
def test_after_acts(
    road: Road, guests: Guests, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    found = signal_at_calls(
        f"{operation} on {road}, after acts",
        monkeypatch,
        lambda: guests(operation),
        lambda patched, kind, act: patch(patched, kind, after=lambda _step: act()),
    )
    print(f"{operation}: {found}")
    assert "done" in found or road == "libvirt"


@pytest.mark.parametrize("operation", ["create", "commit"])
def test_at_calls(
    road: Road, guests: Guests, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    found = signal_at_calls(
        f"{operation} on {road}, at calls",
        monkeypatch,
        lambda: guests(operation),
        lambda patched, kind, act: calls(patched, kind, act, CALLS),
    )
    print(f"{operation}: {found}")
    assert {"failed", "done"} <= set(found)


@remedy("Interrupted")
@situation(
    "Ctrl-C, SIGTERM or SIGHUP while a block job copies",
    happens="the command ends with one status line, `deleting` `0%`; the job goes on in the guest",
    code=6,
    then="Give the same command again: it takes the job up and finishes it.",
    kind=11,
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_it_copies(
    road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """It goes on; the same command takes it up."""
    with make_rig("raw") as rig:
        rig.grow(3)
        guest = signalled(rig, road, "commit", "--bandwidth", "1")
        before, content = guest.files(), guest.content()
        with handlers(monkeypatch), monkeypatch.context() as patched:
            calls(patched, guest.kind, lambda: signal.raise_signal(number), ("wait",))
            said = guest.cli()
        assert check(guest, said, before, content) == "runs"
        assert (guest.files(), guest.jobs()) == (before, 1)
        said = rig.delete(*DELETES["commit"][:2], "--bandwidth", "1G")
        assert (said.code, guest.files(), guest.content()) == (0, guest.done, content)


@pytest.mark.parametrize("operation", ["create", "commit"])
def test_when_all_is_done(
    road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Between the last call and the line nothing is lost, and after the line nothing is added."""
    with make_rig("raw") as rig:
        rig.grow(3)
        guest = signalled(rig, road, operation)
        before, content = guest.files(), guest.content()
        with handlers(monkeypatch), monkeypatch.context() as patched:
            for name in ("qmpsnap.status.success", "qmpsnap.cli.volume._print"):
                patched.setattr(name, raising(name))
            said = guest.cli()
        assert check(guest, said, before, content) == "done"


def raising(name: str) -> object:
    """A function around which signals come."""
    module, _, attribute = name.rpartition(".")
    original = getattr(__import__(module, fromlist=[attribute]), attribute)

    def function(*arguments: object, **named: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        try:
            return original(*arguments, **named)
        finally:
            signal.raise_signal(signal.SIGHUP)

    return function


def test_again_and_again(road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, whatever it says, and it is not an error: the snapshot may be there."""
    with make_rig("raw") as rig:
        rig.grow(3)
        guest = signalled(rig, road, "create")
        with handlers(monkeypatch), monkeypatch.context() as patched:
            again = at(
                Does.SWITCH,
                lambda _step: calls(
                    patched, guest.kind, lambda: signal.raise_signal(signal.SIGINT), CALLS[:-1]
                ),
            )
            patch(patched, guest.kind, after=again)
            said = guest.cli()
        assert (said.code, told(said.status["status"])) == (6, "runs"), said
        assert guest.files() == guest.done
