"""What goes on beside Nova's calls: how often it looks, and until when it tells."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.delivery.machine import Answer
from qmpsnap.journal.file import Journal
from qmpsnap.journal.folder import JournalUnusable


@pytest.mark.parametrize(
    ("in_s", "at_least", "at_most"),
    [(None, 60.0, 60.0), (-5.0, 1.0, 1.0), (0.2, 1.0, 1.0), (9.0, 5.0, 9.0), (900.0, 60.0, 60.0)],
)
def test_until_the_next_round(
    tmp_path: Path, in_s: float | None, at_least: float, at_most: float
) -> None:
    """An update that another thread is at work on is due, and left: that is no reason to spin."""
    keepers = pytest.importorskip("qmpsnap.openstack.nova.keeper")
    at = None if in_s is None else time.time() + in_s
    outbox: Any = SimpleNamespace(send=lambda: SimpleNamespace(next_at=at))
    keeper = keepers.Keeper(
        Journal(tmp_path / "none"), outbox, lambda _where: nullcontext(), lambda: True
    )
    assert at_least <= keeper._round() <= at_most


@pytest.mark.parametrize(
    ("left_open", "waits"),
    [
        ([True] * 5, [1.0, 2.0, 4.0, 5.0, 5.0]),
        ([True, True, False, True, True], [1.0, 2.0, 60.0, 1.0, 2.0]),
        ([OSError()] * 8, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]),
        ([OSError(), True, OSError(), False], [1.0, 2.0, 4.0, 60.0]),
    ],
)
def test_after_a_round_that_leaves_something_open(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    left_open: list[bool | OSError],
    waits: list[float],
) -> None:
    """Soon at first, then ever less often; whatever went wrong."""
    keepers = pytest.importorskip("qmpsnap.openstack.nova.keeper")
    outbox: Any = SimpleNamespace(send=lambda: SimpleNamespace(next_at=None))
    keeper = keepers.Keeper(
        Journal(tmp_path / "none"), outbox, lambda _where: nullcontext(), lambda: True
    )
    answers = iter(left_open)

    def settle() -> bool:
        if isinstance(answer := next(answers), OSError):
            raise answer
        return answer

    monkeypatch.setattr(keeper, "_settle_beside", settle)
    assert [keeper._round() for _ in left_open] == waits


def test_what_is_done_once_is_tried_until_it_is_done(tmp_path: Path) -> None:
    """Cinder, or Nova's database, may not be there yet; the rest is not held up by it."""
    keepers = pytest.importorskip("qmpsnap.openstack.nova.keeper")
    outbox: Any = SimpleNamespace(send=lambda: SimpleNamespace(next_at=None))
    answers: Iterator[bool | Exception] = iter(
        [False, OSError(), JournalUnusable("f", "full"), False, True]
    )

    def once() -> bool:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    keeper = keepers.Keeper(Journal(tmp_path / "none"), outbox, lambda _where: nullcontext(), once)
    assert [keeper._round() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 60.0, 60.0]


def test_what_takes_long_to_settle_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge that an earlier process has begun; beside it an operation, and an update that waits."""
    keepers = pytest.importorskip("qmpsnap.openstack.nova.keeper")
    merged = Event()
    settled: list[str] = []
    sent: list[list[str]] = []
    entries = [SimpleNamespace(record=SimpleNamespace(id=one)) for one in ("merge", "create")]

    def send() -> Any:
        sent.append([*settled])
        return SimpleNamespace(next_at=None)

    def is_left_open(entry: Any) -> bool:
        if entry.record.id == "merge":
            assert merged.wait(60)
        settled.append(entry.record.id)
        entries.remove(entry)
        return False

    outbox: Any = SimpleNamespace(send=send)
    keeper = keepers.Keeper(
        Journal(tmp_path / "none"), outbox, lambda _where: nullcontext(), lambda: True
    )
    monkeypatch.setattr(keeper, "_open_entries", lambda: [*entries])
    monkeypatch.setattr(keeper, "_is_left_open", is_left_open)
    for _ in range(2):
        assert keeper._round() == 60.0
    assert sent == [["create"]] * 2
    assert not keeper._woken.is_set()
    merged.set()
    assert keeper._woken.wait(60)
    assert keeper._round() == 60.0
    assert sent[2:] == [["create", "merge"]]
    assert keeper._settling == {}


def test_what_fails_unforeseen_beside_the_others_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keepers = pytest.importorskip("qmpsnap.openstack.nova.keeper")
    outbox: Any = SimpleNamespace(send=lambda: SimpleNamespace(next_at=None))
    keeper = keepers.Keeper(
        Journal(tmp_path / "none"), outbox, lambda _where: nullcontext(), lambda: True
    )
    entry = SimpleNamespace(record=SimpleNamespace(id="one"))
    answers: Iterator[bool | Exception] = iter([True, OSError(), True, False])

    def is_left_open(_entry: Any) -> bool:
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    monkeypatch.setattr(keeper, "_open_entries", lambda: [entry])
    monkeypatch.setattr(keeper, "_is_left_open", is_left_open)
    assert [keeper._round() for _ in range(4)] == [1.0, 2.0, 4.0, 60.0]
    assert not keeper._woken.is_set()


@pytest.mark.parametrize(
    ("answers", "is_told"),
    [
        ((202,), True),
        ((404, 404), True),
        ((404, None), False),
        ((404, 200), False),
        ((404, 401), False),
        ((None,), False),
    ],
    ids=["told", "stock", "a proxy's alone", "it is back", "no identity there", "nobody"],
)
def test_it_is_told_until_it_is_known_to_be_a_stock_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: tuple[int | None, ...], is_told: bool
) -> None:
    """A proxy says 404 as well, while all of Cinder starts: just when calls have been lost."""
    missed = pytest.importorskip("qmpsnap.openstack.nova.missed")
    replies = [Answer(status=one) for one in answers]
    cinder: Any = SimpleNamespace(
        started=lambda said, project: replies.pop(0), knows_us=lambda: replies.pop(0)
    )
    instance = SimpleNamespace(uuid="u", project_id="p")
    mapping = SimpleNamespace(volume_id="v")
    monkeypatch.setattr(missed, "has_identity", lambda: True)
    monkeypatch.setattr(
        missed, "objects", SimpleNamespace(
            InstanceList=SimpleNamespace(get_by_host=lambda *_, **__: [instance]),
            BlockDeviceMappingList=SimpleNamespace(get_by_instance_uuids=lambda *_: [mapping]),
        ),
    )  # fmt: skip
    assert missed.tell_started(Journal(tmp_path), cinder, "h") is is_told
    assert replies == []
