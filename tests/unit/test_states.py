"""The table of job states."""

from __future__ import annotations

import pytest

from qmpsnap.operations.job.states import Action, JobStatus, JobView, next_action

TABLE = {
    "undefined": Action.WAIT,
    "created": Action.WAIT,
    "running": Action.WAIT,
    "paused": Action.WAIT,
    "ready": Action.PIVOT,
    "standby": Action.WAIT,
    "waiting": Action.WAIT,
    "pending": Action.FINALIZE,
    "aborting": Action.WAIT,
    "concluded": Action.END,
    "null": Action.END,
}
"""All of JobStatus in qapi/job.json of QEMU 11.1."""


def test_every_state_of_qemu_is_known() -> None:
    assert {str(status) for status in JobStatus} == TABLE.keys()


@pytest.mark.parametrize("status", JobStatus)
def test_action(status: JobStatus) -> None:
    assert next_action(JobView(status=status)) is TABLE[status]


def test_every_action_is_taken_somewhere() -> None:
    assert {next_action(JobView(status=status)) for status in JobStatus} == set(Action)


@pytest.mark.parametrize("status", JobStatus)
def test_error_does_not_change_what_comes_next(status: JobStatus) -> None:
    assert next_action(JobView(status=status, error="no space")) is TABLE[status]
