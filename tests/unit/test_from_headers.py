"""The chain of a guest that is off: which names of headers are followed, and where it ends."""

from __future__ import annotations

import os.path

import pytest

from qmpsnap.formats.from_headers import next_below, with_chain
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


def chain(*active: str, **headers: str | None) -> list[tuple[str | None, str, str | None]]:
    """Path, name and format of each layer; headers by bare file name."""
    layers = tuple(XmlLayer(path=path, name=path, format="qcow2", index=None) for path in active)
    disk = XmlDisk(
        target="vda", serial=None, alias=None, device="disk", read_only=False, layers=layers
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


def test_what_the_definition_says_of_lower_layers_does_not_count() -> None:
    assert chain("/share/a", "/share/old", a="b") == [ACTIVE, layer("b")]


def test_empty_drive() -> None:
    assert chain() == []
