"""Which files a guest with an encrypted volume is started with, besides the active one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.qcow2_header import header


@pytest.fixture
def encrypted() -> Any:
    """The module, which imports Nova's."""
    return pytest.importorskip("qmpsnap.openstack.nova.encrypted")


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """The active file of a chain of three."""
    for name, below in (("v", None), ("v.1", "v"), ("v.2", "v.1")):
        made(tmp_path / name, below)
    return tmp_path / "v.2"


def made(path: Path, below: str | None, format_: bytes = b"qcow2", method: int = 2) -> None:
    names = [] if below is None else [(0xE2792ACA, format_)]
    backing = b"" if below is None else below.encode()
    path.write_bytes(header(method=method, backing=backing, extensions=names))


def test_the_files_below_are_found_by_the_headers(encrypted: Any, chain: Path) -> None:
    found = encrypted.files_below(str(chain))
    assert found == (str(chain.with_name("v.1")), str(chain.with_name("v")))
    assert encrypted.files_below(str(chain.with_name("v"))) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"below": "v.2"}, "comes back"),
        ({"below": "/etc/passwd"}, "is backed by '/etc/passwd'"),
        ({"below": "../v"}, r"is backed by '\.\./v'"),
        ({"below": "nbd:a/v"}, "is backed by 'nbd:a/v'"),
        ({"below": "none"}, "No such file"),
        ({"below": "v", "format_": b"raw"}, r"\(raw\)"),
        ({"below": "v", "method": 0}, "no file with LUKS inside"),
    ],
)
def test_a_chain_that_cinder_does_not_make(
    encrypted: Any, chain: Path, changes: dict[str, Any], reason: str
) -> None:
    made(chain.with_name("v.1"), **changes)
    with pytest.raises(encrypted.NotNamed, match=reason):
        encrypted.files_below(str(chain))
