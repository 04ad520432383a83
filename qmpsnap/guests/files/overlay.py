"""
The overlay file of a new snapshot: made, or looked at when the volume service made it already.

The volume service that made it may have guessed the backing format (a stock Cinder does), and
`blockdev-snapshot` checks neither header nor size: this is the last place to look.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Identity
from qmpsnap.formats.qcow2 import (
    READ_SIZE,
    BadHeader,
    first_cluster,
    with_backing,
    without_encryption,
)
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.bytes import keep_from_qemu, lock_byte, qemu_has
from qmpsnap.guests.files.folders import PREFIX, SUFFIX, is_incomplete, sync_folder
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.helper import Helper, lent
from qmpsnap.guests.files.identity import identity, identity_of
from qmpsnap.guests.files.lease import is_open_nowhere
from qmpsnap.guests.files.locks import Claim
from qmpsnap.guests.files.mounts import loses
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.names import spellings, tidy
from qmpsnap.operations.plan_snapshot import CreatePlan

_EMPTY_LIMIT: Final = 8 * 1024 * 1024
"""Bytes. An encrypted overlay without data has 2.3 MiB: two of them are LUKS's."""
_ENCRYPTED_BY_HAND: Final = (
    "Make it, as Cinder does, with the passphrase of the disk: `qemu-img create -f qcow2 -u "
    "-b {plan.backing_name} -F {plan.backing_format} -o encrypt.format=luks,encrypt.key-secret=s0 "
    "--object secret,id=s0,file=FILE {plan.overlay} {plan.virtual_size}`."
)


class OverlayUnsuitable(Refused):
    """The file that is to become the overlay is there already, and must not be used."""

    msg = "{self.path} cannot become the overlay: {self.reason}"
    remedy = "{self.advice}"

    path: str
    reason: str
    advice: str = (
        "Choose another name: it may be another guest's, which does not show while it is off."
    )


class FolderUnsuitable(Refused):
    """The new file would lie where files are not kept, or nowhere."""

    msg = "no new file can be made in {self.folder}: {self.reason}"
    remedy = "Choose a folder that keeps its files: `qmpsnap create --into DIR`."

    folder: str
    reason: str


class CannotMake(Failed):
    """The overlay file could not be made; the guest was not touched."""

    msg = "cannot make the overlay {self.path}: {self.reason}"
    remedy = "Mend the cause (space, permission), then give the same command again."
    changed = "no"

    path: str
    reason: str


def look_at_overlay(plan: CreatePlan) -> Overlay:
    """
    Look at the file that is to become the overlay, and at its folder.

    Raises:
        FolderUnsuitable: The folder does not keep files, or is none.
        OverlayUnsuitable: The file that is there is not an empty qcow2 overlay of this disk.
        QemuImgMissing: It cannot be looked into.
    """
    _check_folder(plan)
    if os.path.lexists(plan.overlay):
        return _taken(plan)
    if plan.secret is not None:
        reason = "it is not there, and an encrypted one is not made here"
        raise OverlayUnsuitable(plan.overlay, reason, _ENCRYPTED_BY_HAND.format(plan=plan))
    return Overlay(is_there=False)


def _check_folder(plan: CreatePlan) -> None:
    """A block device has its name in `/dev`, where a file would fill the host's memory."""
    folder = os.path.dirname(plan.overlay)
    try:
        reason = loses(folder, plan.active.path)
    except (OSError, ValueError) as error:
        raise FolderUnsuitable(folder, str(error)) from error
    if reason is not None:
        raise FolderUnsuitable(folder, reason)
    if not os.path.isdir(folder):
        raise FolderUnsuitable(folder, "it is not a folder")


def make_overlay(
    path: str,
    *,
    size: int,
    backing_name: str,
    backing_format: str,
    like: str,
    claim: Claim | None = None,
) -> Identity:
    """
    Write an overlay under a temporary name, then link.

    The final name appears complete or not at all, and never replaces a file that came there in
    between. Killed at any point, this leaves either nothing, a hidden temporary file, or a complete
    and unused overlay under the final name, which the next call takes.

    Args:
        path: The final name.
        size: Bytes that its reader sees.
        backing_name: What its header names.
        backing_format: The format of that.
        like: A file whose owner and mode it gets.
        claim: Has the new file locked, before it gets its name; None: it is not.

    Returns:
        What it is, whatever comes to have its name.

    Raises:
        OverlayUnsuitable: Something has come to its name just now.
        QemuImgMissing, QemuImgFailed, CannotMake: It could not be made.
    """
    folder = os.path.dirname(path)
    try:
        descriptor, temporary = tempfile.mkstemp(SUFFIX, PREFIX, folder)
    except OSError as error:
        raise CannotMake(path, str(error)) from error
    try:
        qemu_img.create_overlay(
            temporary, backing_name=backing_name, backing_format=backing_format, size=size
        )
        _like(temporary, like)
        os.fsync(descriptor)
        made = identity_of(os.fstat(descriptor))
        if claim is not None:
            with suppress(OSError):  # its file system knows no such locks
                lock_byte(descriptor)
        os.link(temporary, path)
        try:
            os.unlink(temporary)
            sync_folder(folder)
        except BaseException:
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
                    os.unlink(path)
            raise
        if claim is not None:
            claim.made(path, os.dup(descriptor))
    except FileExistsError as error:
        advice = "Another program made it just now; look at it, then try again."
        raise OverlayUnsuitable(path, "it is there already", advice) from error
    except OSError as error:
        raise CannotMake(path, str(error)) from error
    finally:
        os.close(descriptor)
        with suppress(OSError):  # gone, if all went well
            os.unlink(temporary)
    return made


