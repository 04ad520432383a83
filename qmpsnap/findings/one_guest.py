"""The rules that look at one guest. Pure: a report and what is known of its files go in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.findings import finding as rules
from qmpsnap.findings.facts import FileFacts, Seen
from qmpsnap.findings.finding import Finding, Rule
from qmpsnap.findings.remedies import rebase
from qmpsnap.formats.layers import NOT_SEEN, REPLACED, Disk, Disks, Layer
from qmpsnap.formats.verdict import Verdict, Witness
from qmpsnap.graph.chain import host_path
from qmpsnap.graph.drivers import DriverKind, kind_of

HEADER_IN_RAW: Final = "image-header-in-raw"
"""The flag of a raw layer that begins like an image; a warning, never evidence."""


def with_flags(report: Disks, files: Mapping[str, FileFacts]) -> Disks:
    """Add to a report the flags that only a look into the files tells."""
    return replace(
        report,
        disks=tuple(
            replace(disk, layers=tuple(_flagged(layer, files) for layer in disk.layers))
            for disk in report.disks
        ),
    )


def _flagged(layer: Layer, files: Mapping[str, FileFacts]) -> Layer:
    facts = files.get(layer.path or "")
    if facts is None or facts.looks_like is None or layer.format != "raw":
        return layer
    return replace(layer, flags=(*layer.flags, HEADER_IN_RAW))


def one_guest(seen: Seen) -> tuple[Finding, ...]:
    """
    Find what is wrong with one guest's disks.

    Args:
        seen: The guest; the flags of `with_flags` are there already.
    """
    found = [
        Finding(
            rule=rules.GUEST_PARTLY_READ,
            guest=seen.guest,
            message=note,
            remedy=rules.GUEST_PARTLY_READ.remedy,
        )
        for note in seen.report.notes
    ]
    for disk in seen.report.disks:
        looked = _Looked(seen=seen, disk=disk)
        active = disk.layers[0] if disk.layers else None
        found += [looked.finding(rules.GUEST_PARTLY_READ, active, note) for note in disk.notes]
        found += _disk(looked)
    return tuple(found)


class _Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """The backing entry of one header; what stands there, not what QEMU has open."""

    name: str | None
    format: str | None


class _Looked(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest, and how to speak of it."""

    seen: Seen
    disk: Disk

    def finding(
        self, rule: Rule, layer: Layer | None, message: str, remedy: str | None = None
    ) -> Finding:
        return Finding(
            rule=rule,
            guest=self.seen.guest,
            disk=self.disk.disk,
            file=(layer.path or layer.file) if layer else None,
            node=layer.node if layer else None,
            message=message,
            remedy=remedy or rule.remedy,
        )

    @property
    def who(self) -> str:
        """Who says what the chain is."""
        return "the definition" if self.disk.off else "QEMU"

    def recorded(self, layer: Layer) -> _Recorded | None:
        """
        What the layer's header says of its backing file; None when nobody has read a header.

        As it is on disk, where this host has it; else as QEMU read it when it opened the file.
        """
        header = self.seen.facts(layer.path).header
        if header is not None:
            return _Recorded(name=header.backing_file, format=header.backing_format)
        if layer.format != "qcow2" or layer.node_details is None or not layer.node_details.driver:
            return None
        known = layer.node_details.recorded
        if known is None:
            return _Recorded(name=None, format=None)
        return _Recorded(name=known.filename, format=known.format)


_DISAGREE: Final = (
    "Find out which is right. Then take the `<backingStore>` out of the definition (`virsh edit`), "
    "so that the headers count, or correct the header: `qemu-img rebase -u -f qcow2 -b BACKING "
    "-F FORMAT OVERLAY`."
)


def _disk(looked: _Looked) -> Iterator[Finding]:
    disk = looked.disk
    if disk.xml_differs is not None:
        active = disk.layers[0] if disk.layers else None
        remedy = _DISAGREE if disk.off else None
        yield looked.finding(rules.CHAIN_DIFFERS, active, disk.xml_differs, remedy)
    yield from _repeated(looked)
    for layer in disk.layers:
        yield from _layer(looked, layer)
    for position, layer in enumerate(disk.layers):
        below = disk.layers[position + 1] if position + 1 < len(disk.layers) else None
        yield from _header(looked, position, layer, below)
    yield from _unseen(looked)
    yield from _outside(looked)
    yield from _beyond(looked)


