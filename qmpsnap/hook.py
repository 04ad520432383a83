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
from typing import Any, Final, NamedTuple
from xml.parsers import expat  # noqa: TID251  # no entity is resolved here; lxml takes 30 ms

from qmpsnap.guests.files.markers import PREFIX, markers_in
from qmpsnap.journal.answers import is_silent

_STATE: Final = "/var/lib/qmpsnap"
_UNFLUSHED: Final = "flush that has failed"
_BEGUN: Final = {
    "create": {"switch"},
    "active-commit": {"commit"},
    "pull": {"start", "commit"},
    "commit": {_UNFLUSHED},
}
"""Acts after which files and definition do not tell any more which file is right."""
_POOLS: Final = ("/etc/libvirt/storage", "/run/libvirt/storage")
"""Where libvirtd keeps the definitions of storage pools, and of those that go when they are stopped."""
_BELOW: Final = "backingStore"
_LIMIT: Final = 16 * 1024 * 1024


def run() -> None:
    """Run the hook and exit with libvirt's answer: not 0 refuses the start."""
    sys.exit(main())


def main() -> int:
    """Look; returns the exit code."""
    if sys.argv[2:3] != ["prepare"]:
        return 0
    try:
        files = files_of(sys.stdin.buffer.read(_LIMIT))
    except expat.ExpatError:
        return 0  # libvirt made it; it is no reason to keep a guest from starting
    found = [*_by_markers(files), *_by_journal(files)]
    for id_, where, name in dict(found).values():
        print(
            f"qmpsnap: operation {id_} on this guest's files is not settled ({where}): "
            f"run `qmpsnap resume {shlex.quote(name)}` before it is started",
            file=sys.stderr,
        )
    return 1 if found else 0


class Files(NamedTuple):
    """Files and block devices that a domain's XML names as a source, volumes of pools among them."""

    all: frozenset[str]
    active: frozenset[str]
    """Those of them that the guest opens itself: they are no backing files."""


def files_of(text: bytes) -> Files:
    """
    Find what a guest opens.

    Raises:
        expat.ExpatError: It is no XML.
    """
    found: set[str] = set()
    active: set[str] = set()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += name == _BELOW
        if name != "source":
            return
        pool, volume = attributes.get("pool"), attributes.get("volume")
        known = _volume(pool, volume) if pool and volume else None
        values = (attributes.get("file"), attributes.get("dev"), known)
        named = {os.path.realpath(one) for one in values if one and one.startswith("/")}
        found.update(named)
        active.update(() if depth else named)

    def end(name: str) -> None:
        nonlocal depth
        depth -= name == _BELOW

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(text, True)
    return Files(frozenset(found), frozenset(active))


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


Found = tuple[str, tuple[str, str, str]]
"""
What tells an operation; its id, where it is known, and what names it to `qmpsnap resume`.

Its id does not tell it: two hosts may have begun one each with the same token.
"""


def _by_markers(files: Files) -> Iterator[Found]:
    """By their paths: the journal may be another host's."""
    for folder in {os.path.dirname(path) for path in files.all}:
        for marker in markers_in(folder):
            id_ = os.path.basename(marker.path).removeprefix(PREFIX)
            try:
                record = json.loads(marker.text or "")["record"]
                is_about = _is_about(record, files)
            except (ValueError, TypeError, KeyError, RecursionError):
                yield marker.path, (id_, f"{marker.path}, which cannot be read", marker.path)
                continue
            if is_about:
                yield _told(record), (id_, marker.path, marker.path)


def _by_journal(files: Files) -> Iterator[Found]:
    name = os.path.join(os.environ.get("QMPSNAP_STATE") or _STATE, "journal.db")
    if not os.path.exists(name):
        return
    try:
        database = sqlite3.connect(name, timeout=1)
        try:
            rows = database.execute(
                "SELECT id, record, (SELECT json_group_array(json_array(json_extract(act, '$.does'), "
                "answer)) FROM act WHERE operation = id) FROM operation WHERE ended IS NULL"
            ).fetchall()
        finally:
            database.close()
    except sqlite3.Error:
        return
    for id_, text, acts in rows:
        try:
            record = json.loads(text)
            begun = _BEGUN.get(record["kind"], set()) & set(map(_state, json.loads(acts)))
            if begun and record["where"]["road"] != "offline" and _is_about(record, files):
                yield _told(record), (id_, name, id_)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue


def _told(record: dict[str, Any]) -> str:
    return f"{record.get('begun')} {record.get('host')}"


def _state(act: tuple[str, str | None]) -> str:
    """What an act is; of a flush, whether it was heard that it has failed."""
    does, answer = act
    failed = does == "flush" and answer is not None and not is_silent(answer)
    return _UNFLUSHED if failed else does


def _is_about(record: dict[str, Any], files: Files) -> bool:
    """Whether an operation works on what a guest opens, or has in a chain what the guest writes to."""
    chains = _chains(record)
    own = frozenset(os.path.realpath(path) for path in record.get("works_on") or ()) or chains
    return bool(own & files.all or chains & files.active)


def _chains(record: dict[str, Any]) -> frozenset[str]:
    """All files of an operation's chains."""
    plans: Iterable[dict[str, Any]] = (*record["creates"], *filter(None, [record["merge"]]))
    found: set[str] = set()
    for plan in plans:
        found.update(str(layer["path"]) for layer in plan["disk"]["layers"])
        if "overlay" in plan:
            found.add(str(plan["overlay"]))
    return frozenset(os.path.realpath(path) for path in found)


if __name__ == "__main__":
    run()