def _like(path: str, model: str) -> None:
    """Give the overlay the owner and mode of the active file, so that QEMU may open it."""
    status = os.stat(model)
    os.chmod(path, stat.S_IMODE(status.st_mode))
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.chown(path, status.st_uid, status.st_gid)
        except PermissionError as error:
            reason = f"only root can give it the owner of {model}"
            raise PermissionError(error.errno, reason) from error


def _taken(plan: CreatePlan) -> Overlay:
    """Look at an overlay that the volume service made; its backing format may be corrected."""

    def unsuitable(reason: str, advice: str = OverlayUnsuitable.advice) -> OverlayUnsuitable:
        if not is_open_nowhere(plan.overlay):
            # It may be the active file of another guest.
            advice = "Another program may have it open: choose another name."
        return OverlayUnsuitable(plan.overlay, reason, advice)

    status = os.lstat(plan.overlay)
    if not stat.S_ISREG(status.st_mode):
        raise OverlayUnsuitable(plan.overlay, "it is not a regular file")
    what = identity_of(status)
    spare = _own_link(plan.overlay)
    if os.lstat(plan.overlay).st_nlink != (1 if spare is None else 2):
        # Nobody is asked who has it open: a lease opens it.
        reason = "the file has another name as well, and may be somebody else's"
        raise OverlayUnsuitable(plan.overlay, reason)
    try:
        header = read_header(plan.overlay, follow=False)
    except BadHeader as error:
        raise unsuitable(f"it is not qcow2 ({error.reason})") from error
    except OSError as error:
        raise unsuitable(f"it cannot be read ({error})", "Mend its permissions.") from error
    if header.data_file is not None:
        raise unsuitable("its header names a data file")
    if header.encryption is not None and plan.secret is None:
        raise unsuitable("it is encrypted")
    if header.encryption != "luks" and plan.secret is not None:
        reason = "it has no LUKS inside, and would hold in plain what the guest writes"
        raise unsuitable(reason, _ENCRYPTED_BY_HAND.format(plan=plan))
    if header.virtual_size != plan.virtual_size:
        raise unsuitable(
            f"it has {header.virtual_size} bytes, the disk has {plan.virtual_size}",
            "Make it anew with the size of the disk.",
        )
    backing = f"`-b {plan.backing_name} -F {plan.backing_format}`"
    remake = f"Make it anew with {backing}, remove it if nobody needs it, or choose another name."
    if header.backing_file is None:
        raise unsuitable("its header names no backing file", remake)
    if not _same_file(plan, header.backing_file):
        raise unsuitable(
            f"it is backed by {header.backing_file!r}, not by {plan.backing_name!r}", remake
        )
    if plan.secret is not None and header.backing_format != plan.backing_format:
        # To rewrite it, qemu-img would need the key.
        raise unsuitable(f"its header calls its backing file {header.backing_format}", remake)
    try:
        with readable(plan.overlay) as file:
            empty, consistent = qemu_img.is_empty(file), qemu_img.is_consistent(file)
    except qemu_img.QemuImgFailed as error:
        raise unsuitable(f"it cannot be looked into ({error.reason})") from error
    except OSError as error:
        raise unsuitable(f"it cannot be looked into ({error.strerror})") from error
    if header.is_corrupt:
        raise unsuitable("it is marked as corrupt")
    if not consistent:
        # The guest's first writes would go into its tables.
        raise unsuitable("it is corrupt (`qemu-img check`)")
    if header.snapshots:
        raise unsuitable("it holds internal snapshots")
    if not empty:
        raise unsuitable(
            "it holds data already",
            "After an active commit a left-over overlay still looks valid and is stale: remove "
            "it, or choose another name.",
        )
    recorded = (header.backing_file, header.backing_format)
    if identity(plan.overlay) != what:
        raise unsuitable("it was replaced while it was looked at")
    return Overlay(is_there=True, recorded=recorded, spare=spare, identity=what)


