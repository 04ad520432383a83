"""
A guest of libvirt that is off: the same operations, by QEMU's block layer without a guest.

The definition and the headers of the files say what the chain is; what is changed is changed by
QEMU, and in the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

from msgspec.structs import replace

from qmpsnap.errors import Failed, QmpsnapError, Refused
from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.graph import xml
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.files.door import FileDoor
from qmpsnap.guests.files.identity import same_file
from qmpsnap.guests.files.looks import LocalFiles
from qmpsnap.guests.files.opened import identified
from qmpsnap.guests.libvirt import door
from qmpsnap.guests.libvirt.neighbours import surroundings_of
from qmpsnap.guests.offline.block_layer import opened
from qmpsnap.guests.offline.definition import Redefine
from qmpsnap.guests.offline.lost import check_not_lost
from qmpsnap.guests.offline.reading import NoSize, read_disk
from qmpsnap.guests.offline.steps import OfflineComposer, with_nodes
from qmpsnap.guests.offline.volumes import file_of, with_files
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.guests.qmp.subclusters import copies_into_subclusters
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.monitor.passthrough import MonitorBusy, in_time
from qmpsnap.monitor.virt import host_of, libvirt_module
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.guest import Outline, State
from qmpsnap.operations.job.states import Heard, JobReport, JobView
from qmpsnap.operations.run_state import OFF
from qmpsnap.operations.step import Does, Step
from qmpsnap.operations.where import Where


class GuestStarted(Refused):
    """Somebody started the guest after it had been seen to be off."""

    msg = "the guest {self.guest!r} has been started"
    remedy = "Give the same command again: it works on the running guest then."

    guest: str


class CannotRedefine(Failed):
    """libvirt did not take the changed definition; the guest would start as before."""

    msg = "libvirt refused the changed definition of {self.guest!r}: {self.reason}"
    remedy = "Mend the cause, then give the same command again. Remove no file before that."
    changed = "no"

    guest: str
    reason: str


class OfflineGuest(Closable):
    """One guest that is defined and does not run."""

    def __init__(self, domain: Any, *, closes: Any = None) -> None:
        """
        Use a `virDomain`.

        Args:
            domain: The guest.
            closes: A connection that `close` closes; None: the domain's stays open.

        Raises:
            LibvirtMissing: libvirt-python is not installed.
        """
        self._domain = domain
        self._libvirt = libvirt_module()
        self._owned: list[Any] = [] if closes is None else [closes]
        self._open = ExitStack()
        self._held: dict[str, QmpGuest] = {}
        self.files = LocalFiles()
        self.where = Where(road="offline", at=domain.connect().getURI(), guest=domain.UUIDString())
        self._file_door = FileDoor()
        self.compose = OfflineComposer(domain.name(), self._definition)

    def _release(self) -> None:
        """Let the chains go; a job that still runs is cancelled."""
        self._open.close()
        self._held.clear()

    def _let_go(self) -> None:
        self._release()
        self._file_door.close()
        while self._owned:
            with suppress(self._libvirt.libvirtError):
                self._owned.pop().close()

    def reconnect(self, error: QmpsnapError) -> bool:
        """See `Jobs.reconnect`: when the QEMU of this call is gone, so is its job."""
        return False

    def take(self, step: Step) -> object:
        """
        See `Door.take`.

        Raises:
            CannotOpen: The chain is locked by somebody else, or not as it is said to be.
            CannotRedefine: libvirt did not take the definition; the one it has is still right.
            PointsElsewhere: It names another file by now.
        """
        if step.does is Does.HOLD:
            self._hold(step)
            return None
        if step.does is Does.RELEASE:
            self._release()
            return None
        if step.by == "file":
            return self._file_door.take(step, self.files.claimed)
        if step.by == "qmp":
            return self._engine.take(step)
        if isinstance(step, Redefine):
            # A merge of hours may have gone by, and somebody may have edited the definition.
            definition = self._definition()
            step = step.again_from(definition, same_file, self._with_files(definition)[0])
        try:
            return door.take(self._domain, step)
        except CommandFailed as error:
            raise CannotRedefine(self._domain.name(), error.description) from error

    def _hold(self, step: Step) -> None:
        """Open a chain for writing, as a guest would."""
        chain = cast("list[dict[str, str]]", step.arguments["chain"])
        monitor = self._open.enter_context(opened([(one["path"], one["format"]) for one in chain]))
        # No guest waits for this QEMU.
        self._held[str(step.arguments["disk"])] = QmpGuest(monitor, max_stall_s=None)

    @property
    def _engine(self) -> QmpGuest:
        return next(reversed(self._held.values()))

    def read(self) -> Disks:
        """
        See `Guest.read`: the definition, and the headers on disk.

        While a chain is held, its nodes are there as well: they tell whether QEMU has flushed it.

        Raises:
            GuestStarted: It runs by now.
            MalformedXml: The definition cannot be read.
        """
        if self._call("virDomainIsActive", self._domain.isActive):
            raise GuestStarted(self._domain.name())
        text, missing = self._with_files(self._definition())
        domain = xml.parse(text)
        disks = tuple(
            with_nodes(_noted(read_disk(disk, self._size), missing)) for disk in domain.disks
        )
        paths = (layer.path for disk in disks for layer in disk.layers)
        report = Disks(
            guest=domain.name,
            disks=disks,
            open_files=frozenset(path for path in paths if path is not None),
            besides=domain.besides,
            graph=self._engine.read().graph if len(self._held) == 1 else None,
        )
        return identified(report)

    def _definition(self) -> str:
        flags = self._libvirt.VIR_DOMAIN_XML_INACTIVE | self._libvirt.VIR_DOMAIN_XML_SECURE
        return str(self._call("virDomainGetXMLDesc", lambda: self._domain.XMLDesc(flags)))

    def _with_files(self, definition: str) -> tuple[str, Mapping[str, str]]:
        connection = self._domain.connect()
        return with_files(definition, lambda pool, volume: file_of(connection, pool, volume))

    def _call(self, name: str, function: Callable[[], Any]) -> Any:
        return door.call(self._domain, name, function)

    def _size(self, target: str) -> int:
        try:
            return int(in_time(lambda: self._domain.blockInfo(target))[0])
        except self._libvirt.libvirtError as error:
            raise NoSize(str(error)) from error
        except MonitorBusy:
            raise NoSize("libvirt does not answer") from None

    def outlines(self, disks: Sequence[Disk]) -> tuple[Outline | None, ...]:
        """See `Guest.outlines`: a reading costs no guest anything."""
        return (None,) * len(disks)

    def neighbours(self, disk: Disk, left: Collection[str] | None = None) -> Surroundings:
        """See `Guest.neighbours`: every process that has a layer open is somebody else."""
        return replace(
            surroundings_of(self._domain, disk, left, runs=False),
            # Which QEMU would do it is known only when it runs, and a plan starts none.
            copies_into_subclusters=copies_into_subclusters(disk, None),
        )

    def state(self) -> State:
        """
        See `Guest.state`.

        Raises:
            LostByLibvirt: Its QEMU runs all the same.
        """
        if not host_of(self.where.at):
            check_not_lost(self._domain.name(), self._domain.UUIDString())
        saved = self._call("virDomainHasManagedSaveImage", self._domain.hasManagedSaveImage)
        return State(run=OFF, saved=bool(saved))

    def jobs(self) -> tuple[JobReport, ...]:
        """See `Jobs.jobs`: a job of a guest that is off belongs to the call that runs it."""
        return ()

    def view(self, job: str) -> JobView:
        """See `Jobs.view`."""
        return self._engine.view(job)

    def follow(self, job: str) -> None:
        """See `Jobs.follow`."""
        self._engine.follow(job)

    def wait(self, job: str, timeout: float) -> Heard:
        """See `Jobs.wait`."""
        return self._engine.wait(job, timeout)


def _noted(disk: Disk, missing: Mapping[str, str]) -> Disk:
    """With what is not known of the volumes that it stands on."""
    notes = (missing[layer.file] for layer in disk.layers if layer.file in missing)
    return replace(disk, notes=(*disk.notes, *notes))
