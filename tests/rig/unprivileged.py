"""The command line as somebody who is not root, in one group alone."""

from __future__ import annotations

import site
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest

import qmpsnap
from tests.rig.rig import Said

USER: Final = "nobody"
GROUP: Final = "nogroup"


def run(*arguments: str) -> Said:
    """Run the command line as this user. Skips where nobody but root may run a Python like ours."""
    done = _run([_python(), "-m", "qmpsnap", *arguments])
    return Said(done.returncode, done.stdout, done.stderr)


@cache
def _python() -> str:
    """This one may lie in root's home; the system's may be as good."""
    version = "import lxml.etree, sys; print(*sys.version_info[:2])"
    for python in (sys.executable, "/usr/bin/python3"):
        done = _run([python, "-c", version])
        if done.stdout.split() == [*map(str, sys.version_info[:2])]:
            return python
    pytest.skip("no Python that another user could run")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    ids = [f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"]
    root = Path(qmpsnap.__file__).parents[1]
    return subprocess.run(
        ["setpriv", *ids, "--", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": ":".join([str(root), *site.getsitepackages()]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
