"""The commands, as `--help` shows them; none is imported before it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qmpsnap.cli.group import Entry

COMMANDS: Final[Mapping[str, Mapping[str, Entry]]] = {
    "Look": {
        "guests": Entry(
            "qmpsnap.cli.guests:guests", "All guests of libvirt: disks, depth, findings."
        ),
        "disks": Entry("qmpsnap.cli.disks:disks", "Disks of a guest: active file, format, depth."),
        "chain": Entry(
            "qmpsnap.cli.chain:chain", "Every layer with format, witnesses and verdict."
        ),
        "list": Entry("qmpsnap.cli.list:list_", "Snapshots of a guest's disks."),
        "watch": Entry("qmpsnap.cli.watch:watch", "Chains and jobs of a guest as they change."),
        "explain": Entry("qmpsnap.cli.explain:explain", "Who uses a file, and whether it may go."),
        "orphans": Entry("qmpsnap.cli.orphans:orphans", "Files beside a chain that nobody uses."),
    },
    "Snapshots": {
        "create": Entry("qmpsnap.cli.snapshots:create", "Take a snapshot of one or more disks."),
        "delete": Entry(
            "qmpsnap.cli.snapshots:delete", "Delete one; the guest keeps what it sees."
        ),
        "revert": Entry(
            "qmpsnap.cli.revert:revert",
            "Go back to one; the guest is off.",
        ),
        "apply": Entry("qmpsnap.cli.apply:apply", "Carry out a plan, if nothing has moved."),
    },
    "Nova and Cinder": {
        "volume-snapshot-create": Entry(
            "qmpsnap.cli.volume:volume_snapshot_create", "Create, with Nova's arguments."
        ),
        "volume-snapshot-delete": Entry(
            "qmpsnap.cli.volume:volume_snapshot_delete", "Delete, with Nova's arguments."
        ),
        "outbox": Entry("qmpsnap.cli.outbox:outbox", "Updates that wait to be sent to Cinder."),
    },
    "Volume side": {
        "ledger": Entry(
            "qmpsnap.cli.ledger.group:ledger", "The format of every file, and who states it."
        ),
        "cinder": Entry(
            "qmpsnap.openstack.cinder.cli.group:cinder", "Check, import: for who runs Cinder."
        ),
    },
    "History": {
        "resume": Entry("qmpsnap.cli.resume:resume", "Settle operations that were interrupted."),
        "log": Entry("qmpsnap.cli.log:log", "What was done on this host, and what it came to."),
    },
    "Jobs": {
        "job": Entry("qmpsnap.cli.job.group:job", "List, wait for, cancel or limit block jobs."),
    },
    "Checks": {
        "verify": Entry("qmpsnap.cli.verify:verify", "Compare all witnesses for a guest's disks."),
        "audit": Entry("qmpsnap.cli.audit:audit", "The same for every running guest of a host."),
        "doctor": Entry(
            "qmpsnap.cli.doctor:doctor", "What is installed, reachable and allowed here."
        ),
    },
    "Other": {
        "record": Entry(
            "qmpsnap.cli.record:record", "Write a transcript of a guest, for --replay."
        ),
        "completion": Entry(
            "qmpsnap.cli.completion:completion", "What makes a shell complete names."
        ),
        "demo": Entry("qmpsnap.cli.demo:demo", "The whole story, on a throw-away QEMU."),
    },
}

HIDDEN: Final[Mapping[str, Entry]] = {
    "jobs": Entry("qmpsnap.cli.job.list:list_", "Now `job list`."),
    "wait": Entry("qmpsnap.cli.job.wait:wait", "Now `job wait`."),
    "cancel": Entry("qmpsnap.cli.job.control:cancel", "Now `job cancel`."),
    "pause": Entry("qmpsnap.cli.job.control:pause", "Now `job pause`."),
    "set-speed": Entry("qmpsnap.cli.job.control:set_speed", "Now `job set-speed`."),
}
"""Names from before `job`."""
