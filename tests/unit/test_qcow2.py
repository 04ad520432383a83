"""The qcow2 header reader on headers made by hand: what it reads, and all that it refuses."""

from __future__ import annotations

import struct
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.formats.qcow2 import (
    READ_SIZE,
    BadHeader,
    Header,
    parse,
    with_backing,
    without_encryption,
)
from tests.unit.qcow2_header import MIB, extension, header

BACKING_FORMAT: Final = 0xE2792ACA
DATA_FILE: Final = 0x44415441
BITMAPS: Final = 0x23852875
FEATURE_NAMES: Final = 0x6803F857


def padded(data: bytes) -> bytes:
    return data.ljust(READ_SIZE, b"\0")


FULL: Final = header(
    backing=b"volume-1",
    extensions=[
        (BACKING_FORMAT, b"raw"),
        (DATA_FILE, b"volume-1.data"),
        (BITMAPS, struct.pack(">IIQQ", 2, 0, 48, 0x50000)),
        (FEATURE_NAMES, b"\0\0dirty bit".ljust(48, b"\0")),
    ],
    incompatible=4,
    autoclear=1,
)


V2, V3, NAME = 72, 104, 1023
"""Bytes of the two headers; the longest backing name (BDRV_SECTOR_SIZE * 2 - 1, block/qcow2.c)."""


class TestBounds:
    """What is just within them is read; one more or less is refused (`TestRefuses`)."""

    @pytest.mark.parametrize(("version", "size"), [(2, V2), (3, V3)])
    def test_file_that_ends_with_its_header(self, version: int, size: int) -> None:
        whole = header(version=version)
        with pytest.raises(BadHeader, match=f"its extensions do not end within {size} bytes"):
            parse(whole[:size], "a")
        with pytest.raises(BadHeader, match=f"it ends after {size - 1} bytes"):
            parse(whole[: size - 1], "a")

    @pytest.mark.parametrize("bits", [9, 21])
    def test_size_of_clusters(self, bits: int) -> None:
        made = bytearray(header())
        made[20:24] = bits.to_bytes(4, "big")
        assert parse(bytes(made), "a").virtual_size == 64 * MIB
        made[20:24] = (8 if bits == 9 else 22).to_bytes(4, "big")
        with pytest.raises(BadHeader, match="cluster bits"):
            parse(bytes(made), "a")

    def test_length_of_the_backing_name(self) -> None:
        assert parse(padded(header(backing=b"n" * NAME)), "a").backing_file == "n" * NAME
        with pytest.raises(BadHeader, match="is longer than 1023"):
            parse(padded(header(backing=b"n" * (NAME + 1))), "a")


