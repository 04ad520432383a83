"""Transcripts of guests that lie: recordings of a real QEMU, mutated."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any, Final

from tests.fuzz.values import STRINGS, Json, dumps, hostile, mutate
from tests.unit import recordings

HEADER: Final = {"qmpsnap-transcript": 1, "qemu": "7.2.22", "libvirt": None}
SCHEMA: Final[list[Json]] = [
    {"name": "query-block", "meta-type": "command", "arg-type": "0", "ret-type": "1"},
    {"name": "0", "meta-type": "object", "members": []},
    {"name": "1", "meta-type": "array", "element-type": "int"},
    {"name": "2", "meta-type": "enum", "members": [{"name": "a"}], "values": ["a"]},
]
"""As `query-qmp-schema` answers, in short."""


@cache
def _lines(name: str, source: recordings.Source) -> str:
    recording = recordings.replies(name)
    if source == "children":
        recording["query-named-block-nodes"] = recordings.with_children(recording)
    if source != "debug":
        recording.pop("x-debug-query-block-graph", None)
    lines: list[dict[str, Json]] = []
    for xml in [recordings.xml(name)] if "xml" in recording else []:
        lines.append({"xml": xml})
    for command, reply in recording.items():
        if command.startswith(("query-", "x-debug-")):
            arguments = {"flat": True} if command == "query-named-block-nodes" else {}
            lines.append({"execute": command, "arguments": arguments, "return": reply})
    lines.append({"execute": "query-name", "return": {"name": "web1"}})
    lines.append({"execute": "query-block-jobs", "return": _block_jobs(recording["query-jobs"])})
    if source == "children":
        lines.append({"execute": "query-qmp-schema", "return": SCHEMA})
    for device in recording["query-block"]:
        if "qdev" in device:
            asked = {"path": _path(device["qdev"]), "property": "serial"}
            lines.append({"execute": "qom-get", "arguments": asked, "return": "serial-1"})
    return json.dumps(lines)


def _block_jobs(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As libvirt starts its streams: they go away by themselves."""
    keys = {"auto-finalize": True, "auto-dismiss": True}
    return [{"type": job["type"], "device": job["id"], "status": "running"} | keys for job in jobs]


def _path(qdev: str) -> str:
    return qdev if qdev.startswith("/") else f"/machine/peripheral/{qdev}"


def lines_of(name: str, source: recordings.Source) -> list[dict[str, Any]]:
    """The exchanges of one recording, as lines of a transcript without its first; a copy."""
    lines: list[dict[str, Any]] = json.loads(_lines(name, source))
    return lines


def all_lines() -> Iterator[tuple[str, recordings.Source]]:
    """Every recording with every way to its edges."""
    for name in recordings.NAMES:
        for source in recordings.SOURCES:
            yield name, source


_ALL: Final = tuple(all_lines())


def transcript(lines: list[dict[str, Any]]) -> str:
    """A whole transcript."""
    return "\n".join(dumps(line) for line in (HEADER, *lines)) + "\n"


def case(seed: int) -> str:
    """The mutated transcript of one seed."""
    rng = random.Random(f"replies {seed}")
    lines = lines_of(*rng.choice(_ALL))
    if rng.randrange(4) == 0:
        _aim(rng, lines)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5, 10))):
        said = [line for line in lines if "return" in line]
        if said and rng.randrange(25):  # what QEMU says; else the transcript around it
            line = rng.choice(said)
            reply = {"return": line.pop("return")}
            mutate(rng, reply)
            line.update(reply)
        else:
            mutate(rng, {"lines": lines})
            lines = [line for line in lines if isinstance(line, dict)]
    text = transcript(lines)
    return text if rng.randrange(15) else _spoilt(rng, text)


def _spoilt(rng: random.Random, text: str) -> str:
    """Break the text itself: cut it off, drop or repeat lines, change characters."""
    match rng.randrange(4):
        case 0:
            return text[: rng.randrange(len(text))]
        case 1:
            lines = text.splitlines(keepends=True)
            rng.shuffle(lines)
            return "".join(lines)
        case 2:
            at = rng.randrange(len(text))
            return text[:at] + rng.choice('{}[]",:\0\n\\-9\ud800') + text[at + 1 :]
        case _:
            at, length = rng.randrange(len(text)), rng.randrange(1, 200)
            return text[:at] + text[at : at + length] * rng.choice((2, 50)) + text[at + length :]


