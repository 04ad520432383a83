"""What answers is hostile: slow, endless, deep or large. Bounded, and a typed error."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.rig.rig import run_cli
from tests.rig.situations import situation
from tests.unit.qmp_server import Client, serve

DEEP = b"[" * 200_000 + b"]" * 200_000


def nested(client: Client) -> None:
    client.greet()
    while command := client.receive():
        client.send(b'{"return": ' + DEEP + f', "id": {json.dumps(command["id"])}}}\n'.encode())


def endless_reply(client: Client) -> None:
    client.greet()
    client.receive()
    while True:
        client.send(b"x" * 65536)


def endless_greeting(client: Client) -> None:
    while True:
        client.send(b"x" * 65536)


@situation(
    "What answers on the QMP socket is no QEMU, or a hostile one: a greeting or a reply without an "
    "end, a reply nested 200,000 deep",
    happens="the connection is given up at a limit, and the error says why",
    code=7,
    then="See who listens on that socket.",
    kind=19,
)
@pytest.mark.parametrize("talk", [nested, endless_reply, endless_greeting])
def test_socket(tmp_path: Path, talk: object) -> None:
    assert callable(talk)
    with serve(tmp_path / "qmp", talk) as address:
        said = run_cli(["--qmp", address, "chain"])
    assert said.code == 7, said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 1024 * 1024  # KiB


@situation(
    "A domain XML has more disks than any machine has room for",
    happens="refused before the disks are looked at",
    code=1,
    then="Look at it with `virsh dumpxml`.",
    kind=19,
)
@pytest.mark.parametrize("count", [5000, 200_000])
def test_xml(tmp_path: Path, count: int) -> None:
    disks = "<disk><source file='/a'/><target dev='vda'/></disk>" * count
    lines = (
        {"qmpsnap-transcript": 1, "qemu": "7.2.22", "libvirt": "9.0.0"},
        {"xml": f"<domain><name>a</name><devices>{disks}</devices></domain>"},
    )
    path = tmp_path / "recorded.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    said = run_cli(["--replay", str(path), "chain"])
    assert said.code == 1, said
    assert "the domain XML cannot be read" in said.err
