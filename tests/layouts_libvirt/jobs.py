"""Disks during and after libvirt's block jobs."""

from __future__ import annotations

from typing import Final

from tests.layouts_libvirt.layout import (
    MIB,
    Abort,
    Commit,
    Copy,
    File,
    Layout,
    Pull,
    Snapshot,
    Until,
    disk,
)

_SIZE: Final = 4 * MIB
"""More than a job copies before it looks at its limit for the first time."""
_BASE: Final = File("base", size=_SIZE, filled=True)
_MID: Final = File("mid", "qcow2", "/share/base", size=_SIZE, filled=True)
_TOP: Final = File("top", "qcow2", "/share/mid", "qcow2", size=_SIZE, filled=True)
_FILES: Final = (_BASE, _MID, _TOP)
_TO_PULL: Final = (_BASE, _MID, File("top", "qcow2", "/share/mid", "qcow2", size=_SIZE))
"""An active layer that has everything has nothing to pull."""
_QUICK: Final = "cache='unsafe'"
"""A job flushes when it ends, which takes a second on a busy disk."""
_DISKS: Final = disk("vda", "qcow2", "top", driver=_QUICK)
_ALL: Final = (("top", "qcow2"), ("mid", "qcow2"), ("base", "raw"))


LAYOUTS: Final = (
    Layout(
        name="copy-running",
        files=_FILES,
        disks=_DISKS,
        steps=(Copy("vda", "copy", "qcow2", held=True), Until("vda", "running")),
        truth={"vda": _ALL},
    ),
    Layout(
        name="copy-ready",
        files=_FILES,
        disks=_DISKS,
        steps=(Copy("vda", "copy", "qcow2"), Until("vda", "ready")),
        truth={"vda": _ALL},
    ),
    Layout(
        name="copy-ready-to-raw",
        files=(_BASE,),
        disks=disk("vda", "raw", "base", driver=_QUICK),
        steps=(Copy("vda", "copy", "raw"), Until("vda", "ready")),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        name="copy-pivoted",
        files=_FILES,
        disks=_DISKS,
        steps=(
            Copy("vda", "copy", "raw"),
            Until("vda", "ready"),
            Abort("vda", pivot=True),
            Until("vda", "over"),
        ),
        truth={"vda": (("copy", "raw"),)},
    ),
    Layout(
        name="copy-cancelled",
        files=_FILES,
        disks=_DISKS,
        steps=(
            Copy("vda", "copy", "qcow2"),
            Until("vda", "ready"),
            Abort("vda"),
            Until("vda", "over"),
        ),
        truth={"vda": _ALL},
    ),
    Layout(
        name="active-commit-running",
        files=_FILES,
        disks=_DISKS,
        steps=(Commit("vda", top=0, base=2, held=True), Until("vda", "running")),
        truth={"vda": _ALL},
    ),
    Layout(
        name="active-commit-ready",
        files=_FILES,
        disks=_DISKS,
        steps=(Commit("vda", top=0, base=2), Until("vda", "ready")),
        truth={"vda": _ALL},
    ),
    Layout(
        name="active-commit-pivoted",
        files=_FILES,
        disks=_DISKS,
        steps=(
            Commit("vda", top=0, base=2),
            Until("vda", "ready"),
            Abort("vda", pivot=True),
            Until("vda", "over"),
        ),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        name="active-commit-pivoted-to-middle",
        files=_FILES,
        disks=_DISKS,
        steps=(
            Commit("vda", top=0, base=1),
            Until("vda", "ready"),
            Abort("vda", pivot=True),
            Until("vda", "over"),
        ),
        truth={"vda": (("mid", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="active-commit-cancelled",
        files=_FILES,
        disks=_DISKS,
        steps=(
            Commit("vda", top=0, base=2),
            Until("vda", "ready"),
            Abort("vda"),
            Until("vda", "over"),
        ),
        truth={"vda": _ALL},
    ),
    Layout(
        name="commit-running",
        files=_FILES,
        disks=_DISKS,
        steps=(Commit("vda", top=1, base=2, held=True), Until("vda", "running")),
        truth={"vda": _ALL},
    ),
    Layout(
        name="commit-over",
        files=_FILES,
        disks=_DISKS,
        steps=(Commit("vda", top=1, base=2), Until("vda", "over")),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="pull-running",
        files=_TO_PULL,
        disks=_DISKS,
        steps=(Pull("vda", held=True), Until("vda", "running")),
        truth={"vda": _ALL},
        by_xml=True,
    ),
    Layout(
        name="rebase-running",
        files=_TO_PULL,
        disks=_DISKS,
        steps=(Pull("vda", base=2, held=True), Until("vda", "running")),
        truth={"vda": _ALL},
        by_xml=True,
    ),
    Layout(
        name="pull-cancelled",
        files=_TO_PULL,
        disks=_DISKS,
        steps=(Pull("vda", held=True), Until("vda", "running"), Abort("vda"), Until("vda", "over")),
        truth={"vda": _ALL},
    ),
    Layout(
        name="pull-over",
        files=_TO_PULL,
        disks=_DISKS,
        steps=(Pull("vda"), Until("vda", "over")),
        truth={"vda": (("top", "qcow2"),)},
    ),
    Layout(
        name="rebase-over",
        files=_TO_PULL,
        disks=_DISKS,
        steps=(Pull("vda", base=2), Until("vda", "over")),
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    Layout(
        name="snapshot-after-pivot",
        files=_FILES,
        disks=_DISKS,
        steps=(
            Commit("vda", top=0, base=2),
            Until("vda", "ready"),
            Abort("vda", pivot=True),
            Until("vda", "over"),
            Snapshot("vda", "s1"),
        ),
        truth={"vda": (("s1", "qcow2"), ("base", "raw"))},
    ),
)
