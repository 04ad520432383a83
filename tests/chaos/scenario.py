"""Let things happen to a guest, and compare it with its model after each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Final, Self

from qmpsnap.errors import QmpsnapError
from qmpsnap.formats.verdict import Verdict
from qmpsnap.guests.files import qemu_img
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.merge import delete
from qmpsnap.operations.requests import DeleteRequest, Method, NamedDeleteRequest
from tests.chaos import steps
from tests.chaos.model import Content, Disk, by_headers, difference, read_file
from tests.chaos.roads import Road, Running
from tests.rig.rig import Said

DURING: Final = 3
"""Writes that the guest gets done after each operation, before it stops to write."""

Asked = DeleteRequest | NamedDeleteRequest


class Scenario:
    """A guest and its model. Every step is compared; a difference is an AssertionError."""

    def __init__(self, road: Road, folder: Path, disks: Sequence[Disk]) -> None:
        """`with` starts the guest."""
        self.road = road
        self.folder = folder
        self.disks = list(disks)
        self.done: list[steps.Step] = []
        self._stack = ExitStack()
        self._running: Running | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def running(self) -> Running:
        """The guest that runs now."""
        assert self._running is not None
        return self._running

    def _start(self) -> None:
        self._running = self._stack.enter_context(self.road.start(self.folder, self.disks))

    def _stop(self) -> None:
        self._stack.close()
        self._running = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """QEMU is killed, and starts again when the context is left."""
        self.running.rig.kill()
        self._stop()
        yield
        self._start()

    def do(self, step: steps.Step) -> None:
        """Let a step happen, and compare."""
        self.done.append(step)
        disk = self.disks[step.disk]
        match step:
            case steps.Create():
                self._create(step, disk)
            case steps.Commit() | steps.Pull():
                self._merge(step, disk)
            case steps.Cancelled():
                self._cancelled(step, disk)
            case steps.Impossible():
                self._impossible(step, disk)
            case steps.Restart():
                self._end()
                self._start()
            case steps.Crash():
                self._crash(step)
            case _:
                with self._writing(step):
                    pass
        self.compare()

    @contextmanager
    def _writing(self, step: steps.Step) -> Iterator[None]:
        if step.written is None:
            yield
            return
        with self.running.written_to(self.disks[step.written], seed=step.seed) as writer:
            writer.wait_for(DURING)
            yield
            writer.wait_for(DURING)

    def _create(self, step: steps.Create, disk: Disk) -> None:
        before, asked = bytes(disk.content), len(disk.unflushed)
        with self._writing(step):
            said, file = self.create(disk, step)
        assert said.code == 0, said
        if step.form == "people":
            assert json.loads(said.out)["file_format"] == {file: "qcow2"}
        else:
            assert said.status["status"] == "creating_compute_complete"
            assert said.status["file_format"] == {file: "qcow2"}
        # When exactly it was taken, nobody knows.
        disk.put_on(file, Content(before, tuple(disk.unflushed[asked:])))

    def create(self, disk: Disk, step: steps.Create) -> tuple[Said, str]:
        """Ask for a snapshot; what was said, and the file that is to be its overlay."""
        name, rig = disk.next_name(), self.running.rig
        if step.form == "people":
            active = disk.files[0]
            named_after = [file for file in disk.files if active.startswith(f"{file}.")]
            volume = named_after[-1] if named_after else active
            return rig.cli("create", disk.id, name, "-o", "json"), f"{volume}.{name}"
        file = f"volume-{disk.serial}.{name}"
        if step.ready != "no":
            backing = disk.active
            wrong = "raw" if backing.format == "qcow2" else "qcow2"
            make_overlay(disk, file, wrong if step.ready == "wrong" else backing.format)
        info = {"type": "qcow2", "new_file": file, "snapshot_id": name}
        return rig.cli("volume-snapshot-create", disk.serial, json.dumps(info)), file

    def _merge(self, step: steps.Commit | steps.Pull, disk: Disk) -> None:
        refusal = self._refusal(step, disk)
        with self._writing(step):
            said = self.merge(disk, step)
        if refusal:
            assert said.code == 4, said
            assert refusal in said.err
            return
        assert said.code == 0, said
        assert "stays open" not in said.err
        reported = said.json if step.form == "people" else said.status
        assert reported["file_format"] == formats_changed(disk, step)
        if step.form == "people":
            assert reported["held"] == []
        for file in note_merge(disk, step):
            disk.path(file).unlink()  # what is reported as done needs them no more

    def merge(self, disk: Disk, step: steps.Commit | steps.Pull, *options: str) -> Said:
        """Ask for a merge."""
        rig, request = self.running.rig, asked(disk, step)
        if isinstance(request, NamedDeleteRequest):
            method = request.method
            return rig.cli(
                "delete", disk.id, request.snapshot, "--method", method, "-o", "json", *options
            )
        info = {
            "type": "qcow2",
            "file_to_merge": request.file_to_merge,
            "merge_target_file": request.merge_target_file,
        }
        return rig.cli("volume-snapshot-delete", disk.serial, "some-id", json.dumps(info), *options)

    def _refusal(self, step: steps.Commit | steps.Pull, disk: Disk) -> str | None:
        """A base without a raw node cannot be named in a header before QEMU 9.0."""
        names_base = isinstance(step, steps.Pull) or step.top > 0
        if step.base is None or not names_base or self.road.name != "direct":
            return None
        if disk.layers[step.base].format != "raw" or disk.raw_node:
            return None
        return None if masks_protocols(self.running) else "without a raw node"

    def _cancelled(self, step: steps.Cancelled, disk: Disk) -> None:
        merge = step.merge
        refusal = self._refusal(merge, disk)
        looks = 0

        def look(plan: object, view: JobView) -> None:
            nonlocal looks
            looks += 1
            if looks == step.look:
                self.running.cancel(disk, soft=step.soft)

        problem: QmpsnapError | None = None
        with self._writing(step), self.running.rig.host() as host:
            try:
                delete(host, asked(disk, merge), look)
            except QmpsnapError as error:
                problem = error
        if problem is None:  # the cancel came too late
            for file in note_merge(disk, merge):
                disk.path(file).unlink()
            return
        assert (problem.exit_code, problem.changed) == (4 if refusal else 5, "no"), problem
        if isinstance(merge, steps.Commit):
            disk.spoiled(merge.top, merge.base)

    def _impossible(self, step: steps.Impossible, disk: Disk) -> None:
        files = set(disk.folder.glob("volume-*"))
        with self._writing(step):
            said = self._ask_for(step.mistake, disk)
        assert said.code == 4, said
        assert files == set(disk.folder.glob("volume-*"))

    def _ask_for(self, mistake: steps.Mistake, disk: Disk) -> Said:
        cli, serial, files = self.running.rig.cli, disk.serial, disk.files

        def delete(file: str | None, target: str | None) -> Said:
            info = {"type": "qcow2", "file_to_merge": file, "merge_target_file": target}
            return cli("volume-snapshot-delete", serial, "some-id", json.dumps(info))

        match mistake:
            case "no snapshot":
                return cli("delete", disk.id, "nonesuch")
            case "upwards":
                return delete(files[-1], files[0])
            case "not in the chain":
                return delete(f"volume-{serial}.nonesuch", files[-1])
            case "nothing to pull":
                return delete(files[1] if len(files) > 1 else None, None)
            case "taken":
                info = {"type": "qcow2", "new_file": files[0], "snapshot_id": "x"}
                return cli("volume-snapshot-create", serial, json.dumps(info))

    def _end(self) -> None:
        self.running.quit()
        self._stop()
        for disk in self.disks:
            seen = read_file(disk.path(disk.active.file), disk.active.format)
            assert not difference(seen, bytes(disk.content)), (disk.id, "after its end")
            disk.on_disk()

    def _crash(self, step: steps.Crash) -> None:
        running, killed = self.running, False
        if step.flush:
            running.flush(self.disks)
        writing: AbstractContextManager[object] = nullcontext()
        if step.written is not None:
            writing = running.written_to(self.disks[step.written], seed=step.seed)
        try:
            with writing as writer:
                if writer is not None:
                    writer.wait_for(DURING)  # type: ignore[attr-defined]
                killed = True
                running.rig.kill()
        except QmpsnapError:  # the write that was under way, and the export
            if not killed:
                raise
        self._stop()
        for disk in self.disks:
            recovered(disk)
        self._start()

    def compare(self) -> None:
        """Compare everything that can be seen with the model."""
        running = self.running
        assert running.jobs() == []
        report = running.observer.read()
        verdict = Verdict.EXACT if self.road.name == "direct" else Verdict.AGREED
        for disk in self.disks:
            chain = [(layer.file, layer.format) for layer in disk.layers]
            seen = report.disk(disk.id)
            assert [(layer.file, layer.format) for layer in seen.layers] == chain
            assert {layer.verdict for layer in seen.layers} == {verdict}, seen
            path = disk.path(disk.active.file)
            assert by_headers(path, disk.active.format) == chain
            content = running.rig.guest.read_all(disk.id)
            assert not difference(content, bytes(disk.content)), disk.id
            assert not list(disk.folder.glob(".qmpsnap-*"))
        running.agreed(self.disks)

    def finish(self) -> None:
        """End the guest, and compare what each layer of each chain reads as."""
        self._end()
        for disk in self.disks:
            for layer in disk.layers[1:]:
                if layer.content is not None:
                    seen = read_file(disk.path(layer.file), layer.format)
                    assert layer.content.explains(seen), layer.file


def recovered(disk: Disk) -> None:
    """Read a disk after a crash; what it may not read as is an AssertionError."""
    seen = read_file(disk.path(disk.active.file), disk.active.format)
    assert disk.after_a_crash.explains(seen), (
        disk.id,
        "after a crash",
        difference(seen, disk.flushed),
    )
    disk.content[:] = seen
    disk.on_disk()


def asked(disk: Disk, step: steps.Commit | steps.Pull) -> Asked:
    """A merge as the engine is asked for it."""
    if step.form == "people":
        top = step.top if isinstance(step, steps.Commit) else 0
        method: Method = "pull" if isinstance(step, steps.Pull) else "auto"
        name = disk.files[top].rpartition(".")[2]
        return NamedDeleteRequest(disk=disk.id, snapshot=name, method=method)
    file = None if step.base is None else disk.files[step.base]
    if isinstance(step, steps.Pull):
        return DeleteRequest(disk=disk.serial, file_to_merge=file, merge_target_file=None)
    top_file = disk.files[step.top]
    return DeleteRequest(disk=disk.serial, file_to_merge=top_file, merge_target_file=file)


def formats_changed(disk: Disk, step: steps.Commit | steps.Pull) -> dict[str, str]:
    """What is to be reported: the merge target; after a pull the active file, and its new base."""
    changed = [] if step.base is None else [disk.layers[step.base]]
    if isinstance(step, steps.Pull):
        changed.append(disk.active)
    return {layer.file: layer.format for layer in changed}


def note_merge(disk: Disk, step: steps.Commit | steps.Pull) -> list[str]:
    """Change the model as a merge does; returns the files that have left the chain."""
    before = disk.files
    if isinstance(step, steps.Pull):
        disk.pulled(step.base)
    else:
        disk.merged(step.top, step.base)
    return [file for file in before if file not in disk.files]


def make_overlay(disk: Disk, file: str, backing_format: str) -> None:
    """Make an overlay as a volume service does, which may be wrong about the backing format."""
    path = str(disk.path(file))
    backing = ("-b", disk.active.file, "-F", backing_format)
    qemu_img.run("create", path, "-u", "-f", "qcow2", *backing, path, str(len(disk.content)))


@cache
def masks_protocols(running: Running) -> bool:
    """Whether this QEMU can record `raw` for a base without a raw node."""
    return "backing-mask-protocol" in json.dumps(running.rig.guest.qmp("query-qmp-schema"))
