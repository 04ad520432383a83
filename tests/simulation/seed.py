"""How many runs and sequences there are, and where their choices begin."""

from __future__ import annotations

import os
import zlib
from typing import Final

from tests.rig import sampling

RUNS: Final = int(os.environ.get("QMPSNAP_SIMULATIONS", "2000"))
SEQUENCES: Final = int(os.environ.get("QMPSNAP_SIMULATION_SEQUENCES", "20"))
SEED: Final = int(os.environ.get("QMPSNAP_SIMULATION_SEED") or zlib.crc32(sampling.SEED.encode()))
"""At night by the day; see `sampling`."""


def header() -> str:
    """What is printed once."""
    return f"simulated: {RUNS} runs, {SEQUENCES} sequences, QMPSNAP_SIMULATION_SEED={SEED}"
