"""The tool dies before or after each act of an operation, and the same command is given again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.snapshot import create
from tests.rig.doors import Killed, dying
from tests.rig.headers import without_format
from tests.rig.rig import BASE, DISK

Request = CreateRequest | DeleteRequest | NamedDeleteRequest


@dataclass(frozen=True, kw_only=True)
class Killing:
    """One operation on a chain of three layers."""

    request: Request
    files: tuple[str, ...]
    """Snapshots of the chain afterwards, newest first."""
    prepare: Callable[[Path], None] = lambda _folder: None


KILLINGS: Final = {
    "create": Killing(
        request=CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new"),
        files=("new", "s2", "s1"),
    ),
    "header rewrite and create": Killing(
        request=CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new"),
        files=("new", "s2", "s1"),
        prepare=lambda folder: without_format(folder / f"{BASE}.s2"),
    ),
    "commit": Killing(request=NamedDeleteRequest(disk=DISK, snapshot="s1"), files=("s2",)),
    "active commit": Killing(
        request=NamedDeleteRequest(disk=DISK, snapshot="s2", method="commit"), files=("s1",)
    ),
    "pull to a base": Killing(
        request=DeleteRequest(disk=DISK, file_to_merge=BASE, merge_target_file=None),
        files=("s2",),
    ),
    "pull": Killing(
        request=DeleteRequest(disk=DISK, file_to_merge=None, merge_target_file=None),
        files=("s2-alone",),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A guest that is operated on."""

    folder: Path
    connect: Callable[[], AbstractContextManager[Guest]]
    content: Callable[[], str]
    """Hash of what it reads."""
    sound: Callable[[], object]
    """Asserts that formats and headers are right."""


def kill_at_every_act(
    victims: Callable[[], AbstractContextManager[Victim]], killing: Killing, when: str
) -> int:
    """
    Die before or after the first act, then the second, and so on; returns how many there were.

    Each time with a new guest. Whatever was done, the content stays; the same command given again
    finishes it, or is refused where all is done; nothing is left behind.
    """
    for number in itertools.count(1):
        with victims() as victim:
            killing.prepare(victim.folder)
            content = victim.content()
            with victim.connect() as guest:
                died = _dies(dying(guest, number, when), killing.request)
            assert victim.content() == content, (number, when)
            if died:
                with victim.connect() as guest:
                    _again(guest, killing.request)
            assert victim.content() == content, (number, when)
            with victim.connect() as guest:
                assert guest.jobs() == ()
                layers = guest.read().disks[0].layers
            assert [layer.file for layer in layers] == _files(killing), (number, when)
            victim.sound()
            assert not list(victim.folder.glob(".*")), (number, when)
        if not died:
            return number - 1
    raise AssertionError


def _files(killing: Killing) -> list[str]:
    if killing.files == ("s2-alone",):
        return [f"{BASE}.s2"]
    return [*(f"{BASE}.{name}" for name in killing.files), BASE]


def _dies(guest: Guest, request: Request) -> bool:
    try:
        _operate(guest, request)
    except Killed:
        return True
    return False


def _again(guest: Guest, request: Request) -> None:
    """Refused is right as well: what the request names may have been done."""
    try:
        _operate(guest, request)
    except Refused:
        pass
    except QmpsnapError as error:
        raise AssertionError(error) from error


def _operate(guest: Guest, request: Request) -> None:
    if isinstance(request, CreateRequest):
        create(guest, request)
    else:
        delete(guest, request)
