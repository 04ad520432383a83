"""The chain of a guest that is off: which names of headers are followed, and where it ends."""

from __future__ import annotations

import os.path

import pytest
from msgspec.structs import replace

from qmpsnap.formats.from_headers import (
    Difference,
    difference,
    formats_to_follow,
    next_below,
    with_chain,
)
from qmpsnap.formats.qcow2 import Header
from qmpsnap.graph.xml import XmlDisk, XmlLayer


def header(name: str | None) -> Header:
    return Header(version=3, virtual_size=1, backing_file=name, backing_format="qcow2")


@pytest.mark.parametrize(
    ("path", "name", "below"),
    [
        ("/share/a", "b", "/share/b"),
        ("/share/a", "./b", "/share/b"),
        ("/share/a", "/share/b", "/share/b"),
        ("/share//a", "b", "/share/b"),
        ("/share/./a", "x/../b", "/share/b"),
        ("/share/a", "a", "/share/a"),
        ("/share/a", None, None),
        ("/share/a", "/elsewhere/b", None),
        ("/share/a", "../b", None),
        ("/share/a", "sub/b", None),
        ("/share/a", "/etc/passwd", None),
        ("/share/a", "nbd:b", None),
        ("/share/a", "a:b", None),
        ("/share/a", "/share/a:b", "/share/a:b"),
        ("/share/a", "./a:b", "/share/a:b"),
        ("/share/a", 'json:{"driver": "file", "filename": "/share/b"}', None),
        ("/share/a", "b\0c", None),
        ("/share/a", "b/..", None),
        ("/share/a", "..", None),
        ("/share/a", ".", None),
        ("/share/a", "/share/", None),
        ("/share/a", "", None),
        ("/share/a", "b/.", None),
        ("/share/x/../a", "b", "/share/x/../b"),
        ("/share/x/../a", "/share/b", "/share/x/../b"),
    ],
)
def test_name_of_a_header(path: str, name: str | None, below: str | None) -> None:
    """It may have come with an image that somebody uploaded."""
    assert next_below(path, header(name)) == below


def test_folder_behind_a_link() -> None:
    """`/link` is `/share/deep`."""

    def real(folder: str) -> str:
        return os.path.normpath(folder.replace("/link", "/share/deep"))

    assert next_below("/link/a", header("/share/deep/b"), real) == "/link/b"
    assert next_below("/link/a", header("../deep/b"), real) == "/link/b"
    assert next_below("/link/../a", header("/share/b"), real) == "/link/../b"
    assert next_below("/link/a", header("/link/../b"), real) is None


def chain(
    *active: str, ended: bool = False, **headers: str | None
) -> list[tuple[str | None, str, str | None]]:
    """Path, name and format of each layer; headers by bare file name."""
    layers = tuple(XmlLayer(path=path, name=path, format="qcow2", index=None) for path in active)
    disk = XmlDisk(
        target="vda",
        serial=None,
        alias=None,
        device="disk",
        read_only=False,
        layers=layers,
        ended=ended,
    )
    found = with_chain(disk, {f"/share/{file}": header(name) for file, name in headers.items()})
    return [(one.path, one.name, one.format) for one in found.layers]


ACTIVE = ("/share/a", "/share/a", "qcow2")


def layer(file: str) -> tuple[str, str, None]:
    """Its format is stated by the header above, which is a witness of its own."""
    return f"/share/{file}", f"/share/{file}", None


def test_down_to_a_file_without_a_header() -> None:
    assert chain("/share/a", a="b", b="c") == [ACTIVE, layer("b"), layer("c")]


def test_down_to_a_file_that_names_no_other() -> None:
    assert chain("/share/a", a="b", b=None) == [ACTIVE, layer("b")]


def test_of_one_file() -> None:
    assert chain("/share/a") == chain("/share/a", a=None) == [ACTIVE]


