"""The witnesses of a running guest put together: its graph, libvirt's XML, the headers on disk."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats import from_xml
from qmpsnap.formats.from_graph import disk_chains, guest_from_graph, headers_to_read
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.qcow2 import Header
from qmpsnap.formats.verdict import Verdict, Witness
from qmpsnap.graph.nodes import Device, Edge, Graph, Node, Recorded
from qmpsnap.graph.xml import XmlDisk, XmlDomain, XmlLayer, parse
from tests.unit import recordings
from tests.unit.recordings import SOURCES, Source


def reported(name: str, source: Source = "debug", **headers: Header) -> Disk:
    """First disk of a recording on the direct road; headers by bare file name."""
    by_path = {f"/share/{file}": header for file, header in headers.items()}
    return guest_from_graph(recordings.graph(name, source), headers=by_path).disks[0]


def said(layer: Layer) -> dict[str, str]:
    return {one.witness: one.format for one in layer.evidence}


def header(backing: str | None = None, format_: str | None = None) -> Header:
    return Header(version=3, virtual_size=1, backing_file=backing, backing_format=format_)


class TestDirectRoad:
    @pytest.mark.parametrize("source", SOURCES)
    @pytest.mark.parametrize(
        ("recording", "formats"),
        [
            ("raw-node", ["raw"]),
            ("raw-without-node", ["raw"]),
            ("qcow2-chain", ["qcow2", "qcow2", "raw"]),
            ("qcow2-over-protocol", ["qcow2", "raw"]),
            ("throttle-on-top", ["qcow2", "qcow2", "raw"]),
            ("throttle-between", ["qcow2", "qcow2", "raw"]),
            ("copy-on-read", ["qcow2", "qcow2", "raw"]),
            ("two-filters", ["qcow2", "qcow2", "raw"]),
            ("commit-running", ["qcow2", "qcow2", "raw"]),
            ("active-commit-ready", ["qcow2", "qcow2", "raw"]),
            ("active-commit-named-filter", ["qcow2", "qcow2", "raw"]),
            ("stream-running", ["qcow2", "qcow2", "raw"]),
            ("blkdebug", ["qcow2"]),
            ("luks", ["qcow2", "luks"]),
            ("fdset", ["raw"]),
            ("drive", ["qcow2", "qcow2", "raw"]),
        ],
    )
    def test_exact_format_of_every_layer(
        self, recording: str, source: Source, formats: list[str]
    ) -> None:
        layers = reported(recording, source).layers
        assert [layer.format for layer in layers] == formats
        assert {layer.verdict for layer in layers} == {Verdict.EXACT}

    @pytest.mark.parametrize("source", SOURCES)
    def test_quorum_states_nothing(self, source: Source) -> None:
        (layer,) = reported("quorum", source).layers
        assert (layer.format, layer.verdict, layer.evidence) == (None, Verdict.UNKNOWN, ())
        assert layer.protocol == "unknown"

    def test_driver_of_a_later_qemu_states_nothing(self) -> None:
        made = recordings.graph("raw-without-node")
        nodes = {"base": replace(made.nodes["base"], driver="qcow9")}
        (layer,) = guest_from_graph(replace(made, nodes=nodes)).disks[0].layers
        assert (layer.format, layer.verdict) == (None, Verdict.UNKNOWN)

    @pytest.mark.parametrize("upper", ["raw", "qcow2"])
    @pytest.mark.parametrize(
        ("inner", "flags"), [("luks", ("encrypted", "two-formats")), ("qcow2", ("two-formats",))]
    )
    def test_format_over_another_one_states_nothing(
        self, upper: str, inner: str, flags: tuple[str, ...]
    ) -> None:
        """Nor does a header that names the file, and no header is looked for in it."""
        made = recordings.graph("qcow2-over-protocol")
        file, lower = made.nodes["base"], Node(name="inner", driver=inner, filename="/share/base")
        nodes = {
            **made.nodes,
            "base": replace(file, driver=upper),
            "inner": lower,
            "below": replace(file, name="below"),
        }
        edges = [("base", "inner"), ("inner", "below")]
        more = (Edge(parent=above, child=below, role="file") for above, below in edges)
        made = replace(made, nodes=nodes, edges=(*made.edges, *more))
        headers = {"/share/top": header("base", "raw")}
        top, base = guest_from_graph(made, headers=headers).disks[0].layers
        assert (top.verdict, top.flags) == (Verdict.EXACT, ())
        assert (base.path, base.format, base.verdict) == ("/share/base", None, Verdict.UNKNOWN)
        assert (base.evidence, base.flags) == ((), flags)
        assert list(headers_to_read(disk_chains(made))) == ["/share/top"]

    def test_protocol_in_the_place_of_a_format_says_so(self) -> None:
        (layer,) = reported("raw-without-node").layers
        assert layer.evidence[0].detail.endswith(
            "driver file, no format node: the bytes as they are"
        )

    def test_what_a_layer_holds(self) -> None:
        top, mid, base = reported("qcow2-chain").layers
        assert (top.file, top.path, top.protocol) == ("top", "/share/top", "file")
        assert (top.node, top.top_node, top.protocol_node) == ("top", "top", "top-file")
        assert (top.backing_name, mid.backing_name, base.backing_name) == ("mid", "base", None)
        assert top.virtual_size == 1024 * 1024
        assert top.node_details is not None
        assert top.node_details.name == "top"

    def test_filter_on_top_is_the_root(self) -> None:
        disk = reported("throttle-on-top")
        assert (disk.root, disk.layers[0].node, disk.layers[0].top_node) == ("slow", "top", "slow")

    def test_disk_is_called_by_its_device_id(self) -> None:
        made = recordings.graph("two-disks")
        guest = guest_from_graph(made, guest="web1", serials={"vda": "1234"}, notes=("a note",))
        assert {disk.disk: disk.serial for disk in guest.disks} == {"vda": "1234", "sda": None}
        assert (guest.guest, guest.notes) == ("web1", ("a note",))

    def test_empty_cdrom_has_no_layers(self) -> None:
        guest = guest_from_graph(recordings.graph("empty-cdrom"))
        assert [(disk.disk, disk.kind, len(disk.layers)) for disk in guest.disks] == [
            ("vda", "disk", 1),
            ("cd0", "cdrom", 0),
        ]

    @pytest.mark.parametrize(
        ("type_", "kind"),
        [
            ("floppy", "floppy"),
            ("scsi-cd", "cdrom"),
            ("ide-cd", "cdrom"),
            ("cfi.pflash01", "pflash"),
            ("cfi.pflash02", "pflash"),
            ("virtio-blk-device", "disk"),
            ("usb-storage", "disk"),
        ],
    )
    def test_kind_by_the_type_of_the_device(self, type_: str, kind: str) -> None:
        made = recordings.graph("raw-node")
        (name,) = (device.name for device in made.devices)
        assert guest_from_graph(made, types={name: type_}).disks[0].kind == kind

    def test_backend_that_no_device_uses_is_no_disk(self) -> None:
        made = recordings.graph("raw-node")
        devices = (*made.devices, Device(device="", qdev=None, root="base"))
        assert len(guest_from_graph(replace(made, devices=devices)).disks) == 1

    def test_read_only_disk(self) -> None:
        made = recordings.graph("raw-node")
        nodes = {**made.nodes, "base": replace(made.nodes["base"], read_only=True)}
        assert not guest_from_graph(made).disks[0].read_only
        assert guest_from_graph(replace(made, nodes=nodes)).disks[0].read_only

    def test_jobs(self) -> None:
        (job,) = guest_from_graph(recordings.graph("commit-running")).jobs
        assert (job.id, job.status) == ("job0", "running")

    def test_files_that_any_node_has_open(self) -> None:
        orphaned = guest_from_graph(recordings.graph("stream-finished"))
        assert orphaned.open_files == {"/share/top", "/share/mid", "/share/base"}
        with_data_file = guest_from_graph(recordings.graph("data-file"))
        assert with_data_file.open_files == {"/share/disk", "/share/disk.data"}
        assert guest_from_graph(recordings.graph("fdset")).open_files == frozenset()

    def test_nodes_that_a_disk_reads_but_for_filters(self) -> None:
        plain = guest_from_graph(recordings.graph("qcow2-chain")).disks[0].nodes
        assert plain == {"top", "mid", "base", "top-file", "mid-file", "base-file"}
        running = recordings.graph("commit-running")
        filters = {name for name, node in running.nodes.items() if node.driver == "commit_top"}
        assert filters
        assert not filters & guest_from_graph(running).disks[0].nodes

    def test_root_that_is_missing_from_the_nodes(self) -> None:
        made = Graph(devices=(Device(device="", qdev="vda", root="a"),), nodes={}, edges=())
        assert guest_from_graph(made).disks[0].layers == ()


class TestReadByOthers:
    """Only what lies below may be merged into, so only there does another reader matter."""

    @pytest.mark.parametrize(
        ("exported", "flagged"),
        [
            ((), []),
            (("mid",), ["mid"]),
            (("mid", "base"), ["mid", "base"]),
            (("base-file",), ["base"]),
        ],
    )
    def test_layer_that_is_exported(self, exported: tuple[str, ...], flagged: list[str]) -> None:
        assert self.flagged(exported) == flagged

    def test_export_of_the_active_layer_is_the_disk_itself(self) -> None:
        assert self.flagged(("top",)) == []

    @pytest.mark.parametrize(("qdev", "flagged"), [("vdb", ["mid"]), (None, [])])
    def test_layer_that_another_device_reads(self, qdev: str | None, flagged: list[str]) -> None:
        """A backend that no device uses, as a job's, is none."""
        made = recordings.graph("qcow2-chain")
        other = Device(device="", qdev=qdev, root="mid")
        assert self.flagged((), replace(made, devices=(*made.devices, other))) == flagged

    def flagged(self, exported: tuple[str, ...], graph: Graph | None = None) -> list[str]:
        made = replace(graph or recordings.graph("qcow2-chain"), exported=frozenset(exported))
        layers = guest_from_graph(made).disks[0].layers
        return [layer.file for layer in layers if "shared-base" in layer.flags]


