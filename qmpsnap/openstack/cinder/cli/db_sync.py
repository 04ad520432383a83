"""`cinder db-sync`: the ledger's tables in Cinder's database."""

from __future__ import annotations

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.output import write
from qmpsnap.openstack.cinder.cli.deployment import Deployment, config_option


@click.command("db-sync", cls=Command, examples=("cinder db-sync",))
@config_option
def db_sync_(config_files: tuple[str, ...]) -> None:
    """
    Make the ledger's tables in Cinder's database, or bring older ones up to date.

    May be run again, and while Cinder runs. The services make missing tables by themselves, where
    the database user may.
    """
    from qmpsnap.ledger.schema import db_sync

    deployment = Deployment(config_files)
    before = db_sync(deployment.engine)
    write("the ledger's tables are made" if before == 0 else f"up to date (were version {before})")