def _repeated(looked: _Looked) -> Iterator[Finding]:
    """Yield the files that stand in the chain twice, by one name or by two."""
    first: dict[object, Layer] = {}
    for layer in looked.disk.layers:
        if layer.path is None:
            continue
        above = first.setdefault(looked.seen.key(layer.path), layer)
        if above is not layer:
            yield looked.finding(
                rules.CHAIN_LOOP, layer, f"it is the same file as {above.path}, above it"
            )


def _unseen(looked: _Looked) -> Iterator[Finding]:
    """One finding a disk and reason, as it is mostly the same for all files."""
    unseen = [layer for layer in looked.disk.layers if NOT_SEEN in layer.flags]
    for why in dict.fromkeys(layer.sight for layer in unseen):
        names = ", ".join(layer.file for layer in unseen if layer.sight == why)
        yield looked.finding(rules.FILE_NOT_SEEN, None, f"{names}: {why}")


def _layer(looked: _Looked, layer: Layer) -> Iterator[Finding]:
    facts = looked.seen.facts(layer.path)
    if REPLACED in layer.flags:
        yield looked.finding(rules.FILE_REPLACED, layer, layer.sight or "")
    if "unreadable" in layer.flags:
        yield looked.finding(
            rules.NODE_UNREADABLE, layer, f"QEMU cannot describe the node {layer.node}"
        )
    elif layer.verdict is Verdict.UNKNOWN:
        why = "no witness states its format"
        if "two-formats" in layer.flags:
            why = "it is opened by two formats, one over the other"
        yield looked.finding(rules.FORMAT_UNKNOWN, layer, why)
    if layer.verdict is Verdict.CONFLICT:
        said = "; ".join(
            f"{one.witness.value} says {one.format} ({one.detail})" for one in layer.evidence
        )
        yield looked.finding(rules.FORMAT_CONFLICT, layer, said)
    if "probed" in layer.flags:
        yield looked.finding(
            rules.OPENED_BY_PROBING,
            layer,
            f"QEMU took it for {layer.format or 'something'} by looking into it",
        )
    if HEADER_IN_RAW in layer.flags:
        yield looked.finding(
            rules.IMAGE_HEADER_IN_RAW,
            layer,
            f"it is raw, and its first bytes are those of a {facts.looks_like} header",
        )
    if "slice" in layer.flags:
        yield looked.finding(
            rules.RAW_SLICE, layer, "it is opened with an offset or a size of its own"
        )
    if facts.bad_header is not None:
        yield looked.finding(rules.HEADER_INVALID, layer, facts.bad_header)
    if facts.problem is not None:
        yield looked.finding(rules.FILE_NOT_CHECKED, layer, facts.problem)


def _header(looked: _Looked, position: int, layer: Layer, below: Layer | None) -> Iterator[Finding]:
    """Yield what is wrong with the backing entry in a layer's header."""
    recorded = looked.recorded(layer)
    if recorded is None:
        return
    if recorded.name is None:
        if below is not None:
            yield looked.finding(
                rules.BACKING_NOT_RECORDED,
                layer,
                f"{looked.who} has it over {below.file}; its header names no backing file",
                rebase(layer, below),
            )
        return
    yield from _recorded_format(looked, layer, below, recorded)
    yield from _recorded_name(looked, position, layer, below, recorded.name)


def _recorded_format(
    looked: _Looked, layer: Layer, below: Layer | None, recorded: _Recorded
) -> Iterator[Finding]:
    remedy = None if below is None else rebase(layer, below, backing=recorded.name)
    if recorded.format is None:
        yield looked.finding(
            rules.BACKING_FORMAT_MISSING,
            layer,
            f"its header names the backing file {recorded.name} without a format",
            remedy,
        )
    elif kind_of(recorded.format) is DriverKind.PROTOCOL:
        yield looked.finding(
            rules.BACKING_FORMAT_PROTOCOL,
            layer,
            f"its header names the backing file {recorded.name} with the format "
            f"{recorded.format!r}, which is a protocol",
            remedy,
        )
    elif recorded.format == "raw" and below is not None and _is_luks_by_xml(below):
        yield looked.finding(
            rules.BACKING_FORMAT_WITHOUT_LUKS,
            layer,
            f"its header names the backing file {recorded.name} as raw, and the XML says that it "
            "is encrypted",
            remedy,
        )


def _is_luks_by_xml(layer: Layer) -> bool:
    """Without libvirt the header is what the next start goes by: then it is a conflict."""
    return any(one.witness is Witness.XML and one.format == "luks" for one in layer.evidence)


