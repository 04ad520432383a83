"""What it costs to start the command, beside Python that does nothing."""

from __future__ import annotations

import compileall
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import qmpsnap
from tests.bench.measure import Taken, in_turns

BARE: Final = "python -c pass"
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    BARE: ("-c", "pass"),
    "qmpsnap --help": ("-m", "qmpsnap", "--help"),
    "qmpsnap --version": ("-m", "qmpsnap", "--version"),
    "qmpsnap delete --help": ("-m", "qmpsnap", "delete", "--help"),
    "import qmpsnap.volume_snapshot_delete": (
        "-c",
        "from qmpsnap import from_domain, volume_snapshot_delete",
    ),
}
GOALS: Final = {"qmpsnap --help": 8.0}
"""How many times bare Python a command may take."""


def compile_all() -> None:
    """Write qmpsnap's bytecode, as pip does when it installs it; a checkout may have none."""
    compileall.compile_dir(Path(qmpsnap.__file__).parent, quiet=1)


def measure(rounds: int) -> dict[str, Taken]:
    """Start each in turns."""
    compile_all()
    works = {name: (lambda words=words: _run(words)) for name, words in COMMANDS.items()}
    return in_turns(works, rounds)


def _run(words: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
