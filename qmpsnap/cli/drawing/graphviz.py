"""`dot`, Graphviz's program: a picture from DOT, for `--output svg`."""

from __future__ import annotations

import subprocess
from typing import Final

from qmpsnap.errors import Failed, Refused

TIMEOUT_S: Final = 60
"""One disk of 200 layers takes 0.1 s, 8 disks of 64 layers 0.3 s."""


class GraphvizMissing(Refused):
    """Only `--output svg` needs Graphviz, and it is not installed."""

    msg = "dot, Graphviz's program, is not installed"
    remedy = "Install it: Debian's and Fedora's graphviz. `--output dot` does without."


class GraphvizFailed(Failed):
    """Graphviz made no picture; the guest was only read."""

    msg = "dot made no picture: {self.reason}"
    remedy = "`--output dot` prints what it was given. The guest was only read."
    changed = "no"

    reason: str


def svg(dot: str) -> str:
    """
    Let Graphviz lay out a graph.

    Args:
        dot: The graph in DOT; no file is read or written.

    Raises:
        GraphvizMissing: It is not installed.
        GraphvizFailed: It ended with an error, or not within `TIMEOUT_S`.
    """
    try:
        done = subprocess.run(
            ["dot", "-Tsvg"],
            input=dot,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise GraphvizMissing from error
    except OSError as error:
        raise GraphvizFailed(str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise GraphvizFailed(f"no end within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise GraphvizFailed(done.stderr.strip() or f"exit code {done.returncode}")
    return done.stdout
