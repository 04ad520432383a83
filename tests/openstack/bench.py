"""
End to end, ours against stock, in one run: from a request until the snapshot is there, or gone.

    python -m tests.openstack.bench [ROUNDS]

Both rigs are up at the same time and take turns, so that both see the same machine. Prints medians,
their ratio, the CPU time of each side's Cinder and compute, and how long Cinder's own programs
(qemu-img, chmod, rm …) took, as its log tells.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig, down, up

SIZES: Final = (1, 16, 256)
"""MiB that are merged."""
AT_ONCE: Final = 20
_RAN: Final = re.compile(
    r'CMD "(qemu-img|chmod|chown|rm|mv|truncate|sudo)\b.*" returned: \S+ in ([0-9.]+)s'
)


def main(rounds: int = 5) -> None:
    """Measure, and print a table."""
    with ExitStack() as ends:
        rigs = {}
        for pairing in (pairings.STOCK, pairings.OURS):
            folder = Path(mkdtemp(prefix="qmpsnap-rig-", dir="/var/tmp"))
            ends.callback(down, folder)
            rigs[pairing.name] = up(folder, pairing)
        print(f"load {os.getloadavg()[0]:.1f}, {rounds} rounds\n")
        print("| | stock | ours | ratio |\n|---|---|---|---|", flush=True)
        for what, size in [(w, s) for s in SIZES for w in ("create", "commit", "pull")]:
            took: dict[str, list[float]] = {name: [] for name in rigs}
            for _ in range(rounds):
                for name, rig in rigs.items():
                    took[name].append(_STEPS[what](rig, size))
            _row(f"{what}, {size} MiB", took)
        took = {name: [_many(rig)] for name, rig in rigs.items()}
        _row(f"{AT_ONCE} volumes at once, create", took)
        for name, rig in rigs.items():
            log = (rig.folder / "log/cinder.log").read_text(errors="replace")
            programs = sum(float(found[2]) for found in _RAN.finditer(log))
            print(f"\n{name}: CPU {_cpu(rig):.1f} s, Cinder's own programs {programs:.1f} s")


def _row(what: str, took: dict[str, list[float]]) -> None:
    stock, ours = (statistics.median(took[name]) for name in ("stock", "ours"))
    print(f"| {what} | {stock:.3f} s | {ours:.3f} s | {stock / ours:.1f} |", flush=True)


def _guest(rig: Rig) -> tuple[str, Guest]:
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    return volume, guest


def _create(rig: Rig, size: int) -> float:
    volume, guest = _guest(rig)
    guest.io(f"write -P 7 0 {size}M")
    _, became, seconds = rig.snapshot(volume)
    assert became == "available"
    guest.close()
    return seconds


def _commit(rig: Rig, size: int) -> float:
    volume, guest = _guest(rig)
    first, _, _ = rig.snapshot(volume)
    guest.io(f"write -P 7 0 {size}M")
    rig.snapshot(volume)
    became, seconds = rig.delete(first)
    assert became is None
    guest.close()
    return seconds


def _pull(rig: Rig, size: int) -> float:
    volume, guest = _guest(rig)
    guest.io(f"write -P 7 0 {size}M")
    only, _, _ = rig.snapshot(volume)
    became, seconds = rig.delete(only)
    assert became is None
    guest.close()
    return seconds


_STEPS: Final[dict[str, Callable[[Rig, int], float]]] = {
    "create": _create,
    "commit": _commit,
    "pull": _pull,
}


def _many(rig: Rig) -> float:
    guests = [_guest(rig) for _ in range(AT_ONCE)]
    begun = time.perf_counter()
    threads = [threading.Thread(target=rig.snapshot, args=(volume,)) for volume, _ in guests]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    took = time.perf_counter() - begun
    for _, guest in guests:
        guest.close()
    return took


def _cpu(rig: Rig) -> float:
    """Seconds of Cinder's and compute's processes; their ids are those inside, so by command line."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            if str(rig.folder).encode() in command and b".conf" in command:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