class TestReads:
    @pytest.mark.parametrize("version", [2, 3])
    def test_image_without_backing_file(self, version: int) -> None:
        assert parse(header(version=version), "a") == Header(version=version, virtual_size=64 * MIB)

    @pytest.mark.parametrize("version", [2, 3])
    def test_backing_name_and_format(self, version: int) -> None:
        data = header(version=version, backing=b"base", extensions=[(BACKING_FORMAT, b"raw")])
        found = parse(data, "a")
        assert (found.backing_file, found.backing_format) == ("base", "raw")

    def test_backing_file_without_format(self) -> None:
        found = parse(header(backing=b"base"), "a")
        assert (found.backing_file, found.backing_format) == ("base", None)

    def test_everything_at_once_whatever_follows(self) -> None:
        expected = Header(
            version=3,
            virtual_size=64 * MIB,
            backing_file="volume-1",
            backing_format="raw",
            data_file="volume-1.data",
            bitmaps=2,
        )
        assert parse(FULL, "a") == expected
        assert parse(padded(FULL), "a") == expected

    @pytest.mark.parametrize(("method", "expected"), [(0, None), (1, "aes"), (2, "luks")])
    @pytest.mark.parametrize("version", [2, 3])
    def test_encryption(self, version: int, method: int, expected: str | None) -> None:
        assert parse(header(version=version, method=method), "a").encryption == expected

    def test_data_file_bit_without_a_name(self) -> None:
        assert parse(header(incompatible=4), "a").data_file == ""

    @pytest.mark.parametrize(("version", "expected"), [(2, None), (3, "secret")])
    def test_data_file_name_without_the_bit(self, version: int, expected: str | None) -> None:
        found = parse(header(version=version, extensions=[(DATA_FILE, b"secret")]), "a")
        assert found.data_file == expected

    @pytest.mark.parametrize("bit", range(5))
    def test_known_incompatible_features(self, bit: int) -> None:
        found = parse(header(incompatible=1 << bit), "a")
        assert (found.data_file is not None) == (bit == 2)

    @pytest.mark.parametrize("data", [b"", b"\0\0\0"])
    def test_bitmaps_extension_that_is_too_short_counts_none(self, data: bytes) -> None:
        assert parse(header(extensions=[(BITMAPS, data)], autoclear=1), "a").bitmaps == 0

    def test_outdated_bitmaps_do_not_count_as_for_qemu(self) -> None:
        bitmaps = [(BITMAPS, struct.pack(">IIQQ", 2, 0, 48, 0x50000))]
        assert parse(header(extensions=bitmaps, autoclear=1), "a").bitmaps == 2
        assert parse(header(extensions=bitmaps, autoclear=2), "a").bitmaps == 0
        assert parse(header(extensions=bitmaps, version=2), "a").bitmaps == 0

    def test_format_without_a_backing_file_is_none_as_for_qemu(self) -> None:
        assert parse(header(extensions=[(BACKING_FORMAT, b"raw")]), "a").backing_format is None

    def test_unknown_extensions_are_stepped_over(self) -> None:
        unknown = [(0x12345678, b"x" * size) for size in (0, 1, 7, 8, 9)]
        found = parse(header(backing=b"b", extensions=[*unknown, (BACKING_FORMAT, b"qcow2")]), "a")
        assert found.backing_format == "qcow2"

    def test_what_follows_the_end_of_the_extensions_is_no_extension(self) -> None:
        data = header(incompatible=4) + extension(DATA_FILE, b"x")
        assert parse(data, "a").data_file == ""

    def test_longer_header_of_a_later_version(self) -> None:
        # QEMU 5.1 and later: 112 bytes, with the compression type
        body = b"\0" * 8 + extension(DATA_FILE, b"x") + b"\0" * 8
        found = parse(header(header_length=112, ended=False, incompatible=4) + body, "a")
        assert found.data_file == "x"

    def test_last_extension_of_a_kind_counts_as_for_qemu(self) -> None:
        # `qemu-img info -f qcow2` of 7.2 shows the last one: that is what the next start believes.
        twice = [(BACKING_FORMAT, b"raw"), (BACKING_FORMAT, b"qcow2")]
        assert parse(header(backing=b"b", extensions=twice), "a").backing_format == "qcow2"

    @pytest.mark.parametrize("name", [b"\0", b"\0hidden"])
    def test_empty_name_names_nothing_as_for_qemu(self, name: bytes) -> None:
        data = header(backing=name, extensions=[(BACKING_FORMAT, name)])
        found = parse(data, "a")
        assert (found.backing_file, found.backing_format) == (None, None)

    def test_name_of_no_bytes_names_nothing(self) -> None:
        assert parse(header(name_offset=112, name_size=0), "a").backing_file is None

    def test_name_ends_at_nul_as_for_qemu(self) -> None:
        assert parse(header(backing=b"base\0/etc/shadow"), "a").backing_file == "base"

    def test_longest_name(self) -> None:
        name = b"n" * 1023
        assert parse(header(backing=name), "a").backing_file == name.decode()

    @given(st.binary(min_size=1, max_size=200).filter(lambda name: b"\0" not in name))
    def test_names_are_bytes(self, name: bytes) -> None:
        data = header(backing=name, extensions=[(DATA_FILE, name)], incompatible=4)
        found = parse(data, "a")
        for text in (found.backing_file, found.data_file):
            assert text is not None
            assert text.encode("utf-8", "surrogateescape") == name

    @pytest.mark.parametrize("size", [0, 1, 512, 2**63, 2**64 - 1])
    def test_virtual_size(self, size: int) -> None:
        assert parse(header(size=size), "a").virtual_size == size


