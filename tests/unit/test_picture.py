"""Pictures of guests in DOT: what stands in them, and that no name can be more than text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qmpsnap.cli.drawing.dot import NAME_LIMIT, shortened, text
from qmpsnap.cli.drawing.picture import picture
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import Disks, Layer
from qmpsnap.formats.verdict import Verdict
from qmpsnap.graph import xml
from qmpsnap.graph.nodes import Device, Edge, Graph, Job, Node, Recorded
from tests.unit import recordings, samples
from tests.unit.drawings import DRAWN, FOLDER, STRING, Drawn, drawing, taken_apart


def drawn(report: Disks, disk: int | None = None) -> Drawn:
    chosen = report.disks if disk is None else (report.disks[disk],)
    return taken_apart(picture(report, chosen))


def node(name: str, driver: str = "qcow2", backing: tuple[str, str] | None = None) -> Node:
    recorded = None
    if backing is not None:
        recorded = Recorded(filename=backing[0], format=backing[1])
    return Node(name=name, driver=driver, filename=f"/share/{name}", recorded=recorded)


def device(name: str, root: str | None) -> Device:
    return Device(device="", qdev=name, root=root)


def graph(
    devices: list[Device], nodes: list[Node], edges: list[tuple[str, str, str]], *jobs: Job
) -> Graph:
    return Graph(
        devices=tuple(devices),
        nodes={one.name: one for one in nodes},
        edges=tuple(Edge(parent=parent, child=child, role=role) for parent, child, role in edges),
        jobs=jobs,
    )


def shared_base(above: str = "raw") -> Graph:
    """Disks `vda` and `vdb` over one base; the header in vda's overlay names it `above`."""
    return graph(
        [device("vda", "a"), device("vdb", "b")],
        [
            node("a", backing=("base", above)),
            node("b", backing=("base", "raw")),
            node("base", "raw"),
            node("base-file", "file"),
        ],
        [("a", "base", "backing"), ("b", "base", "backing"), ("base", "base-file", "file")],
    )


@pytest.mark.parametrize("name", DRAWN)
def test_recorded_guests_look_as_they_did(name: str) -> None:
    assert drawing(name) == (FOLDER / f"{name}.dot").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", recordings.NAMES)
def test_every_node_and_edge_and_job_is_drawn_once(name: str) -> None:
    made = recordings.graph(name)
    found = taken_apart(drawing(name))
    ids = {one: label for one, label in found.labels.items() if one.startswith("node")}
    assert len(ids) == len(made.nodes)
    between = [edge for edge in found.edges if edge[0] in ids]
    assert len(between) == len(made.edges)
    assert len([one for one in found.labels if one.startswith("job")]) == len(made.jobs)


