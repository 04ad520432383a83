"""The group `cinder`."""

from __future__ import annotations

import click

from qmpsnap.cli.group import Entry, LazyGroup

_HERE = "qmpsnap.openstack.cinder.cli"
_COMMANDS = {
    "Commands": {
        "db-sync": Entry(f"{_HERE}.db_sync:db_sync_", "Make the ledger's tables, or update them."),
        "import": Entry(f"{_HERE}.import_:import_", "Take existing volumes over."),
        "check": Entry(f"{_HERE}.check:check", "What is not as it should be; exit 3."),
        "status": Entry(f"{_HERE}.status:status", "Who is there, what is known, what is open."),
        "export": Entry(f"{_HERE}.export:export", "Make Cinder's rows ready for stock drivers."),
    }
}


@click.group(
    cls=LazyGroup, sections=_COMMANDS, examples=("cinder check", "cinder import --backend nfs1")
)
def cinder() -> None:
    """
    Prepare, check and leave Cinder's volume side.

    Each command reads Cinder's own configuration, and the ledger is in Cinder's own database. Run
    them where Cinder is installed, as the user that it runs as.
    """
