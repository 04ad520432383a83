"""
A small model of QEMU's block layer: disks, their chains and jobs, and what a crash leaves.

    memory   what QEMU has written; the guest reads it
    disk     what was flushed; each write since may or may not be there after a crash

A header that a job changes is on the disk at once, as up to QEMU 10 that of a finished stream: before
the tables of what was copied. `tests/simulation/test_honest.py` compares the model with a real QEMU.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.job.states import JobStatus
from tests.simulation.values import CLUSTERS, FOREIGN, UNFINISHED, File, Job, Type


@dataclass
class BlockLayer:
    """One QEMU with some disks, and the files on its host."""

    folder: Path
    chance: random.Random
    files: dict[str, File] = field(default_factory=dict)
    """By path."""
    nodes: dict[str, str] = field(default_factory=dict)
    """Path by format node: those of the chain, and others that are open."""
    chains: dict[str, list[str]] = field(default_factory=dict)
    """By disk: nodes, the active one first."""
    below: dict[str, str] = field(default_factory=dict)
    """What a node still reads that has left the chain, and is open."""
    jobs: dict[str, Job] = field(default_factory=dict)
    process: int = 0
    """Counts the QEMUs; 0: there is none."""
    is_running: bool = False
    possible: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    """By disk and cluster: what was flushed last, and what was written since."""
    kept: dict[str, dict[int, int]] = field(default_factory=dict)
    """By path: what a file has to read as that no disk has any more."""
    foreign: dict[str, str] = field(default_factory=dict)
    """By disk: the overlay that was active at the crash, where only somebody else knows of it."""
    definition: str = ""
    """libvirt's, of a guest that is off."""
    fails: bool = True
    """Whether jobs may fail."""
    writes: bool = True
    """Whether the guest does."""

    # --- files

    def make(self, path: str, format_: str, header: str | None) -> None:
        """A new image."""
        self.files[path] = File(format=format_, header=header)
        Path(path).touch()

    def unlink(self, path: str) -> None:
        """Remove an image: never one that somebody holds."""
        if path not in self.files:
            return
        if self.is_running:
            active = self.active
            for disk, chain in self.chains.items():
                assert path not in [self.nodes[one] for one in chain], f"{path} is in use"
                assert path not in self.by_headers(active[disk]), f"a header leads to {path}"
        for one in self.kept:
            assert path not in self.by_headers(one), f"{one}, which is kept, needs {path}"
        del self.files[path]
        os.unlink(path)

    def by_headers(self, path: str) -> list[str]:
        """The chain that the next start would open."""
        found: list[str] = []
        now: str | None = path
        while now is not None:
            assert now not in found, f"{now} rests on itself"
            found.append(now)
            name = self.files[now].header if now in self.files else None
            now = None if name is None else os.path.join(self.folder, name)
        return found

    @property
    def active(self) -> dict[str, str]:
        """The file that each disk of the running guest writes to."""
        return {disk: self.nodes[chain[0]] for disk, chain in self.chains.items()}

    @property
    def in_chains(self) -> list[str]:
        """The nodes of all chains."""
        return [node for chain in self.chains.values() for node in chain]

    def start(self, active: dict[str, str], names: dict[str, list[str]] | None = None) -> None:
        """A new QEMU opens the chain of each disk by its headers."""
        self.process, self.is_running = self.process + 1, True
        for disk, path in active.items():
            paths = self.by_headers(path)
            fresh = [f"p{self.process}-{os.path.basename(one)}" for one in paths]
            self.chains[disk] = names[disk] if names else fresh
            self.nodes |= dict(zip(self.chains[disk], paths, strict=True))

    def plug(self, active: dict[str, str]) -> None:
        """All disks are unplugged, which flushes, and others plugged in, whose nodes have new names."""
        for file in self.files.values():
            file.flush()
        self.nodes, self.below, self.chains = {}, {}, {}
        opened = {disk: self.by_headers(path) for disk, path in active.items()}
        number = self.chance.randrange(1 << 30)
        names = {
            disk: [f"again-{number}-{os.path.basename(one)}" for one in paths]
            for disk, paths in opened.items()
        }
        self.start(active, names)
        self.process -= 1

    def crash(self) -> None:
        """QEMU dies: what was flushed is there, and of the rest what chance has kept."""
        for file in self.files.values():
            for cluster, value in file.memory.items():
                if file.disk.get(cluster) != value and self.chance.random() < 0.5:
                    file.disk[cluster] = value
            file.memory = dict(file.disk)
        self.foreign = {disk: path for disk, path in self.active.items() if FOREIGN in path}
        self.nodes, self.below, self.chains, self.jobs = {}, {}, {}, {}
        self.is_running = False

    # --- the guest

    def write(self, disk: str | None = None) -> None:
        """The guest writes, to any disk where none is named."""
        disk = disk or self.chance.choice(list(self.chains))
        cluster, value = self.chance.randrange(CLUSTERS), self.chance.randrange(1, 1 << 30)
        self.files[self.active[disk]].write(cluster, value)
        self.possible.setdefault((disk, cluster), [0]).append(value)

    def flush(self) -> None:
        """The guest flushes: what it has written so far may never be lost again."""
        for disk, path in self.active.items():
            self.files[path].flush()
            for cluster in range(CLUSTERS):
                self.possible[disk, cluster] = [self.read(disk, cluster)]

    def read(self, disk: str, cluster: int) -> int:
        """What the guest reads."""
        for node in self.chains[disk]:
            memory = self.files[self.nodes[node]].memory
            if cluster in memory:
                return memory[cluster]
        return 0

    def on_disk(self, path: str) -> dict[int, int]:
        """What somebody reads who opens a file by its headers after a crash."""
        found: dict[int, int] = {}
        for one in reversed(self.by_headers(path)):
            assert one in self.files, f"{one}, which {path} rests on, is gone"
            found |= self.files[one].disk
        return found

    def lost(self, disk: str, path: str) -> str:
        """What a guest that starts from a file would miss, in words; empty: nothing."""
        missing = [one for one in self.by_headers(path) if one not in self.files]
        if missing:
            return f"{missing} of {path} are gone"
        found = self.on_disk(path)
        for cluster in range(CLUSTERS):
            value, may_be = found.get(cluster, 0), self.possible.get((disk, cluster), [0])
            if value not in may_be:
                return f"cluster {cluster} of {path} is {value}: {may_be}"
        return ""

    # --- commands

    def execute(self, command: str, given: dict[str, Any]) -> object:
        """
        Carry out a QMP command.

        Raises:
            CommandFailed: As QEMU would; nothing has happened.
        """
        method = getattr(self, command.replace("-", "_"), None)
        assert method is not None, command
        return method(given)

    def _refuse(self, command: str, why: str) -> CommandFailed:
        return CommandFailed(command, "GenericError", why)

    def blockdev_add(self, given: dict[str, Any]) -> None:
        """Open an overlay that nobody reads yet."""
        name, path = given["node-name"], given["file"]["filename"]
        if name in self.nodes:
            raise self._refuse("blockdev-add", "Duplicate nodes with node-name")
        if path not in self.files:
            raise self._refuse("blockdev-add", "Could not open")
        self.nodes[name] = path

    def blockdev_del(self, given: dict[str, Any]) -> None:
        """Close what nobody uses; a protocol node goes with its format node."""
        name = given["node-name"]
        if name not in self.nodes:
            raise self._refuse("blockdev-del", "Failed to find node")
        streamed = [one for job in self.jobs.values() if job.type == "stream" for one in job.nodes]
        if name in [*self.in_chains, *self.below.values(), *streamed]:
            raise self._refuse("blockdev-del", "is in use")
        del self.nodes[name]
        self.below.pop(name, None)

    def transaction(self, given: dict[str, Any]) -> None:
        """Put an overlay on active nodes, which are flushed before: on all of them, or on none."""
        before = {disk: list(chain) for disk, chain in self.chains.items()}
        try:
            for action in given["actions"]:
                self._snapshot(action["data"]["node"], action["data"]["overlay"])
        except CommandFailed:
            self.chains = before
            raise

    def _snapshot(self, node: str, overlay: str) -> None:
        if overlay not in self.nodes or overlay in self.in_chains or node not in self.nodes:
            raise self._refuse("transaction", "Cannot find node")
        disk = next((one for one, chain in self.chains.items() if chain[0] == node), None)
        if disk is None or self._busy(disk) or node in self.below.values():
            raise self._refuse("transaction", "is busy")
        if overlay in self.below or self.files[self.nodes[overlay]].format == "raw":
            raise self._refuse("transaction", "The overlay already has a backing image")
        self.files[self.nodes[node]].flush()
        self.chains[disk].insert(0, overlay)

    def _busy(self, disk: str) -> bool:
        """A stream keeps its nodes until it is dismissed."""
        jobs = [job for job in self.jobs.values() if job.disk == disk]
        return any(job.status in UNFINISHED or job.type == "stream" for job in jobs)

    def block_commit(self, given: dict[str, Any]) -> None:
        """Start a commit, or a mirror of the active layer."""
        top, base = given["top-node"], given["base-node"]
        tops = [chain[0] for chain in self.chains.values()]
        type_: Type = "mirror" if top in tops else "commit"
        self._begin("block-commit", type_, top, base, given)

    def block_stream(self, given: dict[str, Any]) -> None:
        """Start a stream."""
        self._begin("block-stream", "stream", given["device"], given.get("base-node"), given)

    def _begin(
        self, command: str, type_: Type, top: str, base: str | None, given: dict[str, Any]
    ) -> None:
        if given["job-id"] in self.jobs:
            raise self._refuse(command, "Job ID is in use")
        disk = next((one for one, chain in self.chains.items() if top in chain), None)
        if disk is None:
            raise self._refuse(command, "Cannot find node")
        chain = self.chains[disk]
        if base is not None and base not in chain[chain.index(top) + 1 :]:
            raise self._refuse(command, "is not in this backing file chain")
        if self._busy(disk):
            raise self._refuse(command, "is busy")
        self.jobs[given["job-id"]] = Job(
            id=given["job-id"],
            type=type_,
            disk=disk,
            top=top,
            base=base,
            nodes=tuple(chain[chain.index(top) : None if base is None else chain.index(base) + 1]),
            header=given.get("backing-file") or (base and self.nodes[base]),
            finalizes=given["auto-finalize"],
        )

    def _job(self, command: str, given: dict[str, Any], *states: JobStatus) -> Job:
        job = self.jobs.get(given["id"])
        if job is None:
            raise self._refuse(command, "Job not found")
        if job.status not in states:
            raise self._refuse(command, f"cannot accept command verb in state {job.status}")
        return job

    def job_finalize(self, given: dict[str, Any]) -> None:
        """Let a job change the graph."""
        self._conclude(self._job("job-finalize", given, JobStatus.PENDING))

    def job_complete(self, given: dict[str, Any]) -> None:
        """Tell a mirror to pivot, which it does a moment later."""
        self._job("job-complete", given, JobStatus.READY).completes = True

    def job_cancel(self, given: dict[str, Any]) -> None:
        """End a job, the chain as it was."""
        job = self._job("job-cancel", given, *UNFINISHED)
        if job.completes:
            raise self._refuse("job-cancel", "is completing")
        job.status, job.error = JobStatus.CONCLUDED, "Operation canceled"

    def job_dismiss(self, given: dict[str, Any]) -> None:
        """Forget a job that has ended."""
        del self.jobs[self._job("job-dismiss", given, JobStatus.CONCLUDED).id]

    def block_resize(self, given: dict[str, Any]) -> None:
        """To the same size, which flushes."""
        self._flush("block_resize", given["node-name"])

    def human_monitor_command(self, given: dict[str, Any]) -> str:
        """`qemu-io NODE reopen`, which flushes and answers nothing."""
        self._flush("human-monitor-command", given["command-line"].split()[1])
        return ""

    def _flush(self, command: str, node: str) -> None:
        if node not in self.nodes:
            raise self._refuse(command, "Cannot find node")
        self.files[self.nodes[node]].flush()

    # --- jobs

    def tick(self) -> None:
        """Something happens, or nothing does: the guest writes or flushes, a job goes on."""
        if not self.is_running:
            return
        if self.writes and self.chance.random() < 0.3:
            self.write()
        if self.writes and self.chance.random() < 0.15:
            self.flush()
        for job in list(self.jobs.values()):
            if self.chance.random() < 0.6:
                self._go_on(job)

    def _go_on(self, job: Job) -> None:
        if job.status is JobStatus.RUNNING:
            if self.fails and self.chance.random() < 0.05:
                job.status, job.error = JobStatus.CONCLUDED, "No space left on device"
                return
            self._copy(job, whole=False)
            if self.chance.random() < 0.5:
                self._copy(job, whole=True)
                self._has_copied(job)
        elif job.completes and job.status is JobStatus.READY:
            self._conclude(job)

    def _has_copied(self, job: Job) -> None:
        if job.type == "mirror":
            job.status = JobStatus.READY
        elif job.finalizes:
            self._conclude(job)
        else:
            job.status = JobStatus.PENDING

    def _between(self, job: Job) -> list[str]:
        """The nodes whose data move, the upper ones first."""
        chain = self.chains[job.disk]
        end = len(chain) if job.base is None else chain.index(job.base)
        begin = chain.index(job.top)
        return chain[begin + (job.type == "stream") : end]

    def _copy(self, job: Job, *, whole: bool) -> None:
        target = self.files[self.nodes[(job.base or "") if job.type != "stream" else job.top]]
        moved: dict[int, int] = {}
        for node in reversed(self._between(job)):
            moved.update(self.files[self.nodes[node]].memory)
        for cluster, value in moved.items():
            if not whole and self.chance.random() < 0.5:
                continue
            if job.type != "stream" or cluster not in target.memory:
                target.write(cluster, value)

    def _conclude(self, job: Job) -> None:
        """Change the graph. A mirror flushes its target before, the others nothing."""
        self._copy(job, whole=True)
        gone = self._between(job)
        if job.type == "mirror":
            self.files[self.nodes[job.base or ""]].flush()
        elif job.type == "stream":
            self.files[self.nodes[job.top]].header = job.header if job.base else None
        else:
            chain = self.chains[job.disk]
            above = chain[chain.index(job.top) - 1]
            self.files[self.nodes[above]].header = job.header
        lower = [] if job.base is None else [job.base]
        self.below |= dict(zip(gone, [*gone[1:], *lower], strict=False))
        self.chains[job.disk] = [node for node in self.chains[job.disk] if node not in gone]
        job.status = JobStatus.CONCLUDED
