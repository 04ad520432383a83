"""Who is at work on an operation: one, and nobody when its process has gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmpsnap.journal.hold import OperationBusy, held

HOLDS = """
import sys
from pathlib import Path
from qmpsnap.journal.hold import held
with held(Path(sys.argv[1]), "abc"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_at_a_time(tmp_path: Path) -> None:
    with held(tmp_path, "abc"):
        with pytest.raises(OperationBusy) as caught, held(tmp_path, "abc"):
            pass
        assert caught.value.by == str(os.getpid())
        with held(tmp_path, "other"):
            pass
    with held(tmp_path, "abc"):
        pass
    assert not list(tmp_path.iterdir())


def test_it_goes_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OperationBusy, match=f"process {process.pid}"), held(tmp_path, "abc"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "abc.lock").exists()
        with held(tmp_path, "abc"):
            pass
    assert not list(tmp_path.iterdir())


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "abc.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"), held(tmp_path, "abc"):
        pass
    assert not (tmp_path / "victim").exists()