class TestHeaders:
    def test_header_as_qemu_read_it_when_none_is_read_from_disk(self) -> None:
        _, mid, base = reported("qcow2-chain").layers
        assert said(mid) == {Witness.QMP: "qcow2", Witness.HEADER: "qcow2"}
        assert said(base) == {Witness.QMP: "raw", Witness.HEADER: "raw"}
        assert base.evidence[1].detail == "header of mid, as QEMU opened it"

    def test_header_on_disk_comes_first(self) -> None:
        _, mid, base = reported("qcow2-chain", mid=header("base", "qcow2")).layers
        assert (base.verdict, base.format) == (Verdict.CONFLICT, "raw")
        assert base.evidence[1].detail == "header of mid"
        assert mid.backing_name == "base"

    def test_header_on_disk_without_a_format_states_nothing(self) -> None:
        base = reported("qcow2-chain", mid=header("base")).layers[-1]
        assert said(base) == {Witness.QMP: "raw"}
        assert base.verdict is Verdict.EXACT

    @pytest.mark.parametrize("written", ["file", "host_device", "raw"])
    @pytest.mark.parametrize("recording", ["qcow2-over-protocol", "qcow2-chain"])
    def test_protocol_in_a_header_means_raw_and_is_no_conflict(
        self, recording: str, written: str
    ) -> None:
        above = {"qcow2-over-protocol": "top", "qcow2-chain": "mid"}[recording]
        report = guest_from_graph(
            recordings.graph(recording), headers={f"/share/{above}": header("base", written)}
        )
        base = report.disks[0].layers[-1]
        assert said(base) == {Witness.QMP: "raw", Witness.HEADER: "raw"}
        assert base.verdict is Verdict.EXACT
        assert ("which says" in base.evidence[1].detail) == (written != "raw")

    def test_header_of_a_format_that_nobody_knows_is_a_conflict(self) -> None:
        base = reported("qcow2-chain", mid=header("base", "qcow9")).layers[-1]
        assert base.verdict is Verdict.CONFLICT

    def test_luks_base(self) -> None:
        base = reported("luks", top=header("base", "luks")).layers[-1]
        assert (base.format, base.verdict) == ("luks", Verdict.EXACT)
        assert reported("luks", top=header("base", "raw")).layers[-1].verdict is Verdict.CONFLICT

    def test_no_header_is_looked_at_in_a_raw_file(self) -> None:
        """A guest can write one there; nobody asks for it, and if somebody did, nobody listens."""
        hostile = Header(
            version=3,
            virtual_size=1,
            backing_file="/etc/shadow",
            data_file="/etc/shadow",
            encryption="luks",
            bitmaps=3,
        )
        (layer,) = reported("raw-node", base=hostile).layers
        assert (layer.format, layer.flags, layer.backing_name) == ("raw", (), None)

    def test_no_header_of_a_layer_that_is_not_qcow2_states_anything(self) -> None:
        made = recordings.graph("qcow2-chain")
        nodes = {**made.nodes, "mid": replace(made.nodes["mid"], driver="qed", recorded=None)}
        guest = guest_from_graph(
            replace(made, nodes=nodes), headers={"/share/mid": header("base", "qcow2")}
        )
        base = guest.disks[0].layers[-1]
        assert (said(base), base.verdict) == ({Witness.QMP: "raw"}, Verdict.EXACT)

    def test_active_layer_has_no_header_above(self) -> None:
        assert said(reported("qcow2-chain").layers[0]) == {Witness.QMP: "qcow2"}

    def test_what_a_layer_records_comes_from_disk_or_from_qemu(self) -> None:
        """Where the header cannot be read, a merge looks at what QEMU has read."""
        top, mid, base = reported("qcow2-chain").layers
        assert [(one.backing_name, one.backing_format) for one in (top, mid, base)] == [
            ("mid", "qcow2"),
            ("base", "raw"),
            (None, None),
        ]
        top, mid, _ = reported("qcow2-chain", mid=header("other"), top=header("x", "y")).layers
        assert (top.backing_name, top.backing_format) == ("x", "y")
        assert (mid.backing_name, mid.backing_format) == ("other", None)

    def test_header_of_a_layer_that_was_cut_off(self) -> None:
        """`backing: null`: the header still names a backing file, the running guest has none."""
        (layer,) = reported("backing-cut-off").layers
        assert layer.backing_name == "mid"