class TestRefuses:
    @pytest.mark.parametrize("length", range(len(FULL)))
    def test_header_cut_off_anywhere(self, length: int) -> None:
        with pytest.raises(BadHeader):
            parse(FULL[:length], "a")

    @pytest.mark.parametrize(
        "magic", [b"\0\0\0\0", b"QFI\0", b"QED\0", b"KDMV", b"LUKS", b"qfi\xfb"]
    )
    def test_other_magic(self, magic: bytes) -> None:
        with pytest.raises(BadHeader, match="magic"):
            parse(header(magic=magic), "a")

    @pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1])
    def test_unknown_version(self, version: int) -> None:
        data = bytearray(header())
        struct.pack_into(">I", data, 4, version)
        with pytest.raises(BadHeader, match=f"version {version}"):
            parse(bytes(data), "a")

    @pytest.mark.parametrize("bits", [0, 8, 22, 64, 2**32 - 1])
    def test_cluster_size(self, bits: int) -> None:
        with pytest.raises(BadHeader, match="cluster bits"):
            parse(header(cluster_bits=bits), "a")

    @pytest.mark.parametrize("bits", [9, 21])
    def test_smallest_and_largest_cluster_are_fine(self, bits: int) -> None:
        assert parse(header(cluster_bits=bits), "a").version == 3

    @pytest.mark.parametrize("method", [3, 2**32 - 1])
    def test_unknown_encryption(self, method: int) -> None:
        with pytest.raises(BadHeader, match="encryption"):
            parse(header(method=method), "a")

    @pytest.mark.parametrize("bit", [5, 6, 31, 63])
    def test_unknown_incompatible_feature(self, bit: int) -> None:
        with pytest.raises(BadHeader, match="incompatible features"):
            parse(header(incompatible=1 << bit), "a")

    @pytest.mark.parametrize("length", [0, 72, 96, 103, 105, 2**32 - 1])
    def test_impossible_header_length(self, length: int) -> None:
        with pytest.raises(BadHeader, match="header length"):
            parse(header(header_length=length), "a")

    @pytest.mark.parametrize("length", [520, 2**32 - 8])
    def test_header_longer_than_a_cluster(self, length: int) -> None:
        with pytest.raises(BadHeader, match="first cluster"):
            parse(padded(header(cluster_bits=9, header_length=length)), "a")

    def test_name_that_is_too_long(self) -> None:
        with pytest.raises(BadHeader, match="1024 bytes"):
            parse(padded(header(backing=b"n" * 1024)), "a")

    @pytest.mark.parametrize("offset", [1, 71, 103, 5000, 2**40, 2**64 - 1])
    def test_name_outside_of_the_header(self, offset: int) -> None:
        with pytest.raises(BadHeader, match="backing file name"):
            parse(header(name_offset=offset, name_size=4), "a")

    def test_name_past_the_first_cluster(self) -> None:
        data = padded(header(cluster_bits=9, name_offset=510, name_size=4))
        with pytest.raises(BadHeader, match="first cluster"):
            parse(data, "a")

    @pytest.mark.parametrize("length", [2**32 - 1, READ_SIZE, 100])
    def test_extension_longer_than_its_room(self, length: int) -> None:
        data = header(ended=False) + struct.pack(">II", BACKING_FORMAT, length) + b"raw"
        with pytest.raises(BadHeader, match="0xe2792aca"):
            parse(data, "a")

    def test_extension_that_reaches_into_the_name(self) -> None:
        data = bytearray(header(backing=b"base", extensions=[(BACKING_FORMAT, b"raw")]))
        struct.pack_into(">I", data, 108, 17)  # 8 bytes of data and 8 of the end are there
        with pytest.raises(BadHeader, match="runs past"):
            parse(bytes(data), "a")

    def test_extensions_that_go_on_past_what_was_read(self) -> None:
        # QEMU would read on, and find a data file
        fills = READ_SIZE - 104 - 8
        data = header(extensions=[(0x12345678, b"x" * fills), (DATA_FILE, b"x")])
        with pytest.raises(BadHeader, match="do not end within 8192 bytes"):
            parse(data[:READ_SIZE], "a")
        with pytest.raises(BadHeader, match="do not end within 104 bytes"):
            parse(header(ended=False), "a")

    def test_extensions_may_end_with_the_first_cluster(self) -> None:
        data = header(
            cluster_bits=9, extensions=[(DATA_FILE, b"x" * 400)], ended=False, incompatible=4
        )
        assert len(data) == 512
        assert parse(data, "a").data_file == "x" * 400

    def test_extensions_may_end_with_the_name(self) -> None:
        data = header(backing=b"base", extensions=[(BACKING_FORMAT, b"raw")], ended=False)
        assert parse(data, "a").backing_format == "raw"

    def test_longest_format_name(self) -> None:
        def made(length: int) -> bytes:
            return header(backing=b"b", extensions=[(BACKING_FORMAT, b"f" * length)])

        assert parse(made(15), "a").backing_format == "f" * 15
        with pytest.raises(BadHeader, match="16 bytes"):
            parse(made(16), "a")

    def test_says_of_which_file(self) -> None:
        with pytest.raises(BadHeader, match=r"^/share/x has no valid qcow2 header: ") as caught:
            parse(b"", "/share/x")
        assert isinstance(caught.value, Refused)


