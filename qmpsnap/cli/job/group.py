"""The group `job`."""

from __future__ import annotations

import click

from qmpsnap.cli.group import Entry, LazyGroup

_COMMANDS = {
    "Commands": {
        "list": Entry("qmpsnap.cli.job.list:list_", "Every block job of a guest, with its rate."),
        "wait": Entry("qmpsnap.cli.job.wait:wait", "Wait until a job has ended."),
        "cancel": Entry(
            "qmpsnap.cli.job.control:cancel", "Cancel a job; the chain stays as it was."
        ),
        "pause": Entry("qmpsnap.cli.job.control:pause", "Pause a job (not under libvirt)."),
        "resume": Entry(
            "qmpsnap.cli.job.control:resume", "Resume a paused job (not under libvirt)."
        ),
        "set-speed": Entry("qmpsnap.cli.job.control:set_speed", "Limit a job's bytes a second."),
    }
}


@click.group(cls=LazyGroup, sections=_COMMANDS, examples=("job list web1", "job wait web1 vda"))
def job() -> None:
    """
    Show the block jobs of a guest, this tool's and others', and act on them.

    A job of a `delete` that was interrupted is finished by the same `delete` command, given again.
    """
