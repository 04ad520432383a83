"""What a tool that probes would take bytes for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.findings.image_headers import READ_SIZE, looks_like


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", None),
        (bytes(READ_SIZE), None),
        (b"QFI\xfb", None),
        (b"QFI\xfb\0\0\0\1", "qcow"),
        (b"QFI\xfb\0\0\0\2", "qcow2"),
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (b"QFI\xfb\0\0\0\0", None),
        (b"QFI\xfb\1\0\0\0", "qcow2"),
        (b"\0QFI\xfb\0\0\0\3", None),
        (b"KDMV", "vmdk"),
        (b"COWD", "vmdk"),
        (b"# Disk DescriptorFile\nversion=1\n", "vmdk"),
        (b"# a\r\n# b\r\n   \r\nversion=3\r\n", "vmdk"),
        (b"version=2\n", "vmdk"),
        (b"version=4\n", None),
        (b"# Disk DescriptorFile\nhello\n", None),
        (b"x version=1\n", None),
        (b"vhdxfile", "vhdx"),
        (b"conectix", "vpc"),
        (b"QED\0", "qed"),
        (b"LUKS\xba\xbe\0\1", "luks"),
        (b"LUKS\xba\xbe\0\2", "luks"),
        (b"LUKS\xba\xbe\0\3", None),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
        (b"<<< Oracle VM".ljust(64, b"\0") + b"\x7f\x10\xda\xbe", "vdi"),
        (b"\x7f\x10\xda\xbe", None),
        (b"\xeb\x63\x90" + bytes(507) + b"\x55\xaa", None),
    ],
)
def test_known(data: bytes, expected: str | None) -> None:
    assert looks_like(data) == expected
    assert looks_like(data + bytes(512)) == expected


@given(st.binary(max_size=READ_SIZE))
def test_any_bytes_are_answered_for(data: bytes) -> None:
    looks_like(data)


@given(st.integers(0, 600))
def test_a_long_comment_takes_no_time(lines: int) -> None:
    assert looks_like(b"#\n" * lines + b"   \n" * 99 + b"x") is None
