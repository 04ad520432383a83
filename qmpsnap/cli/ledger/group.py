"""The group `ledger`."""

from __future__ import annotations

import click

from qmpsnap.cli.group import Entry, LazyGroup

_COMMANDS = {
    "Commands": {
        "show": Entry("qmpsnap.cli.ledger.show:show_", "What is known of every file, and by whom."),
        "history": Entry("qmpsnap.cli.ledger.show:history", "Everything that was ever stated."),
        "set": Entry("qmpsnap.cli.ledger.set:set_", "State a file yourself."),
        "settle": Entry("qmpsnap.cli.ledger.set:settle", "End an operation nobody is at work on."),
        "import": Entry("qmpsnap.cli.ledger.moving:import_", "Take over what another one knows."),
        "export": Entry("qmpsnap.cli.ledger.moving:export", "Print all of it, for `import`."),
    }
}


@click.group(
    cls=LazyGroup,
    sections=_COMMANDS,
    examples=("ledger show", "ledger history 1c0f8a8e-6c5b-4d0e-9b57-3b1d3c1f8a11"),
)
def ledger() -> None:
    """
    Show what the volume side knows of the files of its volumes, and state what it does not know.

    The ledger is in the database that `--ledger` names, Cinder's for example; else in one of
    qmpsnap's own on this host.
    """
