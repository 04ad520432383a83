"""
libvirt's hook before a guest starts: refuse it while an operation on its files is not settled.

    /etc/libvirt/hooks/qemu.d/50-qmpsnap GUEST prepare begin -     the domain's XML on stdin

Autostart, `virsh start`, a hard reboot or an evacuation would open the file that the definition
names, which may be the stale one. It reads markers, the journal and the definitions of storage
pools, asks nobody, and imports little: every start waits for it. What cannot be read does not keep
a guest from starting, but for a marker beside its files.

Source: libvirt.org/hooks.html; virHookCall(), util/virhook.c.
"""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final
from xml.parsers import expat  # noqa: TID251  # no entity is resolved here; lxml takes 30 ms

from qmpsnap.guests.files.markers import PREFIX, markers_in

_STATE: Final = "/var/lib/qmpsnap"
_BEGUN: Final = {"create": {"switch"}, "active-commit": {"commit"}, "pull": {"start", "commit"}}
"""Acts after which files and definition do not tell any more which file is right."""
_POOLS: Final = ("/etc/libvirt/storage", "/run/libvirt/storage")
"""Where libvirtd keeps the definitions of storage pools, and of those that go when they are stopped."""
_LIMIT: Final = 16 * 1024 * 1024


def run() -> None:
    """Run the hook and exit with libvirt's answer: not 0 refuses the start."""
    sys.exit(main())


def main() -> int:
    """Look; returns the exit code."""
    if sys.argv[2:3] != ["prepare"]:
        return 0
    try:
        paths = files_of(sys.stdin.buffer.read(_LIMIT))
    except expat.ExpatError:
        return 0  # libvirt made it; it is no reason to keep a guest from starting
    found = [*_by_markers(paths), *_by_journal(paths)]
    for id_, (where, name) in dict(found).items():
        print(
            f"qmpsnap: operation {id_} on this guest's files is not settled ({where}): "
            f"run `qmpsnap resume {shlex.quote(name)}` before it is started",
            file=sys.stderr,
        )
    return 1 if found else 0


def files_of(text: bytes) -> frozenset[str]:
    """
    All files and block devices that a domain's XML names as a source, volumes of pools among them.

    Raises:
        expat.ExpatError: It is no XML.
    """
    found: set[str] = set()

    def start(name: str, attributes: dict[str, str]) -> None:
        if name != "source":
            return
        pool, volume = attributes.get("pool"), attributes.get("volume")
        known = _volume(pool, volume) if pool and volume else None
        values = (attributes.get("file"), attributes.get("dev"), known)
        found.update(os.path.realpath(one) for one in values if one and one.startswith("/"))

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.Parse(text, True)
    return frozenset(found)


def _volume(pool: str, volume: str) -> str | None:
    """The path of a volume, by the pool's own definition: libvirt must not be called from a hook."""
    for folder in _POOLS:
        try:
            with open(os.path.join(folder, f"{pool}.xml"), "rb") as file:
                target = _target_of(file.read(_LIMIT))
        except (OSError, ValueError, expat.ExpatError):
            continue
        if target:
            return os.path.join(target, volume)
    return None


def _target_of(text: bytes) -> str:
    """
    The folder of a pool.

    Source: libvirt docs/formatstorage.rst, "Target elements"; in /run a `<poolstate>` is around it.
    """
    inside: list[str] = []
    words: list[str] = []

    def data(text: str) -> None:
        if inside[-2:] == ["target", "path"]:
            words.append(text)

    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, _attributes: inside.append(name)
    parser.EndElementHandler = lambda _name: inside.pop()
    parser.CharacterDataHandler = data
    parser.Parse(text, True)
    return "".join(words).strip()


Found = tuple[str, tuple[str, str]]
"""Id of an operation; where it is known, and what names it to `qmpsnap resume`."""


def _by_markers(paths: frozenset[str]) -> Iterator[Found]:
    """By their paths: the journal may be another host's."""
    for folder in {os.path.dirname(path) for path in paths}:
        for marker in markers_in(folder):
            id_ = os.path.basename(marker.path).removeprefix(PREFIX)
            try:
                named = _named(json.loads(marker.text or "")["record"])
            except (ValueError, TypeError, KeyError, RecursionError):
                yield id_, (f"{marker.path}, which cannot be read", marker.path)
                continue
            if paths & named:
                yield id_, (marker.path, marker.path)


def _by_journal(paths: frozenset[str]) -> Iterator[Found]:
    name = os.path.join(os.environ.get("QMPSNAP_STATE") or _STATE, "journal.db")
    if not os.path.exists(name):
        return
    try:
        database = sqlite3.connect(name, timeout=1)
        try:
            rows = database.execute(
                "SELECT id, record, (SELECT group_concat(json_extract(act, '$.does')) FROM act "
                "WHERE operation = id) FROM operation WHERE ended IS NULL"
            ).fetchall()
        finally:
            database.close()
    except sqlite3.Error:
        return
    for id_, text, acts in rows:
        try:
            record = json.loads(text)
            begun = _BEGUN.get(record["kind"], set()) & set(str(acts).split(","))
            if begun and record["where"]["road"] != "offline" and paths & _named(record):
                yield id_, (name, id_)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue


def _named(record: dict[str, Any]) -> frozenset[str]:
    """The files of an operation."""
    plans: Iterable[dict[str, Any]] = (*record["creates"], *filter(None, [record["merge"]]))
    found: set[str] = set()
    for plan in plans:
        found.update(str(layer["path"]) for layer in plan["disk"]["layers"])
        if "overlay" in plan:
            found.add(str(plan["overlay"]))
    return frozenset(os.path.realpath(path) for path in found)


if __name__ == "__main__":
    run()
