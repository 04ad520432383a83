"""`chain --output dot|svg` of a real guest, laid out by the real Graphviz."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree
from msgspec.structs import replace

from qmpsnap.cli.drawing.dot import NAME_LIMIT, shortened
from qmpsnap.cli.drawing.graphviz import svg
from qmpsnap.cli.drawing.picture import picture
from qmpsnap.cli.text import printable
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.graph.nodes import Device, Edge, Graph, Node
from tests.rig import qemu_machine
from tests.rig.chains import make_chain
from tests.rig.disks import qcow2_chain
from tests.rig.rig import Rig, Said
from tests.rig.tiers import missing

DEPTH = 10
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", autouse=True)
def graphviz() -> None:
    """Skip without Graphviz, or fail where this tier is required."""
    if shutil.which("dot") is None:
        missing("qemu", "install Debian's graphviz")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[qemu_machine.QemuMachine]:
    """A guest with two disks, of ten layers and of two; a job waits on the first."""
    folder = tmp_path_factory.mktemp("share")
    disks = [
        qcow2_chain(make_chain(folder, "volume-1", DEPTH), "vda", "1"),
        qcow2_chain(make_chain(folder, "volume-2", 2), "vdb", "2"),
    ]
    with qemu_machine.run(disks, directory=folder) as guest:
        job = {"job-id": "waits", "auto-finalize": False, "auto-dismiss": False}
        ends = {"device": "vda-0-fmt", "top-node": "vda-3-fmt", "base-node": "vda-6-fmt"}
        guest.qmp("block-commit", job | ends)
        yield guest


def said(guest: qemu_machine.QemuMachine, *arguments: str) -> Said:
    rig = Rig(guest, Path(), ["--qmp", guest.qmp_path], [], NotImplemented, guest.kill)
    return rig.cli(*arguments)


def texts(picture: str) -> list[str]:
    """What one reads in an SVG."""
    # Graphviz writes a space as a no-break one where XML would drop it.
    found = etree.fromstring(picture.encode()).iter(f"{SVG}text")
    return ["".join(map(str, one.itertext())).replace("\xa0", " ") for one in found]


class TestTenLayersAndTwoDisks:
    def test_svg_shows_every_layer_and_the_job(self, guest: qemu_machine.QemuMachine) -> None:
        done = said(guest, "chain", "-o", "svg")
        assert done.code == 0, done
        assert done.err == ""
        shown = texts(done.out)
        for name, depth in (("volume-1", DEPTH), ("volume-2", 2)):
            for number in range(depth):
                assert (f"{name}.s{number}" if number else name) in shown
        assert shown.count("qcow2 · exact · 1 MiB") == DEPTH
        assert shown.count("raw · exact · 1 MiB") == 2
        assert "job waits" in shown
        assert shown.count("job waits: intermediate node") == 3
        assert "base" in shown  # the role of the job's lower end

    def test_one_disk(self, guest: qemu_machine.QemuMachine) -> None:
        shown = texts(said(guest, "chain", "vdb", "-o", "svg").out)
        assert "volume-2.s1" in shown
        assert not {"vda", "volume-1", "job waits"} & set(shown)

    def test_dot_is_what_graphviz_reads(self, guest: qemu_machine.QemuMachine) -> None:
        done = said(guest, "chain", "-o", "dot")
        assert done.code == 0, done
        plain = subprocess.run(
            ["dot", "-Tplain"], input=done.out, capture_output=True, text=True, check=True
        )
        assert plain.stderr == ""
        # Two nodes a layer, two devices, the commit's filter and the job.
        nodes = [line for line in plain.stdout.splitlines() if line.startswith("node ")]
        assert len(nodes) == 2 * (DEPTH + 2) + 4

    def test_graphviz_missing(
        self, guest: qemu_machine.QemuMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        done = said(guest, "chain", "-o", "svg")
        assert done.code == 4
        assert done.out == ""
        assert "graphviz" in done.err

    @pytest.mark.parametrize("command", ["disks", "list"])
    def test_only_chains_are_drawn(self, guest: qemu_machine.QemuMachine, command: str) -> None:
        assert said(guest, command, "-o", "svg").code == 2


NAMES = st.text(
    st.one_of(st.characters(), st.sampled_from('"\\<>&;{}[]=-\n\r\t\0 nNlGTEHL|/#@')),
    min_size=1,
    max_size=40,
)


@given(NAMES)
@example('"]; evil [label="x')
@example("<b>bold</b>")
@example("&lt;script&gt;alert(1)&lt;/script&gt;")
@example("<script>alert(1)</script>")
@example("\\N\\G\\L\\n")
@example("trailing\\")
@example("]]>")
@settings(max_examples=40, deadline=None)
def test_a_hostile_name_is_only_text(name: str) -> None:
    nodes = (
        Node(name=name, driver="qcow2", filename="/share/x"),
        Node(name="file", driver="file", filename="/share/" + name.replace("/", "|")),
    )
    made = Graph(
        devices=(Device(device="", qdev="vda", root=name),),
        nodes={node.name: node for node in nodes},
        edges=(Edge(parent=name, child="file", role="file"),),
    )
    report = guest_from_graph(made, guest=name)
    report = replace(report, disks=tuple(replace(disk, serial=name) for disk in report.disks))
    drawn = svg(picture(report, report.disks))
    shown = texts(drawn)
    for expected in (name, f"serial {name}", f"node {name}", name.replace("/", "|")):
        assert shortened(printable(expected), NAME_LIMIT).replace("\xa0", " ") in shown
    elements = [one for one in etree.fromstring(drawn.encode()).iter() if isinstance(one.tag, str)]
    known = ("svg", "g", "title", "polygon", "path", "polyline", "text", "a")
    assert {one.tag for one in elements} <= {SVG + tag for tag in known}
    assert not {key for one in elements for key in one.attrib if "href" in str(key)}
    assert [one.get("class") for one in elements].count("node") == 3
