"""One finding, and the table of all rules that can make one."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Severity(StrEnum):
    """How bad it is; the words are those of SARIF's `level`."""

    ERROR = "error"
    """Somebody reads or writes the wrong bytes, or will at the next start."""
    WARNING = "warning"
    """It may be meant so. Whoever did not mean it has the same problem."""
    NOTE = "note"
    """Worth knowing; it does not change the exit code."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of finding. Ids are stable; severities and texts may change."""

    id: str
    severity: Severity
    title: str
    help: str
    """What it means, and when it is harmless."""
    remedy: str
    """What to do in general; a finding says it with names where it can."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with one file, disk or guest."""

    rule: Rule
    guest: str | None
    disk: str | None = None
    file: str | None = None
    """Path, or the name that the protocol gives."""
    node: str | None = None
    message: str
    remedy: str

    @property
    def id(self) -> str:
        """The rule's stable name."""
        return self.rule.id

    @property
    def severity(self) -> Severity:
        """The rule's severity."""
        return self.rule.severity

    @property
    def matters(self) -> bool:
        """Whether it makes the exit code 3."""
        return self.severity is not Severity.NOTE


FORMAT_CONFLICT: Final = Rule(
    id="format-conflict",
    severity=Severity.ERROR,
    title="The witnesses of a layer's format contradict each other",
    help="QEMU, libvirt's XML or the header above name different formats for one file. One of "
    "them will be used at the next start. A file that was raw and is open as qcow2 although nobody "
    "converted it is an attack under way: the guest wrote that header.",
    remedy="Find out from whoever made the file which format it was made with; its bytes do not "
    "tell. Then correct the witness that is wrong, with the guest off.",
)
OPERATION_OPEN: Final = Rule(
    id="operation-open",
    severity=Severity.WARNING,
    title="An operation on these files is under way, or was interrupted",
    help="A marker lies beside the files (`.qmpsnap-ID`): an operation of qmpsnap has sent a switch "
    "or a pivot, or has started a pull, and it is not proven what became of that. If it was "
    "interrupted, a guest that is started now may read the wrong file. Other operations on these "
    "files are refused, also from other hosts that have the share.",
    remedy="Wait for it to end, or settle it: `qmpsnap resume ID`, where it was begun; with the "
    "path of the marker where that journal is gone.",
)
FORMAT_UNKNOWN: Final = Rule(
    id="format-unknown",
    severity=Severity.ERROR,
    title="Nobody states a layer's format",
    help="The layer's driver states no format (quorum, a driver that is not known here), its file is "
    "opened by two formats, one over the other, or libvirt's XML gives none and there is no QMP.",
    remedy="Read the guest through QMP, and give the format where the disk is defined.",
)
OPENED_BY_PROBING: Final = Rule(
    id="opened-by-probing",
    severity=Severity.ERROR,
    title="QEMU guessed a file's format from its bytes",
    help="QEMU opened the file without having been told its format: as a backing file whose "
    "overlay records none, or by `-drive` without `format=`. The bytes of a raw file are the "
    "guest's, so the guest chooses what QEMU takes it for.",
    remedy="Give the format, at the drive (`format=raw`) or in the header of the layer above "
    "(`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`, with the guest off). FORMAT is "
    "the one that the file was made with, not the one that was guessed.",
)
BACKING_FORMAT_MISSING: Final = Rule(
    id="backing-format-missing",
    severity=Severity.ERROR,
    title="A header names a backing file without its format",
    help="Whoever opens the overlay next has to guess the format of the file below from bytes that "
    "may be a guest's. QEMU guesses. libvirt 9.0 guesses too; it refuses to follow a backing file "
    "that it finds in this way, but opens a data file.",
    remedy="With the guest off: `qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`.",
)
BACKING_FORMAT_PROTOCOL: Final = Rule(
    id="backing-format-protocol",
    severity=Severity.ERROR,
    title="A header names a protocol in the place of the backing format",
    help="QEMU records `file` when it has the base open without a raw node. QEMU itself then reads "
    "the bytes as they are; libvirt 9.0 probes the file, so a guest that wrote a qcow2 header with "
    "a data file into its raw disk gets to read a file of the host.",
    remedy="With the guest off: `qemu-img rebase -u -f qcow2 -b BACKING -F raw OVERLAY`.",
)
BACKING_FORMAT_WITHOUT_LUKS: Final = Rule(
    id="backing-format-without-luks",
    severity=Severity.NOTE,
    title="A header calls an encrypted backing file raw",
    help="libvirt has no format `luks`: its XML says `raw` with an encryption beside it, and a "
    "snapshot that it takes while the guest is off records `raw`. As long as the XML names the "
    "whole chain with its encryption, the header is not used. Whoever goes by the header alone gets "
    "the encrypted bytes as the disk.",
    remedy="With the guest off: `qemu-img rebase -u -f qcow2 -b BACKING -F luks OVERLAY`.",
)
BACKING_NOT_RECORDED: Final = Rule(
    id="backing-not-recorded",
    severity=Severity.ERROR,
    title="QEMU has a backing file open that the header does not name",
    help="`blockdev-snapshot` attaches a backing file without writing it into the overlay's "
    "header. After the next start the guest sees the overlay alone: the rest of its data is "
    "gone.",
    remedy="With the guest off, before anything starts it again: "
    "`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`.",
)
BACKING_NAME_DIFFERS: Final = Rule(
    id="backing-name-differs",
    severity=Severity.WARNING,
    title="The header names another backing file than QEMU has open",
    help="The next start follows the header, unless the whole chain is given on the command line "
    "or in the XML. Harmless where both names lead to the same file: names in a header are "
    "compared and never looked up.",
    remedy="Where they are not the same file, with the guest off: "
    "`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`.",
)
CHAIN_DIFFERS: Final = Rule(
    id="chain-differs",
    severity=Severity.ERROR,
    title="libvirt sees another chain than QEMU has",
    help="Somebody changed the chain behind libvirt's back, by QMP. libvirt never notices; its "
    "next snapshot or commit fails, and the next start opens the old files. Of a guest that is off: "
    "its definition names a chain (`<backingStore>`), and the headers of its files name another "
    "one. The next start obeys the definition.",
    remedy="Correct the disk in the guest's definition, so that it starts with the files that "
    "QEMU has open now, and restart the guest.",
)
CHAIN_LOOP: Final = Rule(
    id="chain-loop",
    severity=Severity.ERROR,
    title="A chain leads back into itself",
    help="A file is in its own chain twice, or a header names a file that lies above it. "
    "QEMU will not open such a chain again.",
    remedy="Find out from the backups or from whoever changed the chain which file is the base; "
    "then, with the guest off, `qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY` for "
    "the header that is wrong.",
)
IMAGE_HEADER_IN_RAW: Final = Rule(
    id="image-header-in-raw",
    severity=Severity.WARNING,
    title="A raw file begins like an image of another format",
    help="The file is raw: its bytes are the guest's, and a guest may keep in them what it likes. "
    "But a tool that probes will take it for that image, and open what the header names. This is a "
    "sign of an attack, or of an image that was attached with the wrong format. A whole-disk "
    "LUKS volume that the guest made itself is harmless.",
    remedy="Never let qemu-img, Cinder or libvirt open the file without `-f raw` or its like. If "
    "the file was made as that image, the guest is attached with the wrong format.",
)
DATA_FILE: Final = Rule(
    id="data-file",
    severity=Severity.WARNING,
    title="A qcow2 keeps its data in another file",
    help="The header names the data file, and QEMU opens it whatever it is. Seldom intended; "
    "this is how CVE-2024-32498 reads files of the host.",
    remedy="If nobody made it so on purpose, shut the guest down and look who wrote the header. "
    "Otherwise convert it to one file, with the guest off: "
    "`qemu-img convert -f qcow2 -O qcow2 FILE NEW`.",
)
FILE_BEYOND_CHAIN: Final = Rule(
    id="file-beyond-chain",
    severity=Severity.WARNING,
    title="A file is reachable from a disk and is no layer of its chain",
    help="The extents of a vmdk, the images of a quorum, a filter's log: the guest reads or "
    "writes them. Harmless where the disk was set up like that.",
    remedy="If nobody set it up on purpose, shut the guest down and look who wrote the header "
    "that names the file.",
)
BACKING_OUTSIDE_FOLDER: Final = Rule(
    id="backing-outside-folder",
    severity=Severity.WARNING,
    title="A backing file lies outside of the volume's folder",
    help="A volume's chain lies in one folder of its share. A name that leads elsewhere was "
    "written by somebody else, perhaps by a guest. Harmless for a base image that is shared, as "
    "in Nova's `_base`.",
    remedy="Check who wrote the header of the layer above. If the file does not belong to the "
    "volume, shut the guest down.",
)
FILE_ACTIVE_AND_BASE: Final = Rule(
    id="file-active-and-base",
    severity=Severity.ERROR,
    title="A file is written through one disk and is a base of another",
    help="A base must not change below its overlays. What the one guest writes, the other reads "
    "as damage to its own disk.",
    remedy="Stop both guests. Whichever disk is to keep its data is then given a file of its "
    "own: `qemu-img convert -f FORMAT -O qcow2 FILE NEW`.",
)
FILE_ACTIVE_TWICE: Final = Rule(
    id="file-active-twice",
    severity=Severity.WARNING,
    title="A file is the active layer of two disks",
    help="Two writers destroy a qcow2, and any file system that does not expect it. Harmless for "
    "a raw disk that is shared on purpose by a cluster.",
    remedy="Unless it is shared on purpose, stop all but one of the guests.",
)
NODE_UNREADABLE: Final = Rule(
    id="node-unreadable",
    severity=Severity.ERROR,
    title="QEMU cannot describe a layer any more",
    help="QEMU found the image, or one above it, corrupt while the guest ran, and closed it.",
    remedy="Shut the guest down, and look at the image with `qemu-img check -f FORMAT FILE`.",
)
FILE_REPLACED: Final = Rule(
    id="file-replaced",
    severity=Severity.ERROR,
    title="A name does not lead to the file that QEMU has open",
    help="The file was replaced (by a restore, rsync, mv, an editor) or unlinked while the guest "
    "ran. QEMU goes on with the one that it has open, whatever has the name now. The next start, "
    "and every overlay whose header names it, uses the other file; and when the guest ends, what "
    "QEMU has open may be gone.",
    remedy="Keep the guest running. If the file was renamed, give it its name back. If it has no "
    "name any more, copy the whole disk into a new file before the guest ends (`virsh blockcopy`, "
    "QMP `blockdev-mirror`).",
)
HEADER_INVALID: Final = Rule(
    id="header-invalid",
    severity=Severity.ERROR,
    title="A file that is open as qcow2 has no qcow2 header on disk",
    help="The running QEMU has read the header already; the next one will not open the file. "
    "Something wrote over it, or another file now has its name.",
    remedy="Keep the guest running until its data is copied from inside, or until the file is "
    "put back; `qemu-img check -f qcow2 FILE` says more.",
)
GUEST_UNREADABLE: Final = Rule(
    id="guest-unreadable",
    severity=Severity.ERROR,
    title="A guest, or a whole connection, could not be read",
    help="Nothing is known about these disks. The other guests were audited all the same.",
    remedy="Mend the cause, and audit again.",
)
GUEST_PARTLY_READ: Final = Rule(
    id="guest-partly-read",
    severity=Severity.WARNING,
    title="A guest could not be read fully",
    help="Some findings need what could not be read: without QMP, it is not known how a file is "
    "open.",
    remedy="Mend the cause, and look again.",
)
RAW_SLICE: Final = Rule(
    id="raw-slice",
    severity=Severity.NOTE,
    title="A layer is only a part of its file",
    help="The disk is opened with an offset or a size. No header can record that, so an overlay "
    "would read the wrong part at the next start.",
    remedy="Take no snapshot of this disk; qmpsnap refuses to.",
)
FILE_NOT_CHECKED: Final = Rule(
    id="file-not-checked",
    severity=Severity.NOTE,
    title="A file could not be read here",
    help="Its header, or the first bytes of a raw file, could not be checked.",
    remedy="Run as a user that may read the file, on the host that has it.",
)

