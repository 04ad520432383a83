"""What of a merge is in the tables of the file that was committed into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qmpsnap.guests.files import merged
from qmpsnap.guests.files.merged import TablesUnseen, unmerged
from qmpsnap.guests.files.qemu_img import Extent, QemuImgFailed
from tests.unit.qcow2_header import header

K = 65536

Compared = Callable[..., str | None]


def extents(text: str) -> list[Extent]:
    """`d` data, `0` data that are zeros, `z` a cluster of zeros, `.` none, `c` compressed."""
    return [
        Extent(
            start=number * K,
            length=K,
            data=one in "d0c",
            zero=one in "z.",
            present=one != ".",
            offset=(number + 1) * K if one in "d0" else None,
        )
        for number, one in enumerate(text)
    ]


def write(path: Path, text: str, head: bytes) -> None:
    """A file with that header, and with the data that `extents` tells of."""
    data = b"".join((b"x" if one == "d" else b"\0") * K for one in text)
    path.write_bytes(head.ljust(K, b"\0") + data)


@pytest.fixture
def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compared:
    """Compare tables: the base's, then those of the layers that were committed, upper ones first."""

    def compare(
        base: str,
        *dropped: str,
        backing: bytes = b"",
        snapshots: int = 0,
        above: bytes = header(backing=b"base"),
        format_: str = "qcow2",
        pulled: bool = False,
    ) -> str | None:
        path = tmp_path / "base"
        layers = [tmp_path / str(n) for n in range(len(dropped))]
        write(path, base, header(backing=backing, snapshots=snapshots))
        for layer, text in zip(layers, dropped, strict=True):
            write(layer, text, above)
        files = dict(zip(map(str, (path, *layers)), (base, *dropped), strict=True))

        def extents_of(path: str, format_: str, *, shared: bool) -> list[Extent]:
            assert shared
            return extents(files[path])

        monkeypatch.setattr(merged, "extents_of", extents_of)
        return unmerged([(str(layer), format_) for layer in layers], str(path), pulled=pulled)

    return compare


@pytest.mark.parametrize(
    ("base", "dropped", "missing"),
    [
        ("dd", ["d."], None),
        ("dd", [".."], None),
        ("..", [".."], None),
        ("d.", ["dd"], f"{K} bytes at {K}"),
        ("..", ["d."], f"{K} bytes at 0"),
        ("zd", ["d."], f"{K} bytes at 0"),
        ("cd", ["d."], f"{K} bytes at 0"),  # older than what was committed
        ("d.", ["c."], None),
        ("..", ["z."], None),  # zeros below the end of all
        ("z.", ["z."], None),
        ("00", ["z."], None),  # zeros that were written
        ("d0", ["z."], f"{K} bytes at 0"),  # what was there before
        ("c0", ["z."], f"{K} bytes at 0"),
        ("00", ["zz"], None),
        ("d.", ["d.", ".d"], f"{K} bytes at {K}"),
        ("dd", ["d.", ".d"], None),
        ("..", ["zz", "dd"], None),  # the upper layer counts
        ("d", ["dd"], f"{K} bytes at {K}"),
        ("dd", ["d"], None),
        ("z", ["0"], None),  # `detect-zeroes` made a cluster of zeros of them
        (".", ["0"], None),
        ("z", ["0", "d"], None),
        ("zz", ["0d"], f"{K} bytes at {K}"),
        ("z", ["d", "0"], f"{K} bytes at 0"),
        ("z", ["c"], f"{K} bytes at 0"),
        ("c", ["0"], f"{K} bytes at 0"),
    ],
)
def test_tables(compared: Compared, base: str, dropped: list[str], missing: str | None) -> None:
    said = compared(base, *dropped)
    assert said is None if missing is None else said is not None and said.startswith(missing)


def test_zeros_over_a_file_below_need_a_cluster(compared: Compared) -> None:
    assert compared("..", "z.", backing=b"below") is not None
    assert compared("z.", "z.", backing=b"below") is None


@pytest.mark.parametrize(
    ("above", "format_", "is_told"),
    [
        (b"", "raw", True),
        (header(), "qcow2", True),
        (header(method=2), "qcow2", False),
        (header(incompatible=1 << 2, extensions=[(0x44415441, b"data")]), "qcow2", False),
        (header(incompatible=1 << 2), "qcow2", False),
    ],
    ids=["raw", "qcow2", "encrypted", "data file", "data file without a name"],
)
def test_zeros_of_a_layer_that_became_a_cluster_of_zeros(
    compared: Compared, above: bytes, format_: str, is_told: bool
) -> None:
    """What is encrypted, or lies in another file, is not what the layer's file has there."""
    assert (compared("z", "0", above=above, format_=format_) is None) is is_told
    assert compared("z", "d", above=above, format_=format_) is not None


def test_zeros_over_a_file_below_are_not_in_a_table_without_them(compared: Compared) -> None:
    assert compared(".", "0", backing=b"below") is not None
    assert compared("z", "0", backing=b"below") is None


@pytest.mark.parametrize(("own", "below"), [("z", "d"), ("d", "z"), ("c", "d")])
def test_a_pull_writes_nothing_over_what_the_file_had(
    compared: Compared, own: str, below: str
) -> None:
    assert compared(own, below, pulled=True) is None
    assert compared(own, below) is not None
    missing = compared(f"{own}.", f"{below}d", pulled=True)
    assert missing is not None
    assert missing.startswith(f"{K} bytes at {K}")


def test_a_table_of_an_internal_snapshot_tells_nothing(compared: Compared) -> None:
    with pytest.raises(TablesUnseen, match="internal snapshots"):
        compared("dd", "d.", snapshots=1)


def test_extents_that_do_not_end_at_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [Extent(start=0, length=3 * K, data=True, present=True, offset=0)]
    tables = {"/wide": wide, "/other": extents("d.d")}
    monkeypatch.setattr(merged, "extents_of", lambda path, _format, *, shared: tables[path])
    pairs = merged._pairs(merged._parts("/wide", "raw"), merged._parts("/other", "qcow2"))
    assert [(start, end, below is not None) for start, end, _, below in pairs] == [
        (0, K, True),
        (K, 2 * K, False),
        (2 * K, 3 * K, True),
    ]


def test_what_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "base"
    with pytest.raises(TablesUnseen, match="No such file"):
        unmerged([], str(path))
    path.write_bytes(b"no header")
    with pytest.raises(TablesUnseen, match="ends after"):
        unmerged([], str(path))
    path.write_bytes(header())

    def fails(path: str, format_: str, *, shared: bool) -> list[Extent]:
        raise QemuImgFailed("map", path, "locked")

    monkeypatch.setattr(merged, "extents_of", fails)
    with pytest.raises(TablesUnseen, match="locked"):
        unmerged([], str(path))
    with pytest.raises(TablesUnseen, match="neither qcow2 nor raw"):
        unmerged([("/a", "qed")], str(path))


def test_qemu_img_that_does_not_tell_zeros_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    old = [Extent(start=0, length=K, data=False, zero=True)]
    monkeypatch.setattr(merged, "extents_of", lambda _path, _format, *, shared: old)
    with pytest.raises(QemuImgFailed, match="does not tell which clusters are there"):
        merged._parts("/old", "qcow2")
