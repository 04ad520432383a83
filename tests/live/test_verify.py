"""`--verify`, on both roads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.step import Does, Step
from tests.rig.doors import at, patch
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig
from tests.rig.situations import situation


class TestVerify:
    """A merge is proven by what is read before and after it."""

    @pytest.mark.parametrize(
        ("top", "base"), [(f"{BASE}.s1", BASE), (f"{BASE}.s2", f"{BASE}.s1"), (None, None)]
    )
    def test_paused_guest(self, make_rig: MakeRig, top: str | None, base: str | None) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            digest = rig.guest.read_sha256(DISK)
            said = rig.delete(top, base, "--verify")
            assert said.code == 0, said
            assert "verified: all" in said.err
            if top != f"{BASE}.s1":
                assert digest in said.err

    def test_commit_while_the_guest_writes(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(4)
            with rig.writer(0):
                said = rig.delete(f"{BASE}.s2", f"{BASE}.s1", "--verify")
            assert said.code == 0, said
            assert f"verified: all below {BASE}.s3" in said.err

    @situation(
        "`delete --verify` reads the chain through a server that it starts",
        happens="the server has ended before the merge begins, so its locks are in nobody's way",
        code=0,
        then="Nothing.",
        kind=12,
    )
    def test_its_server_has_ended(self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            seen: list[list[str]] = []

            def look(_step: Step) -> None:
                seen.append([name for name in _children() if name == "qemu-nbd"])

            for kind in (QmpGuest, LibvirtGuest):
                patch(monkeypatch, kind, before=at(Does.START, look))
            said = rig.cli("delete", DISK, "s1", "--verify")
            assert said.code == 0, said
            assert "verified: all" in said.err
            assert seen == [[]]

    @situation(
        "`--verify` reads other data after the merge than before it",
        happens="reported as failed; no file is removed",
        code=1,
        then="Remove no file; compare by hand with the guest off.",
        pain=1,
    )
    def test_difference_is_noticed(
        self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            digests = iter(["aa", "bb"])
            monkeypatch.setattr(
                "qmpsnap.guests.files.looks.digest_of", lambda _layers: next(digests)
            )
            said = rig.delete(f"{BASE}.s1", BASE, "--verify")
            assert (said.code, said.status["status"]) == (1, "error_deleting")
            assert "aa became bb" in said.err


def _children() -> Iterator[str]:
    """What the processes are called that this one has started and that have not ended."""
    for path in Path("/proc/self/task").glob("*/children"):
        for number in path.read_text().split():
            with suppress(OSError):  # ended meanwhile
                yield Path(f"/proc/{number}/comm").read_text().strip()