FILE_NOT_SEEN: Final = Rule(
    id="file-not-seen",
    severity=Severity.NOTE,
    title="Which files QEMU has open could not be seen",
    help="Whether names still lead to the files that the guest has open is not known: QEMU's "
    "process belongs to another user, it is not the one at the other end of the socket, or it runs "
    "on another host. Operations go by the names then, and remove no file.",
    remedy="Run as root on the guest's host, on QEMU's own socket or libvirt's.",
)

RULES: Final = (
    FORMAT_CONFLICT,
    FORMAT_UNKNOWN,
    OPENED_BY_PROBING,
    BACKING_FORMAT_MISSING,
    BACKING_FORMAT_PROTOCOL,
    BACKING_NOT_RECORDED,
    CHAIN_DIFFERS,
    CHAIN_LOOP,
    FILE_ACTIVE_AND_BASE,
    FILE_REPLACED,
    NODE_UNREADABLE,
    HEADER_INVALID,
    GUEST_UNREADABLE,
    IMAGE_HEADER_IN_RAW,
    DATA_FILE,
    FILE_BEYOND_CHAIN,
    BACKING_OUTSIDE_FOLDER,
    BACKING_NAME_DIFFERS,
    FILE_ACTIVE_TWICE,
    OPERATION_OPEN,
    GUEST_PARTLY_READ,
    BACKING_FORMAT_WITHOUT_LUKS,
    RAW_SLICE,
    FILE_NOT_CHECKED,
    FILE_NOT_SEEN,
)