class TestChain:
    def test_layers_say_file_format_verdict_and_size(self) -> None:
        report = guest_from_graph(recordings.graph("two-disks"))
        found = drawn(report)
        top = found.labels[found.id("node top")]
        assert top == ["top", "qcow2 · exact · 1 MiB", "qmp", "node top"]
        assert found.below("vda") == {"top"}
        assert found.below("node top") == {"mid", "file top-file"}
        assert found.below("node mid") == {"base", "file mid-file"}
        assert list(found.frames) == ["vda", "sda"]
        assert found.id("node base") in found.frames["vda"]

    def test_one_disk_is_drawn_without_the_other(self) -> None:
        report = guest_from_graph(recordings.graph("two-disks"))
        found = drawn(report, 1)
        assert list(found.frames) == ["sda"]
        assert {label[0] for label in found.labels.values()} == {"sda", "disk", "file disk-file"}

    def test_data_file_is_named(self) -> None:
        found = taken_apart(drawing("data-file"))
        assert found.labels[found.id("file data")] == ["file data", "disk.data"]

    def test_implicit_filter_over_the_root_belongs_to_the_disk(self) -> None:
        found = taken_apart(drawing("libvirt-mirror"))
        assert found.id("mirror_top #block061") in found.frames["vda"]
        # The device reads through it: beside the device, it would pull the frame around it.
        assert found.below("vda") == {"mirror_top #block061"}
        assert found.below("mirror_top #block061") == {"base.s2"}

    def test_filter_over_the_root_that_nothing_reads_is_on_no_disk(self) -> None:
        made = graph(
            [replace(device("vda", "a"), entry="a")],
            [node("a"), node("slow", "throttle")],
            [("slow", "a", "file")],
        )
        found = drawn(guest_from_graph(made))
        assert found.frames["on no disk"] == [found.id("throttle slow")]
        assert found.below("vda") == {"/share/a"}

    def test_filter_that_another_disk_reads_through_is_not_the_first_ones(self) -> None:
        made = graph(
            [device("vda", "base"), device("vdb", "b")],
            [node("b"), node("slow", "throttle"), node("base", "raw")],
            [("b", "slow", "backing"), ("slow", "base", "file")],
        )
        found = drawn(guest_from_graph(made))
        assert found.id("throttle slow") in found.frames["vdb"]
        assert found.id("node base") in found.frames["shared by vda, vdb"]

    def test_empty_drive(self) -> None:
        found = drawn(guest_from_graph(recordings.graph("empty-cdrom")))
        assert any("cdrom, empty" in label for label in found.labels.values())

    def test_xml_alone_draws_the_layers(self) -> None:
        domain = xml.parse(recordings.xml("libvirt-running"))
        found = drawn(guest_from_xml(domain, notes=("formats by XML alone",)))
        files = [layer.file for layer in domain_layers(domain)]
        assert [
            label[0] for one, label in found.labels.items() if one.startswith("disk0_")
        ] == files
        assert [edge[:2] for edge in found.edges[: len(files)]] == [
            ("disk0", "disk0_0"),
            *((f"disk0_{n}", f"disk0_{n + 1}") for n in range(len(files) - 1)),
        ]


def domain_layers(domain: xml.XmlDomain) -> tuple[Layer, ...]:
    return guest_from_xml(domain).disks[0].layers


class TestOdd:
    def test_shared_base_is_drawn_once_in_a_frame_of_its_own(self) -> None:
        found = drawn(guest_from_graph(shared_base()))
        assert set(found.frames) == {"vda", "vdb", "shared by vda, vdb"}
        assert found.frames["shared by vda, vdb"] == [
            found.id("node base"),
            found.id("file base-file"),
        ]
        assert "base-file" in found.below("node a")

    def test_shared_base_is_judged_by_both_chains(self) -> None:
        report = guest_from_graph(shared_base("qcow2"))
        base = [disk.layers[1].verdict for disk in report.disks]
        assert base == [Verdict.CONFLICT, Verdict.EXACT]
        for disks in (report.disks, report.disks[::-1]):
            found = drawn(replace(report, disks=disks))
            lines = found.labels[found.id("node base")]
            assert lines[1] == "raw · conflict · -"
            assert "header: qcow2 (header of /share/a, as QEMU opened it)" in lines
            assert "qmp: raw (node base: driver raw)" in lines

    def test_conflict_is_red(self) -> None:
        found = drawn(guest_from_graph(shared_base("qcow2")))
        assert 'fontcolor="#c62828"' in found.looks[found.id("node base")]
        assert 'fontcolor="#c62828"' not in found.looks[found.id("node a")]

    def test_other_chain_in_the_xml_is_a_conflict(self) -> None:
        disk = replace(samples.disk(), xml_differs="libvirt sees a <- b, QEMU has b")
        found = drawn(samples.guest(disk))
        assert found.labels["conflict0"] == ["CONFLICT", "libvirt sees a <- b, QEMU has b"]
        assert found.edges[0][:2] == ("conflict0", "disk0")

    def test_what_is_on_no_disk(self) -> None:
        made = graph([device("vda", "a")], [node("a"), node("stray"), node("new", "dream")], [])
        found = drawn(guest_from_graph(made))
        assert found.frames["on no disk"] == [found.id("qcow2 stray"), found.id("dream new")]

    def test_a_missing_node_is_shown_as_missing(self) -> None:
        made = graph([device("vda", "gone")], [node("stray")], [("stray", "lost", "backing")])
        found = drawn(guest_from_graph(made))
        for name in ("gone", "lost"):
            assert "named, but not among the nodes" in found.labels[found.id(name)]

    def test_unknown_driver_states_no_format(self) -> None:
        found = taken_apart(drawing("quorum"))
        assert "nobody states a format" in found.labels[found.id("node vote")]
        assert {one for edge in found.edges for one in [edge[2]] if "children.1" in one}


