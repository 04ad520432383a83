"""The command by which a person writes the header of a file that nobody has open. Pure."""

from __future__ import annotations

import shlex
from typing import Final

from qmpsnap.formats.layers import Layer

_PASSPHRASE: Final = "PASSPHRASE_FILE"
"""Stands where libvirt has no secret: a file with the passphrase, and nothing else."""


def rebase(overlay: Layer, format_: str, name: str, backing_format: str | None) -> str:
    """
    `qemu-img rebase -u`, quoted for a shell.

    qemu-img writes the header of an encrypted file only after it has opened it with its key
    (`Parameter 'encrypt.key-secret' is required for cipher`, up to QEMU 10.0): libvirt, which has
    the secret, hands it over without a file.

    Args:
        overlay: The layer whose header it is.
        format_: Its format, or what stands for one that nobody knows.
        name: What the header is to name; empty: nothing.
        backing_format: The format of that; None with an empty name.
    """
    path = overlay.path or overlay.file
    backing = ["-b", name, *(() if backing_format is None else ("-F", backing_format))]
    words = ["qemu-img", "rebase", "-u"]
    if "encrypted" not in overlay.flags:
        return shlex.join([*words, "-f", format_, *backing, path])
    secret = f"secret,id=s0,file={_PASSPHRASE}"
    if overlay.secret is not None:
        secret = "secret,id=s0,format=base64,file=/dev/stdin"
    file = path.replace(",", ",,")
    opened = f"driver={format_},file.filename={file},encrypt.key-secret=s0"
    command = shlex.join([*words, "--object", secret, "--image-opts", *backing, opened])
    if overlay.secret is None:
        return command
    return f"{shlex.join(['virsh', 'secret-get-value', overlay.secret])} | {command}"
