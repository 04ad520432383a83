"""Names for sources that are no file of this host."""

from __future__ import annotations

import json

import pytest

from qmpsnap.graph.sources import source_name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"driver": "rbd", "pool": "volumes", "image": "v1"}, "volumes/v1"),
        ({"driver": "rbd", "pool": "p", "namespace": "n", "image": "v1"}, "p/n/v1"),
        ({"driver": "iscsi", "target": "iqn.2010:v", "lun": 1, "portal": "s"}, "iqn.2010:v/1"),
        ({"driver": "gluster", "volume": "v", "path": "a", "server.0.host": "s"}, "v/a"),
        ({"driver": "nfs", "path": "/a/b", "server": {"host": "s"}}, "/a/b"),
        ({"driver": "ssh", "path": "/a/b", "user": "u"}, "/a/b"),
        ({"driver": "nbd", "export": "disk", "server": {"host": "s"}}, "disk"),
        ({"driver": "nvme", "device": "0000:01:00.0", "namespace": 1}, "0000:01:00.0/1"),
        ({"driver": "http", "url": "http://a/b", "readahead": 1}, "http://a/b"),
        ({"driver": "https", "url": "https://a/b", "sslverify": False}, "https://a/b"),
        ({"driver": "ftp", "url": "ftp://a/b", "readahead": 1}, "ftp://a/b"),
        ({"driver": "ftps", "url": "ftps://a/b", "readahead": 1}, "ftps://a/b"),
    ],
)
def test_name(options: dict[str, object], expected: str) -> None:
    assert source_name(f"json:{json.dumps(options)}") == expected


@pytest.mark.parametrize(
    "name", ["nbd://a/b", "json:", "json:[]", "json:{}", 'json:{"driver": "rbd"}', 'json:{"driver": []}']
)  # fmt: skip
def test_what_is_not_understood_is_left(name: str) -> None:
    assert source_name(name) == name
