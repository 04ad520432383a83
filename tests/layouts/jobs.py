"""Block jobs: while they run, when they are ready, and what they leave."""

from __future__ import annotations

from typing import Final

from tests.layouts.layout import (
    MIB,
    Do,
    File,
    Filled,
    Image,
    Json,
    Layout,
    Step,
    Truth,
    Until,
    base,
    dashed,
    disk,
    do,
    file,
    opened,
)

_SIZE: Final = 4 * MIB
"""A backup copies one in a single request, whatever its speed."""
_FILES: Final = (
    Filled("base", size=_SIZE),
    Filled("mid", size=_SIZE, format="qcow2", backing="base"),
    Filled("top", size=_SIZE, format="qcow2", backing="mid", backing_format="qcow2"),
)
_EMPTY: Final = (
    _FILES[0],
    Image("mid", "qcow2", "base", "raw", size=_SIZE),
    Image("top", "qcow2", "mid", "qcow2", size=_SIZE),
)
"""A stream leaves out what the layer on top has."""
_HALF: Final = (*_FILES[:2], _EMPTY[2])
_NODES: Final = (
    base("raw", "base"),
    base("qcow2", "mid", backing="base"),
    opened("qcow2", "top", backing="mid"),
    *disk("top"),
)
_UNCHANGED: Final[Truth] = {"vda": (("top", "qcow2"), ("mid", "qcow2"), ("base", "raw"))}


def _job(name: str, about: str, *then: Step, truth: Truth = _UNCHANGED, **more: object) -> Layout:
    files: tuple[File, ...] = _EMPTY if name.startswith("stream") else _FILES
    files = _HALF if name.startswith("stream-to-base") else files
    return Layout(
        name,
        about,
        files=(*files, Image("target", "qcow2", size=_SIZE)),
        arguments=_NODES,
        then=then,
        truth=truth,
        **more,  # type: ignore[arg-type]
    )


def _do(command: str, given: Json | None = None, *, slow: bool = False, **arguments: object) -> Do:
    """Start a job `job0`; a slow one stays where it is after its first request."""
    return do(
        command,
        {
            "job-id": "job0",
            "device": "top",
            **({"speed": 1} if slow else {}),
            **dashed({**(given or {}), **arguments}),
        },
    )


_TARGET: Final = do("blockdev-add", opened("qcow2", "target", backing=None))
_RUNNING: Final = Until("job0", "running")
_READY: Final = Until("job0", "ready")
_GONE: Final = Until("job0", None)
_CONCLUDED: Final = Until("job0", "concluded")
_COMPLETE: Final = do("block-job-complete", device="job0")
_CANCEL: Final = do("block-job-cancel", device="job0")
_COMMIT: Final = {"top_node": "mid", "base_node": "base"}
_ACTIVE: Final = {"base_node": "base"}