class TestFlags:
    @pytest.mark.parametrize(
        ("recording", "flags"),
        [
            ("raw-node", [()]),
            ("qcow2-chain", [(), (), ()]),
            ("luks", [(), ("encrypted",)]),
            ("data-file", [("data-file",)]),
            ("raw-slice", [("slice",)]),
            ("bitmap", [("detect-zeroes", "bitmaps")]),
            ("throttle-on-top", [("filter",), (), ()]),
            ("throttle-between", [(), ("filter",), ()]),
            ("commit-running", [(), ("implicit-filter",), ()]),
            ("active-commit-named-filter", [("filter",), (), ()]),
            ("active-commit-ready", [(), (), ()]),
        ],
    )
    def test_by_the_graph(self, recording: str, flags: list[tuple[str, ...]]) -> None:
        assert [layer.flags for layer in reported(recording).layers] == flags

    @pytest.mark.parametrize(
        ("changes", "flag"),
        [
            ({"data_file": ""}, "data-file"),
            ({"data_file": "/etc/shadow"}, "data-file"),
            ({"encryption": "luks"}, "encrypted"),
            ({"encryption": "aes"}, "encrypted"),
            ({"bitmaps": 1}, "bitmaps"),
            ({"backing_file": "json:{}"}, "json-name"),
        ],
    )
    def test_by_the_header(self, changes: dict[str, object], flag: str) -> None:
        plain = header("mid", "qcow2")
        assert reported("qcow2-chain", top=plain).layers[0].flags == ()
        changed = replace(plain, **changes)
        assert reported("qcow2-chain", top=changed).layers[0].flags == (flag,)

    @pytest.mark.parametrize(("by_node", "by_header", "number"), [(2, 1, 2), (0, 1, 1), (0, 0, 0)])
    def test_internal_snapshots(self, by_node: int, by_header: int, number: int) -> None:
        made = recordings.graph("qcow2-chain")
        node = replace(made.nodes["top"], snapshots=("one", "two")[:by_node])
        graph = replace(made, nodes={**made.nodes, "top": node})
        headers = {"/share/top": replace(header("mid", "qcow2"), snapshots=by_header)}
        found = guest_from_graph(graph, headers=headers).disks[0].layers[0]
        assert found.internal_snapshots == number

    def test_json_name_by_the_protocol_node(self) -> None:
        made = recordings.graph("raw-without-node")
        name = 'json:{"driver": "file", "filename": "/share/base", "locking": "off"}'
        nodes = {"base": replace(made.nodes["base"], filename=name)}
        (layer,) = guest_from_graph(replace(made, nodes=nodes)).disks[0].layers
        assert (layer.flags, layer.path) == (("json-name",), "/share/base")

    def test_json_name_recorded_when_it_was_opened(self) -> None:
        made = recordings.graph("qcow2-over-protocol")
        recorded = Recorded(filename="json:{}", format=None)
        nodes = {**made.nodes, "top": replace(made.nodes["top"], recorded=recorded)}
        assert guest_from_graph(replace(made, nodes=nodes)).disks[0].layers[0].flags == (
            "json-name",
        )