def _aim(rng: random.Random, lines: list[dict[str, Any]]) -> None:
    """Break what a chain is built from: names, ids, edges and roots."""
    by_command = {line.get("execute"): line for line in lines}
    nodes = by_command["query-named-block-nodes"]["return"]
    names = [node["node-name"] for node in nodes]
    if not names:
        return
    match rng.randrange(12):
        case 7 | 8:  # a hostile name, and everybody uses it
            old, new = json.dumps(rng.choice(names)), json.dumps(rng.choice(STRINGS))
            lines[:] = json.loads(json.dumps(lines).replace(old, new))
        case 0:  # a node that stands there twice, as something else
            twin = deepcopy(rng.choice(nodes))
            twin["drv"] = rng.choice(("raw", "qcow2", "file"))
            nodes.insert(rng.randrange(len(nodes) + 1), twin)
        case 1:  # the guest changed between two readings
            again = deepcopy(rng.choice(lines))
            mutate(rng, again)
            lines.append(again)
        case 2:  # a node is gone
            del nodes[rng.randrange(len(nodes))]
        case 3:  # everything has one name
            for node in nodes:
                node["node-name"] = names[0]
        case 4:  # a device with another root, or another device with the same root
            devices = by_command["query-block"]["return"]
            for device in devices:
                device["inserted"] = {"node-name": rng.choice([*names, "gone"])}
            devices += deepcopy(devices) * rng.choice((0, 1, 50))
        case 5:  # a long chain, linked up or down or in a circle
            _long_chain(rng, lines)
        case 6:
            sizes = rng.choice(nodes).get("image")
            if isinstance(sizes, dict):
                sizes["virtual-size"] = hostile(rng)
        case _:
            _edges(rng, by_command, nodes, names)


def _edges(
    rng: random.Random,
    by_command: dict[Any, dict[str, Any]],
    nodes: list[dict[str, Any]],
    names: list[str],
) -> None:
    debug = by_command.get("x-debug-query-block-graph")
    if debug is not None:
        graph = debug["return"]
        ids = [node["id"] for node in graph["nodes"]]
        edges = graph["edges"]
        if not edges:
            return
        match rng.randrange(4):
            case 0:  # two nodes of one id
                rng.choice(graph["nodes"])["id"] = rng.choice(ids)
            case 1:  # two children in one role, a circle, or nowhere
                extra = deepcopy(rng.choice(edges))
                extra["child"] = rng.choice([*ids, 10**18])
                edges.insert(rng.randrange(len(edges) + 1), extra)
            case 2:
                rng.choice(edges)["child"] = rng.choice([*ids, 10**18])
            case _:
                rng.choice(graph["nodes"])["name"] = rng.choice([*names, "", "gone"])
        return
    told = [node for node in nodes if node.get("children")]
    if told:
        children = rng.choice(told)["children"]
        role = rng.choice(("backing", "file", rng.choice(children)["child"]))
        children.insert(
            rng.randrange(len(children) + 1),
            {"child": role, "node-name": rng.choice([*names, "gone"])},
        )
        return
    stats = by_command["query-blockstats"]["return"]
    if stats:
        one = rng.choice(stats)
        one[rng.choice(("backing", "parent"))] = {
            "node-name": rng.choice([*names, "gone"]),
            rng.choice(("backing", "parent")): {"node-name": rng.choice(names)},
        }


def _long_chain(rng: random.Random, lines: list[dict[str, Any]]) -> None:
    """A chain of many layers, told by `children`; perhaps it ends in itself."""
    length = rng.choice((2, 60, 300))
    last = rng.choice((None, 0, length // 2, length - 1))
    nodes = []
    for number in range(length):
        below = number + 1 if number + 1 < length else last
        backing = [] if below is None else [{"child": "backing", "node-name": f"n{below}"}]
        file = {"child": "file", "node-name": f"f{number}"}
        nodes.append({"node-name": f"n{number}", "drv": "qcow2", "children": [*backing, file]})
        nodes.append(
            {"node-name": f"f{number}", "drv": "file", "file": f"/share/{number}", "children": []}
        )
    lines[:] = [
        {"execute": "query-named-block-nodes", "arguments": {"flat": True}, "return": nodes},
        {
            "execute": "query-block",
            "return": [{"device": "d", "inserted": {"node-name": "n0"}}],
        },
        {"execute": "query-jobs", "return": []},
    ]
