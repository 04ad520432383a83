"""A real libvirtd asks the hook before it starts a guest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import libvirt
import pytest
from msgspec.structs import replace

import qmpsnap
from qmpsnap.guests.files.door import take_file
from qmpsnap.journal.markers import steps_for
from qmpsnap.monitor.virt import open_connection
from tests.rig import images
from tests.rig.daemon import Daemon, which
from tests.rig.off import DOMAIN
from tests.rig.rig import BASE, SIZE
from tests.unit.journal_samples import creating

HOOK = """#!/bin/sh
export PYTHONPATH={lib} QMPSNAP_STATE={folder}/state
exec {python} -m qmpsnap.hook "$@"
"""


def may_mount() -> bool:
    """Whether a mount of our own can be made: libvirt looks for hooks in /etc/libvirt alone."""
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0 and which("libvirtd") is not None


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    if not may_mount():
        pytest.skip("needs root, mount namespaces, and Debian's libvirt-daemon")
    with TemporaryDirectory(prefix="ql-", dir="/var/tmp") as name:
        folder = Path(name)
        daemon = Daemon(folder)
        shutil.copytree(Path(qmpsnap.__file__).parent, folder / "lib" / "qmpsnap")
        hook = folder / "etc" / "hooks" / "qemu"
        hook.parent.mkdir(parents=True)
        python = shutil.which("python3", path="/usr/bin") or sys.executable
        hook.write_text(HOOK.format(lib=folder / "lib", folder=folder, python=python))
        hook.chmod(0o755)
        images.create_raw(folder / BASE, SIZE)
        daemon.give(folder)
        script = f'mount --bind {folder}/etc /etc/libvirt && exec "$@"'
        daemon._as_user = ["unshare", "-m", "sh", "-c", script, "-", *daemon._as_user]
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            daemon.kill_guests()


@pytest.mark.parametrize("way", ["file", "volume of a pool"])
def test_a_start_is_refused_until_it_is_settled(daemon: Daemon, way: str) -> None:
    volume = daemon.folder / BASE
    (step, *_) = steps_for(creating("abc"))[0]
    text = str(step.arguments["text"]).replace("/share/volume-1", str(volume))
    marker = daemon.folder / ".qmpsnap-abc"
    take_file(replace(step, arguments={"path": str(marker), "text": text}))
    with closing(open_connection(daemon.uri)) as connection:
        text = DOMAIN.format(name="web1", format="raw", path=volume)
        if way != "file":
            source, named = f"<source file='{volume}'/>", f"<source pool='p' volume='{BASE}'/>"
            text = text.replace(source, named).replace("type='file' device='disk'", "type='volume'")
            made = f"<target><path>{daemon.folder}</path></target>"
            pool = connection.storagePoolDefineXML(f"<pool type='dir'><name>p</name>{made}</pool>")
            pool.create()
            # Where libvirtd of the system keeps it; this one is a user's.
            kept = daemon.folder / "etc" / "storage" / "p.xml"
            kept.parent.mkdir()
            kept.write_text(pool.XMLDesc(0))
        domain = connection.defineXML(text)
        with pytest.raises(libvirt.libvirtError, match="Hook script execution failed") as caught:
            domain.create()
        assert f"run `qmpsnap resume {marker}` before it is started" in str(caught.value)
        assert not domain.isActive()
        marker.unlink()
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        assert domain.isActive()
        domain.destroy()
        domain.undefine()