def test_header_says_nothing_of_a_quorum() -> None:
    """The overlay's header names one of its files; nobody states what the whole is."""
    made = recordings.graph("quorum")
    over = Node(
        name="over",
        driver="qcow2",
        filename="/share/o",
        recorded=Recorded(filename="/share/a", format="raw"),
    )
    file = Node(name="over-file", driver="file", filename="/share/o")
    graph = replace(
        made,
        devices=tuple(replace(one, root="over") for one in made.devices),
        nodes={**made.nodes, "over": over, "over-file": file},
        edges=(
            *made.edges,
            Edge(parent="over", child="over-file", role="file"),
            Edge(parent="over", child="vote", role="backing"),
        ),
    )
    _, below = guest_from_graph(graph).disks[0].layers
    assert (below.node, below.format, below.verdict) == ("vote", None, Verdict.UNKNOWN)
    header = Header(version=3, virtual_size=1, backing_file="/share/a", backing_format="raw")
    _, below = guest_from_graph(graph, headers={"/share/o": header}).disks[0].layers
    assert below.verdict is Verdict.UNKNOWN


def libvirt(recording: str = "libvirt-running", xml: XmlDomain | None = None) -> list[Disk]:
    """The disks of the recorded libvirt guest, with its own XML or another one."""
    domain = xml or parse(recordings.xml(recording))
    return list(guest_from_graph(recordings.graph(recording), domain=domain).disks)


