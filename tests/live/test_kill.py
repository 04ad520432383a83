"""The tool dies before and after every act, on both roads; off guests: `only_libvirt/test_offline`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rig.kills import KILLINGS, Victim, kill_at_every_act
from tests.rig.rig import DISK, assert_sound
from tests.rig.roads import MakeRig


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", KILLINGS)
def test_same_command_again(make_rig: MakeRig, tmp_path: Path, operation: str, when: str) -> None:
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

    count = kill_at_every_act(victims, KILLINGS[operation], when)
    print(f"{operation}: killed {when} each of {count} acts")
    assert count
