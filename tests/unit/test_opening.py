"""What a command line of QEMU says of a node that QMP does not."""

from __future__ import annotations

import json

import pytest

from qmpsnap.graph.opening import Opening, opening

FILE = "-blockdev driver=file,node-name=f,filename=/a"
BOTH = Opening(discard=True)
FORMAT = Opening(discard=True, passed_on=False)
BELOW = Opening()
NEITHER = Opening(passed_on=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-blockdev driver=raw,node-name=n,file.driver=file,file.filename=/a", BELOW),
        ("--blockdev driver=raw,node-name=n,discard=unmap,file.filename=/a", BOTH),
        ("-blockdev raw,node-name=n,discard=unmap,file.discard=ignore", FORMAT),
        (f"{FILE} -blockdev driver=raw,node-name=n,discard=unmap,file=f", FORMAT),
        (f"{FILE},discard=unmap -blockdev driver=raw,node-name=n,discard=unmap,file=f", BOTH),
        (f"{FILE},discard=unmap -blockdev driver=raw,node-name=n,file=f", BELOW),
        (f"{FILE} -blockdev driver=raw,node-name=n,file=f", NEITHER),
        (f"{FILE},aio=native -blockdev driver=raw,node-name=n,file=f", ("native", NEITHER)),
        ("-blockdev driver=raw,node-name=n,file=gone", NEITHER),
        ("-blockdev driver=file,node-name=n,discard=unmap,aio=io_uring", ("io_uring", BOTH)),
        ("-blockdev driver=file,node-name=n", NEITHER),
        ("-blockdev driver=file,node-name=n,aio=threads", ("threads", NEITHER)),
        ("-blockdev driver=file,node-name=n,aio=magic", NEITHER),
        (
            "-blockdev driver=raw,node-name=n,discard=unmap,file.driver=throttle,file.file.aio=native",
            ("native", BOTH),
        ),
        (
            "-blockdev driver=throttle,node-name=t,file.node-name=n,file.file.filename=/a",
            BOTH,
        ),
        ("-blockdev driver=raw,node-name=n,discard=unmap,file=n", BOTH),
        ("-blockdev driver=raw,node-name=n,file=x,file.filename=/a", None),
        ("-blockdev driver=raw,node-name=other,discard=unmap", None),
        ("-drive if=none,id=d,file=/a,discard=unmap", BOTH),
        ("--drive if=none,id=d,file=/x,discard=on,aio=native", ("native", BOTH)),
        ("--drive if=none,id=d,file=/x,discard=on,aio=magic", BOTH),
        ("-drive if=none,id=d,file=/a,discard=off", BELOW),
        ("-drive if=none,id=d,file=/a,discard=unmap,file.discard=ignore", FORMAT),
        ("-drive if=none,id=e,file=/a,discard=unmap", None),
        ("-drive if=none,id=e,node-name=n,file=/x,discard=unmap", BOTH),
        ("-drive if=virtio,file=/a,discard=unmap", BOTH),
        ("-drive if=virtio,file=/b,discard=unmap", None),
        ("-blockdev", None),
        ("", None),
    ],
)
def test_lines(line: str, expected: tuple[str, Opening] | Opening | None) -> None:
    if isinstance(expected, tuple):
        aio, both = expected
        expected = Opening(discard=both.discard, passed_on=both.passed_on, aio=aio)
    found = opening(["qemu", *line.split(" ")], node="n", drive="d", path="/a")
    assert found == expected


def test_drive_without_a_path() -> None:
    assert opening(["-drive", "if=virtio,discard=unmap"], node="n") is None


def test_json() -> None:
    file = {"driver": "file", "filename": "/a", "node-name": "f", "aio": "native"}
    node = {"driver": "qcow2", "node-name": "n", "discard": "unmap", "file": file}
    expected = Opening(discard=True, passed_on=True, aio="native")
    assert opening(["-blockdev", json.dumps(node)], node="n") == expected
    apart = ["-blockdev", json.dumps(file), "-blockdev", json.dumps({**node, "file": "f"})]
    assert opening(apart, node="n") == Opening(discard=True, passed_on=False, aio="native")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{" * 100_000, '{"node-name": 7}', '{"node-name": "n"']
)
def test_what_is_no_object(text: str) -> None:
    assert opening(["-blockdev", text], node="n") is None
