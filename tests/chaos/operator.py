"""
Somebody who gave a command, was told how it ended, and does what it says. To the letter.

QEMU has ended meanwhile, so only the files are left. The operator removes what the report calls
unused, and finds the file to start from; a wrong report loses data here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.files import qemu_img
from qmpsnap.operations.outcome import OutcomeUnknown, Result
from tests.chaos import steps
from tests.chaos.model import Disk, by_headers, read_file
from tests.chaos.operations import Operation
from tests.chaos.scenario import note_merge


def obey(disk: Disk, step: Operation, overlay: str, said: Result | QmpsnapError) -> None:
    """
    Find the chain to start from, and change the model to it.

    Args:
        disk: The disk, before the operation.
        step: What was asked for.
        overlay: The file that a create was to make.
        said: How it ended.
    """
    if isinstance(said, QmpsnapError):
        if said.changed == "no":
            path = disk.path(disk.active.file)
            chain = [(layer.file, layer.format) for layer in disk.layers]
            assert by_headers(path, disk.active.format) == chain, said
            return
        assert said.exit_code == 6, said
        # Of LibvirtLost and LostInMidCommand the page "After an interruption" says the same.
        advice = said.way_out if isinstance(said, OutcomeUnknown) else None
        _after_unknown(disk, step, overlay, advice)
        return
    if isinstance(step, steps.Create):
        disk.put_on(overlay)
        return
    gone = {str(disk.path(file)) for file in note_merge(disk, step)}
    assert gone == {*said.dropped, *said.held}, said
    # What is held stays. A guest that ended after its merge was seen done, and before it was asked
    # who else reads the files that left, makes all of them held.
    assert not said.held or any("is not known" in note for note in said.notes), said
    for dropped in said.dropped:
        Path(dropped).unlink()


def _after_unknown(disk: Disk, step: Operation, overlay: str, advice: str | None) -> None:
    match step:
        case steps.Create():
            assert advice is None or f"start it from {overlay} where that is there" in advice
            if disk.path(overlay).exists():
                disk.put_on(overlay)
        case steps.Pull():
            _pulled(disk, step, advice)
        case steps.Commit(top=0):
            _switched_or_not(disk, step, advice)
        case steps.Commit():
            assert advice is None or "the file that was active before" in advice
            if _on_disk(disk) != disk.files:
                note_merge(disk, step)
            assert _on_disk(disk) == disk.files


def _on_disk(disk: Disk) -> list[str]:
    path = disk.path(disk.active.file)
    return [file for file, _ in by_headers(path, disk.active.format)]


def _pulled(disk: Disk, step: steps.Pull, advice: str | None) -> None:
    """The old backing file comes back: right whether the pull had ended or not."""
    assert advice is None or "qemu-img rebase -u -f qcow2" in advice
    active, below = disk.layers[:2]
    path = str(disk.path(active.file))
    backing = ("-b", below.file, "-F", below.format)
    qemu_img.run("rebase", path, "-u", "-f", active.format, *backing, path)
    assert _on_disk(disk) == disk.files


def _switched_or_not(disk: Disk, step: steps.Commit, advice: str | None) -> None:
    """
    After an active commit nothing on disk tells whether the guest had switched.

    Where the two read the same, the base will do; else one of them must be right.
    """
    assert advice is None or "qemu-img compare" in advice
    old, new = disk.active, disk.layers[step.base]
    same = subprocess.run(
        ["qemu-img", "compare", "-f", old.format, "-F", new.format]
        + [str(disk.path(layer.file)) for layer in (old, new)],
        capture_output=True,
        check=False,
    )
    assert same.returncode in (0, 1), same
    if same.returncode == 1:
        seen = read_file(disk.path(old.file), old.format)
        if disk.after_a_crash.explains(seen):
            return
    note_merge(disk, step)
