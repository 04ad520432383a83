"""The table of job states."""

from __future__ import annotations

import pytest

from qmpsnap.operations.job.states import Do, JobStatus, JobView, Verb, next_for, status_of

TABLE = {
    "undefined": Do.WAIT,
    "created": Do.WAIT,
    "running": Do.WAIT,
    "paused": Do.WAIT,
    "ready": Do.COMMIT,
    "standby": Do.WAIT,
    "waiting": Do.WAIT,
    "pending": Do.COMMIT,
    "aborting": Do.WAIT,
    "concluded": Do.END,
    "null": Do.END,
}
"""All of JobStatus in qapi/job.json of QEMU 11.1."""


def test_every_state_of_qemu_is_known() -> None:
    assert {str(status) for status in JobStatus} == TABLE.keys()


@pytest.mark.parametrize("status", JobStatus)
def test_what_a_state_asks_for(status: JobStatus) -> None:
    assert next_for(JobView(status=status)) is TABLE[status]


def test_word_of_a_later_qemu_is_one_to_wait_through() -> None:
    assert status_of("dreaming") is JobStatus.UNDEFINED
    assert [status_of(word) for word in TABLE] == list(JobStatus)


@pytest.mark.parametrize("status", JobStatus)
def test_error_does_not_change_what_comes_next(status: JobStatus) -> None:
    assert next_for(JobView(status=status, error="no space")) is TABLE[status]


def test_verbs_are_the_words_of_the_commands() -> None:
    assert [str(verb) for verb in Verb] == ["cancel", "pause", "resume", "set-speed"]
