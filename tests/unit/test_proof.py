"""`--verify`: what is compared for each kind of merge, and what a difference becomes."""

from __future__ import annotations

import pytest

from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations import merge as operation
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.proof import ContentDiffers, GuestMayWrite
from qmpsnap.operations.requests import DeleteRequest
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

COMMIT, ACTIVE, PULL = ("volume-1.s2", "volume-1.s1"), ("volume-1.s3", "volume-1.s1"), (None, None)
Merge = tuple[str | None, str | None]


def guest(*digests: str) -> FakeGuest:
    fake = FakeGuest(samples.guest(samples.disk(4)))
    fake.digests, fake.run = list(digests), "paused"
    return fake


def delete(fake: FakeGuest, merge: Merge) -> Result:
    request = DeleteRequest(disk="1", file_to_merge=merge[0], merge_target_file=merge[1])
    return operation.delete(fake, request, verify=True, poll_s=0)


@pytest.mark.parametrize(
    ("merge", "before", "after"),
    [
        (COMMIT, ("s2", "s1", ""), ("s1", "")),
        (ACTIVE, ("s3", "s2", "s1", ""), ("s1", "")),
        (PULL, ("s3", "s2", "s1", ""), ("s3",)),
        ((None, "volume-1.s1"), ("s3", "s2", "s1", ""), ("s3", "s1", "")),
    ],
)
def test_what_is_read(merge: Merge, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    if merge[0] is None and merge[1] is not None:
        merge = (merge[1], None)  # a pull down to a base
    fake = guest("aa", "aa")
    done = delete(fake, merge)
    names = [tuple(f"volume-1.{one}".rstrip(".") for one in part) for part in (before, after)]
    assert fake.digested == names
    assert "verified: all" in done.notes[-1]
    assert "aa" in done.notes[-1]


@pytest.mark.parametrize(
    ("merge", "what"),
    [
        (COMMIT, "all below volume-1.s3"),
        (ACTIVE, "all that the guest reads"),
        (PULL, "all that the guest reads"),
    ],
)
def test_what_it_says(merge: Merge, what: str) -> None:
    note = delete(guest("aa", "aa"), merge).notes[-1]
    assert note == f"verified: {what} is as before, SHA-256 aa"


@pytest.mark.parametrize("merge", [COMMIT, ACTIVE, PULL])
def test_difference(merge: Merge) -> None:
    with pytest.raises(ContentDiffers, match="aa became bb") as caught:
        delete(guest("aa", "bb"), merge)
    assert (caught.value.exit_code, caught.value.changed) == (1, "yes")


@pytest.mark.parametrize("merge", [ACTIVE, PULL])
@pytest.mark.parametrize("run", ["running", "suspended", None])
def test_guest_that_may_write(merge: Merge, run: str | None) -> None:
    fake = guest()
    fake.run = run
    with pytest.raises(GuestMayWrite):
        delete(fake, merge)
    assert "start" not in fake.calls


def test_commit_below_a_guest_that_writes() -> None:
    fake = guest("aa", "aa")
    fake.run = "running"
    assert delete(fake, COMMIT).notes
    assert "flush" not in fake.calls


@pytest.mark.parametrize(("run", "flushes"), [("paused", 2), ("io-error", 2), ("off", 0)])
def test_what_a_guest_that_stands_still_wrote_is_flushed(run: str, flushes: int) -> None:
    fake = guest("aa", "aa")
    fake.run = run
    assert delete(fake, ACTIVE).notes
    assert fake.calls.count("flush") == flushes


def test_what_cannot_be_flushed_is_not_compared() -> None:
    fake = guest()
    fake.fails["flush"] = CommandFailed("human-monitor-command", "GenericError", "no")
    with pytest.raises(GuestMayWrite):
        delete(fake, ACTIVE)
    assert "start" not in fake.calls


def test_job_of_an_earlier_call() -> None:
    fake = guest()
    fake.left_running = True
    assert delete(fake, COMMIT).notes[-1] == "not verified: it was begun by another call"
    assert fake.digested == []


def test_not_asked_for() -> None:
    fake = guest()
    request = DeleteRequest(disk="1", file_to_merge=None, merge_target_file=None)
    operation.delete(fake, request, poll_s=0)
    assert fake.digested == []
