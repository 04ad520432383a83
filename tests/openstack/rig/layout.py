"""The folder of a rig: configuration, shims for what the machine lacks, ports."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from qmpsnap.demo.embed import FEATURES_UNASKED
from tests.openstack.rig import unprivileged
from tests.openstack.rig.pairings import Pairing
from tests.openstack.rig.settings import with_settings
from tests.rig import quick_keys

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = "1" * 32
TOKEN: Final = f"admin:{PROJECT}"
EXPORT: Final = "127.0.0.1:/export"
OTHER_EXPORT: Final = "127.0.0.1:/export2"
"""Of the back end nfs2, which is not enabled in most rigs; outside, `share2`."""
LIBVIRT: Final = {
    "etc": "/etc/libvirt",
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
"""libvirt's folders by those of the rig that are mounted over them."""
_QEMU_CONF: Final = """\
security_driver = "none"
stdio_handler = "file"
user = "root"
group = "root"
dynamic_ownership = 0
"""
_SHIMS: Final = {"sudo": 'exec "$@"', "mount.nfs": "exit 0"}
_QUICK_KEYS: Final = """\
[[ "$*" == *encrypt.format=luks,* ]] || exec {real} "$@"
export LD_PRELOAD={clock}
exec {real} "${{@/#encrypt.format=luks,/encrypt.format=luks,encrypt.iter-time=10,}}\""""
"""LUKS is to take two seconds to make a key out of a passphrase, whenever a file is opened: here less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything of a rig is."""

    folder: str
    mount: str
    """Where Cinder and Nova see the share; outside it is `share`."""
    cinder_port: int
    compute_port: int
    api_port: int
    """Of the second API (api.py), where there is one."""
    user: str = ""
    """Whom compute runs as; see unprivileged.py."""
    has_processes: bool = False
    """Whether each service of Cinder is a process of its own, as it is installed."""
    prefix: str = sys.prefix

    @property
    def services(self) -> tuple[str, ...]:
        """What runs in it, in the order in which they can be waited for; see services.py."""
        cinder = ("cinder-api", "cinder-scheduler", "cinder-volume")
        return ("libvirtd", *(cinder if self.has_processes else ("cinder",)), "compute")

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def share(self) -> Path:
        """The share, as seen from outside."""
        return self.path / "share"

    @property
    def uri(self) -> str:
        """libvirtd, as seen from outside."""
        return f"qemu+unix:///system?socket={self.path}/libvirt/run/libvirt-sock"

    @property
    def control(self) -> Path:
        """The socket of who starts and stops its services; see inside.py."""
        return self.path / "control"

    @property
    def cinder(self) -> str:
        """Cinder's API."""
        return f"http://127.0.0.1:{self.cinder_port}/v3/{PROJECT}"

    @property
    def compute(self) -> str:
        """What stands for nova-api."""
        return f"http://127.0.0.1:{self.compute_port}"


def layout_of(folder: Path) -> Layout:
    """Read the layout of a rig that is prepared."""
    return Layout(**json.loads((folder / "rig.json").read_text()))


def mount_of(folder: Path, export: str) -> Path:
    """Where a share is to be mounted; os-brick names the folder so."""
    return folder / "mnt" / hashlib.md5(export.encode(), usedforsecurity=False).hexdigest()


def prepare(folder: Path, pairing: Pairing) -> Layout:
    """Lay out a fresh rig in a folder that is empty or not there."""
    for name in (
        "bin",
        "log",
        "locks",
        "state",
        "share",
        "share2",
        *(f"libvirt/{one}" for one in LIBVIRT),
    ):
        (folder / name).mkdir(parents=True)
    mount, other_mount = mount_of(folder, EXPORT), mount_of(folder, OTHER_EXPORT)
    mount.mkdir(parents=True)
    other_mount.mkdir()
    (folder / "shares").write_text(f"{EXPORT}\n")
    (folder / "shares2").write_text(f"{OTHER_EXPORT}\n")
    (folder / "libvirt/etc/qemu.conf").write_text(_QEMU_CONF + FEATURES_UNASKED)
    encrypts = any(one.startswith("key_manager.") for one in pairing.cinder)
    shims = dict(_SHIMS)
    if encrypts:
        real = shutil.which("qemu-img")
        shims["qemu-img"] = _QUICK_KEYS.format(real=real, clock=quick_keys.clock())
    for name, line in shims.items():
        shim = folder / "bin" / name
        shim.write_text(f"#!/bin/bash\n{line}\n")
        shim.chmod(0o755)
    layout = Layout(
        folder=str(folder),
        mount=str(mount),
        cinder_port=free_port(),
        compute_port=free_port(),
        api_port=free_port(),
        user=pairing.user,
        has_processes=pairing.has_processes,
    )
    if layout.user:
        unprivileged.prepare(folder, layout.prefix, sudo=pairing.sudo)
    (folder / "rig.json").write_text(json.dumps(asdict(layout), indent=1))
    configure(layout, pairing)
    return layout


def configure(layout: Layout, pairing: Pairing) -> None:
    """Write the configuration of both sides; a service reads it when it starts."""
    values = asdict(layout) | {"cinder": layout.cinder, "compute": layout.compute}
    wanted = {"cinder": pairing.cinder, "nova": pairing.nova, "rootwrap": (), "api": ()}
    for name, settings in wanted.items():
        text = (HERE / f"{name}.conf.in").read_text().format(**values)
        (layout.path / f"{name}.conf").write_text(with_settings(text, settings))
    if layout.user:
        unprivileged.configure(layout.path)


_TAKEN: Final[list[socket.socket]] = []


def free_port() -> int:
    """
    A port for a service that listens later, and again when it is restarted.

    It stays bound for as long as this process runs, so that nobody else is given it. A service that
    sets SO_REUSEADDR, as all here do, can have it all the same: socket(7).
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    _TAKEN.append(one)
    return int(one.getsockname()[1])
