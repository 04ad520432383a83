"""`cinder export`: the way back to stock drivers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.findings import FINDINGS
from qmpsnap.cli.output import rows_option, show
from qmpsnap.cli.tables import Table
from qmpsnap.errors import QmpsnapError, Refused
from qmpsnap.ledger.named import OfLedger
from qmpsnap.openstack.cinder.cli.deployment import Deployment, Row, config_option

if TYPE_CHECKING:
    from qmpsnap.ledger.chain import Chain
    from qmpsnap.ledger.values import File


class OperationsOpen(OfLedger, Refused):
    """Operations are under way, whose end a stock driver would not understand."""

    msg = "{self.number} operations are under way; a stock driver would not take them up"
    remedy = (
        "`qmpsnap ledger show{self.ledger}` lists them, as OPERATION. Wait, or settle each with "
        "`qmpsnap ledger settle OPERATION --why REASON{self.ledger}`."
    )

    number: int


@click.command("export", cls=Command, examples=("cinder export", "cinder export -o json > rows"))
@config_option
@rows_option
def export(config_files: tuple[str, ...], output: str) -> None:
    """
    Have Cinder's own rows say what the ledger knows, for stock drivers; and print it.

    `format` becomes that of each volume's active file, `base_format` that of its first one. The
    ledger stays as it is, and so do the files. What the ledger does not know is left alone and
    listed, with exit code 3. Refused while an operation is under way.
    """
    deployment = Deployment(config_files)
    store = deployment.store()
    with store.reading() as ledger:
        if open_ := ledger.open_operations():
            raise OperationsOpen(len(open_))
    rows: list[dict[str, object]] = []
    for backend in deployment.backends:
        for row in deployment.volumes(backend):
            try:
                with store.reading() as ledger:
                    chain = ledger.chain(row.key)
                result = _set(deployment.engine, row, chain)
            except QmpsnapError as error:
                result = f"left alone: {error}"
                chain = None
            rows.append(
                {
                    "volume": row.id,
                    "result": result,
                    "files": [] if chain is None else [
                        {"file": x.file, "format": None if x.format is None else x.format.value}
                        for x in chain.layers
                    ],
                }
            )  # fmt: skip
    document = {"schema": "qmpsnap.cinder-export/1", "volumes": rows}
    show(document, output, lambda _: _view(rows))
    if any(str(one["result"]).startswith("left") for one in rows):
        click.get_current_context().exit(FINDINGS)


def _view(rows: list[dict[str, object]]) -> Iterator[str | Table]:
    shown = [(str(x["volume"]), str(x["result"])) for x in rows if x["result"] != "right already"]
    if shown:
        yield Table(("VOLUME", "RESULT"), shown)
    yield f"{len(rows)} volumes, {len(rows) - len(shown)} were right already"


def _set(engine: Any, row: Row, chain: Chain[File]) -> str:
    import sqlalchemy as sa
    from cinder.db import models

    active, first = chain.active.format, chain.layers[-1].format
    if active is None or first is None:
        return "left alone: a format is unknown"
    wanted = {"format": active.value}
    if len(chain.layers) > 1 or "base_format" in row.metadata:
        wanted["base_format"] = first.value
    if all(row.metadata.get(key) == value for key, value in wanted.items()):
        return "right already"
    table = models.VolumeAdminMetadata.__table__
    with engine.begin() as connection:
        for key, value in wanted.items():
            of_key = (table.c.volume_id == row.id) & (table.c.key == key)
            living = of_key & table.c.deleted.is_(False)
            done = connection.execute(sa.update(table).where(living).values(value=value))
            if done.rowcount == 0:
                connection.execute(
                    sa.insert(table).values(
                        volume_id=row.id, key=key, value=value, deleted=False,
                        created_at=sa.func.current_timestamp(),
                    )
                )  # fmt: skip
    return "set to " + ", ".join(f"{key} {value}" for key, value in wanted.items())
