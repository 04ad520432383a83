"""Chains of layers of all lengths: each merge is refused, or keeps what every layer reads."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from qmpsnap.formats.layers import Layer
from qmpsnap.guests.files import qemu_img
from qmpsnap.operations import merge
from qmpsnap.operations.guards import Guard
from qmpsnap.operations.lengths import ShorterLayer
from qmpsnap.operations.requests import DeleteRequest
from tests.rig.guards import resize
from tests.rig.rig import BASE, DISK, SERIAL, Rig
from tests.rig.roads import MakeRig

CLUSTER = 64 * 1024
NAMES = [f"{BASE}.s3", f"{BASE}.s2", f"{BASE}.s1", BASE]
MERGES = [
    *((NAMES[top], NAMES[base]) for top in range(4) for base in range(top + 1, 4)),
    *((name, None) for name in (*NAMES[2:], None)),
]


def fill(rig: Rig, size: int, share: float, chosen: random.Random) -> None:
    """The guest writes some clusters of the active layer, each of which tells where it is from."""
    for number in range(size // CLUSTER):
        if chosen.random() < share:
            value = 1 + 20 * len(rig.files()) + number
            rig.guest.write(DISK, number * CLUSTER, CLUSTER, value)


def grown(rig: Rig, chosen: random.Random) -> None:
    """Three snapshots; the disk has two, four or six clusters in between."""
    fill(rig, rig.guest.virtual_size(DISK), 1, chosen)
    for name in ("s1", "s2", "s3"):
        rig.create(name)
        size = CLUSTER * chosen.choice((2, 4, 6))
        resize(rig, size)
        fill(rig, size, 0.3, chosen)
    rig.guest.qemu_io(DISK, "flush")


def read(folder: Path, layers: tuple[Layer, ...]) -> dict[str, bytes]:
    """What each layer reads, by its header."""
    found = {}
    for layer in layers:
        copy = folder / "copy"
        command = ("-U", "-f", str(layer.format), "-O", "raw", str(layer.path), str(copy))
        qemu_img.run("convert", layer.file, *command)
        found[layer.file] = copy.read_bytes()
    return found


@pytest.mark.parametrize("seed", range(12))
def test_every_layer_reads_what_it_read(make_rig: MakeRig, seed: int) -> None:
    chosen = random.Random(seed)
    top, base = chosen.choice(MERGES)
    request = DeleteRequest(disk=SERIAL, file_to_merge=top, merge_target_file=base)
    with make_rig(chosen.choice(("raw", "qcow2")), size=CLUSTER * chosen.choice((2, 4, 6))) as rig:
        grown(rig, chosen)
        before = read(rig.folder, rig.disk().layers)
        is_refused = False
        with rig.host() as host:
            try:
                merge.delete(host, request, allow={Guard.GROW_BASE, Guard.SPACE})
            except ShorterLayer:
                is_refused = True
        assert (rig.files() == NAMES) is is_refused
        rig.guest.qemu_io(DISK, "flush")
        after = read(rig.folder, rig.disk().layers)
        active_commit = top == NAMES[0] and base is not None and not is_refused
        for name, content in after.items():
            if active_commit and name == base:
                assert content == before[NAMES[0]], request
            elif name != base or is_refused:
                assert content == before[name], (request, name)