class TestJobs:
    def test_dashed_to_its_ends_and_a_line_in_between(self) -> None:
        found = taken_apart(drawing("commit-running"))
        job = found.id("job job0")
        assert found.labels[job] == ["job job0", "commit · running · 6 %"]
        assert found.below("job job0") == {"top", "base"}
        assert all("dashed" in edge[2] for edge in found.edges if edge[0] == job)
        assert "job job0: intermediate node" in found.labels[found.id("node mid")]

    def test_failed_job_is_red_and_says_why(self) -> None:
        job = Job(id="j", type="stream", status="concluded", error="No space left on device")
        found = drawn(guest_from_graph(graph([device("vda", "a")], [node("a")], [], job)))
        assert found.labels["job0"] == [
            "job j",
            "stream · concluded · no progress told",
            "No space left on device",
        ]
        assert 'fontcolor="#c62828"' in found.looks["job0"]

    def test_job_of_another_disk_is_left_out(self) -> None:
        made = recordings.graph("commit-running")
        made = replace(
            made,
            devices=(*made.devices, device("vdb", "other")),
            nodes={**made.nodes, "other": node("other")},
        )
        report = guest_from_graph(made)
        assert "job0" in drawn(report, 0).labels
        assert "job0" not in drawn(report, 1).labels


HOSTILE = st.one_of(
    st.text(min_size=1, max_size=30),
    st.text(alphabet='"\\<>&;{}[]=-\n\r\t\0 nNlG|/#', min_size=1, max_size=30),
    st.sampled_from(
        [
            '"];evil [label="x',
            '\\"];evil [label="x',
            "\\\\",
            "<b>bold</b>",
            "&lt;script&gt;",
            "\\N",
            "a\nb -> c;",
            "\udc80\u202e\x1b[2J",
            "/*",
            "//",
            '" + "',
        ]
    ),
)


def named(one: str) -> Disks:
    """A guest in which everything that has a name has this one."""
    made = graph(
        [device(f"d{one}", f"a{one}")],
        [node(f"a{one}"), node(f"f{one}", "file"), node(f"x{one}", f"driver{one}")],
        [(f"a{one}", f"f{one}", "file"), (f"x{one}", f"gone{one}", f"role{one}")],
        Job(id=f"j{one}", type=f"t{one}", status=f"s{one}", error=f"e{one}"),
    )
    made = replace(made, job_edges=(Edge(parent=f"j{one}", child=f"a{one}", role=f"r{one}"),))
    report = guest_from_graph(made, guest=f"g{one}", serials={f"d{one}": f"s{one}"})
    return replace(report, notes=(f"n{one}",))


@given(HOSTILE)
def test_no_name_gets_out_of_its_string(name: str) -> None:
    plain, hostile = named("x"), named(name)
    skeleton = STRING.sub('""', picture(plain, plain.disks))
    assert STRING.sub('""', picture(hostile, hostile.disks)) == skeleton


@given(st.lists(HOSTILE, min_size=1, max_size=3))
def test_a_string_has_no_bare_special_character(lines: list[str]) -> None:
    made = text(lines)
    assert STRING.fullmatch(made)
    assert made.isprintable()
    assert made.count("&") == made.count("&amp;")


def test_text_shows_names_as_they_are() -> None:
    assert text(['a"b\\N&lt;', "\n"]) == r'"a\"b\\\\N&amp;lt;\n\\n"'


@given(st.text(max_size=200), st.integers(min_value=3, max_value=80))
def test_a_long_name_keeps_both_ends(name: str, limit: int) -> None:
    made = shortened(name, limit)
    assert len(made) <= limit
    assert made == name or (
        len(made) == limit and name.startswith(made[0]) and name[-1] == made[-1]
    )


def test_file_names_of_a_usual_length_stay_whole() -> None:
    name = "volume-6f1c0c9e-9b3e-4f7c-9a43-8d1b6a7e1d11.snapshot-12"
    assert shortened(name, NAME_LIMIT) == name
