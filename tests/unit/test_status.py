"""The messages to the volume service, word for word."""

from __future__ import annotations

import json

import pytest

from qmpsnap.status import Dialect, Operation, failure, running, success

CREATE, DELETE = Operation.CREATE, Operation.DELETE


def body(**fields: object) -> dict[str, object]:
    return {"os-update_snapshot_status": fields}


@pytest.mark.parametrize(
    ("operation", "dialect", "expected"),
    [
        (
            CREATE,
            Dialect.SPEC,
            body(status="creating_compute_complete", progress="90%", file_format={"a": "qcow2"}),
        ),
        (
            DELETE,
            Dialect.SPEC,
            body(status="deleting_compute_complete", progress="90%", file_format={"a": "qcow2"}),
        ),
        (CREATE, Dialect.LEGACY, body(status="creating", progress="90%")),
        (DELETE, Dialect.LEGACY, body(status="deleting", progress="90%")),
    ],
)
def test_success(operation: Operation, dialect: Dialect, expected: dict[str, object]) -> None:
    assert success(operation, {"a": "qcow2"}, dialect) == expected


def test_success_speaks_the_specifications_dialect_unless_told_otherwise() -> None:
    assert success(CREATE, {}) == success(CREATE, {}, Dialect.SPEC)


def test_pull_reports_two_files() -> None:
    told = success(DELETE, {"volume-1.s2": "qcow2", "volume-1": "raw"})
    assert json.loads(json.dumps(told)) == body(
        status="deleting_compute_complete",
        progress="90%",
        file_format={"volume-1.s2": "qcow2", "volume-1": "raw"},
    )


def test_failure_takes_the_progress_back() -> None:
    assert failure(CREATE) == body(status="error", progress="0%")
    assert failure(DELETE) == body(status="error_deleting", progress="0%")


def test_work_that_goes_on() -> None:
    assert running(CREATE) == body(status="creating", progress="0%")
    assert running(DELETE) == body(status="deleting", progress="0%")


@pytest.mark.parametrize("operation", Operation)
def test_token(operation: Operation) -> None:
    """Only in the dialect that has a place for it, and only where there is one."""
    for told in (
        success(operation, {}, token="t"),
        failure(operation, token="t"),
        running(operation, token="t"),
    ):
        assert told["os-update_snapshot_status"]["operation"] == "t"  # type: ignore[index]
    legacy = Dialect.LEGACY
    assert success(operation, {}, legacy, "t") == success(operation, {}, legacy)
    assert failure(operation, legacy, "t") == failure(operation)
    assert running(operation, legacy, "t") == running(operation)


def test_body_is_a_copy() -> None:
    formats = {"a": "raw"}
    told = success(CREATE, formats)
    formats["b"] = "qcow2"
    assert told == success(CREATE, {"a": "raw"})


def test_words_of_the_operations() -> None:
    """They are shown to people, and recorded."""
    assert [str(one) for one in Operation] == ["create", "delete"]