def test_name_that_is_not_followed_is_the_last() -> None:
    assert chain("/share/a", a="nbd:x") == [ACTIVE, (None, "nbd:x", None)]


def test_circle() -> None:
    assert chain("/share/a", a="b", b="a") == [ACTIVE, layer("b"), layer("a")]
    assert chain("/share/a", a="a") == [ACTIVE, layer("a")]


def test_what_the_definition_names_comes_first() -> None:
    """libvirt obeys it; where it ends, the headers go on."""
    named = [ACTIVE, ("/share/old", "/share/old", "qcow2")]
    assert chain("/share/a", "/share/old", a="b") == named
    assert chain("/share/a", "/share/old", a="b", old="c") == [*named, layer("c")]
    assert chain("/share/a", "/share/old", old="c", ended=True) == named


def defined(*lower: str | None, ended: bool = False, name: str = "") -> XmlDisk:
    """A disk of /share/a over these files; None: a network source of that name."""
    layers = tuple(
        XmlLayer(path=path, name=path or name, format="qcow2", index=None)
        for path in ("/share/a", *lower)
    )
    return XmlDisk(
        target="vda",
        serial=None,
        alias=None,
        device="disk",
        read_only=False,
        layers=layers,
        ended=ended,
    )


@pytest.mark.parametrize(
    ("lower", "ended", "written", "differs"),
    [
        (("/share/b",), True, "b", False),
        (("/share/b",), True, "/share/b", False),
        (("/share/b",), True, 'json:{"driver": "file", "filename": "/share/b"}', False),
        (("/share/b",), True, "c", True),
        (("/share/b",), True, None, True),
        (("/share/b",), True, "nbd:b", True),
        ((), True, None, False),
        ((), True, "b", True),
        ((), False, "b", False),
        ((), False, None, False),
        ((None,), False, "rbd:pool/image", False),
        ((None,), False, "b", True),
        ((None,), False, None, True),
    ],
)
def test_difference(
    lower: tuple[str | None, ...], ended: bool, written: str | None, differs: bool
) -> None:
    disk = defined(*lower, ended=ended, name="pool/image")
    headers = {"/share/a": header(written), "/share/b": header(None)}
    found = difference(disk, headers, lambda one, other: one == other)
    assert (found is not None) is differs
    if found is not None:
        assert found.above == 0
        assert found.text.startswith("below a the definition has ")
        assert found.text.endswith(f"names {written or 'nothing'}")


def test_volume_of_a_pool_is_compared_with_nothing() -> None:
    """Its file is known to libvirt alone; a network's source is no volume, and differs."""
    network = defined(None, ended=True, name="p/b")
    upper, lower = network.layers
    volume = replace(network, layers=(upper, replace(lower, volume=True)))
    headers = {"/share/a": header("b")}
    assert difference(volume, headers, lambda *_: False) is None
    assert difference(network, headers, lambda *_: False) is not None
    without = {"/share/a": header(None)}
    assert difference(volume, without, lambda *_: False) is not None, "the header ends the chain"


def test_difference_further_down() -> None:
    disk = defined("/share/b", "/share/c", ended=True)
    headers = {"/share/a": header("b"), "/share/b": header("d"), "/share/c": header(None)}
    found = difference(disk, headers, lambda one, other: one == other)
    assert found == Difference(
        above=1, text="below b the definition has /share/c, and its header names d"
    )
    assert difference(disk, headers, lambda *_: True) is None
    assert difference(disk, {}, lambda *_: False) is None  # no header could be read


def test_headers_that_are_to_be_read() -> None:
    disk = with_chain(defined("/share/b"), {"/share/a": header("b"), "/share/b": header("c")})
    headers = {"/share/b": header("c")}
    found = {"/share/a": "qcow2", "/share/b": "qcow2"}
    assert formats_to_follow(disk, {}) == found
    assert formats_to_follow(disk, headers) == {**found, "/share/c": "qcow2"}


def test_empty_drive() -> None:
    assert chain() == []
