"""A signal at calls of a snapshot with a freeze: the guest is thawed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from tests.rig.agents import scripted_agent
from tests.rig.rig import BASE, DISK, SERIAL
from tests.rig.roads import MakeRig
from tests.rig.signals import CALLS, Signalled, calls, signal_at_calls
from tests.rig.waiting import HANG_S

INFO = {"type": "qcow2", "new_file": f"{BASE}.new", "snapshot_id": "new"}


@pytest.mark.parametrize("policy", ["require", "try"])
def test_freeze(
    make_rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    @contextmanager
    def guests() -> Iterator[Signalled]:
        for path in (*(tmp_path / "share").glob("*"), *tmp_path.glob("agent")):
            path.unlink()
        with make_rig("raw") as rig, scripted_agent(tmp_path) as agent:
            rig.guest.qmp("cont")
            options = ("--quiesce", policy, "--freeze-timeout", str(HANG_S), "--agent", agent.path)

            def content() -> str:
                assert not agent.frozen
                return rig.guest.read_sha256(DISK)

            yield Signalled(
                kind=QmpGuest,
                cli=lambda: rig.cli("volume-snapshot-create", SERIAL, json.dumps(INFO), *options),
                files=rig.files,
                done=[f"{BASE}.new", BASE],
                jobs=lambda: 0,
                content=content,
            )

    found = signal_at_calls(
        f"freeze, {policy}",
        monkeypatch,
        guests,
        lambda patched, kind, act: calls(patched, kind, act, CALLS),
    )
    print(found)
    assert {"failed", "done"} == set(found)
