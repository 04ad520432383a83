"""
The files of an encrypted volume: qcow2 with LUKS inside, as Cinder makes them.

`qemu-img` opens a chain of them only by options that give each file the key. Upstream's commands give
it to two, and call whatever lies below an overlay `volume-<id>`: of three layers none can be deleted,
and no snapshot can be taken once a pull has merged `volume-<id>` away. Its copy of a snapshot is LUKS
without qcow2, which is called qcow2 where `nfs_qcow2_volumes` is set.

Source: _do_create_snapshot, _img_commit and _rebase_img, cinder/volume/drivers/remotefs.py;
_copy_volume_from_snapshot, cinder/volume/drivers/nfs.py; cinder 29.0.0.
"""

from __future__ import annotations

import os
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from castellan import key_manager
from cinder.image import image_utils
from cinder.volume import volume_utils
from oslo_config import cfg

from qmpsnap.errors import Refused
from qmpsnap.ledger.values import Statement

Words = tuple[str, ...]
"""Arguments of `qemu-img`."""
Layer = tuple[str, str]
"""Path and format, raw or qcow2."""


class KeyUnfit(Refused):
    """The key that the key manager gives is not that of the files."""

    msg = "the key of volume {self.volume} does not open its chain: {self.reason}"
    remedy = (
        "Have the key manager give the key that the volume was made with. No file was made, and "
        "nothing was asked of compute."
    )

    volume: str
    reason: str


class Keyed(NamedTuple):
    """What is asked here of a volume: Cinder's, or one that it is about to make."""

    id: str
    obj_context: Any
    encryption_key_id: str | None


def layers_of(folder: str, files: Iterable[Statement]) -> list[Layer]:
    """Layers as the ledger has them, in the folder of their volume."""
    return [(os.path.join(folder, one.file), str(one.format)) for one in files]


def is_encrypted(volume: Any) -> bool:
    """Whether Cinder has a key for a volume."""
    return getattr(volume, "encryption_key_id", None) is not None


@contextmanager
def opening(volume: Any, layers: Sequence[Layer]) -> Iterator[Words]:
    """
    Give the arguments by which `qemu-img` opens a chain.

    Args:
        volume: Whose chain it is. If it is encrypted, its key is in a temporary file meanwhile.
        layers: The uppermost first. For an encrypted volume, all that is to be opened. Otherwise the
            first must be qcow2, and `qemu-img` finds those below it by the headers.
    """
    if not is_encrypted(volume):
        yield "-f", "qcow2", layers[0][0]
        return
    with _key(volume, "key") as words:
        yield *words, "--image-opts", _options(layers, "key")


@contextmanager
def making(volume: Any) -> Iterator[Words]:
    """Give the arguments by which `qemu-img` makes a new file of a volume in qcow2."""
    if not is_encrypted(volume):
        yield ()
        return
    how = volume_utils.check_encryption_provider(volume, volume.obj_context)
    spec = image_utils.decode_cipher(how["cipher"], how["key_size"])
    options = {
        "encrypt.format": "luks",
        "encrypt.key-secret": "new",
        "encrypt.cipher-alg": spec["cipher_alg"],
        "encrypt.cipher-mode": spec["cipher_mode"],
        "encrypt.ivgen-alg": spec["ivgen_alg"],
    }
    with _key(volume, "new") as words:
        yield *words, "-o", ",".join(f"{name}={value}" for name, value in options.items())


def opening_below(made: Words, layers: Sequence[Layer]) -> Words:
    """
    The arguments by which `qemu-img` opens a chain with the key that the next file is made with.

    Args:
        made: Those of `making`, for an encrypted volume.
        layers: The uppermost first, all that is to be opened.
    """
    return *made[:2], "--image-opts", _options(layers, "new")


@contextmanager
def _key(volume: Any, name: str) -> Iterator[Words]:
    key = key_manager.API(cfg.CONF).get(volume.obj_context, volume.encryption_key_id)
    folder = volume_utils.image_conversion_dir()
    with NamedTemporaryFile("wb", prefix="luks_", dir=folder) as file:
        file.write(hexlify(key.get_encoded()))
        file.flush()
        yield "--object", f"secret,id={name},format=raw,file={file.name}"


def _options(layers: Sequence[Layer], secret: str) -> str:
    options = []
    for depth, (path, format_) in enumerate(layers):
        name = path.replace(",", ",,")
        if format_ == "qcow2":
            words = ("driver=qcow2", f"file.filename={name}", f"encrypt.key-secret={secret}")
        else:  # a copy of a snapshot, made by upstream's driver
            words = ("driver=luks", f"file.filename={name}", f"key-secret={secret}")
        options += ["backing." * depth + word for word in words]
    return ",".join(options)
