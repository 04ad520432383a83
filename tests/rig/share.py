"""
A share as it grows over the years: guests with chains of up to 20, and what was left behind.

The images are headers only, the libvirt is a stand-in that answers from values: what is tried is
that nothing is called unused that any of them uses, under whatever name, and what it costs.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.unit.qcow2_header import header

_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441


@dataclass
class StandIn:
    """A `virDomain` with its snapshots, pools and saved memory."""

    title: str
    active: bool
    live: str
    defined: str
    saved: str | None = None
    records: dict[str, str] = field(default_factory=dict)

    def name(self) -> str:
        return self.title

    def isActive(self) -> bool:
        return self.active

    def isPersistent(self) -> bool:
        return True

    def XMLDesc(self, flags: int) -> str:
        return self.defined if flags else self.live

    def hasManagedSaveImage(self) -> bool:
        return self.saved is not None

    def managedSaveGetXMLDesc(self) -> str:
        assert self.saved is not None
        return self.saved

    def listAllSnapshots(self) -> list[Any]:
        return [Record(name, text) for name, text in self.records.items()]


@dataclass
class Record:
    """A `virDomainSnapshot`."""

    title: str
    text: str

    def getName(self) -> str:
        return self.title

    def getXMLDesc(self) -> str:
        return self.text


@dataclass
class Pool:
    """A `virStoragePool` and, in one, its volumes."""

    folder: Path
    volume: str = ""

    def storageVolLookupByName(self, name: str) -> Pool:
        return Pool(self.folder, name)

    def path(self) -> str:
        return str(self.folder / self.volume)

    def XMLDesc(self, flags: int) -> str:
        return f"<pool type='dir'><target><path>{self.folder}</path></target></pool>"


@dataclass
class Share:
    """A folder, a `virConnect`, and the truth."""

    folder: Path
    domains: list[StandIn] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Bare names of all files that somebody uses."""
    left: set[str] = field(default_factory=set)
    """Those that nobody does."""

    def listAllDomains(self, flags: int = 0) -> list[StandIn]:
        return self.domains

    def storagePoolLookupByName(self, name: str) -> Pool:
        return Pool(self.folder)


def write_qcow2(path: Path, backing: str = "", format_: str = "", data_file: str = "") -> None:
    """A header that names another file; no data."""
    extensions = [(_BACKING_FORMAT, format_.encode())] if format_ else []
    extensions += [(_DATA_FILE, data_file.encode())] if data_file else []
    path.write_bytes(
        header(
            backing=os.fsencode(backing), extensions=extensions, incompatible=4 * bool(data_file)
        )
    )


def domain_xml(name: str, disks: str, more: str = "") -> str:
    """A definition."""
    return f"<domain><name>{name}</name><devices>{disks}{more}</devices></domain>"


def disk_xml(chain: list[tuple[str, str]], target: str = "vda") -> str:
    """A disk with the layers given, active one first."""
    (path, format_), *below = chain
    store = ""
    for name, kind in reversed(below):
        store = (
            f"<backingStore type='file'><format type='{kind}'/>"
            f"<source file='{name}'/>{store}</backingStore>"
        )
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='{format_}'/>"
        f"<source file='{path}'/>{store}<target dev='{target}'/></disk>"
    )


