"""
One run of an attack: operations on a guest, while an adversary does what it can beside them.

A refusal is always right. What is not, is an AssertionError:

- the guest, or another guest on the same files, reads anything else than its model, at any time or
  after a restart from what its road says it starts from (with the adversary's own acts undone);
- exit code 0 although the chain is not the one that was asked for; 4 or 5 although it is not the
  old one; any other one although it is neither;
- exit code 0 although a name of the chain has meant another file, or none, from before the
  operation until after it;
- where that was so for a part of the operation only: after a restart neither the chain that was
  reported, nor, without success, the old or the new one, has the guest's data;
- a file that is gone and was not reported as removed, was not the volume's, or was open or in use;
  a file of somebody else that is not as it was;
- what a revert has kept reads as anything else than what the guest had read until then;
- a refusal, or a failure, where nothing at all was in the way.

Not counted against the tool: what a guest that is off starts from when its files were replaced
before the operation began (nobody can know that they were others), a restart when the adversary has
removed the last name of a file, and guests that are off where no libvirt knows them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from qmpsnap.errors import QmpsnapError
from tests.chaos import steps
from tests.chaos.asked import Asked, Operation
from tests.chaos.model import (
    Content,
    Layer,
    by_headers,
    difference,
    read_chain,
    read_file,
    write_offline,
)
from tests.chaos.points import Strike, When, struck
from tests.chaos.scenario import make_overlay
from tests.chaos.stage import Stage
from tests.chaos.world import Act, World
from tests.rig.headers import without_format
from tests.rig.rig import Said
from tests.rig.waiting import until
from tests.rig.writer import WriteFailed

AT_REST: Final[dict[Act, int]] = {
    World.replace: 5,
    World.unlink: 4,
    World.link: 3,
    World.hard_link: 2,
    World.open: 2,
    World.lock: 2,
    World.clone: 6,
    World.switch_clone: 3,
    World.begin_job: 2,
    World.restore: 4,
    World.let_go: 3,
}
"""What may happen before an operation, and how often."""
BETWEEN: Final[dict[Act, int]] = {
    World.replace: 6,
    World.unlink: 5,
    World.link: 3,
    World.restore: 4,
    World.hard_link: 1,
    World.open: 2,
    World.lock: 2,
    World.let_go: 2,
    World.switch_clone: 3,
    World.begin_job: 2,
    World.cancel_job: 3,
    World.snapshot: 3,
    World.second_call: 4,
}
"""What may happen in the middle of one."""
DISPLACING: Final = (World.replace, World.link)
"""Acts after which a guest that is off starts from another file, and nobody can know it."""


class Attack:
    """One run; everything in it follows from its seed."""

    def __init__(self, stage: Stage, safe: Path, chance: random.Random, *, stays: float) -> None:
        """`stays` is how likely the guest is running at an operation."""
        self.stage = stage
        self.world = World(stage, safe)
        self.chance = chance
        self.stays = stays
        self.log: list[str] = []
        self.counts: Counter[str] = Counter()
        self.inodes: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._vanished: dict[str, int] = {}
        self._made: set[int] = set()
        self.kept: list[tuple[list[tuple[str, str]], bytes]] = []
        """What reverts have kept: files and formats of each whole chain, and what it reads as."""

    def run(self, operations: int) -> None:
        """All of it."""
        try:
            for number in range(operations):
                if not self._round(last=number == operations - 1):
                    return
            self._finish()
        finally:
            self.world.close()

    def _round(self, *, last: bool) -> bool:
        """One operation; tells whether the guest can go on."""
        chance, world, disk = self.chance, self.world, self.stage.disk
        self._switch()
        for _ in range(chance.choice((0, 0, 1, 1, 2))):
            self._rest(chance.choices([*AT_REST], [*AT_REST.values()])[0])
        if last and chance.random() < 0.2:
            self._rest(World.destroy)
        for file in disk.files:
            if file not in world.displaced:
                self.inodes[file] = disk.path(file).stat().st_ino
        operation = self._choose()
        spoiled = self._spoil(operation)
        beside = chance.random() < 0.15
        strikes = [] if beside else self._strikes()
        quiet, before = world.quiet and not beside and not self.kept, disk.files
        if self.stage.running is not None:
            now = self.stage.files()
            assert now == before, f"it runs on {now}"
        displaced, opened = dict(world.displaced), set(world.opened)
        writes = self.stage.running is not None and not world.job and not world.destroyed
        seed = chance.randrange(1 << 30) if writes and chance.random() < 0.6 else None
        frozen, asked = bytes(disk.content), len(disk.unflushed)
        overlay, command = self._command(operation)
        asked_for = Asked.of(operation, overlay, before)
        world.wanted = overlay.rpartition(".")[2]
        world.struck = world.changed = False
        self._before = self._names = world.names()  # before the swaps, which go on from here
        self._vanished, self._made = {}, set()
        if beside and not world.destroyed:
            self._rest(World.swap_beside)
        self.log.append(str(operation))
        said = self._operate(command, strikes, seed)
        world.join()
        self._see()
        self.log.append(f"  {said.code}: {said.err.strip()[:400]}")
        self.counts[f"{type(operation).__name__} {said.code}"] += 1
        if asked_for.makes and operation.form == "people":
            asked_for = replace(asked_for, upper=self._named(overlay))
        before = disk.files
        self._judge_files(asked_for, operation.form, said, opened & world.opened)
        same = [name for name, one in displaced.items() if world.displaced.get(name) is one]
        if said.code == 0:
            assert not same, (same, "were others, or not there, all the time")
        elif quiet and not any(strike.is_done for strike in strikes):
            raise AssertionError(f"nothing was in the way of {operation}")
        formats = {layer.file: layer.format for layer in disk.layers} | {asked_for.upper: "qcow2"}
        if self.stage.has_ended:
            assert world.struck, "QEMU has ended, and no file was another"
            assert said.code in (1, 6), said.err
            wanted = [before, asked_for.after(before) or before]
            self._recover(said, wanted, formats, wrote=seed is not None)
            return False
        if self.stage.running is None:
            world.heal()
        if self._is_overtaken(asked_for, said, before):
            return False
        moved = self._judge(asked_for, said, before)
        late = tuple(disk.unflushed[asked:])
        frozen_at = None if world.changed else Content(frozen, late)
        self._follow(asked_for, said, frozen_at, moved=moved)
        if world.struck and said.code != 4:
            wanted = [disk.files] if said.code == 0 else [before, asked_for.after(before) or before]
            self._recover(said, wanted, formats, wrote=seed is not None)
            return False
        if spoiled is not None and said.code != 0:
            away = world.displaced.get(spoiled.name)
            _mend(spoiled if away is None or away.stash is None else away.stash)
        self._compare(said)
        return True

    def _recover(
        self, said: Said, chains: list[list[str]], formats: dict[str, str], *, wrote: bool
    ) -> None:
        """
        A name has meant another file while QEMU was at work, and it may have opened that one.

        What the guest reads until it is restarted is not held against the tool, nor, where it said
        so, what the guest has written on top of that. But from the files that are there it must
        start again: from the chain that was reported, or, where something else than success was
        said, from the old or the new one.
        """
        disk = self.stage.disk
        self.world.heal()
        self.stage.end()
        wanted = Content(bytes(disk.content), tuple(disk.unflushed))
        right = [
            chain
            for chain in chains
            if all(disk.path(file).is_file() for file in chain)
            and wanted.explains(read_chain([(disk.path(file), formats[file]) for file in chain]))
        ]
        told = wrote and said.code != 0
        assert right or told, f"{said.code}: none of {chains} has the guest's data"
        if said.code == 0:
            path, format = self.stage.starts_from()
            assert by_headers(path, format) == [(file, formats[file]) for file in chains[0]]
        self.world.check_clones()

    def _switch(self) -> None:
        """Perhaps the guest is switched on, or off; from what it says it starts from."""
        wanted = self.chance.random() < self.stays
        if wanted == (self.stage.running is not None):
            return
        self.world.heal()
        if wanted:
            self.stage.start()
        else:
            self._end()
        self.log.append("on" if wanted else "off")

    def _end(self) -> None:
        self.stage.end()
        self.stage.disk.on_disk()
        self._compare_files()

    def _rest(self, act: Act) -> None:
        if act in DISPLACING and self.stage.running is None:
            return
        done = act(self.world, random.Random(self.chance.randrange(1 << 30)))
        if done is not None:
            self.log.append(done)

    def _strikes(self) -> list[Strike]:
        return [self._strike() for _ in range(self.chance.choice((0, 0, 1, 1, 2)))]

    def _strike(self) -> Strike:
        chance = self.chance
        act = chance.choices([*BETWEEN], [*BETWEEN.values()])[0]
        seed = chance.randrange(1 << 30)
        whens: list[When] = ["before", "after", "audit"]
        when = chance.choices(whens, [5, 4, 3 if self.stage.running is not None else 0])[0]
        number = int(2 ** chance.uniform(0, 8)) if when == "audit" else chance.randint(1, 8)

        def strike() -> None:
            self._see()
            done = act(self.world, random.Random(seed))
            self._names = self.world.names()
            if done is not None:
                self.log.append(f"    {when} {number}: {done}")

        return Strike(when, number, strike)

    def _see(self) -> None:
        """What the tool has made and removed since the last look."""
        now = self.world.names()
        self._made |= set(now.values()) - set(self._names.values())
        self._vanished |= {name: inode for name, inode in self._names.items() if name not in now}
        self._names = now

    def _choose(self) -> Operation:
        chance, disk = self.chance, self.stage.disk
        back = [at for at, layer in enumerate(disk.layers) if at and _is_certain(layer)]
        is_off = self.stage.running is None and self.stage.knows_those_off
        if is_off and back and chance.random() < 0.3:
            return steps.Revert(disk=0, to=chance.choice(back))
        while True:
            step = steps.choose(chance, [disk])
            if isinstance(step, steps.Create | steps.Commit | steps.Pull):
                return replace(step, written=None)

    def _spoil(self, operation: Operation) -> Path | None:
        """An older tool has left no format in the active header: it is to be rewritten."""
        disk, active = self.stage.disk, self.stage.disk.active.file
        wanted = isinstance(operation, steps.Create) and self.chance.random() < 0.3
        if not wanted or len(disk.layers) == 1 or self.stage.running is None:
            return None
        if self.world.displaced or self.world.locked:
            return None
        without_format(disk.path(active))
        self.log.append(f"no format in {active}")
        return disk.path(active)

    def _operate(self, command: list[str], strikes: list[Strike], seed: int | None) -> Said:
        if seed is None or self.stage.running is None:
            with struck(strikes):
                return self.stage.cli(*command)
        said = None
        try:
            with self.stage.running.written_to(self.stage.disk, seed=seed) as writer:
                writer.wait_for(3)
                with struck(strikes):
                    said = self.stage.cli(*command)
                writer.wait_for(3)
        except (WriteFailed, QmpsnapError) as error:
            if said is None or not self.world.struck:
                raise
            if isinstance(error, QmpsnapError):  # QEMU has ended, and took the export with it
                until(lambda: self.stage.has_ended)
        return said

    def _named(self, name: str) -> str:
        """The overlay of a snapshot, whatever its volume is called; empty where there is none."""
        return next((file for file in self.world.names() if file.endswith(f".{name}")), "")

    def _command(self, operation: Operation) -> tuple[str, list[str]]:
        disk = self.stage.disk
        files = disk.files
        if isinstance(operation, steps.Create):
            name = disk.next_name()
            if operation.form == "people":
                return name, ["create", disk.id, name, "-o", "json"]
            file = f"volume-{disk.serial}.{name}"
            if operation.ready != "no":
                backing = disk.active.format
                wrong = "raw" if backing == "qcow2" else "qcow2"
                make_overlay(disk, file, wrong if operation.ready == "wrong" else backing)
            info = {"type": "qcow2", "new_file": file, "snapshot_id": name}
            return file, ["volume-snapshot-create", disk.serial, json.dumps(info)]
        if isinstance(operation, steps.Revert):
            name = disk.next_name()
            said = ["revert", disk.id, files[operation.to - 1], "--as", name, "-o", "json"]
            return name, said
        top = operation.top if isinstance(operation, steps.Commit) else None
        if operation.form == "people":
            name = files[top or 0].rpartition(".")[2]
            method = "pull" if top is None else "commit"
            return "", ["delete", disk.id, name, "--method", method, "--remove-file", "-o", "json"]
        base = None if operation.base is None else files[operation.base]
        pair = (base, None) if top is None else (files[top], base)
        merge = {"type": "qcow2", "file_to_merge": pair[0], "merge_target_file": pair[1]}
        return "", ["volume-snapshot-delete", disk.serial, "some-id", json.dumps(merge)]

    def _is_overtaken(self, asked: Asked, said: Said, before: list[str]) -> bool:
        """
        Whether another client took a snapshot once the tool had proven its own.

        That comes after the last look at the graph, while the rest of the report is put together.
        What was said was true then. The model has the two the other way round, so it ends here.
        """
        seen = self.stage.files()
        if asked.kind != "create" or said.code != 0 or asked.upper not in seen[1:]:
            return False
        theirs = seen[: seen.index(asked.upper)]
        assert self.world.changed
        assert all(".client-" in file for file in theirs)
        assert seen[len(theirs) :] == asked.after([file for file in before if file not in theirs])
        running, disk = self.stage.running, self.stage.disk
        assert running is not None
        wrong = difference(running.rig.guest.read_all(disk.id), bytes(disk.content))
        assert not wrong, f"the guest reads: {wrong}"
        return True

    def _judge(self, asked: Asked, said: Said, before: list[str]) -> bool:
        """Whether the chain is another one; by its own look, and held against what was said."""
        seen, wanted = self.stage.files(), asked.after(before)
        assert said.code in (0, 1, 4, 5, 6), said.err
        right = (
            [wanted] if said.code == 0 else [before] if said.code in (4, 5) else [before, wanted]
        )
        assert seen in right, f"{said.code}, and the chain is {seen}"
        return seen == wanted

    def _judge_files(self, asked: Asked, form: steps.Form, said: Said, opened: set[int]) -> None:
        """Whether what has vanished was to vanish."""
        removed: list[str] = []
        if said.code == 0 and form == "people":
            removed = [Path(path).name for path in said.json["removed"]]
        for name, inode in self._vanished.items():
            ours = name == asked.upper and name not in self.stage.disk.files
            if inode in self._made or (ours and asked.makes) or self._marks([name]):
                continue
            assert name in removed, (name, "is gone")
            assert inode == self.inodes[name], (name, "was somebody else's, and was removed")
            assert inode not in opened, (name, "was open, and was removed")

    def _follow(self, asked: Asked, said: Said, frozen: Content | None, *, moved: bool) -> None:
        """Change the model as the guest has changed."""
        disk = self.stage.disk
        if not moved:
            if asked.kind == "commit" and said.code != 4 and asked.after(disk.files) is not None:
                disk.spoiled(disk.files.index(asked.upper), disk.files.index(asked.lower or ""))
            if asked.makes and asked.upper and asked.upper not in disk.files:
                disk.path(asked.upper).unlink(missing_ok=True)  # as the volume service does
            return
        if asked.kind == "create":
            disk.put_on(asked.upper, frozen)
            if frozen is None:
                disk.layers[1].content = None
            self.inodes[asked.upper] = disk.path(asked.upper).stat().st_ino
            return
        if asked.kind == "revert":
            chain = [(layer.file, layer.format) for layer in disk.layers]
            self.kept.append((chain, bytes(disk.content)))
            disk.back_to(asked.upper, disk.files.index(asked.lower or ""))
            self.inodes[asked.upper] = disk.path(asked.upper).stat().st_ino
            return
        gone = asked.note(disk)
        if said.code == 0 and not self.world.clones and not self.kept:
            for file in gone:
                if file not in self.world.displaced:
                    disk.path(file).unlink(missing_ok=True)

    def _compare(self, said: Said) -> None:
        """Compare what can be seen with the model."""
        world, running, disk = self.world, self.stage.running, self.stage.disk
        if running is None:
            self._compare_files()
            self._write_off(self.chance.randrange(64), self.chance.randint(1, 255))
            return
        if said.code in (0, 4, 5) and not world.job:
            assert running.jobs() == []
        if not world.job:  # a job that is not ready lets no other client read
            wrong = difference(running.rig.guest.read_all(disk.id), bytes(disk.content))
            assert not wrong, f"the guest reads: {wrong}"
        world.check_clones()
        if not world.displaced and not world.locked:
            chain = [(layer.file, layer.format) for layer in disk.layers]
            assert by_headers(disk.path(disk.active.file), disk.active.format) == chain
        if said.code in (0, 4, 5):
            assert self._marks(world.names()) <= self._marks(self._before)

    def _marks(self, names: Iterable[str]) -> set[str]:
        """What the tool leaves for itself, of an operation of which it does not know the outcome."""
        return {name for name in names if name.startswith(".qmpsnap-")}

    def _compare_files(self) -> None:
        """The same, while it is off: what it would start from."""
        disk = self.stage.disk
        path, format = self.stage.starts_from()
        assert (path, format) == (disk.path(disk.active.file), disk.active.format)
        chain = [(layer.file, layer.format) for layer in disk.layers]
        assert by_headers(path, format) == chain
        wrong = difference(read_file(path, format), bytes(disk.content))
        assert not wrong, f"the guest would read: {wrong}"
        self.world.check_clones()

    def _write_off(self, block: int, pattern: int) -> None:
        """Something is written while it is off, as if it had run."""
        disk = self.stage.disk
        offset = 4096 * block
        write_offline(
            disk.path(disk.active.file), disk.active.format, [f"write -P {pattern} {offset} 4096"]
        )
        disk.content[offset : offset + 4096] = bytes([pattern]) * 4096
        disk.on_disk()

    def _finish(self) -> None:
        """Undo what the adversary has done, switch off and on again, and read everything."""
        world, stage, disk = self.world, self.stage, self.stage.disk
        if world.destroyed:
            return
        world.heal()
        if stage.running is not None:
            kill = self.chance.random() < 0.4
            if kill:
                stage.running.flush([disk])
            stage.end(kill=kill)
            disk.on_disk()
        self._compare_files()
        for kept, content in self.kept:
            if world.harmed & {file for file, _ in kept}:
                continue
            wrong = difference(read_file(disk.path(kept[0][0]), kept[0][1]), content)
            assert not wrong, f"what was kept in {kept[0][0]} reads otherwise: {wrong}"
        for layer in disk.layers[1:]:
            if layer.content is not None:
                assert layer.content.explains(read_file(disk.path(layer.file), layer.format)), (
                    f"{layer.file} is another snapshot now"
                )
        stage.start()
        assert stage.running is not None
        now = stage.files()
        assert now == disk.files, f"it has started from {now}"
        wrong = difference(stage.running.rig.guest.read_all(disk.id), bytes(disk.content))
        assert not wrong, f"after a restart the guest reads: {wrong}"


def _is_certain(layer: Layer) -> bool:
    """Whether it is known to the byte what a layer reads as."""
    return layer.content is not None and not layer.content.perhaps


def _mend(path: Path) -> None:
    """Put the format back into a header that `without_format` has spoiled, unless that was done."""
    start = path.read_bytes()[:4096]
    if bytes.fromhex("E2792ACA") not in start:
        where = start.index(bytes.fromhex("71717171"))
        with path.open("r+b") as file:
            file.seek(where)
            file.write(bytes.fromhex("E2792ACA"))
