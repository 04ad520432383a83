"""
A real Linux guest: Debian's cloud kernel, busybox, and Debian's qemu-guest-agent.

`.ci/guest` fetches the packages. What is made of them here is a kernel and an initramfs, kept
beside them. The guest mounts every virtio disk it has under /mnt, and writes to all of them.
"""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CACHE = (
    Path(
        os.environ.get("QMPSNAP_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qmpsnap"
    )
    / "guest"
)
MODULES = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
)
"""In this order; the kernel of Debian 13 has all but virtio_blk built in."""

COMMAND_LINE = "console=ttyS0 quiet panic=-1 tsc=reliable"
"""tsc: without it the guest counts ticks, and runs fast to make up for those it missed."""

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {" ".join(MODULES)}; do
    [ ! -e /modules/$module.ko ] || insmod /modules/$module.ko
done
for disk in /dev/vd?; do
    mkdir -p /mnt/${{disk#/dev/}}
    mount -t ext4 $disk /mnt/${{disk#/dev/}}
done
# Busy filesystems: a journal that is not empty.
while sleep 0.5; do for folder in /mnt/*; do date >> $folder/log; sync; done; done &
qemu-ga -m virtio-serial -p $(echo /dev/vport*p1) -t /run -F/etc/hook &
echo $! > /run/agent
wait
"""

HOOK = """#!/bin/sh
# What qemu-ga runs before a freeze and after a thaw.
echo $1 >> /run/hooks
[ $1 = thaw ] || sleep $(cat /run/delay 2>/dev/null || echo 0)
"""


@dataclass(frozen=True)
class Boot:
    """What QEMU loads."""

    kernel: Path
    initrd: Path


def is_there() -> bool:
    """Whether the packages and the tools are there."""
    tools = ("dpkg-deb", "mke2fs", "e2fsck", "dumpe2fs")
    return (CACHE / "complete").exists() and all(shutil.which(tool) for tool in tools)


def boot() -> Boot:
    """Make kernel and initramfs, unless an earlier run has."""
    made = Boot(CACHE / "vmlinuz", CACHE / "initrd.gz")
    recipe = CACHE / "recipe"
    wanted = Path(__file__).read_text()
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not recipe.exists() or recipe.read_text() != wanted:
            recipe.unlink(missing_ok=True)
            _make(made)
            recipe.write_text(wanted)
    return made


def _make(boot: Boot) -> None:
    work = CACHE / "work"
    shutil.rmtree(work, ignore_errors=True)
    root, unpacked = work / "root", work / "unpacked"
    unpacked.mkdir(parents=True)
    for package in CACHE.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    for folder in ("bin", "dev", "etc", "mnt", "modules", "proc", "run", "sys", "tmp"):
        (root / folder).mkdir(parents=True)
    (busybox,) = _found(unpacked, "bin/busybox")
    shutil.copy(busybox, root / "bin")
    agent = unpacked / "usr/sbin/qemu-ga"
    shutil.copy(agent, root / "bin")
    listed = subprocess.run(["ldd", agent], check=True, capture_output=True, text=True).stdout
    for library in re.findall(r"/\S+", listed):
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    (builtin,) = _found(unpacked, "lib/modules/*/modules.builtin")
    for name in MODULES:
        if f"/{name}.ko\n" in builtin.read_text():
            continue
        (module,) = _found(unpacked, f"lib/modules/*/kernel/**/{name}.ko*")
        data = module.read_bytes()
        if module.suffix == ".xz":
            data = lzma.decompress(data)
        (root / "modules" / f"{name}.ko").write_bytes(data)
    for path, text in (("init", INIT), ("etc/hook", HOOK)):
        (root / path).write_text(text)
        (root / path).chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = subprocess.run(
        [busybox, "cpio", "-o", "-H", "newc"],
        input=names.encode(),
        cwd=root,
        check=True,
        capture_output=True,
    ).stdout
    boot.initrd.write_bytes(gzip.compress(archive, 1))
    (kernel,) = unpacked.glob("boot/vmlinuz-*")
    shutil.copy(kernel, boot.kernel)
    shutil.rmtree(work)


def _found(unpacked: Path, pattern: str) -> list[Path]:
    """Files of packages; since Debian 13 all of them lie in /usr."""
    return [*unpacked.glob(pattern), *unpacked.glob(f"usr/{pattern}")]


def ext4(path: Path, size: int) -> None:
    """Make a raw image with an ext4 filesystem in it."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", path], check=True)


def needs_recovery(path: Path) -> bool:
    """
    Whether the ext4 in a raw image has a journal to replay: what a power cut leaves.

    A freeze empties the journal and takes the mark away (ext4_freeze(), fs/ext4/super.c).
    """
    told = subprocess.run(["dumpe2fs", "-h", path], check=True, capture_output=True, text=True)
    return "needs_recovery" in told.stdout


def is_clean(path: Path) -> bool:
    """Whether e2fsck finds nothing to mend in a raw image, without a replay."""
    return subprocess.run(["e2fsck", "-f", "-n", path], capture_output=True).returncode == 0