def make(root: Path, *, files: int, guests: int, seed: int) -> Share:
    """
    Fill a share.

    Args:
        root: An empty folder; the share and what lies elsewhere are made in it.
        files: How many there are in the share, about.
        guests: How many use some of them.
        seed: The same one makes the same share.
    """
    chosen = random.Random(seed)
    share = Share(root / "share")
    share.folder.mkdir()
    for name in ("elsewhere", "hard"):
        (root / name).mkdir()
    (root / "by-link").symlink_to(share.folder)
    per_guest = max(1, min(20, files * 9 // 10 // guests))
    for number in range(guests):
        _guest(root, share, number, chosen.randint(max(1, per_guest - 1), per_guest), chosen)
    in_use = sorted(share.used)
    for number in range(files - len(in_use)):
        _leave_behind(share, number, in_use, chosen)
    return share


def _guest(root: Path, share: Share, number: int, depth: int, chosen: random.Random) -> None:
    """One guest with a chain, by one of the names that a chain may have."""
    names = [f"volume-{number:04}{f'.s{layer}' if layer else ''}" for layer in range(depth)]
    base_format = chosen.choice(["raw", "qcow2"])
    for layer, name in enumerate(names):
        path = share.folder / name
        if layer == 0 and base_format == "raw":
            path.write_bytes(b"\0" * 512)
        elif layer == 0:
            extra = f"{name}.data" if chosen.random() < 0.1 else ""
            write_qcow2(path, data_file=extra)
            if extra:
                (share.folder / extra).write_bytes(b"\0")
                share.used.add(extra)
        else:
            below, format_ = names[layer - 1], "qcow2" if layer > 1 else base_format
            write_qcow2(path, _spelled(share.folder, below, chosen), format_)
    share.used |= {*names}
    formats = [base_format, *["qcow2"] * (depth - 1)]
    active, format_ = _reached(root, share.folder, names[-1], formats[-1], number, chosen)
    folder = share.folder
    chain = [(str(folder / name), kind) for name, kind in zip(names, formats, strict=True)][::-1]
    title = f"guest{number}"
    runs = chosen.random() < 0.5
    live = disk_xml([(active, format_), *chain[1:]] if active != chain[0][0] else chain)
    domain = StandIn(
        title=title,
        active=runs,
        live=domain_xml(title, live),
        defined=domain_xml(title, _defined(active, format_, names[-1], chosen)),
    )
    _record(share, domain, number, chosen)
    share.domains.append(domain)


def _spelled(folder: Path, name: str, chosen: random.Random) -> str:
    """A name for a header."""
    described = {"driver": "qcow2", "file": {"driver": "file", "filename": f"{folder}/{name}"}}
    words = (name, name, name, f"./{name}", f"{folder}/{name}", f"json:{json.dumps(described)}")
    return chosen.choice(words)


def _reached(
    root: Path, folder: Path, name: str, format_: str, number: int, chosen: random.Random
) -> tuple[str, str]:
    """Path and format of the active file, by the name that the guest knows it by."""
    # A relative name leads elsewhere from another folder.
    is_whole = format_ == "raw" or str(folder).encode() in (folder / name).read_bytes()
    path = folder / name
    match chosen.randint(0, 5):
        case 0 if is_whole:
            path = root / "elsewhere" / f"link{number}"
            path.symlink_to(folder / name)
        case 1:
            path = root / "by-link" / name
        case 2 if is_whole:
            path = root / "hard" / name
            path.hardlink_to(folder / name)
        case 3:  # an overlay in a folder of its own
            path = root / "elsewhere" / f"overlay{number}"
            write_qcow2(path, str(folder / name), format_)
            format_ = "qcow2"
        case _:
            pass
    return str(path), format_


def _defined(active: str, format_: str, name: str, chosen: random.Random) -> str:
    """The disk of a definition: the active file alone, in one of the ways to write it."""
    if not active.endswith(f"/share/{name}"):
        return disk_xml([(active, format_)])
    match chosen.randint(0, 3):
        case 0:
            return (
                f"<disk type='volume' device='disk'><driver name='qemu' type='{format_}'/>"
                f"<source pool='share' volume='{name}'/><target dev='vda'/></disk>"
            )
        case 1:
            return (
                f"<commandline><arg value='file={active},format={format_},if=none'/></commandline>"
            )
        case _:
            return disk_xml([(active, format_)])


def _record(share: Share, domain: StandIn, number: int, chosen: random.Random) -> None:
    """Sometimes a file that a snapshot or a saved memory alone names."""
    name = f"kept-{number:04}"
    kept = domain_xml(domain.title, disk_xml([(str(share.folder / name), "raw")]))
    match chosen.randint(0, 9):
        case 0:
            overlay = disk_xml([(str(share.folder / name), "raw")])
            text = f"<domainsnapshot><name>s</name><disks>{overlay}</disks></domainsnapshot>"
            domain.records["s"] = text
        case 1:
            domain.records["t"] = f"<domainsnapshot><name>t</name>{kept}</domainsnapshot>"
        case 2:
            domain.saved = kept
        case _:
            return
    (share.folder / name).write_bytes(b"\0" * 512)
    share.used.add(name)


def _leave_behind(share: Share, number: int, in_use: list[str], chosen: random.Random) -> None:
    """A file that nobody uses; it may name one that somebody does."""
    name = f"left-{number:05}"
    path = share.folder / name
    match chosen.randint(0, 3):
        case 0:
            write_qcow2(path, chosen.choice(in_use), "qcow2")
        case 1:
            extent = f"{name}-flat.vmdk"
            path.write_text(f'# Disk DescriptorFile\nRW 1 FLAT "{extent}" 0\n')
            (share.folder / extent).write_bytes(b"\0")
            share.used.add(extent)  # by a header, although nobody uses that
        case 2:
            path.symlink_to(share.folder / chosen.choice(in_use))
            return  # no regular file
        case _:
            path.write_bytes(chosen.randbytes(512))
    share.left.add(name)
