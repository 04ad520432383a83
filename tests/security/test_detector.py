"""The detectors fire: an attack suite whose alarm is dead would pass for ever."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qmpsnap.guests.files import qemu_img
from tests.rig import images
from tests.rig.payloads import PAYLOADS
from tests.rig.rig import Said
from tests.security.conftest import FIXTURE, SECRET, Victim, states_its_formats
from tests.security.test_handed_over import HOSTILE


def _by_cat(victim: Path) -> None:
    subprocess.run(["cat", str(victim)], check=True, stdout=subprocess.DEVNULL)


def _by_link(victim: Path) -> None:
    link = victim.with_name("link")
    link.symlink_to(victim)
    link.read_bytes()


def _by_hard_link(victim: Path) -> None:
    link = victim.with_name("link")
    os.link(victim, link)
    with link.open("rb"):
        pass


def _by_qemu_img(victim: Path) -> None:
    images.sha256_of(victim, "raw")


def _by_probing(victim: Path) -> None:
    """The one `info` that opens what a header names."""
    payload = next(one for one in PAYLOADS if one.name == "vmdk-flat")
    forged = victim.with_name("forged")
    forged.write_bytes(payload.build(victim, victim.parent))
    subprocess.run(["/usr/bin/env", "qemu-img", "info", "-f", "vmdk", str(forged)], check=True)


@pytest.mark.parametrize("touch", [_by_cat, _by_link, _by_hard_link, _by_qemu_img, _by_probing])
def test_an_open_is_seen(touch: Callable[[Path], None], victim: Victim) -> None:
    victim.assert_safe()
    touch(victim.path)
    with pytest.raises(AssertionError, match="secret: OPEN"):
        victim.assert_safe()
    victim.assert_safe()  # told once


def test_looking_at_the_name_is_not_an_open(victim: Victim) -> None:
    victim.path.stat()
    victim.path.resolve(strict=True)
    victim.assert_safe()


def test_the_secret_in_an_output_or_a_file_is_seen(victim: Victim, share: Path) -> None:
    with pytest.raises(AssertionError):
        victim.assert_safe(Said(0, "", f"cannot read {SECRET.decode()}"))
    (share / "copy").write_bytes(b"1234" + SECRET)
    with pytest.raises(AssertionError, match="copy"):
        victim.assert_safe(folder=share)


@pytest.mark.parametrize(
    ("call", "fine"),
    [
        ("info x", False),
        ("info -f raw x", True),
        ("create -f qcow2 -b y x", False),
        ("create -f qcow2 -b y -F raw x", True),
    ],
)
def test_a_format_that_is_left_out_is_seen(call: str, fine: bool) -> None:
    assert states_its_formats(call.split()) is fine


def test_calls_of_qemu_img_are_written_down(
    no_bare_qemu_img: Callable[[], list[list[str]]], tmp_path: Path
) -> None:
    file = str(tmp_path / "image")
    qemu_img.run("create", file, "-q", "-f", "raw", file, "65536")
    assert no_bare_qemu_img() == [["create", "-q", "-f", "raw", file, "65536"]]


def test_the_table_of_the_documentation_holds_every_attack() -> None:
    known = json.loads(FIXTURE.read_text())
    for table, titles in (("headers", [one.title for one in PAYLOADS]), ("overlays", [*HOSTILE])):
        assert [one["title"] for one in known[table]] == titles
