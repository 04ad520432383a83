"""
What is asked for: Nova's dictionaries, parsed once.

    create_info = {"type": "qcow2", "new_file": NAME, "snapshot_id": ID}
    delete_info = {"type": "qcow2", "file_to_merge": NAME | null, "merge_target_file": NAME | null}

Both may name the operation, for the update that it ends in: `id` in the first, `operation` in the
second.

Source: nova/virt/libvirt/driver.py (volume_snapshot_create, volume_snapshot_delete) and
cinder/volume/drivers/remotefs.py (_create_snapshot_online, _delete_snapshot_online).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from qmpsnap.errors import Refused

OVERLAY_FORMAT: Final = "qcow2"
"""The only type that Nova and Cinder know for a snapshot."""


class BadRequest(Refused):
    """A dictionary from Nova or Cinder that cannot be acted on."""

    msg = "{self.where}: {self.reason}"
    remedy = "Send what Cinder's remotefs driver sends: {self.expected}."

    where: str
    reason: str
    expected: str


NAME_MAX: Final = 255
"""Bytes in the name of a file; limits.h."""
TOO_LONG: Final = f"it is longer than {NAME_MAX} bytes"


class BadFileName(Refused):
    """A name that is not the bare name of a file of this volume."""

    msg = "{self.field} {self.name!r} is refused: {self.reason}"
    remedy = "Give the bare name of a file in the volume's own folder, such as {self.example!r}."

    field: str
    name: str
    reason: str
    example: str = "volume-<id>.<snapshot id>"


class BadFolder(BadFileName):
    """The place named for new files is not a folder."""

    remedy = "Give the whole path of a folder, such as {self.example!r}."


class CreateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take a snapshot: put a new overlay on a disk."""

    disk: str
    """Target, serial (volume id), device id or node name."""
    new_file: str | None
    """Bare name of the overlay; made when it is not there. None: `<volume>.<snapshot>`."""
    snapshot: str
    into: str | None = None
    """Folder of the overlay, absolute. None: the active file's."""
    over: str | None = None
    """An older snapshot, over whose data the overlay is to lie: a revert. None: the active file."""


Method = Literal["auto", "commit", "pull"]


class DeleteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    Delete a snapshot, in Nova's words.

    With a `merge_target_file`, `file_to_merge` is committed into it. Without, the active file
    pulls what lies above `file_to_merge` (its new backing file; None: everything) into itself.
    """

    disk: str
    file_to_merge: str | None
    merge_target_file: str | None


class NamedDeleteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Delete a snapshot by the name that people gave it."""

    disk: str
    snapshot: str
    method: Method = "auto"


_UNSPEAKABLE: Final = re.compile("[\ud800-\udfff\ufffe\uffff]")
"""What JSON may hold, and QMP or libvirt's XML cannot: halves of characters, those that stand for
a byte of a file's name too (surrogateescape), and what is no character."""
_CREATE_EXPECTED: Final = '{"type": "qcow2", "new_file": …, "snapshot_id": …}'
_DELETE_EXPECTED: Final = '{"type": "qcow2", "file_to_merge": …, "merge_target_file": …}'


def create_token(create_info: Mapping[str, object]) -> str | None:
    """
    Return the caller's name for a create; None where it gave none.

    Raises:
        BadRequest: It is not a text, or empty; or `create_info` is not a dictionary.
    """
    return _token("create_info", create_info, "id")


def delete_token(delete_info: Mapping[str, object]) -> str | None:
    """
    Return the caller's name for a delete; see `create_token`.

    Raises:
        BadRequest: As there.
    """
    return _token("delete_info", delete_info, "operation")


def _token(where: str, info: Mapping[str, object], key: str) -> str | None:
    if not isinstance(info, Mapping):
        raise BadRequest(where, "it is not a dictionary", "a dictionary")
    return _text(where, info, key, f'"{key}": a text, or no such key') if key in info else None


def create_request(volume_id: str, create_info: Mapping[str, object]) -> CreateRequest:
    """
    Parse Nova's arguments of `volume_snapshot_create`. Unknown keys are ignored, as Nova does.

    Raises:
        BadRequest: Unknown type, or a key that is missing or of another type.
        BadFileName: `new_file` is not a bare file name.
    """
    where = "create_info"
    _check_type(where, create_info, _CREATE_EXPECTED)
    return CreateRequest(
        disk=volume_id,
        new_file=checked_name("new_file", _text(where, create_info, "new_file", _CREATE_EXPECTED)),
        snapshot=_text(where, create_info, "snapshot_id", _CREATE_EXPECTED),
    )


def delete_request(volume_id: str, delete_info: Mapping[str, object]) -> DeleteRequest:
    """
    Parse Nova's arguments of `volume_snapshot_delete`.

    Raises:
        BadRequest: Unknown type, a key that is missing or of another type, or a merge target
            without a file to merge.
        BadFileName: One of the names is not a bare file name.
    """
    where = "delete_info"
    _check_type(where, delete_info, _DELETE_EXPECTED)
    names: dict[str, str | None] = {}
    for key in ("file_to_merge", "merge_target_file"):
        if key not in delete_info:
            raise BadRequest(where, f"{key!r} is missing", _DELETE_EXPECTED)
        name = delete_info[key]
        if name is not None:
            name = checked_name(key, _text(where, delete_info, key, _DELETE_EXPECTED))
        names[key] = name
    if names["merge_target_file"] is not None and names["file_to_merge"] is None:
        raise BadRequest(where, "a merge target without a file to merge", _DELETE_EXPECTED)
    return DeleteRequest(disk=volume_id, **names)


def checked_name(field: str, name: str) -> str:
    """
    Return `name` if it is the bare name of a file.

    Raises:
        BadFileName: It is empty, `.` or `..`, has a slash, NUL or another control character, is
            longer than 255 bytes, or is what QEMU would read as more than a name.
    """
    reason = None
    if name in ("", ".", ".."):
        reason = "it names no file"
    elif "/" in name:
        reason = "it has a slash"
    elif any(ord(character) < 32 or ord(character) == 127 for character in name):
        reason = "it has control characters"
    elif _UNSPEAKABLE.search(name):
        reason = "it has half a character, or one that is none"
    elif len(name.encode()) > NAME_MAX:
        reason = TOO_LONG
    elif ":" in name:
        # QEMU reads `json:…` and `proto:…` in a backing name as more than a file name.
        reason = "it has a colon, which QEMU would take for a protocol"
    if reason is not None:
        raise BadFileName(field, name, reason)
    return name


def checked_folder(field: str, name: str) -> str:
    """
    Return `name` if it can be the name of a folder.

    Raises:
        BadFolder: It is empty, or has control characters, or half a character.
    """
    reason = None
    if not name:
        reason = "it names no folder"
    elif any(ord(character) < 32 or ord(character) == 127 for character in name):
        reason = "it has control characters"
    elif _UNSPEAKABLE.search(name):
        reason = "it has half a character, or one that is none"
    if reason is not None:
        raise BadFolder(field, name, reason, "/var/lib/libvirt/images")
    return name


def _check_type(where: str, info: Mapping[str, object], expected: str) -> None:
    if info.get("type") != OVERLAY_FORMAT:
        raise BadRequest(where, f"type {info.get('type')!r} is not {OVERLAY_FORMAT!r}", expected)


def _text(where: str, info: Mapping[str, object], key: str, expected: str) -> str:
    value = info.get(key)
    if not isinstance(value, str) or not value:
        problem = "is missing" if key not in info else "is not a text"
        raise BadRequest(where, f"{key!r} {problem}", expected)
    return value
