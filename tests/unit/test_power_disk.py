"""What the model of a disk keeps when the power fails (`tests.power.disk`)."""

from __future__ import annotations

from tests.power.disk import (
    PAGE,
    Change,
    Disk,
    Folder,
    Length,
    Names,
    Operation,
    State,
    Sync,
    SyncFolder,
    Write,
)

EMPTY = State(files={}, folders=frozenset(), names={})


def nothing(_change: Change) -> bool:
    return False


def everything(_change: Change) -> bool:
    return True


def disk_after(*operations: Operation) -> Disk:
    disk = Disk(EMPTY)
    for one in operations:
        disk.take(one)
    return disk


def test_nothing_is_kept_of_what_was_not_synced() -> None:
    disk = disk_after(Names("", (("a", 1),)), Write(1, 0, b"x"))
    assert disk.left(nothing) == EMPTY
    assert disk.left(everything).tree() == {"a": 1}
    assert disk.left(everything).files == {1: b"x"}


def test_a_sync_of_a_file_keeps_its_content_and_not_its_name() -> None:
    disk = disk_after(Names("", (("a", 1),)), Write(1, 2, b"x"), Sync(1), Write(1, 0, b"y"))
    assert disk.left(nothing).files == {1: b"\0\0x"}
    assert disk.left(nothing).tree() == {}
    disk.take(SyncFolder(""))
    assert disk.left(nothing).tree() == {"a": 1}


def test_a_write_arrives_page_by_page() -> None:
    disk = disk_after(Write(1, PAGE - 1, b"abc" * PAGE))
    sizes: list[int] = []

    def note(change: Change) -> bool:
        assert isinstance(change, Write)
        sizes.append(len(change.data))
        return change.offset >= 2 * PAGE

    state = disk.left(note)
    assert sizes == [1, PAGE, PAGE, PAGE - 1]
    assert state.files[1][: 2 * PAGE] == bytes(2 * PAGE)
    assert state.files[1][2 * PAGE :] == (b"abc" * PAGE)[PAGE + 1 :]


def test_a_rename_is_one_change() -> None:
    disk = disk_after(
        Names("", (("a", 1), ("b", 2))), SyncFolder(""), Names("", (("a", None), ("b", 1)))
    )
    assert disk.left(nothing).tree() == {"a": 1, "b": 2}
    assert disk.left(everything).tree() == {"b": 1}


def test_a_folder_that_is_lost_takes_its_files_along() -> None:
    disk = disk_after(Folder(9), Names("", (("f", 9),)), Names("f", (("a", 1),)), Write(1, 0, b"x"))
    disk.take(Sync(1))
    disk.take(SyncFolder("f"))
    assert disk.left(nothing).tree() == {}
    disk.take(SyncFolder(""))
    assert disk.left(nothing).tree() == {"f": 9, "f/a": 1}


def test_what_is_cut_off_may_come_back() -> None:
    disk = disk_after(Write(1, 0, b"abcd"), Sync(1), Length(1, 1), Length(1, 3))
    assert disk.left(everything).files == {1: b"a\0\0"}
    assert disk.left(nothing).files == {1: b"abcd"}
