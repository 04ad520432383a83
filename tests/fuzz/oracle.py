"""
What holds of every report, whatever the guest sent.

The replies are looked at a second time here, in the plainest way, so that a report can be held
against what was really said.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import jsonschema
import yaml
from lxml import etree

from qmpsnap.cli import documents, views
from qmpsnap.cli.output import View, complain, say, show
from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.layers import Disk, Disks, Layer
from qmpsnap.formats.verdict import Verdict, Witness
from qmpsnap.graph.drivers import DriverKind, format_meant_by, kind_of
from qmpsnap.operations.volume import usable

_TEXT: Final = {"type": "string"}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_SIZE: Final = {"type": ["integer", "null"], "minimum": 0, "maximum": 2**64 - 1}


def _object(**properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


CHAIN_SCHEMA: Final = _object(
    schema={"const": "qmpsnap.chain/1"},
    guest=_TEXT_OR_NULL,
    notes={"type": "array", "items": _TEXT},
    disks={
        "type": "array",
        "items": _object(
            disk=_TEXT,
            serial=_TEXT_OR_NULL,
            qdev=_TEXT_OR_NULL,
            kind=_TEXT,
            read_only={"type": "boolean"},
            xml_differs=_TEXT_OR_NULL,
            files={
                "type": "array",
                "items": _object(
                    path=_TEXT_OR_NULL,
                    name=_TEXT,
                    protocol=_TEXT_OR_NULL,
                    node=_TEXT_OR_NULL,
                    role=_TEXT,
                    layer={"type": "integer", "minimum": 0},
                ),
            },
            layers={
                "type": "array",
                "items": _object(
                    file=_TEXT,
                    path=_TEXT_OR_NULL,
                    protocol=_TEXT,
                    format={"type": ["string", "null"], "minLength": 1},
                    verdict={"enum": [verdict.value for verdict in Verdict]},
                    node=_TEXT_OR_NULL,
                    virtual_size=_SIZE,
                    allocated=_SIZE,
                    created=_TEXT_OR_NULL,
                    modified=_TEXT_OR_NULL,
                    flags={"type": "array", "items": _TEXT, "uniqueItems": True},
                    evidence={
                        "type": "array",
                        "items": _object(
                            witness={"enum": [witness.value for witness in Witness]},
                            format={"type": "string", "minLength": 1},
                            detail=_TEXT,
                        ),
                    },
                ),
            },
        ),
    },
)
"""`qmpsnap.chain/1` as docs/reference/json.md has it, and not one key more."""
_VALIDATOR: Final = jsonschema.Draft202012Validator(CHAIN_SCHEMA)


_OUT: Final = io.StringIO()
"""One for all: click keeps every stream that it has ever written to."""


class Said:
    """What the replies of a transcript say, in the plainest words."""

    def __init__(self, text: str) -> None:
        """Look through the lines; what is not understood counts as not said."""
        self.replies: dict[str, list[Any]] = defaultdict(list)
        self.xml_formats: set[str] = set()
        for line in text.split("\n"):
            with contextlib.suppress(ValueError, RecursionError):
                self._hear(json.loads(line))
        self.drivers: dict[str, list[str]] = defaultdict(list)
        self.recorded: set[str] = set()
        for node in self._objects(self.replies["query-named-block-nodes"]):
            if isinstance(node.get("node-name"), str):
                self.drivers[node["node-name"]].append(str(node.get("drv")))
            self._describe(node.get("image"))
        self.nested: set[str] = set()
        """Formats by a nested `query-block`: all that is told when the nodes cannot be listed."""
        for block in self._objects(self.replies["query-block"]):
            inserted = block.get("inserted")
            image = inserted.get("image") if isinstance(inserted, dict) else None
            while isinstance(image, dict):
                self._describe(image)
                self.nested.add(str(image.get("format")))
                image = image.get("backing-image")
        self.named = set(self.drivers)
        for graph in self.replies["x-debug-query-block-graph"]:
            nodes = graph.get("nodes") if isinstance(graph, dict) else None
            for node in nodes if isinstance(nodes, list) else ():
                if isinstance(node, dict) and isinstance(node.get("name"), str):
                    self.named.add(node["name"])

    def _describe(self, image: Any) -> None:
        if isinstance(image, dict):
            self.recorded.add(str(image.get("backing-filename-format")))

    def _hear(self, line: Any) -> None:
        if not isinstance(line, dict):
            return
        if isinstance(line.get("execute"), str) and "return" in line:
            self.replies[line["execute"]].append(line["return"])
        if isinstance(line.get("xml"), str):
            parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True)
            with contextlib.suppress(etree.XMLSyntaxError, ValueError):
                for element in etree.fromstring(line["xml"].encode(), parser).iter(
                    "driver", "format"
                ):
                    self.xml_formats.add(element.get("type") or "")

    @staticmethod
    def _objects(replies: list[Any]) -> Iterator[dict[str, Any]]:
        for reply in replies:
            if isinstance(reply, list):
                yield from (one for one in reply if isinstance(one, dict))

    @property
    def once(self) -> bool:
        """Whether every query has one answer only."""
        return all(len(replies) == 1 for replies in self.replies.values())

    def links(self) -> dict[str, dict[str, set[str]]]:
        """Children by node and role, from the reply that this reading has to use."""
        found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        nodes = list(self._objects(self.replies["query-named-block-nodes"]))
        debug = self.replies["x-debug-query-block-graph"]
        if nodes and all(isinstance(node.get("children"), list) for node in nodes):
            for node in nodes:
                for child in node["children"]:
                    found[node["node-name"]][child["child"]].add(child["node-name"])
        elif debug and debug[0] is not None:
            names: dict[int, set[str]] = defaultdict(set)
            for node in debug[0]["nodes"]:
                if node["type"] == "block-driver":
                    names[node["id"]].add(node["name"])
            for edge in debug[0]["edges"]:
                for parent in names.get(edge["parent"], ()):
                    found[parent][edge["name"]] |= names.get(edge["child"], set())
        else:
            waiting = list(self._objects(self.replies["query-blockstats"]))
            while waiting:
                stats = waiting.pop()
                for key, role in (("backing", "backing"), ("parent", "file")):
                    below = stats.get(key)
                    if isinstance(below, dict):
                        waiting.append(below)
                        if stats.get("node-name") and below.get("node-name"):
                            found[stats["node-name"]][role].add(below["node-name"])
        return found

    def roots(self) -> set[str]:
        """Nodes that a device holds."""
        inserted = [one.get("inserted") for one in self._objects(self.replies["query-block"])]
        return {
            one["node-name"] for one in inserted if isinstance(one, dict) and "node-name" in one
        }


def check_report(report: Disks, said: Said) -> None:
    """Hold a report against what was said."""
    for disk in report.disks:
        nodes = [layer.node for layer in disk.layers if layer.node is not None]
        assert len(set(nodes)) == len(nodes), "a node is in a chain twice"
        partial = any("cannot list its nodes" in note for note in report.notes)
        told = said.named if partial else said.drivers.keys()
        assert set(nodes) <= told, "a layer of which no node was told"
        for layer in disk.layers:
            check_layer(layer)
            check_sources(layer, said)
        if said.once and nodes and not partial:
            check_links(disk, said)


def check_layer(layer: Layer) -> None:
    """Format, verdict and evidence of one layer fit together."""
    assert (layer.format is None) == (layer.verdict is Verdict.UNKNOWN)
    assert layer.format != ""
    assert (layer.format is None) == (not layer.evidence)
    if layer.evidence:
        trust = list(Witness)
        best = min(layer.evidence, key=lambda one: trust.index(one.witness))
        assert layer.format == best.format
        differ = len({one.format for one in layer.evidence}) > 1
        assert differ == (layer.verdict is Verdict.CONFLICT)
    heard = {one.witness for one in layer.evidence}
    assert len(heard) == len(layer.evidence), "a witness speaks twice"
    if layer.verdict is Verdict.EXACT:
        assert Witness.QMP in heard
    if layer.verdict is Verdict.AGREED:
        assert heard >= {Witness.QMP, Witness.XML}
    if layer.verdict is Verdict.STATED:
        assert Witness.QMP not in heard


def check_sources(layer: Layer, said: Said) -> None:
    """Every format was really said by the witness that it is put down to."""
    for one in layer.evidence:
        match one.witness:
            case Witness.QMP:
                drivers = said.drivers.get(layer.node or "") or [*said.nested]
                assert one.format in {format_meant_by(driver) for driver in drivers}
            case Witness.XML:
                assert one.format in said.xml_formats or (
                    one.format == "luks" and "raw" in said.xml_formats
                )
            case Witness.HEADER:
                meant = {format_meant_by(written) for written in said.recorded}
                assert one.format in meant | said.recorded
            case _:
                raise AssertionError(f"{one.witness} has no say in a transcript")


def check_links(disk: Disk, said: Said) -> None:
    """The layers hang together as was told, and nothing that was told twice was chosen from."""
    for name, drivers in said.drivers.items():
        assert len(drivers) == 1, f"node {name!r} stands there twice"
    links = said.links()

    def one(name: str, *roles: str) -> str | None:
        for role in roles:
            if links[name][role]:
                assert len(links[name][role]) == 1, f"{name!r} has two children in the role {role}"
                return next(iter(links[name][role]))
        return None

    def first_layer(name: str | None) -> str | None:
        for _ in range(len(said.drivers) + 1):
            if name is None or kind_of(said.drivers[name][0]) is not DriverKind.FILTER:
                return name
            below = one(name, "file", "backing", "image")
            if below is None:
                return name
            name = below
        raise AssertionError("filters in a circle")

    nodes = [layer.node for layer in disk.layers]
    assert disk.root in said.roots()
    assert first_layer(disk.root) == nodes[0]
    for upper, lower in zip(nodes, [*nodes[1:], None], strict=True):
        assert upper is not None
        assert first_layer(one(upper, "backing")) == lower


def check_output(report: Disks, *, thorough: bool) -> str:
    """
    Print a report, and look at what comes out.

    Args:
        report: What to print.
        thorough: Also what costs most: YAML, and the tables that show less than `chain` does.

    Returns:
        All that was printed.
    """
    document = documents.chain(report, report.disks)
    _VALIDATOR.validate(document)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    shown: list[tuple[documents.Document, View]] = [
        (document, lambda here: views.chain(report.disks, here)),
        (documents.disks(report), lambda _: [views.disks(report)]),
        (
            documents.snapshot_list(report, report.disks),
            lambda _: [views.snapshot_list(report.disks)],
        ),
    ]
    everything = []
    for made, table in shown:
        if thorough or made is document:
            with _printed() as out:
                show(made, "table", table)
            check_printable(out.getvalue())
            everything.append(out.getvalue())
        with _printed() as out:
            show(made, "json", table)
        assert out.getvalue().isascii()
        assert json.loads(out.getvalue(), parse_constant=_no_constant) == made
        everything.append(out.getvalue())
    for layer in (layer for disk in report.disks for layer in disk.layers):
        if layer.file.isprintable() and len(layer.file) < 1000:
            assert layer.file.strip() in everything[0], "a name is shown as another one"
    if thorough:
        with _printed() as out:
            show(document, "yaml", lambda _: [])
        assert out.getvalue().isascii()
        assert yaml.safe_load(out.getvalue()) == document
    with _printed() as out:
        for note in report.notes:
            say(note)
    check_printable(out.getvalue())
    for disk in report.disks:
        with contextlib.suppress(QmpsnapError):
            usable(disk)
    return "".join(everything)


def check_error(error: QmpsnapError) -> str:
    """
    Print an error in both ways, and look at what comes out.

    Returns:
        All that was printed.
    """
    with _printed() as out:
        complain(error, None)
    text = out.getvalue()
    check_printable(text)
    with _printed() as out:
        complain(error, "json")
    document = json.loads(out.getvalue(), parse_constant=_no_constant)
    assert document["error"] == type(error).__name__
    assert document["changed"] == "no", "a reading changes nothing"
    return text + out.getvalue()


def check_printable(text: str) -> None:
    """No control character, no terminal escape and no half character is in a text."""
    for line in text.split("\n"):
        assert line.isprintable(), repr(line[:500])


@contextlib.contextmanager
def _printed() -> Iterator[io.StringIO]:
    _OUT.seek(0)
    _OUT.truncate()
    with contextlib.redirect_stdout(_OUT), contextlib.redirect_stderr(_OUT):
        yield _OUT


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")