LAYOUTS: Final = (
    _job(
        "commit-running",
        "A commit of the layer in the middle, in mid-run: `commit_top`",
        _do("block-commit", _COMMIT, slow=True),
        _RUNNING,
    ),
    _job(
        "commit-running-named",
        "The same, its filter named by `filter-node-name`",
        _do("block-commit", _COMMIT, slow=True, filter_node_name="flt"),
        _RUNNING,
    ),
    _job(
        "commit-pending",
        "A commit that has copied all and waits to be finalized",
        _do("block-commit", _COMMIT, auto_finalize=False),
        Until("job0", "pending"),
    ),
    _job(
        "commit-done",
        "After a commit: the layer in the middle is an orphan node",
        _do("block-commit", _COMMIT),
        _GONE,
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    _job(
        "commit-concluded",
        "After a commit that nobody has dismissed yet",
        _do("block-commit", _COMMIT, auto_dismiss=False),
        _CONCLUDED,
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    _job(
        "commit-cancelled",
        "A commit cancelled in mid-run",
        _do("block-commit", _COMMIT, slow=True),
        _RUNNING,
        _CANCEL,
        _GONE,
    ),
    _job(
        "active-commit-running",
        "An active commit in mid-run: `mirror_top`",
        _do("block-commit", _ACTIVE, slow=True),
        _RUNNING,
    ),
    _job(
        "active-commit-running-named",
        "The same, its filter named: QEMU then shows the filter at the device",
        _do("block-commit", _ACTIVE, slow=True, filter_node_name="flt"),
        _RUNNING,
    ),
    _job(
        "active-commit-ready",
        "An active commit that is ready to pivot",
        _do("block-commit", _ACTIVE),
        _READY,
    ),
    _job(
        "active-commit-ready-named",
        "The same, its filter named",
        _do("block-commit", _ACTIVE, filter_node_name="flt"),
        _READY,
    ),
    _job(
        "active-commit-pivoted",
        "After the pivot of an active commit: two orphan nodes",
        _do("block-commit", _ACTIVE),
        _READY,
        _COMPLETE,
        _GONE,
        truth={"vda": (("base", "raw"),)},
    ),
    _job(
        "active-commit-to-mid-pivoted",
        "After an active commit by one layer",
        _do("block-commit", base_node="mid"),
        _READY,
        _COMPLETE,
        _GONE,
        truth={"vda": (("mid", "qcow2"), ("base", "raw"))},
    ),
    _job(
        "active-commit-cancelled",
        "An active commit cancelled before it was ready",
        _do("block-commit", _ACTIVE, slow=True),
        _RUNNING,
        _CANCEL,
        _GONE,
    ),
    _job(
        "active-commit-cancelled-ready",
        "An active commit cancelled after READY, without force: it ends like a success",
        _do("block-commit", _ACTIVE),
        _READY,
        _CANCEL,
        _GONE,
    ),
    _job(
        "stream-running",
        "A stream of everything in mid-run: an implicit `copy-on-read`",
        _do("block-stream", slow=True),
        _RUNNING,
    ),
    _job(
        "stream-running-named",
        "The same, its filter named",
        _do("block-stream", slow=True, filter_node_name="flt"),
        _RUNNING,
        commands=("block-stream.filter-node-name",),
    ),
    _job(
        "stream-to-base-running",
        "A stream down to a base in mid-run",
        _do("block-stream", slow=True, base_node="base"),
        _RUNNING,
    ),
    _job(
        "stream-mid-running",
        "A stream into the layer in the middle in mid-run",
        _do("block-stream", slow=True, device="mid"),
        _RUNNING,
    ),
    _job(
        "stream-pending",
        "A stream that has copied all and waits to be finalized",
        _do("block-stream", auto_finalize=False),
        Until("job0", "pending"),
    ),
    _job(
        "stream-done",
        "After a stream of everything",
        _do("block-stream"),
        _GONE,
        truth={"vda": (("top", "qcow2"),)},
    ),
    _job(
        "stream-to-base-done",
        "After a stream down to a base",
        _do("block-stream", base_node="base"),
        _GONE,
        truth={"vda": (("top", "qcow2"), ("base", "raw"))},
    ),
    _job(
        "stream-cancelled",
        "A stream cancelled in mid-run",
        _do("block-stream", slow=True),
        _RUNNING,
        _CANCEL,
        _GONE,
    ),
    _job(
        "mirror-running",
        "A mirror in mid-run: `mirror_top`, and a target on no disk",
        _TARGET,
        _do("blockdev-mirror", slow=True, target="target", sync="full"),
        _RUNNING,
    ),
    _job(
        "mirror-running-named",
        "The same, its filter named",
        _TARGET,
        _do("blockdev-mirror", slow=True, target="target", sync="full", filter_node_name="flt"),
        _RUNNING,
    ),
    _job(
        "mirror-ready",
        "A mirror that is ready",
        _TARGET,
        _do("blockdev-mirror", target="target", sync="full"),
        _READY,
    ),
    _job(
        "mirror-pivoted",
        "After the pivot of a mirror: another file, without backing",
        _TARGET,
        _do("blockdev-mirror", target="target", sync="full"),
        _READY,
        _COMPLETE,
        _GONE,
        truth={"vda": (("target", "qcow2"),)},
    ),
    _job(
        "mirror-top-pivoted",
        "After the pivot of a mirror of the active layer alone: the chain below is kept",
        do("blockdev-add", opened("qcow2", "target", backing="mid")),
        _do("blockdev-mirror", target="target", sync="top"),
        _READY,
        _COMPLETE,
        _GONE,
        truth={"vda": (("target", "qcow2"), ("mid", "qcow2"), ("base", "raw"))},
    ),
    _job(
        "mirror-cancelled-ready",
        "A mirror cancelled after READY, without force: a copy, and no pivot",
        _TARGET,
        _do("blockdev-mirror", target="target", sync="full"),
        _READY,
        _CANCEL,
        _GONE,
    ),
    _job(
        "backup-running",
        "A backup in mid-run: a filter of its own, and a target on no disk",
        _TARGET,
        _do("blockdev-backup", slow=True, target="target", sync="full"),
        _RUNNING,
    ),
    _job(
        "backup-running-named",
        "The same, its filter named",
        _TARGET,
        _do("blockdev-backup", slow=True, target="target", sync="full", filter_node_name="flt"),
        _RUNNING,
    ),
    _job(
        "backup-done",
        "After a backup: its target is a node on no disk",
        _TARGET,
        _do("blockdev-backup", target="target", sync="full"),
        _GONE,
    ),
    _job(
        "backup-fleecing",
        "A backup with `sync: none` into an overlay over the disk itself",
        do("blockdev-add", driver="qcow2", node_name="target", file=file("target"), backing="top"),
        _do("blockdev-backup", target="target", sync="none"),
        _RUNNING,
    ),
    Layout(
        "drive-active-commit-ready",
        "An active commit ready to pivot, on a guest with `-drive`: no node has a name",
        files=_FILES,
        arguments=("-drive", "if=none,id=old,format=qcow2,file=/share/top", *disk("old")),
        then=(do("block-commit", job_id="job0", device="old"), _READY),
        truth=_UNCHANGED,
    ),
    Layout(
        "drive-active-commit-pivoted",
        "After its pivot: QEMU has closed the upper layers",
        files=_FILES,
        arguments=("-drive", "if=none,id=old,format=qcow2,file=/share/top", *disk("old")),
        then=(do("block-commit", job_id="job0", device="old"), _READY, _COMPLETE, _GONE),
        truth={"vda": (("base", "raw"),)},
    ),
    Layout(
        "drive-stream-running",
        "A stream in mid-run on a guest with `-drive`",
        files=_EMPTY,
        arguments=("-drive", "if=none,id=old,format=qcow2,file=/share/top", *disk("old")),
        then=(do("block-stream", job_id="job0", device="old", speed=1), _RUNNING),
        truth=_UNCHANGED,
    ),
    Layout(
        "two-jobs",
        "Jobs on two disks over one base: a commit in mid-run, and a mirror that is ready",
        files=(*_FILES, Image("second", "raw"), Image("target", "qcow2")),
        arguments=(*_NODES, opened("raw", "second"), *disk("second", "vdb")),
        then=(
            _do("block-commit", _COMMIT, slow=True),
            _RUNNING,
            _TARGET,
            do("blockdev-mirror", job_id="job1", device="second", target="target", sync="full"),
            Until("job1", "ready"),
        ),
        truth={**_UNCHANGED, "vdb": (("second", "raw"),)},
    ),
    Layout(
        "throttled-active-commit-ready",
        "An active commit ready to pivot below a throttle filter",
        files=_FILES,
        arguments=(
            *("-object", "throttle-group,id=tg0"),
            *_NODES[:3],
            {"driver": "throttle", "node-name": "slow", "throttle-group": "tg0", "file": "top"},
            *disk("slow"),
        ),
        then=(_do("block-commit", _ACTIVE, device="slow"), _READY),
        truth=_UNCHANGED,
    ),
)
