"""
The tool dies before and after its acts, on both roads; off guests: `only_libvirt/test_offline`.

At which of all points: `tests.rig.sampling`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rig.kills import KILLINGS, Victim, killed_and_given_again
from tests.rig.rig import DISK, assert_sound
from tests.rig.roads import MakeRig, Road


@pytest.mark.parametrize("operation", KILLINGS)
def test_same_command_again(road: Road, make_rig: MakeRig, tmp_path: Path, operation: str) -> None:
    @contextmanager
    def victims() -> Iterator[Victim]:
        for path in (tmp_path / "share").glob("*"):
            path.unlink()
        with make_rig("raw") as rig:
            rig.grow(3)
            yield Victim(
                folder=rig.folder,
                connect=rig.connect,
                content=lambda: rig.guest.read_sha256(DISK),
                sound=lambda: assert_sound(rig.disk()),
            )

    name = f"{operation} on {road}, again"
    found = killed_and_given_again(name, victims, KILLINGS[operation])
    print(f"{name}: {found}")
    assert found.count
