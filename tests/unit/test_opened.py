"""Whether names lead to what a process has open; a `cat` with descriptors stands for QEMU."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import NOT_HERE, NOT_SEEN, REPLACED, TEMPORARY, Disk, Layer
from qmpsnap.graph.nodes import Edge, Graph, Node
from qmpsnap.guests.files import opened
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.opened import Held, Hidden, compared, held_by, identified, unseen
from tests.rig.waiting import until
from tests.unit import samples

PROXY = Hidden(why="a proxy", here=False)
GRAPH = Graph(devices=(), nodes={}, edges=())
Start = Callable[..., Held]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """An active file, and its base."""
    made = [tmp_path / "volume-1.s1", tmp_path / "volume-1"]
    for path in made:
        path.write_bytes(b"x")
    return made


@pytest.fixture
def start() -> Iterator[Start]:
    """Have a process open files, the first one for writing; what it has open."""
    with ExitStack() as stack:

        def start(*paths: Path, command: tuple[str, ...] = ("cat",)) -> Held:
            numbers = [
                os.open(path, os.O_RDONLY if number else os.O_RDWR)
                for number, path in enumerate(paths)
            ]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=numbers)
            )
            for number in numbers:
                os.close(number)
            comm = Path(f"/proc/{process.pid}/comm")
            until(lambda: comm.read_text() == "cat\n")
            return seen_of(process.pid)

        yield start


def seen_of(pid: int) -> Held:
    seen = held_by(pid, PROXY)
    assert isinstance(seen, Held)
    return seen


def disk(*paths: Path) -> Disk:
    return samples.disk(
        layers=tuple(samples.layer(path.name, path=str(path)) for path in paths), root=None
    )


def looked(
    seen: Held | Hidden, *paths: Path, graph: Graph | None = GRAPH, **changes: Any
) -> list[Layer]:
    one = disk(*paths)
    one = replace(one, layers=tuple(replace(layer, **changes) for layer in one.layers))
    report = replace(samples.guest(one), graph=graph)
    return list(compared(report, seen).disks[0].layers)


def flags(layers: list[Layer]) -> list[tuple[str, ...]]:
    return [layer.flags for layer in layers]


class TestReadByAnotherNode:
    """Every disk may have nodes of its own down to a file that they share."""

    def shared(self, files: list[Path], *others: Layer, graph: Graph = GRAPH) -> list[list[bool]]:
        first = disk(*files)
        disks = [first, replace(first, disk="vdb", layers=others)] if others else [first]
        report = compared(replace(samples.guest(*disks), graph=graph), PROXY)
        return [[layer.is_read_twice for layer in one.layers] for one in report.disks]

    def test_another_disk(self, files: list[Path], tmp_path: Path) -> None:
        (tmp_path / "link").hardlink_to(files[1])
        path = str(tmp_path / "link")
        other = samples.layer("link", path=path, protocol_node="other-file")
        assert self.shared(files, other) == [[False, True], [True]]

    def test_another_disk_on_the_same_node(self, files: list[Path]) -> None:
        same = disk(*files).layers[1]
        assert self.shared(files, same) == [[False, False], [False]]

    @pytest.mark.parametrize("is_read", [False, True])
    def test_a_node_on_no_disk(self, files: list[Path], is_read: bool) -> None:
        """One that nobody reads does no more than have the file open."""
        node = Node(name="other", driver="file", filename=str(files[1]))
        edges = (Edge(parent="format", child="other", role="file"),) if is_read else ()
        graph = replace(GRAPH, nodes={"other": node}, edges=edges)
        assert self.shared(files, graph=graph) == [[False, is_read]]

    def test_a_node_that_is_exported(self, files: list[Path]) -> None:
        node = Node(name="other", driver="file", filename=str(files[1]))
        graph = replace(GRAPH, nodes={"other": node}, exported=frozenset({"other"}))
        assert self.shared(files, graph=graph) == [[False, True]]


class TestVisible:
    def test_as_it_should_be(self, files: list[Path], start: Start) -> None:
        layers = looked(start(*files), *files)
        assert flags(layers) == [(), ()]
        assert [layer.identity for layer in layers] == [identity(str(path)) for path in files]
        assert [layer.sight for layer in layers] == [None, None]

    @pytest.mark.parametrize("number", [0, 1])
    def test_another_file_of_the_name(
        self, files: list[Path], start: Start, tmp_path: Path, number: int
    ) -> None:
        seen = start(*files)
        other = tmp_path / "other"
        other.write_bytes(b"x")
        other.replace(files[number])
        layers = looked(seen, *files)
        expected: list[tuple[str, ...]] = [(), ()]
        expected[number] = (REPLACED,)
        assert flags(layers) == expected
        assert layers[number].sight == "its name leads to another file now"

    def test_no_file_of_the_name(self, files: list[Path], start: Start) -> None:
        seen = start(*files)
        files[1].unlink()
        layers = looked(seen, *files)
        assert flags(layers) == [(), (REPLACED,)]
        assert layers[1].sight == "its name leads to no file any more"

    def test_what_is_no_image(self, files: list[Path], start: Start) -> None:
        seen = start(*files)
        files[1].unlink()
        files[1].mkdir()
        assert flags(looked(seen, *files)) == [(), (REPLACED,)]

    @pytest.mark.parametrize("kind", ["symbolic", "hard"])
    def test_other_names_of_the_same_file(
        self, files: list[Path], start: Start, tmp_path: Path, kind: str
    ) -> None:
        link = tmp_path / "link"
        if kind == "hard":
            link.hardlink_to(files[1])
        else:
            link.symlink_to(files[1])
        assert flags(looked(start(*files), files[0], link)) == [(), ()]

    def test_one_file_for_two_layers(self, files: list[Path], start: Start) -> None:
        seen = start(*files)
        files[1].unlink()
        files[1].hardlink_to(files[0])
        assert flags(looked(seen, *files)) == [(REPLACED,), (REPLACED,)]

    def test_names_that_changed_places(
        self, files: list[Path], start: Start, tmp_path: Path
    ) -> None:
        seen = start(*files)
        assert flags(looked(seen, *reversed(files))) == [(REPLACED,), ()]
        assert flags(looked(seen, files[1])) == [()]  # nothing says that it should be written

    def test_in_another_mount_namespace(
        self, files: list[Path], start: Start, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.write_bytes(b"y")
        mount = f"mount --bind {other} {files[1]} && exec cat"
        command = ("unshare", "--mount", "sh", "-c", mount)
        if subprocess.run([*command[:2], "true"], check=False, capture_output=True).returncode:
            pytest.skip("no mount namespace can be made")
        layers = looked(start(*files, command=command), *files)
        assert flags(layers) == [(), (REPLACED,)]
        assert layers[1].sight == "its name leads to another file where QEMU runs"

    def test_a_passed_descriptor_has_no_name_for_qemu(
        self, files: list[Path], start: Start
    ) -> None:
        seen = replace(start(*files), elsewhere=True, pid=0)  # whose root leads nowhere
        layers = looked(seen, *files)
        assert flags(layers) == [(REPLACED,), (REPLACED,)]
        assert layers[0].sight == "its name leads to no file where QEMU runs"
        node = Node(name="passed", driver="file", filename="/dev/fdset/1")
        graph = replace(GRAPH, nodes={"passed": node})
        assert flags(looked(seen, *files, graph=graph, protocol_node="passed")) == [(), ()]
        # Of a name in the XML alone it is not known whether QEMU knows it.
        assert flags(looked(seen, *files, graph=None)) == [(), ()]

    def test_qemus_own_overlay(self, files: list[Path], start: Start, tmp_path: Path) -> None:
        temporary = tmp_path / "vl.A1b2C3"
        temporary.touch()
        seen = start(temporary, *files)
        temporary.unlink()
        assert flags(looked(seen, temporary, *files)) == [(TEMPORARY,), (), ()]

    @pytest.mark.parametrize("changes", [{"path": None}, {"path": "volume-1"}, {"protocol": "nbd"}])
    def test_what_has_no_certain_name_here(
        self, files: list[Path], start: Start, changes: dict[str, Any]
    ) -> None:
        (layer,) = looked(start(files[1]), files[0], **changes)
        assert (layer.flags, layer.identity) == ((), None)


class TestHidden:
    def test_the_process_is_not_known(self, files: list[Path]) -> None:
        seen = held_by(None, PROXY)
        layers = looked(seen, *files)
        assert flags(layers) == [(NOT_SEEN,), (NOT_SEEN,)]
        assert {layer.sight for layer in layers} == {"a proxy"}
        assert layers[0].identity == identity(str(files[0]))
        files[1].unlink()
        assert flags(looked(seen, *files)) == [(NOT_SEEN,), (NOT_SEEN, NOT_HERE)]

    def test_it_is_another_users(
        self, files: list[Path], start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = start(*files).pid

        def kept_from_us(path: str) -> str:
            raise PermissionError(path)

        monkeypatch.setattr("qmpsnap.guests.files.opened.os.readlink", kept_from_us)
        seen = held_by(pid, PROXY)
        layers = looked(seen, *files)
        assert flags(layers) == [(NOT_SEEN,), (NOT_SEEN,)]
        assert layers[0].sight == f"process {pid} is another user's: run as root"
        files[1].unlink()
        assert flags(looked(seen, *files)) == [(NOT_SEEN,), (REPLACED,)]

    def test_it_has_ended(self, files: list[Path]) -> None:
        seen = held_by(2**22 + 1, PROXY)
        assert isinstance(seen, Hidden)
        assert "cannot be looked at" in seen.why

    def test_the_name_cannot_be_looked_up(
        self, files: list[Path], start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = start(*files)

        def kept_from_us(path: str) -> os.stat_result:
            raise PermissionError(path)

        monkeypatch.setattr("qmpsnap.guests.files.opened.os.stat", kept_from_us)
        assert flags(looked(seen, *files)) == [(NOT_SEEN,), (NOT_SEEN,)]
        assert flags(looked(seen, Path("/tmp/vl.A1b2C3"))) == [(TEMPORARY,)]

    def test_on_another_host_nothing_here_is_looked_at(self, files: list[Path]) -> None:
        report = unseen(samples.guest(disk(*files)), "the guest runs on b")
        assert flags([*report.disks[0].layers]) == [(NOT_SEEN,), (NOT_SEEN,)]
        assert report.disks[0].layers[0].identity is None


def test_off(files: list[Path]) -> None:
    files[1].unlink()
    layers = identified(samples.guest(disk(*files))).disks[0].layers
    assert [layer.identity for layer in layers] == [identity(str(files[0])), None]
    assert flags([*layers]) == [(), ()]


class TestInAnotherRoot:
    """Symbolic links lead to where they lead below that root."""

    @pytest.mark.parametrize(
        ("name", "leads"),
        [
            ("/images/base", True),
            ("/images/../images//./base", True),
            ("/absolute", True),
            ("/images/relative", True),
            ("/above", True),
            ("/folder/base", True),
            ("/images/gone", False),
            ("/loop", False),
            ("/images/base/below", False),
        ],
    )
    def test_names(self, tmp_path: Path, name: str, leads: bool) -> None:
        (tmp_path / "images").mkdir()
        base = tmp_path / "images" / "base"
        base.touch()
        for link, target in (
            ("absolute", "/images/base"),
            ("images/relative", "../images/base"),
            ("above", "../../../images/base"),
            ("folder", "/images"),
            ("loop", "/loop"),
        ):
            (tmp_path / link).symlink_to(target)
        found = opened.in_root(str(tmp_path), name)
        assert found == (identity(str(base)) if leads else None)