def _recorded_name(
    looked: _Looked, position: int, layer: Layer, below: Layer | None, name: str
) -> Iterator[Finding]:
    """Compare names as names: what a header names is never looked up."""
    path = host_path(name)
    if path is None or layer.path is None:
        return
    there = os.path.normpath(os.path.join(os.path.dirname(layer.path), path))
    above = looked.disk.layers[: position + 1]
    looped = next((one for one in above if there in _names(looked, one)), None)
    if looped is not None:
        yield looked.finding(
            rules.CHAIN_LOOP,
            layer,
            f"its header names {name} as its backing file, which is "
            + ("itself" if looped is layer else "above it in this chain"),
        )
    elif below is None:
        yield looked.finding(
            rules.BACKING_NAME_DIFFERS,
            layer,
            f"its header names the backing file {name}; {looked.who} has none",
        )
    elif below.path is not None and there not in _names(looked, below):
        yield looked.finding(
            rules.BACKING_NAME_DIFFERS,
            layer,
            f"its header names the backing file {name}; {looked.who} has {below.path}",
            rebase(layer, below),
        )


def _names(looked: _Looked, layer: Layer) -> set[str]:
    """All names by which a layer's file is known here."""
    if layer.path is None:
        return set()
    facts = looked.seen.facts(layer.path)
    names = {os.path.normpath(layer.path), facts.real_path}
    if facts.real_folder is not None:
        names.add(os.path.join(facts.real_folder, os.path.basename(layer.path)))
    return {name for name in names if name is not None}


def _outside(looked: _Looked) -> Iterator[Finding]:
    """Yield the layers that lie elsewhere than the active one."""
    if not looked.disk.layers or looked.disk.layers[0].path is None:
        return
    active, *lower = looked.disk.layers
    allowed = _folders(looked, active)
    for layer in lower:
        if layer.path is None:
            if layer.protocol not in _LOCAL:
                yield looked.finding(
                    rules.BACKING_OUTSIDE_FOLDER,
                    layer,
                    f"{_how_it_comes(looked, layer)}; the active file lies in {min(allowed)}",
                )
            continue
        # Its own folder, and where a symbolic link leads, must both be the volume's.
        folders = _folders(looked, layer)
        if not folders <= allowed:
            where = ", ".join(sorted(folders - allowed))
            yield looked.finding(
                rules.BACKING_OUTSIDE_FOLDER,
                layer,
                f"it lies in {where}; the active file lies in {min(allowed)}",
            )


def _how_it_comes(looked: _Looked, layer: Layer) -> str:
    """Of a layer that is no file here."""
    if not looked.disk.off or ":" in layer.file.partition("/")[0]:
        return f"it comes by {layer.protocol}"
    if any(one.witness is Witness.XML for one in layer.evidence):
        return "the definition names it, and it is no file of this host"
    return "a header alone names it"


_LOCAL: Final = frozenset({"file", "host_device", "host_cdrom", "unknown"})
"""Without a path: a passed file descriptor, or a node that QEMU does not describe."""


def _folders(looked: _Looked, layer: Layer) -> set[str]:
    """The folder of a file by its name, and the one that symbolic links lead to."""
    assert layer.path is not None
    facts = looked.seen.facts(layer.path)
    folders = {facts.real_folder or os.path.dirname(os.path.normpath(layer.path))}
    if facts.real_path is not None:
        folders.add(os.path.dirname(facts.real_path))
    return folders


def _beyond(looked: _Looked) -> Iterator[Finding]:
    """Yield data files, and all other files that are reachable beside the chain."""
    disk = looked.disk
    data_files = {file.layer: file.name for file in disk.files if file.role == "data-file"}
    for position, layer in enumerate(disk.layers):
        header = looked.seen.facts(layer.path).header
        name = data_files.get(position) or (header.data_file if header else None)
        if position in data_files or "data-file" in layer.flags:
            yield looked.finding(
                rules.DATA_FILE, layer, f"its data lies in {name or 'another file'}"
            )
    for file in disk.beyond_chain:
        copies = file.role == "target" and looked.seen.report.jobs  # a backup's, while it runs
        if file.role != "data-file" and not copies:
            owner = disk.layers[file.layer]
            yield Finding(
                rule=rules.FILE_BEYOND_CHAIN,
                guest=looked.seen.guest,
                disk=disk.disk,
                file=file.name,
                node=file.node,
                message=f"it is open as {file.role} of {owner.file}",
                remedy=rules.FILE_BEYOND_CHAIN.remedy,
            )