class TestWhateverTheBytes:
    """Either a header or `BadHeader`; the guest's own bytes cannot make it fail otherwise."""

    @given(st.binary(max_size=300))
    def test_random_bytes(self, data: bytes) -> None:
        with pytest.raises(BadHeader):
            parse(data, "a")

    @given(st.binary(max_size=READ_SIZE))
    def test_random_bytes_behind_the_magic(self, data: bytes) -> None:
        assert survives(b"QFI\xfb\0\0\0\3" + data)

    @given(
        st.lists(
            st.tuples(st.integers(0, len(FULL) - 1), st.integers(0, 255)), min_size=1, max_size=8
        ),
        st.integers(0, len(FULL)),
    )
    def test_mutated_header(self, changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(FULL)
        for offset, value in changes:
            data[offset] = value
        assert survives(padded(bytes(data)))
        assert survives(bytes(data[:cut]))

    @given(st.sampled_from(range(0, 104, 4)), st.integers(0, 2**32 - 1))
    def test_any_field_of_any_value(self, offset: int, value: int) -> None:
        data = bytearray(padded(FULL))
        struct.pack_into(">I", data, offset, value)
        assert survives(bytes(data))


def survives(data: bytes) -> bool:
    """Whether `parse` keeps its promise; any other exception fails the test."""
    try:
        found = parse(data, "a")
    except BadHeader:
        return True
    return found.version in (2, 3) and found.backing_file != "" and found.backing_format != ""


def test_without_encryption_all_else_is_as_it_was() -> None:
    names = [(0xE2792ACA, b"qcow2"), (0x0537BE77, b"\0" * 16), (0x6803F857, b"\0" * 48)]
    data = header(method=2, backing=b"volume-1", extensions=names) + b"tables"
    changed = without_encryption(data)
    before, after = parse(data, "a"), parse(changed, "a")
    assert before.encryption == "luks"
    assert after == replace(before, encryption=None)
    assert len(changed) == len(data)
    assert (0x0537BE77).to_bytes(4) not in changed
    assert sum(one != other for one, other in zip(data, changed, strict=True)) == 1 + 4


def test_without_encryption_of_what_is_no_header() -> None:
    with pytest.raises(BadHeader):
        without_encryption(b"\0" * 4096)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("backing", [b"", b"volume-1", b"a name that is longer than the new one"])
def test_with_another_backing_file_all_else_is_as_it_was(version: int, backing: bytes) -> None:
    kept = [(0x0537BE77, b"\0\1" * 8), (0x12345678, b"odd")]
    names = [(BACKING_FORMAT, b"qcow2"), *kept]
    data = header(version=version, method=2, backing=backing, extensions=names).ljust(65536, b"\0")
    changed = with_backing(data, "volume-\udcff.s1", "raw")
    named = {"backing_file": "volume-\udcff.s1", "backing_format": "raw"}
    assert parse(changed, "a") == replace(parse(data, "a"), **named)
    assert len(changed) == len(data)
    assert (changed[:8], changed[20:72]) == (data[:8], data[20:72])
    assert all(extension(*one) in changed for one in kept)
    assert with_backing(changed, "volume-\udcff.s1", "raw") == changed


@pytest.mark.parametrize(
    ("name", "format_"), [("n" * 1024, "raw"), ("n" * 500, "raw"), ("n", "f" * 16)]
)
def test_with_a_backing_file_that_has_no_room(name: str, format_: str) -> None:
    data = header(cluster_bits=9).ljust(512, b"\0")
    with pytest.raises(BadHeader):
        with_backing(data, name, format_)


def test_with_another_backing_file_of_what_is_no_header() -> None:
    with pytest.raises(BadHeader):
        with_backing(b"\0" * 4096, "volume-1", "raw")
