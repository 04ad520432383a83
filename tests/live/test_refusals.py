"""What must be refused on both roads: exit code, message, status, and nothing changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qmpsnap.guests.files.header import read_header
from tests.rig import images
from tests.rig.headers import hand_over
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation

NEW = f"{BASE}.new"
CREATE = {"type": "qcow2", "new_file": NEW, "snapshot_id": "new"}

WRONG_CREATE_INFO: list[tuple[dict[str, object], str]] = [
    ({"type": "raw"}, "'raw' is not 'qcow2'"),
    ({"type": None}, "None is not 'qcow2'"),
    ({"snapshot_id": None}, "snapshot_id"),
    ({"snapshot_id": 7}, "snapshot_id"),
    ({"new_file": None}, "new_file"),
    ({"new_file": "../volume-1234.new"}, "slash"),
    ({"new_file": "/etc/passwd"}, "slash"),
    ({"new_file": ".."}, "names no file"),
    ({"new_file": "a\0b"}, "control characters"),
    ({"new_file": "volume-9999.new"}, "another volume"),
    ({"new_file": BASE}, "in use"),
    ({"new_file": "nbd:unix"}, "colon"),
    ({"new_file": f"{BASE}.\udcff"}, "half a character"),
    ({"new_file": f"{BASE}.\ud83d"}, "half a character"),
    ({"new_file": f"{BASE}.\uffff"}, "half a character"),
]
WRONG_DELETE_INFO: list[tuple[dict[str, object], str]] = [
    ({"type": "vmdk", "file_to_merge": None, "merge_target_file": None}, "'vmdk'"),
    ({"type": "qcow2", "merge_target_file": None}, "file_to_merge"),
    ({"type": "qcow2", "file_to_merge": "x", "merge_target_file": BASE}, "not in the chain"),
    ({"type": "qcow2", "file_to_merge": "x", "merge_target_file": None}, "not in the chain"),
    ({"type": "qcow2", "file_to_merge": None, "merge_target_file": BASE}, "without a file"),
    (
        {"type": "qcow2", "file_to_merge": BASE, "merge_target_file": f"{BASE}.s1"},
        "does not lie below",
    ),
    (
        {"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": f"{BASE}.s1"},
        "does not lie below",
    ),
    ({"type": "qcow2", "file_to_merge": f"{BASE}.s2", "merge_target_file": None}, "below"),
    ({"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": None}, "nothing"),
]


class TestRefusals:
    """Refused before anything is touched."""

    @situation(
        "The dictionary for `volume-snapshot-create` is wrong, or names another folder or volume",
        happens="refused; the status `error` is printed",
        code=4,
        then="Correct the dictionary; nothing was touched.",
    )
    def test_create_info(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            before = sorted(os.listdir(rig.folder))
            for change, words in WRONG_CREATE_INFO:
                info = {**CREATE, **change}
                info = {key: value for key, value in info.items() if value is not None}
                said = rig.cli("volume-snapshot-create", SERIAL, json.dumps(info))
                assert said.code == 4, (change, said)
                assert words in said.err, (change, said)
                assert said.status == {"status": "error", "progress": "0%"}
                assert sorted(os.listdir(rig.folder)) == before
            assert rig.files() == [BASE]

    @situation(
        "The dictionary for `volume-snapshot-delete` is wrong, or does not fit the chain",
        happens="refused; the status `error_deleting` is printed",
        code=4,
        then="Correct the dictionary; look at the chain first.",
    )
    def test_delete_info(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            before = rig.files()
            for info, words in WRONG_DELETE_INFO:
                said = rig.cli("volume-snapshot-delete", SERIAL, "id", json.dumps(info))
                assert said.code == 4, (info, said)
                assert words in said.err, (info, said)
                assert said.status == {"status": "error_deleting", "progress": "0%"}
            assert rig.files() == before

    @situation(
        "The argument is not JSON",
        happens="refused; the status line is printed",
        code=2,
        then="Correct the call.",
    )
    def test_not_a_dictionary(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            for text in ("{", "[]", "7", '"x"', "null", "[" * 100_000):
                said = rig.cli("volume-snapshot-create", SERIAL, text)
                assert said.code == 2, (text[:9], said)
                assert said.status == {"status": "error", "progress": "0%"}

    @situation(
        "The guest has no such disk",
        happens="refused; the message lists its disks",
        code=4,
        then="Name one of them.",
    )
    def test_a_disk_that_is_not_there(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            said = rig.cli("volume-snapshot-create", "4321", json.dumps(CREATE))
            assert said.code == 4
            assert f"{DISK} (serial {SERIAL})" in said.err
            assert said.status["status"] == "error"
            assert rig.cli("chain", "nope").code == 4

    def test_nothing_to_delete(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            assert rig.delete(None, None).code == 4
            said = rig.cli("delete", DISK, "nope", "-o", "json")
            assert said.code == 4
            assert json.loads(said.err)["error"] == "SnapshotNotFound"
            assert json.loads(said.err)["changed"] == "no"


class TestHandedOverOverlays:
    """An overlay that the volume service has made already: checked, corrected, or refused."""

    def _create(self, rig: Rig) -> tuple[int, str]:
        said = rig.cli("volume-snapshot-create", SERIAL, json.dumps(CREATE))
        return said.code, said.err

    @situation(
        "The overlay that the volume service made records no backing format, or a wrong one",
        happens="its header is corrected before it is used, and a note says so",
        code=0,
        then="Nothing.",
        pain=3,
    )
    @pytest.mark.parametrize("recorded", ["raw", "qcow2", None])
    def test_is_taken_with_the_right_format(self, make_rig: MakeRig, recorded: str | None) -> None:
        with make_rig("raw") as rig:
            rig.guest.write(DISK, 0, 65536, 1)
            content = rig.guest.read_sha256(DISK)
            hand_over(rig.folder / NEW, BASE, recorded)
            code, err = self._create(rig)
            assert code == 0, err
            assert ("corrected" in err) == (recorded != "raw")
            assert read_header(str(rig.folder / NEW)).backing_format == "raw"
            assert_sound(rig.disk())
            assert rig.guest.read_sha256(DISK) == content

    def test_by_its_full_name(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            hand_over(rig.folder / NEW, str(rig.folder / BASE), "qcow2")
            assert self._create(rig)[0] == 0
            header = read_header(str(rig.folder / NEW))
            assert header.backing_file == str(rig.folder / BASE)
            assert header.backing_format == "raw"

    @situation(
        "The file that the volume service made is not an empty overlay of this disk",
        happens="refused; the file is not touched",
        code=4,
        then="Have it made again, or remove it.",
        pain=4,
    )
    @pytest.mark.parametrize("what", ["empty file", "other backing", "no backing", "corrupt"])
    def test_is_refused(self, make_rig: MakeRig, what: str) -> None:
        with make_rig("raw") as rig:
            _make_unfit(rig.folder, what)
            before = _snapshot_of(rig.folder)
            code, err = self._create(rig)
            assert code == 4, err
            assert NEW in err
            assert _snapshot_of(rig.folder) == before
            assert rig.files() == [BASE]


def _make_unfit(folder: Path, what: str) -> None:
    """Others are in tests/security/test_handed_over.py."""
    new = folder / NEW
    match what:
        case "empty file":
            new.touch()
        case "other backing":
            images.create_raw(folder / "other", SIZE)
            images.create_qcow2(new, SIZE, "other", "raw")
        case "no backing":
            images.create_qcow2(new, SIZE)
        case "corrupt":
            images.create_qcow2(new, SIZE, BASE, "raw")
            images.without_counts(new)
        case _:
            raise AssertionError(what)


def _snapshot_of(folder: Path) -> dict[str, bytes | None]:
    return {
        path.name: path.read_bytes() if path.is_file() else None
        for path in folder.iterdir()
        if not path.name.endswith(".log")
    }
