"""Nova's dictionaries, good and bad."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.errors import Refused
from qmpsnap.operations.requests import (
    BadFileName,
    BadRequest,
    CreateRequest,
    DeleteRequest,
    checked_folder,
    checked_name,
    create_request,
    delete_request,
)

CREATE = {"type": "qcow2", "new_file": "volume-1.s1", "snapshot_id": "s1"}
DELETE = {"type": "qcow2", "file_to_merge": "volume-1.s1", "merge_target_file": "volume-1"}

GOOD_NAMES = [
    "volume-1",
    "volume-6f0e.6f0f",
    "a",
    "a b",
    "-f",
    "...",
    "..a",
    ".hidden",
    "ä",
    "n" * 255,
    "ä" * 127,
]
BAD_NAMES = [
    ("", "names no file"),
    (".", "names no file"),
    ("..", "names no file"),
    ("/etc/shadow", "slash"),
    ("../volume-2", "slash"),
    ("a/b", "slash"),
    ("a/", "slash"),
    ("a\0b", "control"),
    ("a\nb", "control"),
    ("\x1b[2J", "control"),
    ("a\x7f", "control"),
    ("n" * 256, "255 bytes"),
    ("ä" * 128, "255 bytes"),
    ("\xff" * 128, "255 bytes"),
    ("volume-1.\udcff", "half a character"),
    ("volume-1.\uffff", "half a character"),
    ("json:{}", "colon"),
    ("nbd:host:1", "colon"),
    ("file:a", "colon"),
    ("\ud800", "half a character"),
    ("\udfff", "half a character"),
    ("\ud83d.s1", "half a character"),
]


class TestNames:
    @pytest.mark.parametrize("name", GOOD_NAMES)
    def test_good(self, name: str) -> None:
        assert checked_name("new_file", name) == name

    @pytest.mark.parametrize(("name", "reason"), BAD_NAMES)
    def test_bad(self, name: str, reason: str) -> None:
        with pytest.raises(BadFileName, match=reason) as caught:
            checked_name("new_file", name)
        assert isinstance(caught.value, Refused)
        assert (caught.value.field, caught.value.name) == ("new_file", name)

    @given(st.text(st.characters(), max_size=300) | st.text("./:\0\ud800\udcffa", max_size=300))
    def test_whatever_passes_is_the_name_of_one_file(self, name: str) -> None:
        with suppress(BadFileName):
            assert os.path.basename(os.fsdecode(os.fsencode(checked_name("f", name)))) == name


class TestFolder:
    @pytest.mark.parametrize("name", ["/share", "share", ".", "a b", "a:b", "ä"])
    def test_good(self, name: str) -> None:
        assert checked_folder("into", name) == name

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("", "names no folder"),
            ("a\nb", "control characters"),
            ("a\x1fb", "control characters"),
            ("a\x7fb", "control characters"),
            ("a\udc80b", "half a character"),
        ],
    )
    def test_bad(self, name: str, reason: str) -> None:
        with pytest.raises(BadFileName, match=reason) as caught:
            checked_folder("into", name)
        assert "/var/lib/libvirt/images" in caught.value.way_out


class TestCreate:
    def test_good(self) -> None:
        expected = CreateRequest(disk="vol", new_file="volume-1.s1", snapshot="s1")
        assert create_request("vol", CREATE) == expected

    def test_unknown_keys_are_ignored(self) -> None:
        assert create_request("vol", {**CREATE, "id": 7}) == create_request("vol", CREATE)

    @pytest.mark.parametrize("kind", ["raw", "QCOW2", "", None, 2, ["qcow2"], {}])
    def test_type(self, kind: object) -> None:
        with pytest.raises(BadRequest, match="is not 'qcow2'"):
            create_request("vol", {**CREATE, "type": kind})

    @pytest.mark.parametrize("key", ["type", "new_file", "snapshot_id"])
    def test_missing_key(self, key: str) -> None:
        info = {name: value for name, value in CREATE.items() if name != key}
        with pytest.raises(BadRequest, match=r"missing|type None") as caught:
            create_request("vol", info)
        assert isinstance(caught.value, Refused)
        assert "create_info" in str(caught.value)

    @pytest.mark.parametrize("key", ["new_file", "snapshot_id"])
    @pytest.mark.parametrize("value", [None, "", 1, True, b"a", ["a"], {"a": 1}])
    def test_not_a_text(self, key: str, value: object) -> None:
        with pytest.raises(BadRequest, match=f"'{key}' is not a text"):
            create_request("vol", {**CREATE, key: value})

    @pytest.mark.parametrize("name", [name for name, _ in BAD_NAMES if name])
    def test_bad_name(self, name: str) -> None:
        with pytest.raises(BadFileName, match="new_file"):
            create_request("vol", {**CREATE, "new_file": name})


class TestDelete:
    @pytest.mark.parametrize(
        ("merge", "target"), [("volume-1.s1", "volume-1"), ("volume-1", None), (None, None)]
    )
    def test_good(self, merge: str | None, target: str | None) -> None:
        info = {"type": "qcow2", "file_to_merge": merge, "merge_target_file": target, "more": 1}
        expected = DeleteRequest(disk="vol", file_to_merge=merge, merge_target_file=target)
        assert delete_request("vol", info) == expected

    @pytest.mark.parametrize("kind", ["raw", None, 2])
    def test_type(self, kind: object) -> None:
        with pytest.raises(BadRequest, match="is not 'qcow2'"):
            delete_request("vol", {**DELETE, "type": kind})

    @pytest.mark.parametrize("key", ["file_to_merge", "merge_target_file"])
    def test_missing_key_is_not_the_same_as_none(self, key: str) -> None:
        info = {name: value for name, value in DELETE.items() if name != key}
        with pytest.raises(BadRequest, match=f"'{key}' is missing") as caught:
            delete_request("vol", info)
        assert caught.value.where == "delete_info"

    @pytest.mark.parametrize("key", ["file_to_merge", "merge_target_file"])
    @pytest.mark.parametrize("value", ["", 1, False, b"a", ["a"]])
    def test_not_a_text(self, key: str, value: object) -> None:
        with pytest.raises(BadRequest, match=f"'{key}' is not a text"):
            delete_request("vol", {**DELETE, key: value})

    @pytest.mark.parametrize("key", ["file_to_merge", "merge_target_file"])
    @pytest.mark.parametrize("name", [name for name, _ in BAD_NAMES if name])
    def test_bad_name(self, key: str, name: str) -> None:
        with pytest.raises(BadFileName, match=key):
            delete_request("vol", {**DELETE, key: name})

    def test_target_without_a_file_to_merge(self) -> None:
        with pytest.raises(BadRequest, match="without a file to merge"):
            delete_request("vol", {**DELETE, "file_to_merge": None})
