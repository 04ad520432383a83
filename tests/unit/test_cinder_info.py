"""`.info`: what it becomes, and that it is never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.ledger.values import Kind, Operation
from qmpsnap.openstack.cinder import info


def operation(kind: Kind, snapshot: str, file: str | None, onto: str | None) -> Operation:
    return Operation(
        volume="1",
        snapshot=snapshot,
        kind=kind,
        file=file,
        onto=onto,
        host="h@b",
        token="t",
        begun=datetime(2026, 11, 26, tzinfo=UTC),
    )


TWO = {"active": "v.b", "a": "v.a", "b": "v.b"}


@pytest.mark.parametrize(
    ("before", "done", "expected"),
    [
        ({}, operation(Kind.CREATE, "a", "v.a", "v"), {"active": "v.a", "a": "v.a"}),
        ({"active": "v.a", "a": "v.a"}, operation(Kind.CREATE, "b", "v.b", "v.a"), TWO),
        (TWO, operation(Kind.COMMIT, "a", "v.a", "v"), {"active": "v.b", "b": "v.b"}),
        (TWO, operation(Kind.COMMIT, "b", "v.b", "v.a"), {"active": "v.a", "a": "v.a"}),
        (TWO, operation(Kind.PULL, "b", "v.a", "v.b"), {"active": "v.b", "a": "v.b"}),
        ({"active": "v.b", "a": "v.b"}, operation(Kind.PULL, "a", "v", "v.b"), {"active": "v.b"}),
        (TWO, operation(Kind.NOTHING, "c", None, None), TWO),
    ],
)
def test_what_an_operation_makes_of_it(
    before: Mapping[str, str], done: Operation, expected: Mapping[str, str]
) -> None:
    after = info.after(before, done)
    assert after == expected
    assert info.after(after, done) == after


def run(*command: str, run_as_root: bool) -> None:
    raise AssertionError(f"{command} is not needed where the process may write by itself")


def test_it_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "volume-1.info"
    path.write_text("before")

    class Killed(BaseException):
        """As kill -9 would hit it."""

    synced: list[int] = []

    def die(source: str, target: str) -> None:
        assert json.loads(Path(source).read_text()) == TWO
        assert synced
        raise Killed

    real = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(Killed):
        info.write(str(path), TWO, run=run, as_root=True, permissions="ugo+rw")
    assert path.read_text() == "before"
    monkeypatch.undo()
    info.write(str(path), TWO, run=run, as_root=True, permissions="ugo+rw")
    assert json.loads(path.read_text()) == TWO
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o666


def test_it_has_the_mode_of_a_secure_share(tmp_path: Path) -> None:
    path = tmp_path / "volume-1.info"
    info.write(str(path), TWO, run=run, as_root=False, permissions="660")
    assert path.stat().st_mode & 0o777 == 0o660


def test_where_it_may_not_write_it_asks_for_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "volume-1.info"
    ran: list[tuple[str, ...]] = []
    real = os.open

    def as_others(name: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_EXCL:
            raise PermissionError
        return real(name, flags, mode, **more)

    def as_root(*command: str, run_as_root: bool) -> None:
        assert run_as_root
        ran.append(command)
        if command[0] == "truncate":
            Path(command[-1]).touch()
        if command[0] == "mv":
            os.rename(command[-2], command[-1])

    monkeypatch.setattr(os, "open", as_others)
    info.write(str(path), TWO, run=as_root, as_root=True, permissions="ugo+rw")
    assert [one[0] for one in ran] == ["truncate", "chmod", "mv"]
    assert json.loads(path.read_text()) == TWO


@given(st.text(alphabet="ab.-", min_size=1), st.text(alphabet="ab.-", min_size=1))
def test_a_second_time_changes_nothing(snapshot: str, file: str) -> None:
    done = operation(Kind.COMMIT, snapshot, file, "v")
    once = info.after(TWO, done)
    assert info.after(once, done) == once