def with_layers(*layers: XmlLayer, mirror: str | None = None) -> XmlDomain:
    """The recorded XML with other layers for `vda`."""
    domain = parse(recordings.xml("libvirt-running"))
    vda = replace(domain.disks[0], layers=layers, mirror=mirror)
    return replace(domain, disks=(vda, *domain.disks[1:]))


S2 = XmlLayer(path="/share/base.s2", name="/share/base.s2", format="qcow2", index=3)
S1 = XmlLayer(path="/share/base.s1", name="/share/base.s1", format="qcow2", index=4)
RAW = XmlLayer(path="/share/base", name="/share/base", format="raw", index=5)


class TestLibvirt:
    def test_all_agree(self) -> None:
        vda, *_ = libvirt()
        assert (vda.disk, vda.serial, vda.kind, vda.xml_differs) == ("vda", "1234", "disk", None)
        assert [layer.verdict for layer in vda.layers] == [Verdict.AGREED] * 3
        assert [layer.format for layer in vda.layers] == ["qcow2", "qcow2", "raw"]
        assert [layer.index for layer in vda.layers] == [3, 4, 5]
        assert [layer.secret for layer in vda.layers] == [None] * 3
        assert said(vda.layers[2]) == {"qmp": "raw", "xml": "raw", "header": "raw"}

    def test_secrets_are_told_by_the_xml(self) -> None:
        domain = with_layers(replace(S2, encrypted=True, secret="5e"), S1, RAW)
        vda, *_ = guest_from_graph(recordings.graph("libvirt-running"), domain=domain).disks
        assert [layer.secret for layer in vda.layers] == ["5e", None, None]

    @pytest.mark.parametrize("number", ["9" * 10, "9" * 5000, "\u0663", ""])
    def test_node_with_a_number_that_libvirt_does_not_give(self, number: str) -> None:
        def name(old: str | None) -> str:
            return f"libvirt-{number}-format" if old == "libvirt-3-format" else old or ""

        made = recordings.graph("libvirt-running")
        made = replace(
            made,
            devices=tuple(replace(one, root=name(one.root) or None) for one in made.devices),
            nodes={name(key): replace(one, name=name(key)) for key, one in made.nodes.items()},
            edges=tuple(
                replace(one, parent=name(one.parent), child=name(one.child)) for one in made.edges
            ),
        )
        domain = parse(recordings.xml("libvirt-running"))
        vda, *_ = guest_from_graph(made, domain=domain).disks
        assert [layer.index for layer in vda.layers] == [None, 4, 5]
        assert vda.xml_differs is not None

    @pytest.mark.parametrize("word", ["transient", "shareable", "read_only"])
    def test_what_the_xml_alone_says_of_a_disk(self, word: str) -> None:
        domain = parse(recordings.xml("libvirt-running"))
        nothing = {"transient": False, "shareable": False, "read_only": False}
        plain = replace(domain.disks[0], **nothing)
        said_so = replace(plain, **{word: True})
        for xml, expected in ((plain, False), (said_so, True)):
            guest = replace(domain, disks=(xml, *domain.disks[1:]))
            for disk in (libvirt(xml=guest)[0], from_xml.guest_from_xml(guest).disks[0]):
                assert {one: getattr(disk, one) for one in nothing} == {**nothing, word: expected}

    def test_chains_that_were_asked_for_already(self) -> None:
        made = recordings.graph("qcow2-chain")
        assert guest_from_graph(made, chains=()).disks == ()

    def test_network_disk_and_empty_cdrom(self) -> None:
        _, vdd, sda = libvirt()
        assert [(one.path, one.protocol, one.format) for one in vdd.layers] == [
            (None, "nbd", "raw")
        ]
        assert vdd.layers[0].file == "nbd+unix://?socket=/share/nbd.sock"
        assert (sda.disk, sda.kind, sda.layers, sda.read_only) == ("sda", "cdrom", (), True)

    def test_disks_of_the_xml_that_qemu_does_not_list_are_shown_by_the_xml(self) -> None:
        domain = parse(recordings.xml("libvirt-running"))
        extra = XmlDisk(
            target="vdz", serial=None, alias="z", device="disk", read_only=False, layers=(RAW,)
        )
        found = libvirt(xml=replace(domain, disks=(*domain.disks, extra)))
        assert [disk.disk for disk in found] == ["vda", "vdd", "sda", "vdz"]
        assert found[-1].layers[0].verdict is Verdict.STATED

    def test_devices_that_are_no_disk_of_the_xml_are_left_out(self) -> None:
        domain = parse(recordings.xml("libvirt-running"))
        assert [one.disk for one in libvirt(xml=replace(domain, disks=domain.disks[:1]))] == ["vda"]

    def test_xml_that_contradicts_is_a_conflict_and_qmp_is_reported(self) -> None:
        vda, *_ = libvirt(xml=with_layers(S2, S1, replace(RAW, format="qcow2")))
        assert (vda.layers[2].format, vda.layers[2].verdict) == ("raw", Verdict.CONFLICT)

    def test_xml_that_states_nothing(self) -> None:
        vda, *_ = libvirt(xml=with_layers(S2, S1, replace(RAW, format=None)))
        assert vda.layers[2].verdict is Verdict.EXACT

    @pytest.mark.parametrize(
        "layers",
        [
            (S2, S1),
            (S2,),
            (),
            (replace(S2, index=None), replace(S1, index=None), replace(RAW, index=None)),
            (replace(S2, index=None),),
        ],
    )
    def test_xml_that_ends_early_or_has_no_numbers_still_fits(
        self, layers: tuple[XmlLayer, ...]
    ) -> None:
        vda, *_ = libvirt(xml=with_layers(*layers))
        assert vda.xml_differs is None
        verdicts = [layer.verdict for layer in vda.layers]
        assert verdicts == [Verdict.AGREED] * len(layers) + [Verdict.EXACT] * (3 - len(layers))

    @pytest.mark.parametrize(
        "layers",
        [
            # a snapshot behind libvirt's back: QEMU has one more on top
            (S1, RAW),
            (RAW,),
            # a commit behind libvirt's back: libvirt still lists what was dropped
            (S2, replace(S1, index=9), S1, RAW),
            (S2, S1, RAW, replace(RAW, index=9)),
            # one more in the middle
            (S2, RAW),
            # another order, or another chain altogether
            (S1, S2, RAW),
            (replace(S2, index=9),),
            (S2, S1, replace(RAW, index=None)),
        ],
    )
    def test_chain_changed_behind_libvirts_back(self, layers: tuple[XmlLayer, ...]) -> None:
        vda, *_ = libvirt(xml=with_layers(*layers))
        assert vda.xml_differs is not None
        assert vda.xml_differs.endswith("QEMU has base.s2 <- base.s1 <- base")

    def test_more_layers_than_qemu_has_without_numbers(self) -> None:
        bare = [replace(one, index=None) for one in (S2, S1, RAW, RAW)]
        vda, *_ = libvirt(xml=with_layers(*bare))
        assert vda.xml_differs is not None

    def test_mirror_in_mid_job_is_no_difference(self) -> None:
        vda, *_ = libvirt("libvirt-mirror")
        assert (vda.mirror, vda.xml_differs) == ("active-commit", None)
        assert {layer.verdict for layer in vda.layers} == {Verdict.AGREED}
        after_pivot, *_ = libvirt(xml=with_layers(S1, RAW, mirror="active-commit"))
        assert after_pivot.xml_differs is None

    def test_bitmap_of_a_mirror_is_no_finding(self) -> None:
        vda, *_ = libvirt("libvirt-mirror")
        assert [layer.flags for layer in vda.layers] == [(), (), ()]

    def test_luks_in_xml_and_graph_agree(self) -> None:
        made = recordings.graph("luks")
        layers = (
            XmlLayer(path="/share/top", name="/share/top", format="qcow2", index=None),
            XmlLayer(path="/share/base", name="/share/base", format="luks", index=None),
        )
        xml = XmlDisk(
            target="sdx", serial=None, alias="vda", device="disk", read_only=False, layers=layers
        )
        domain = XmlDomain(name="a", disks=(xml,))
        for written in ("luks", "raw"):
            headers = {"/share/top": header("base", written)}
            (disk,) = guest_from_graph(made, domain=domain, headers=headers).disks
            assert [layer.verdict for layer in disk.layers] == [Verdict.AGREED, Verdict.AGREED]
            assert ("says 'raw'" in disk.layers[1].evidence[2].detail) == (written == "raw")

    def test_passed_descriptor_gets_its_name_from_the_xml(self) -> None:
        layer = XmlLayer(path="/share/secret", name="/share/secret", format="raw", index=None)
        xml = XmlDisk(
            target="vda", serial=None, alias="vda", device="disk", read_only=False, layers=(layer,)
        )
        made = recordings.graph("fdset")
        (disk,) = guest_from_graph(made, domain=XmlDomain(name="a", disks=(xml,))).disks
        assert (disk.layers[0].path, disk.layers[0].file) == ("/share/secret", "secret")

    def test_passed_descriptor_without_xml_has_no_path(self) -> None:
        (layer,) = reported("fdset").layers
        assert (layer.path, layer.file) == (None, "/dev/fdset/1")

    def test_raw_without_a_raw_node_as_libvirt_11_3_attaches_it(self) -> None:
        node = Node(name="libvirt-1-storage", driver="file", filename="/share/base")
        made = Graph(
            devices=(Device(device="", qdev="scsi0-0-0-0", root="libvirt-1-storage"),),
            nodes={node.name: node},
            edges=(),
        )
        xml = XmlDisk(
            target="sda",
            serial=None,
            alias="scsi0-0-0-0",
            device="disk",
            read_only=False,
            layers=(replace(RAW, index=1),),
        )
        (disk,) = guest_from_graph(made, domain=XmlDomain(name="a", disks=(xml,))).disks
        assert (disk.layers[0].format, disk.layers[0].verdict) == ("raw", Verdict.AGREED)

    def test_victim_that_the_xml_never_mentions(self) -> None:
        """The attack on libvirt 9.0: QEMU has a file open that libvirt does not know of."""
        nodes = {
            "libvirt-1-format": Node(
                name="libvirt-1-format",
                driver="qcow2",
                filename="/share/a",
                data_file="/etc/shadow",
            ),
            "libvirt-1-storage": Node(name="libvirt-1-storage", driver="file", filename="/share/a"),
            "#block1": Node(name="#block1", driver="file", filename="/etc/shadow"),
        }
        made = Graph(
            devices=(Device(device="", qdev="vda", root="libvirt-1-format"),),
            nodes=nodes,
            edges=(
                Edge(parent="libvirt-1-format", child="libvirt-1-storage", role="file"),
                Edge(parent="libvirt-1-format", child="#block1", role="data-file"),
            ),
        )
        assert guest_from_graph(made).disks[0].layers[0].flags == ("data-file",)


