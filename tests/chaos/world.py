"""
All that an adversary can do around a guest, and what there is afterwards.

It never loses anything itself: what it takes from its place it keeps, and puts back in the end. Nor
does it write into an image: no tool could see that. `destroyed` is the exception: a file of which
no name is left, which only the running guest still has.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.chaos import adversary, model
from tests.chaos.model import Disk, difference, read_file
from tests.chaos.stage import Other, Stage
from tests.rig import images

QEMUS_BYTES: Final = (100, 164)
"""Start and length of what QEMU locks, from `RAW_LOCK_PERM_BASE` to the end of the shared ones
(block/file-posix.c)."""
OUR_BYTES: Final = (264, 0)


class Adversary:
    """Tells the other process what to do."""

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", adversary.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, *act: object) -> str | None:
        """Have an act done; returns what the system said against it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(_plain(act)) + "\n")
        self._process.stdin.flush()
        problem: str | None = json.loads(self._process.stdout.readline())
        return problem

    def must(self, *act: object) -> None:
        """The same, which cannot go wrong."""
        problem = self.do(*act)
        assert problem is None, (act, problem)

    def close(self) -> None:
        """End it, and what it has open."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


def _plain(word: object) -> object:
    if isinstance(word, (list, tuple)):
        return [_plain(one) for one in word]
    return str(word) if isinstance(word, Path) else word


@dataclass(frozen=True, slots=True)
class Displaced:
    """A name that means another file now, or none."""

    stash: Path | None
    """Where the file is that it meant; None: nowhere."""
    foreign: bytes | None
    """What is in the file that it means now; None: there is none."""


@dataclass(slots=True)
class Clone:
    """Another guest, whose disk lies over a file of ours."""

    file: Path
    content: bytes
    guest: Other
    stack: ExitStack
    runs: bool = False


class World:
    """A stage, and everything that the adversary has made of it."""

    def __init__(self, stage: Stage, safe: Path) -> None:
        """`safe` is a folder on the same file system, where things are kept."""
        self.stage = stage
        self.safe = safe
        self.adversary = Adversary()
        self.displaced: dict[str, Displaced] = {}
        self.opened: set[int] = set()
        """Inodes of what it has open."""
        self.locked = False
        self.clones: list[Clone] = []
        self.job = False
        self.destroyed = False
        self.wanted = ""
        """Name of the snapshot that is asked for."""
        self.changed = False
        """Whether another client has changed the chain since this was reset."""
        self.struck = False
        """Whether a name has meant another file since this was reset."""
        self.harmed: set[str] = set()
        """What a job of its own has written to."""
        self._kept = 0

    @property
    def disk(self) -> Disk:
        """The disk that it is about."""
        return self.stage.disk

    @property
    def quiet(self) -> bool:
        """Whether nothing is in the way of an operation."""
        return not (
            self.displaced
            or self.opened
            or self.locked
            or self.clones
            or self.job
            or self.destroyed
            or any("client" in file for file in self.disk.files)  # named by its whole path
        )

    def names(self) -> dict[str, int]:
        """What lies in the folder: inodes, of links themselves, by name."""
        found = {}
        for entry in os.scandir(self.disk.folder):
            if entry.is_file() or entry.is_symlink():
                found[entry.name] = entry.stat(follow_symlinks=False).st_ino
        return found

    def path(self, name: str) -> Path:
        """Where a name lies."""
        return self.disk.path(name)

    def _keep(self) -> Path:
        self._kept += 1
        return self.safe / f"kept-{self._kept}"

    def _displace(self, name: str, one: Displaced) -> None:
        self.displaced[name] = one
        self.struck = True

    def _some_file(self, chance: random.Random) -> str | None:
        """
        A file of the chain whose name means it, the uppermost and the lowest most often.

        None while a job of the adversary's own runs: QEMU would end it with whatever has the name.
        """
        if self.job:
            return None
        files = [file for file in self.disk.files if file not in self.displaced]
        if not files:
            return None
        return chance.choice((files[0], files[-1], chance.choice(files)))

    # What it does: each returns what was done in words, or None where that was not possible.

    def replace(self, chance: random.Random) -> str | None:
        """Another file under the name: a copy, as of a backup, another image, or anything."""
        if (name := self._some_file(chance)) is None:
            return None
        new, stash = self._keep(), self._keep()
        kind = chance.choice(("copy", "raw", "qcow2"))
        if kind == "copy":
            self.adversary.must("copy", self.path(name), new)
        elif kind == "raw":
            self.adversary.must("fill", new, len(self.disk.content), chance.randrange(1 << 30))
        else:
            images.create_qcow2(new, len(self.disk.content))
        foreign = new.read_bytes()
        self.adversary.must("link", self.path(name), stash)
        self.adversary.must("move", new, self.path(name))
        self._displace(name, Displaced(stash, foreign))
        return f"replace {name} by {kind}"

    def unlink(self, chance: random.Random) -> str | None:
        """No file under the name any more."""
        if (name := self._some_file(chance)) is None:
            return None
        stash = self._keep()
        self.adversary.must("move", self.path(name), stash)
        self._displace(name, Displaced(stash, None))
        return f"move {name} away"

    def link(self, chance: random.Random) -> str | None:
        """The name becomes a symbolic link to the same file, or to another one."""
        if (name := self._some_file(chance)) is None:
            return None
        target = self._keep()
        if chance.random() < 0.5:
            self.adversary.must("move", self.path(name), target)
            self.adversary.must("symlink", target, self.path(name))
            return f"make {name} a link to itself"
        stash = self._keep()
        self.adversary.must("copy", self.path(name), target)
        self.adversary.must("move", self.path(name), stash)
        self.adversary.must("symlink", target, self.path(name))
        self._displace(name, Displaced(stash, target.read_bytes()))
        return f"make {name} a link to a copy"

    def hard_link(self, chance: random.Random) -> str | None:
        """One more name of a file."""
        if (name := self._some_file(chance)) is None:
            return None
        self.adversary.must("link", self.path(name), self._keep())
        return f"one more name of {name}"

    def destroy(self, chance: random.Random) -> str | None:
        """The last name goes; only the guest that runs has the file still."""
        name = self._some_file(chance)
        if name is None or self.stage.running is None:
            return None
        self.adversary.must("unlink", self.path(name))
        self._displace(name, Displaced(None, None))
        self.destroyed = True
        return f"destroy {name}"

    def restore(self, chance: random.Random) -> str | None:
        """A file gets its name again."""
        names = [name for name, one in self.displaced.items() if one.stash is not None]
        if not names:
            return None
        name = chance.choice(sorted(names))
        self.put_back(name)
        return f"restore {name}"

    def put_back(self, name: str) -> None:
        """Give a file its name again; what had the name meanwhile must be as it was."""
        one = self.displaced.pop(name)
        assert one.stash is not None
        now = self.path(name).read_bytes() if self.path(name).exists() else None
        assert now == one.foreign, f"{name} was somebody else's, and is not as it was"
        self.adversary.must("move", one.stash, self.path(name))

    def open(self, chance: random.Random) -> str | None:
        """A program reads a file of the chain."""
        if (name := self._some_file(chance)) is None:
            return None
        self.adversary.must("open", self.path(name))
        self.opened.add(self.path(name).stat().st_ino)
        return f"open {name}"

    def lock(self, chance: random.Random) -> str | None:
        """Somebody holds the tool's lock of a file, or what QEMU locks."""
        if (name := self._some_file(chance)) is None:
            return None
        start, length = chance.choice((OUR_BYTES, OUR_BYTES, QEMUS_BYTES))
        problem = self.adversary.do("lock", self.path(name), start, length)
        self.locked = True
        return f"lock {name} from {start}: {problem}"

    def let_go(self, chance: random.Random) -> str | None:
        """Files are closed, locks given up."""
        if not self.opened and not self.locked:
            return None
        self.adversary.must("let go", "open")
        self.adversary.must("let go", "locked")
        self.opened.clear()
        self.locked = False
        return "close and unlock"

    def clone(self, chance: random.Random) -> str | None:
        """Another guest comes to be, on a lower file of ours, and perhaps runs."""
        lower = [layer for layer in self.disk.layers[1:] if layer.file not in self.displaced]
        if not lower or self.displaced or self.job or self.locked or len(self.clones) > 1:
            return None
        base = chance.choice(lower)
        self._kept += 1
        file = self.path(f"clone-{self._kept}")
        images.create_qcow2(file, len(self.disk.content), base.file, base.format)
        pattern, offset = chance.randint(1, 255), 4096 * chance.randrange(128)
        model.write_offline(file, "qcow2", [f"write -P {pattern} {offset} 4096"])
        content = read_file(file, "qcow2")
        if base.content is not None:
            below = bytearray(content)
            below[offset : offset + 4096] = base.content.sure[offset : offset + 4096]
            assert base.content.explains(bytes(below)), (base.file, "as a clone sees it")
        stack = ExitStack()
        clone = Clone(file, content, stack.enter_context(self.stage.another(file)), stack)
        self.clones.append(clone)
        runs = not self.stage.knows_those_off or chance.random() < 0.6
        if runs and not self._switch_on(clone):
            raise AssertionError(f"{file.name} does not start")
        return f"{file.name} on {base.file}, {'on' if clone.runs else 'off'}"

    def _switch_on(self, clone: Clone) -> bool:
        clone.runs = clone.guest.start()
        return clone.runs

    def _end(self, clone: Clone) -> None:
        clone.stack.close()
        self.clones.remove(clone)
        clone.file.unlink()

    def switch_clone(self, chance: random.Random) -> str | None:
        """Another guest is switched on or off; where nobody knows it while off, it goes for ever."""
        if not self.clones:
            return None
        clone = chance.choice(self.clones)
        if not self.stage.knows_those_off:
            self._end(clone)
            return f"{clone.file.name} has ended for ever"
        if clone.runs:
            clone.guest.end()
            clone.runs = False
        else:
            self._switch_on(clone)
        return f"{clone.file.name} is {'on' if clone.runs else 'off'}"

    def begin_job(self, chance: random.Random) -> str | None:
        """Another client merges the active file into one that is not told to us."""
        depth = len(self.disk.layers)
        if self.stage.running is None or depth == 1 or self.displaced or self.clones:
            return None
        base = chance.randrange(1, depth)
        try:
            self.stage.begin_job(self.disk.files[base], chance.choice((0, 1 << 18, 1 << 19)))
        except Exception as error:  # another one is there, by libvirt's words or QEMU's
            return f"no job: {error}"
        self.job = True
        self.disk.spoiled(0, base)
        self.harmed |= set(self.disk.files[1 : base + 1])
        return f"job into {self.disk.files[base]}"

    def cancel_job(self, chance: random.Random) -> str | None:
        """Another client cancels what runs, whoever began it."""
        if self.stage.running is None:
            return None
        self.stage.running.cancel(self.disk, soft=False)
        self.job = False
        return "cancel"

    def snapshot(self, chance: random.Random) -> str | None:
        """Another client takes a snapshot. What the guest writes in that moment, nobody knows."""
        if self.stage.running is None or self.displaced or len(self.disk.layers) > 10:
            return None
        self._kept += 1
        file = f"volume-{self.disk.serial}.client-{self._kept}"
        try:
            self.stage.snapshot(self.path(file))
        except Exception as error:  # a job is there, by libvirt's words or QEMU's
            return f"no snapshot: {error}"
        self.disk.put_on(file)
        self.disk.layers[1].content = None
        self.changed = True
        return f"snapshot {file}"

    def second_call(self, chance: random.Random) -> str | None:
        """Another process of the tool takes a snapshot, perhaps of the name that is asked for."""
        if self.stage.running is None or len(self.disk.layers) > 10:
            return None
        name = self.wanted if self.wanted and chance.random() < 0.5 else self.disk.next_name()
        said = self.stage.call_beside("create", self.disk.id, name, "-o", "json")
        if said is None:
            return None
        if said.code == 0:
            (file,) = said.json["file_format"]
            self.disk.put_on(file)
            self.disk.layers[1].content = None
            self.changed = True
        return f"another call: create {name}: {said.code} {said.err[:200]}"

    def swap_beside(self, chance: random.Random) -> str | None:
        """While an operation goes on: a file is replaced and put back, again and again."""
        name = self._some_file(chance)
        if name is None or self.stage.running is None:
            return None
        path, new, stash = self.path(name), self._keep(), self._keep()
        self.adversary.must("fill", new, len(self.disk.content), chance.randrange(1 << 30))
        acts: list[list[Any]] = []
        for _ in range(chance.randint(1, 4)):
            pause = chance.choice((0.0, 0.01, 0.05, 0.2))
            acts += [[pause, "move", path, stash], [0.0, "link", new, path]]
            acts += [[chance.choice((0.0, 0.01, 0.05)), "move", stash, path]]
        self.adversary.must("beside", acts)
        self.struck = True
        return f"swap {name} beside"

    def join(self) -> None:
        """Wait for what goes on beside."""
        self.adversary.must("join")

    # In the end

    def heal(self) -> None:
        """Let everything go, and put everything back that there is."""
        calm = random.Random(0)
        self.join()
        self.let_go(calm)
        if self.job:
            self.cancel_job(calm)
        for name in [name for name, one in self.displaced.items() if one.stash is not None]:
            self.put_back(name)

    def check_clones(self) -> None:
        """What the other guests read is what they read when they were made."""
        if self.displaced or self.locked:
            return
        for clone in self.clones:
            wrong = difference(_read_shared(clone.file), clone.content)
            assert not wrong, f"{clone.file.name}, another guest: {wrong}"

    def close(self) -> None:
        """End the other guests and the other process."""
        for clone in self.clones:
            clone.stack.close()
        self.adversary.close()


def _read_shared(path: Path) -> bytes:
    """As `read_file`, while a guest may have it open."""
    copy = path.parent.parent / "copy"
    subprocess.run(
        ["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(path), str(copy)], check=True
    )
    return copy.read_bytes()


Act = Callable[[World, random.Random], str | None]
