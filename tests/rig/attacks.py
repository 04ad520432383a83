"""
What tools make of a raw disk with a forged header, beside what qmpsnap says of it.

Kept in fixtures/attacks.json: docs/generate.py writes docs/explanation/attacks.md from it, and
the tests of the tier `security` compare it with what they see.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.rig.detector import Detector


@dataclass(frozen=True)
class Probing:
    """What `qemu-img` without `-f` does with a file."""

    format: str | None
    """What `info` calls it; None when it fails."""
    named: bool
    """Whether `info` shows the victim as something that belongs to the image."""
    opened: bool
    """Whether `info` opened the victim."""
    leaked: bool
    """Whether `convert` copied the victim's content."""


@dataclass(frozen=True)
class Seen:
    """One line of a table."""

    title: str
    probing: Probing | None
    """None where even trying would hang or harm."""
    qmpsnap: str
    """The format that qmpsnap says, or why it refuses."""


class Book:
    """Attacks by table and title: those that are known, and those that were seen in this run."""

    def __init__(self, known: dict[str, Any] | None) -> None:
        """Take the content of the fixture; None to write down whatever is seen."""
        self._known = known
        self._seen: dict[str, dict[str, Any]] = {}

    def check(self, table: str, seen: Seen) -> None:
        """Compare with what is known. Another qemu-img may probe otherwise; qmpsnap may not."""
        found = asdict(seen)
        if self._known is None:
            assert self._seen.setdefault(table, {}).setdefault(seen.title, found) == found
            return
        (expected,) = (one for one in self._known[table] if one["title"] == seen.title)
        if self._known["qemu-img"] != qemu_img_version():
            expected = {**expected, "probing": found["probing"]}
        assert found == expected, "is it right? then run with --regenerate-attacks"

    def text(self) -> str:
        """The fixture's new content."""
        tables = {table: list(lines.values()) for table, lines in self._seen.items()}
        return json.dumps({"qemu-img": qemu_img_version(), **tables}, indent=2) + "\n"


@functools.cache
def qemu_img_version() -> str:
    """For example `7.2.22`."""
    found = re.search(r"version (\d+\.\d+\.\d+)", _qemu_img("--version").stdout)
    assert found
    return found[1]


def probe(file: Path, victim: Path, content: bytes, detector: Detector) -> Probing:
    """
    Let qemu-img look into a file without being told its format, as no part of qmpsnap may.

    Args:
        file: A file, or a link to one.
        victim: The file that a header may name.
        content: What is in it.
        detector: Watches the victim.
    """
    assert detector.events() == []
    done = _qemu_img("info", "-U", "--output=json", str(file), check=False)
    said = json.loads(done.stdout) if done.returncode == 0 else {}
    opened = bool(detector.events())
    with tempfile.TemporaryDirectory(dir=file.parent.parent) as folder:
        copy = Path(folder, "copy")
        # It fails where the image needs a key.
        _qemu_img("convert", "-U", "-O", "raw", str(file), str(copy), check=False)
        leaked = copy.exists() and content in copy.read_bytes()
    assert leaked <= bool(detector.events()), "a leak that the detector does not see"
    return Probing(
        format=said.get("format"),
        named=str(victim) in json.dumps({**said, "filename": ""}),
        opened=opened,
        leaked=leaked,
    )


def _qemu_img(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Not by `PATH`: there, in these tests, stands one that is to see qmpsnap's calls only."""
    path = os.pathsep.join(
        folder for folder in os.get_exec_path() if not Path(folder, "..", "qemu-img.log").exists()
    )
    return subprocess.run(
        ["/usr/bin/env", f"PATH={path}", "qemu-img", *arguments],
        capture_output=True,
        text=True,
        check=check,
    )
