"""One file in more than one disk."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from qmpsnap.findings.across_guests import across_guests
from qmpsnap.findings.facts import FileFacts, Seen
from qmpsnap.findings.finding import Finding
from qmpsnap.formats.layers import Disk
from qmpsnap.graph.files import OpenFile
from tests.unit import samples


def seen(name: str, *disks: Disk, **facts: Any) -> Seen:
    return Seen(guest=name, report=replace(samples.guest(*disks), guest=name), **facts)


def disk(*files: str, name: str = "vda", **changes: Any) -> Disk:
    """A disk with a chain of these files, active one first."""
    layers = tuple(samples.layer(file) for file in files)
    return samples.disk(layers=layers, disk=name, **changes)


def found(*guests: Seen) -> list[tuple[str, str | None]]:
    return [(one.id, one.guest) for one in across_guests(guests)]


def test_a_base_that_two_guests_read() -> None:
    assert found(seen("a", disk("a.1", "base")), seen("b", disk("b.1", "base"))) == []


def test_active_in_one_and_base_in_another() -> None:
    guests = seen("a", disk("a.1", "base")), seen("b", disk("base"))
    one: Finding
    (one,) = across_guests(guests)
    assert (one.id, one.guest, one.disk, one.file) == (
        "file-active-and-base",
        "b",
        "vda",
        "/share/base",
    )
    assert one.message == "vda of b writes to it; a base of vda of a"


def test_active_in_two() -> None:
    (one,) = across_guests((seen("a", disk("x")), seen("b", disk("x"))))
    assert (one.id, one.guest, one.node) == ("file-active-twice", "a", "x-node")
    assert one.message == "it is also active in vda of b"


def test_active_in_two_and_base_in_a_third() -> None:
    guests = seen("a", disk("x")), seen("b", disk("x")), seen("c", disk("c.1", "x"))
    assert {one for one, _ in found(*guests)} == {"file-active-twice", "file-active-and-base"}


def test_two_disks_of_one_guest() -> None:
    both = seen("a", disk("a.1", "x"), disk("x", name="vdb"))
    assert found(both) == [("file-active-and-base", "a")]


def test_read_only_disks_share_what_they_like() -> None:
    medium = disk("x", read_only=True)
    assert found(seen("a", medium), seen("b", medium)) == []
    cdrom = disk("x", kind="cdrom")
    assert found(seen("a", cdrom), seen("b", cdrom)) == []
    assert found(seen("a", medium), seen("b", disk("x"))) == [("file-active-and-base", "b")]


def test_names_do_not_matter_where_identity_is_known() -> None:
    same = FileFacts(identity=("file", 1, 2))
    a = seen("a", disk("x"), files={"/share/x": same})
    b = seen("b", disk("y"), files={"/share/y": same})
    assert found(a, b) == [("file-active-twice", "a")]
    other = replace(same, identity=("file", 1, 3))
    assert found(a, seen("b", disk("x"), files={"/share/x": other})) == []


def test_real_paths_count_without_it() -> None:
    a = seen("a", disk("x"), files={"/share/x": FileFacts(real_path="/mnt/x")})
    layer = samples.layer("x", path="/mnt/x")
    assert found(a, seen("b", samples.disk(layers=(layer,)))) == [("file-active-twice", "a")]


def test_files_of_different_hosts_are_different() -> None:
    assert found(seen("a", disk("x")), seen("b", disk("x"), host="other")) == []


def test_what_has_no_path_is_no_file() -> None:
    layer = samples.layer("null-co://", path=None)
    both = samples.disk(layers=(layer,))
    assert found(seen("a", both), seen("b", both)) == []


def test_a_loop_counts_once() -> None:
    loop = seen("a", disk("x", "x"))
    assert found(loop) == []
    assert found(loop, seen("b", disk("b.1", "x"))) == [("file-active-and-base", "a")]


def test_a_data_file_is_written_too() -> None:
    data = OpenFile(
        path="/share/x", name="/share/x", protocol="file", node="n", role="data-file", layer=0
    )
    a = seen("a", disk("a.1", files=(data,)))
    assert found(a, seen("b", disk("b.1", "x"))) == [("file-active-and-base", "a")]
    below = disk("a.1", "a.0", files=(replace(data, layer=1),))
    assert found(seen("a", below), seen("b", disk("b.1", "x"))) == []
