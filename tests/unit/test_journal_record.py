"""What is kept of an operation comes back as it went in."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.journal.record import (
    Conclusion,
    Record,
    Unreadable,
    conclusion_of,
    dumps,
    loads,
    who,
)
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import journal_samples, samples


@pytest.mark.parametrize("record", [journal_samples.merging(), journal_samples.creating()])
def test_a_record_with_its_plan(record: Record) -> None:
    back = loads(dumps(record), Record)
    assert back == record
    assert back.plans
    assert type(back.plans[0].disk) is type(record.plans[0].disk)


def test_names_that_are_no_utf8() -> None:
    record = journal_samples.merging(guest="web\udcff")
    text = dumps(record)
    assert text.isascii()
    assert loads(text, Record) == record


@pytest.mark.parametrize(
    ("record", "request_"),
    [
        (journal_samples.merging(), journal_samples.REQUEST),
        (journal_samples.creating(), journal_samples.creating().creating),
        (
            replace(
                journal_samples.merging(),
                deleting_named=None,
                deleting=DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None),
            ),
            DeleteRequest(disk="vda", file_to_merge=None, merge_target_file=None),
        ),
    ],
)
def test_request(record: Record, request_: object) -> None:
    assert loads(dumps(record), Record).request == request_


def test_paths_are_all_that_it_may_touch() -> None:
    assert journal_samples.creating().paths == {
        "/share/volume-1.new",
        "/share/volume-1.s1",
        "/share/volume-1",
    }


def test_slim_without_the_plans() -> None:
    slim = journal_samples.merging().slim
    assert (slim.merge, slim.files) == (None, ())
    assert slim.before == {"volume-1.s2": "qcow2", "volume-1.s1": "qcow2", "volume-1": "raw"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"id": 1}', "[" * 100_000, dumps(journal_samples.act())]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(Unreadable):
        loads(text, Record)


def test_conclusion_of_results() -> None:
    done = Result(
        disk=samples.disk(2),
        file_format={"volume-1": "raw"},
        removed=("/share/gone",),
        notes=("a", "a", "b"),
    )
    assert conclusion_of("finished", 5.0, [done]) == Conclusion(
        outcome="finished",
        ended=5.0,
        file_format={"volume-1": "raw"},
        after={"volume-1.s1": "qcow2", "volume-1": "raw"},
        active=("/share/volume-1.s1",),
        removed=("/share/gone",),
        notes=("a", "b"),
    )


def test_conclusion_of_an_error() -> None:
    came = conclusion_of("failed", 5.0, error=ValueError("no"))
    assert (came.error, came.message, came.after) == ("ValueError", "no", {})


def test_who_has_become_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    name = who()
    monkeypatch.setenv("SUDO_USER", "ann")
    assert who() == f"{name} (ann)"
    monkeypatch.setenv("SUDO_USER", name)
    assert who() == name
