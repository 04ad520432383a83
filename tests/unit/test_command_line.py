"""Files that a QEMU was started with without a format."""

from __future__ import annotations

import pytest

from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.graph.command_line import probed_files
from tests.unit import recordings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("qemu -drive file=/a,if=none,id=d0", {"/a"}),
        ("qemu --drive file=/a", {"/a"}),
        ("qemu -hda /a -cdrom /b", {"/a", "/b"}),
        ("qemu -drive file=/a,,b,id=x", {"/a,b"}),
        ("qemu -drive file=/a,,,format=raw", set()),
        ("qemu -drive file=/a,format=raw,id=x", set()),
        ("qemu -drive file=/a,driver=raw", set()),
        ("qemu -drive file=/format=raw,id=x", {"/format=raw"}),
        ("qemu -drive if=none,id=empty", set()),
        ("qemu -blockdev driver=raw,file=f,node-name=n -drive", set()),
        ("qemu drive file=/a", set()),
        ("qemu -object secret,id=s,file=/a", set()),
        ("", set()),
    ],
)
def test_command_lines(line: str, expected: set[str]) -> None:
    assert probed_files(line.split(" ")) == expected


@pytest.mark.parametrize(
    "option",
    ["hda", "hdb", "hdc", "hdd", "cdrom", "fda", "fdb", "mtdblock", "sd", "pflash"],
)
def test_every_short_option(option: str) -> None:
    for dashes in ("-", "--"):
        assert probed_files(["qemu", f"{dashes}{option}", "/a"]) == {"/a"}


@pytest.mark.parametrize(
    ("probed", "flagged"),
    [
        (set(), [False] * 3),
        ({"/share/top"}, [True, False, False]),
        ({"/share/base"}, [False, False, True]),
        ({"/share/other"}, [False] * 3),
    ],
)
def test_flag(probed: set[str], flagged: list[bool]) -> None:
    (disk,) = guest_from_graph(recordings.graph("drive"), probed=probed).disks
    assert ["probed" in layer.flags for layer in disk.layers] == flagged


def test_node_that_somebody_named_was_given_a_driver() -> None:
    graph = recordings.graph("raw-node")
    (layer,) = guest_from_graph(graph).disks[0].layers
    (disk,) = guest_from_graph(graph, probed={layer.path or ""}).disks
    assert "probed" not in disk.layers[0].flags