def of_qcow2(report: Disks) -> dict[str, str]:
    return {path: format for path, format in report.readable().items() if format == "qcow2"}


class TestHeadersToRead:
    """Of what is open as qcow2, before anything is judged."""

    @pytest.mark.parametrize("name", recordings.NAMES)
    def test_the_same_as_of_the_report(self, name: str) -> None:
        made = recordings.graph(name)
        assert headers_to_read(disk_chains(made)) == of_qcow2(guest_from_graph(made))

    @pytest.mark.parametrize("name", ["libvirt-running", "libvirt-mirror"])
    def test_under_libvirt(self, name: str) -> None:
        made, domain = recordings.graph(name), parse(recordings.xml(name))
        found = headers_to_read(disk_chains(made, domain))
        assert found == of_qcow2(guest_from_graph(made, domain=domain))
        assert found

    def test_nothing_below_a_layer_that_was_guessed(self) -> None:
        """The guest may have written the header that names it."""
        chains = disk_chains(recordings.graph("drive"))
        assert [*headers_to_read(chains)] == ["/share/top", "/share/mid"]
        assert [*headers_to_read(chains, {"/share/top"})] == ["/share/top"]

    def test_a_passed_descriptor_by_its_name_in_the_xml(self) -> None:
        layer = XmlLayer(path="/share/secret", name="/share/secret", format="qcow2", index=None)
        xml = XmlDisk(
            target="vda", serial=None, alias="vda", device="disk", read_only=False, layers=(layer,)
        )
        domain = XmlDomain(name="a", disks=(xml,))
        made = recordings.graph("fdset")
        node = replace(made.nodes[made.devices[0].root or ""], driver="qcow2")
        made = replace(made, nodes={**made.nodes, node.name: node})
        assert headers_to_read(disk_chains(made)) == {}
        assert headers_to_read(disk_chains(made, domain)) == {"/share/secret": "qcow2"}

    @pytest.mark.parametrize("name", ["libvirt-running", "libvirt-mirror"])
    def test_by_the_xml_alone(self, name: str) -> None:
        domain = parse(recordings.xml(name))
        assert from_xml.headers_to_read(domain) == from_xml.guest_from_xml(domain).readable()
