"""`cinder status`: who is there, what is known, what is under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import click

from qmpsnap.cli.command import Command
from qmpsnap.cli.output import rows_option, show
from qmpsnap.cli.tables import Table
from qmpsnap.openstack.cinder.cli.deployment import Deployment, config_option


@click.command("status", cls=Command, examples=("cinder status", "cinder status -o yaml"))
@config_option
@rows_option
def status(config_files: tuple[str, ...], output: str) -> None:
    """Show the services of this deployment, the files that are known, and who has control of what."""
    deployment = Deployment(config_files)
    with deployment.store().reading() as ledger:
        services = [
            {"kind": x.kind, "host": x.host, "version": x.version, "started": f"{x.at:%FT%TZ}"}
            for x in ledger.presences()
        ]
        files = ledger.files()
        under_way: list[dict[str, object]] = [
            {
                "volume": one.volume,
                "snapshot": one.snapshot,
                "operation": one.operation,
                "state": one.state.word,
                "control": one.state.control.value,
                "since": f"{one.at:%FT%TZ}",
            }
            for one in ledger.snapshots()
            if one.state.is_open
        ]
    counted = Counter(str(one.format or "unknown") for one in files)
    witnesses = Counter(str(one.witness) for one in files)
    document = {
        "schema": "qmpsnap.cinder-status/1",
        "services": services,
        "backends": [
            {"backend": one.name, "host": one.host, "driver": one.driver}
            for one in deployment.backends
        ],
        "volumes": len({one.volume for one in files}),
        "files": dict(sorted(counted.items())),
        "witnesses": dict(sorted(witnesses.items())),
        "operations": under_way,
    }
    show(document, output, lambda _: _view(document, services, under_way))


def _view(
    document: dict[str, object], services: list[dict[str, str]], under_way: list[dict[str, object]]
) -> Iterator[str | Table]:
    rows = [tuple(one.values()) for one in services]
    if rows:
        yield Table(("SERVICE", "HOST", "VERSION", "STARTED"), rows)
    yield f"{document['volumes']} volumes, files: {document['files']}"
    yield f"stated by: {document['witnesses']}"
    if under_way:
        heads = ("VOLUME", "SNAPSHOT", "STATE", "CONTROL", "SINCE")
        keys = ("volume", "snapshot", "state", "control", "since")
        yield Table(heads, [tuple(str(one[key]) for key in keys) for one in under_way])
    else:
        yield "no operation is under way"
