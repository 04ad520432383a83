"""How libvirt is told to open a file that is encrypted. Pure."""

from __future__ import annotations

from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]


def luks(secret: str) -> etree._Element:
    """
    `<encryption>` of a qcow2 file with LUKS inside, which QEMU decrypts.

    The engine is named: libvirt fills it in where it reads a definition, but not where it takes an
    overlay into one. The guest then does not start again until its definition is read anew
    (`Unexpected enum value 0 for virStorageEncryptionEngine`, seen with 9.0.0). Versions before 7.9
    know no engine and pass over it: no XML here is validated.

    Args:
        secret: UUID of libvirt's secret with the passphrase.
    """
    made: etree._Element = E.encryption(
        E.secret(type="passphrase", uuid=secret), format="luks", engine="qemu"
    )
    return made
