"""
Compute as an installation runs it: as the user `nova`, with sudo and rootwrap as they are.

The user is known in the mount namespace of its rig alone, where `/etc/passwd` and what else names it
are files of the rig's. QEMU is the user `libvirt-qemu`, and libvirt gives it the files of the disks.
Cinder stays root, as it does in every rig.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

from qmpsnap.demo.embed import FEATURES_UNASKED

USER: Final = "nova"
UID: Final = 64060
"""Debian's for nova."""
FILTERS: Final = Path(__file__).resolve().parents[3] / "docs/rootwrap/qmpsnap.filters"
SUDOERS: Final = FILTERS.with_name("qmpsnap.sudoers")
_LINES: Final = {
    "passwd": f"{USER}:x:{UID}:{UID}:nova:/nonexistent:/usr/sbin/nologin\n",
    "group": f"{USER}:x:{UID}:\n",
    "shadow": f"{USER}:*:19000:0:99999:7:::\n",
    "sudoers": f"{USER} ALL = (root) NOPASSWD: {{prefix}}/bin/nova-rootwrap /etc/nova/rootwrap.conf *\n",
}
_SUDOERS: Final = """\
Defaults env_reset
Defaults secure_path="{prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL = (ALL:ALL) ALL
"""
_ROOTWRAP: Final = """\
[DEFAULT]
filters_path = /etc/nova/rootwrap.d
exec_dirs = {prefix}/bin,/usr/sbin,/usr/bin,/sbin,/bin
use_syslog = False
"""
_QEMU_CONF: Final = """\
security_driver = "none"
stdio_handler = "file"
user = "libvirt-qemu"
group = "libvirt-qemu"
dynamic_ownership = 1
"""
_LIBVIRTD_CONF: Final = f"""\
unix_sock_group = "{USER}"
unix_sock_rw_perms = "0770"
auth_unix_rw = "none"
"""
_THEIRS: Final = ("state", "log", "locks")


def prepare(folder: Path, prefix: str, *, sudo: bool) -> None:
    """Lay out what the user needs in the folder of a rig."""
    etc = folder / "etc"
    (etc / "nova/rootwrap.d").mkdir(parents=True)
    for name, line in _LINES.items():
        if name == "sudoers":
            ours = SUDOERS.read_text().replace("/opt/nova", "{prefix}")
            text = _SUDOERS + (line + ours if sudo else "")
        else:
            text = Path("/etc", name).read_text() + line
        (etc / name).write_text(text.replace("{prefix}", prefix))
        (etc / name).chmod({"shadow": 0o640, "sudoers": 0o440}.get(name, 0o644))
    (etc / "nova/rootwrap.conf").write_text(_ROOTWRAP.format(prefix=prefix))
    shutil.copy(f"{prefix}/etc/nova/rootwrap.d/compute.filters", etc / "nova/rootwrap.d")
    shutil.copy(FILTERS, etc / "nova/rootwrap.d")
    (folder / "libvirt/etc/qemu.conf").write_text(_QEMU_CONF + FEATURES_UNASKED)
    (folder / "libvirt/etc/libvirtd.conf").write_text(_LIBVIRTD_CONF)
    for name in _THEIRS:
        os.chown(folder / name, UID, UID)


def configure(folder: Path) -> None:
    """Put nova.conf where rootwrap's filters want it, with the database in a folder of nova's."""
    text = (folder / "nova.conf").read_text()
    text = text.replace(f"sqlite:///{folder}/nova", f"sqlite:///{folder}/state/nova")
    (folder / "etc/nova/nova.conf").write_text(text)


def mount(folder: Path) -> None:
    """Inside the rig: let the user be known, and reach the Python that it runs."""
    _open_ways(folder / "ways", [FILTERS.parents[2], Path(sys.base_prefix), Path(sys.prefix)])
    Path("/etc/nova").mkdir(exist_ok=True)
    for name in (*_LINES, "nova"):
        _mount("--bind", folder / "etc" / name, f"/etc/{name}")


def _open_ways(kept: Path, wanted: list[Path]) -> None:
    """Lay a folder that everybody may enter over each that they may not, with what is wanted below it."""
    while closed := [one for path in wanted for one in [*path.parents][::-1] if _is_closed(one)]:
        folder = min(closed, key=lambda one: len(one.parts))
        through = [path for path in wanted if folder in path.parents]
        for number, path in enumerate(through):
            (kept / str(number)).mkdir(parents=True, exist_ok=True)
            _mount("--bind", path, kept / str(number))
        _mount("-t", "tmpfs", "-o", "mode=755", "none", folder)
        for number, path in enumerate(through):
            path.mkdir(parents=True, exist_ok=True)
            _mount("--bind", kept / str(number), path)


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & stat.S_IXOTH


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def command(user: str, words: list[str]) -> list[str]:
    """Run compute as that user, with its own configuration."""
    return [*as_user(user), *words[:-1], "/etc/nova/nova.conf"]


def as_user(user: str) -> list[str]:
    """What makes a command run as a user."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
