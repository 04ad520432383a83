"""What is advised when the guest could not be frozen, run in the state in which it is printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.rig.agents import scripted_agent
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig
from tests.rig.waiting import HANG_S

ROOT = Path(__file__).parents[3]


@remedy("NoThawer")
@pytest.mark.parametrize("way", ["mend", "without"])
def test_helper_that_cannot_be_started(
    make_rig: MakeRig,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """A program that has Python within it, whose `sys.executable` knows nothing of qmpsnap."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    other = tmp_path_factory.mktemp("venv")
    venv.create(other)
    with make_rig("raw") as rig, scripted_agent(tmp_path) as agent:
        monkeypatch.setattr(sys, "executable", str(other / "bin" / "python"))
        freeze = ("--freeze-timeout", str(HANG_S), "--agent", agent.path)
        rig.guest.qmp("cont")
        said = rig.cli("create", DISK, "s1", "--quiesce", "require", "-o", "json", *freeze)
        told = json.loads(said.err.splitlines()[-1])
        assert (said.code, told["error"]) == (4, "CannotFreeze"), said
        assert "qemu-guest-agent" not in told["remedy"]
        assert agent.heard == []
        (command,) = re.findall(r"`([^`]*thawer)`", told["remedy"])
        words = shlex.split(command)
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "No module named" in ran.stderr
        if way == "without":
            assert rig.cli("create", DISK, "s1", "--quiesce", "try", *freeze).code == 0
            assert agent.heard == []
        else:
            packages = next(one for one in sys.path if Path(one, "qemu", "qmp").is_dir())
            monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{packages}")
            ran = subprocess.run(words, capture_output=True, text=True, check=False)
            assert "python -m qmpsnap.guests.agent.thawer SECONDS" in ran.stderr
            assert rig.cli("create", DISK, "s1", "--quiesce", "require", *freeze).code == 0
            assert agent.heard == ["freeze", "thaw"]
        assert rig.files() == [f"{BASE}.s1", BASE]
