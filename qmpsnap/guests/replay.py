"""A recorded guest: can be read as often as one likes, and not changed."""

from __future__ import annotations

from qmpsnap.errors import Refused
from qmpsnap.formats.from_graph import guest_from_graph
from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.formats.layers import Disks
from qmpsnap.graph import xml
from qmpsnap.guests.libvirt.guest import stays_small
from qmpsnap.guests.reader import Reader
from qmpsnap.monitor.transcript import ReplayMonitor, Transcript


class OnlyRecorded(Refused):
    """A transcript can be read, and nothing else."""

    msg = "{self.command} needs a running guest, and a transcript is not one"
    remedy = "Give the road to the running guest: `--qmp SOCKET`, or `--connect URI` and its name."

    command: str


class ReplayGuest:
    """Reads a transcript as it would read the guest; no file named in it is opened."""

    def __init__(self, transcript: Transcript) -> None:
        """Use a parsed transcript."""
        self._transcript = transcript
        self._reader = Reader(ReplayMonitor(transcript), max_stall_s=None, crashes=False)

    def read(self) -> Disks:
        """
        Read the recording; headers count as QEMU read them when it opened the files.

        Raises:
            MalformedXml, MalformedReply, CommandFailed: As for a running guest.
        """
        if not self._transcript.xml:
            graph = self._reader.read()
            known = self._reader.details(graph)
            return guest_from_graph(
                graph, guest=known.name, serials=known.serials, types=known.types
            )
        domain = xml.parse(self._transcript.xml[-1])
        if not self._transcript.exchanges:
            return guest_from_xml(domain, notes=("formats by XML alone: no QMP was recorded",))
        graph = self._reader.read(nested_ok=stays_small(domain))
        return guest_from_graph(graph, guest=domain.name, domain=domain)