def correct_overlay(path: str, *, backing_name: str, backing_format: str) -> None:
    """
    Record another backing file, or its format, in the header of an overlay that nobody has open.

    Raises:
        QemuImgMissing, QemuImgFailed, BadHeader: It is not recorded.
    """
    helper = lent()
    try:
        if read_header(path).encryption is not None:
            _correct_without_key(path, backing_name, backing_format)
        elif helper is None or os.access(path, os.W_OK, effective_ids=True):
            qemu_img.record_backing(path, backing_name=backing_name, backing_format=backing_format)
        else:
            _correct_by(helper, path, backing_name, backing_format)
    except OSError as error:
        raise qemu_img.QemuImgFailed("rebase", path, error.strerror or str(error)) from error
    header = read_header(path)
    if (header.backing_file, header.backing_format) != (backing_name, backing_format):
        raise qemu_img.QemuImgFailed("rebase", path, "the header is still wrong afterwards")


def _correct_without_key(path: str, backing_name: str, backing_format: str) -> None:
    """
    Write the header as qemu-img does, which would open the file with its key first.

    Raises:
        OSError: A QEMU has it open, or it cannot be written.
        BadHeader: Its header has no room for that.
    """
    with open(path, "r+b", buffering=0) as file:
        descriptor = file.fileno()
        with suppress(OSError):  # its file system knows no such locks
            keep_from_qemu(descriptor)
        if qemu_has(descriptor):
            raise OSError(errno.EAGAIN, "a QEMU has it open")
        size = first_cluster(os.pread(descriptor, READ_SIZE, 0))
        header = with_backing(os.pread(descriptor, size, 0), backing_name, backing_format)
        if os.pwrite(descriptor, header, 0) != size:
            raise OSError(errno.EIO, "the header was not written whole")
        os.fsync(descriptor)


@contextmanager
def readable(path: str) -> Iterator[str]:
    """
    A qcow2 file whose tables qemu-img is to look at; a copy where it could not open the file.

    That is where this user may not, and where the file is encrypted. Tables never are.

    Raises:
        OSError: It cannot be read, or is to be copied and larger than an overlay without data.
        BadHeader: It is no qcow2 file.
    """
    helper = lent()
    if helper is not None and not os.access(path, os.R_OK, effective_ids=True):
        data = helper.whole(path)
    elif read_header(path).encryption is None:
        yield path
        return
    else:
        data = _small(path)
    with _copy_of(without_encryption(data)) as copy:
        yield copy


def _small(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_EMPTY_LIMIT + 1)
    if len(data) > _EMPTY_LIMIT:
        raise OSError(errno.EFBIG, f"it is larger than {_EMPTY_LIMIT} bytes, and not empty")
    return data


@contextmanager
def _copy_of(data: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="qmpsnap-") as copy:
        copy.write(data)
        copy.flush()
        yield copy.name


def _correct_by(helper: Helper, path: str, backing_name: str, backing_format: str) -> None:
    """
    Let qemu-img change a copy, and the helper write the cluster that differs.

    Raises:
        OSError: The helper refuses it, or cannot.
        QemuImgMissing, QemuImgFailed: qemu-img does, or more than the first cluster would change.
    """
    before = helper.whole(path)
    with _copy_of(before) as copy:
        qemu_img.record_backing(copy, backing_name=backing_name, backing_format=backing_format)
        with open(copy, "rb") as file:
            after = file.read()
    first = first_cluster(before)
    if before[first:] != after[first:]:
        raise qemu_img.QemuImgFailed("rebase", path, "it would change more than the header")
    helper.mend(path, before[:first], after[:first])


def _own_link(overlay: str) -> str | None:
    """The temporary name that `make_overlay` leaves beside the overlay when it is killed."""
    folder = os.path.dirname(overlay)
    for name in os.listdir(folder):
        if is_incomplete(name):
            path = os.path.join(folder, name)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(path), os.lstat(overlay)):
                    return path
    return None


def _same_file(plan: CreatePlan, backing_name: str) -> bool:
    """
    Whether a name in the overlay's header is the active file.

    Compared as text: a hostile name is not looked up. Only Cinder's own two forms are taken, the
    bare name and the full path; with `..` in it, a name may lead through a link to anywhere.
    """
    if ":" in backing_name.partition("/")[0]:
        return False  # an address for QEMU, not a file
    path = os.path.join(os.path.dirname(plan.overlay), backing_name)
    return tidy(path) in spellings(plan.active)
