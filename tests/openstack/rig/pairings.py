"""Which of the two sides is ours, as an operator would say it: by configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

NOVA: Final = ("DEFAULT.compute_driver=qmpsnap.LibvirtDriver",)
"""Of nova.conf, where the compute side is ours."""
CINDER: Final = (
    "DEFAULT.osapi_volume_extension=cinder.api.contrib.standard_extensions",
    "DEFAULT.osapi_volume_extension=qmpsnap.openstack.cinder.Extension",
    "nfs1.volume_driver=qmpsnap.openstack.cinder.NfsDriver",
)
"""Of cinder.conf, where the volume side is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """One way to combine them; `nova` and `cinder` are settings, `SECTION.KEY=VALUE`."""

    name: str
    nova: tuple[str, ...] = ()
    cinder: tuple[str, ...] = ()
    user: str = ""
    """Whom compute runs as; empty: root. Then sudo and rootwrap are real, and QEMU is another user's."""
    sudo: bool = True
    """Whether sudo lets that user start a helper."""
    has_processes: bool = False
    """Whether each service of Cinder is a process of its own, with a bus between them."""


KEY: Final = "5e" * 32
_KEY_MANAGER: Final = "key_manager.backend={}.keymgr.conf_key_mgr.ConfKeyManager"


def with_keys(pairing: Pairing) -> Pairing:
    """The same with the key manager of each project that needs no service: one key for all volumes."""
    keys = [
        (_KEY_MANAGER.format(one), f"key_manager.fixed_key={KEY}") for one in ("cinder", "nova")
    ]
    return replace(
        pairing,
        name=f"{pairing.name}-with-keys",
        cinder=(*pairing.cinder, *keys[0]),
        nova=(*pairing.nova, *keys[1]),
    )


def in_processes(pairing: Pairing, connection: str) -> Pairing:
    """
    The same with Cinder's services as they are installed, two workers of the API among them.

    Args:
        pairing: Which.
        connection: URL of Cinder's database.
    """
    settings = (
        f"database.connection={connection}",
        "DEFAULT.transport_url=files:/",
        "DEFAULT.osapi_volume_workers=2",
    )
    return replace(
        pairing,
        name=f"{pairing.name}-in-processes",
        cinder=(*pairing.cinder, *settings),
        has_processes=True,
    )


_BACKUPS: Final = (
    "DEFAULT.backup_driver=cinder.backup.drivers.posix.PosixBackupDriver",
    "DEFAULT.backup_file_size=134217728",
    "DEFAULT.backup_sha_block_size_bytes=1048576",
)
"""Of cinder.conf: backups into the folder `state/backup` of the rig, in pieces of 128 MiB."""


def with_backups(pairing: Pairing, *more: str) -> Pairing:
    """The same with Cinder's backup service, and more settings of cinder.conf."""
    return replace(
        pairing, name=f"{pairing.name}-with-backups", cinder=(*pairing.cinder, *_BACKUPS, *more)
    )


def with_two_back_ends(pairing: Pairing, *more: str) -> Pairing:
    """The same with nfs2, which has a share of its own and is ours, and more settings of cinder.conf."""
    settings = (
        "DEFAULT.enabled_backends=nfs1,nfs2",
        "nfs2.volume_driver=qmpsnap.openstack.cinder.NfsDriver",
    )
    return replace(
        pairing,
        name=f"{pairing.name}-with-two-back-ends",
        cinder=(*pairing.cinder, *settings, *more),
    )


STOCK: Final = Pairing(name="stock")
OUR_NOVA: Final = Pairing(name="our-nova", nova=NOVA)
BY_XML: Final = Pairing(name="our-nova-by-xml", nova=(*NOVA, "qmpsnap.allow_passthrough=False"))
"""Without asking QEMU itself."""
AS_NOVA: Final = Pairing(
    name="our-nova-as-nova",
    nova=NOVA,
    cinder=("nfs1.nas_secure_file_permissions=True",),
    user="nova",
)
"""As in an installation: the files of volumes are other users', and nova may not read them."""
AS_NOVA_BY_XML: Final = replace(AS_NOVA, name="our-nova-as-nova-by-xml", nova=BY_XML.nova)
"""The same without asking QEMU itself."""
AS_NOVA_ALONE: Final = replace(AS_NOVA, name="our-nova-without-helper", sudo=False)
OUR_CINDER: Final = Pairing(name="our-cinder", cinder=CINDER)
OURS: Final = Pairing(name="ours", nova=NOVA, cinder=CINDER)
