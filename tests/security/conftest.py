"""Attacks: a secret outside the share, a detector on it, and a guest that wants it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rig import images
from tests.rig.attacks import Book
from tests.rig.detector import Detector, detecting
from tests.rig.disks import qcow2_chain
from tests.rig.payloads import forged
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, Said
from tests.rig.roads import direct_rig, libvirt_rig


@pytest.fixture(autouse=True)
def _borrowed(borrowed: Any) -> None:
    """The command line uses the session's connection."""


SECRET = b"somebody else's, not for a guest"
FIXTURE = Path(__file__).parents[2] / "fixtures" / "attacks.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known only where this folder is asked for by name."""
    parser.addoption(
        "--regenerate-attacks",
        action="store_true",
        help="write fixtures/attacks.json from this run; then run docs/generate.py",
    )


@dataclass(frozen=True)
class Victim:
    """A file of the host that no guest and no tool of ours has any business with."""

    path: Path
    detector: Detector

    def forged(self, name: str) -> bytes:
        """A payload against it; whoever makes one may look at what it names."""
        data = forged(name, self.path, self.path.parent)
        self.detector.events()
        return data

    def assert_safe(self, *said: Said, folder: Path | None = None) -> None:
        """Nobody opened it; its content is in no output and in no file below `folder`."""
        assert self.detector.events() == []
        for one in said:
            assert SECRET.decode() not in one.out + one.err
        for file in folder.rglob("*") if folder else ():
            if file.is_file() and not file.is_symlink() and not file.samefile(self.path):
                assert SECRET not in file.read_bytes(), file
        assert self.detector.events() == []


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    """A secret of 1 MiB outside the share."""
    path = tmp_path / "secret"
    path.write_bytes(SECRET * (1024 * 1024 // len(SECRET)))
    with detecting(path) as detector:
        yield Victim(path, detector)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """The folder of the volumes."""
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


MakeRig = Callable[[Path, str], AbstractContextManager[Rig]]


@pytest.fixture(params=["direct", "libvirt"])
def start(request: pytest.FixtureRequest, share: Path) -> MakeRig:
    """`start(volume, format)` runs a guest on a file that is there, on both roads."""
    if request.param == "direct":
        return lambda path, format: direct_rig(share, qcow2_chain([(path, format)], DISK, SERIAL))
    connection: Any = request.getfixturevalue("connection")
    return lambda path, format: libvirt_rig(connection, share, format)


@pytest.fixture
def libvirt_start(connection: Any, share: Path) -> MakeRig:
    """`start`, under libvirt only."""
    return lambda path, format: libvirt_rig(connection, share, format)


@pytest.fixture(autouse=True)
def no_bare_qemu_img(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], list[list[str]]]]:
    """
    Every qemu-img of a test has its formats given, ours above all.

    Stands in `PATH` before the real one, writes its arguments down and goes on. Gives a function
    that tells them.
    """
    real, log = shutil.which("qemu-img"), tmp_path / "qemu-img.log"
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    wrapper = bin_ / "qemu-img"
    # One line a call: no argument of ours has a line break.
    wrapper.write_text(f"#!/bin/sh\n(IFS='\t'; echo \"$*\") >>'{log}'\nexec '{real}' \"$@\"\n")
    wrapper.chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}{os.environ['PATH']}")

    def calls() -> list[list[str]]:
        return [line.split("\t") for line in log.read_text().splitlines()]

    yield calls
    assert [call for call in calls() if not states_its_formats(call)] == []


def states_its_formats(call: list[str]) -> bool:
    """Whether a qemu-img call looks into no file to find out what it is."""
    given = any(word == "-f" or word.startswith('json:{"driver": ') for word in call)
    return given and ("-b" not in call or "-F" in call)


@pytest.fixture
def volume(share: Path) -> Path:
    """A raw file of the size of the disk."""
    path = share / BASE
    images.create_raw(path, SIZE)
    return path


@pytest.fixture(scope="session")
def book(request: pytest.FixtureRequest) -> Iterator[Book]:
    """What is known of each attack; written anew with `--regenerate-attacks`."""
    regenerate = bool(request.config.getoption("--regenerate-attacks", default=False))
    book = Book(json.loads(FIXTURE.read_text()) if not regenerate else None)
    yield book
    if regenerate:
        FIXTURE.parent.mkdir(exist_ok=True)
        FIXTURE.write_text(book.text())
