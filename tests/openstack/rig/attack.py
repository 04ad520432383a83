"""
What somebody tries who has taken over nova-compute, and how its helper answers: JSON, by name.

    python -m tests.openstack.rig.attack FOLDER SHARE QEMU     as the user, inside the rig

FOLDER has `secret`, which is root's. SHARE is prepared by the test, whoever runs it; QEMU is a process.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from nova import config, utils
from oslo_privsep import priv_context

from qmpsnap.monitor.memory import qemu_process
from qmpsnap.openstack.nova import privileged
from qmpsnap.openstack.nova.helper import NovasHelper

CHANGES = 400


def tried(call: Callable[[], object]) -> str:
    """What came of one try."""
    try:
        return f"got {call()!r:.60}"
    except Exception as error:
        return f"{type(error).__name__} {getattr(error, 'strerror', None) or error}"


def race(helper: NovasHelper, folder: Path, secret: Path) -> str:
    """A file of the user's own, exchanged all the time for links to a secret; what was ever read."""
    (folder / "own").mkdir(parents=True)
    (folder / "other").symlink_to(secret.parent)
    target, beside, ended = folder / "own/secret", folder / "own/beside", threading.Event()
    target.write_bytes(b"QFI\xfb own")

    def exchange() -> None:
        while not ended.is_set():
            beside.symlink_to(secret)
            os.rename(beside, target)
            beside.write_bytes(b"QFI\xfb own")
            os.rename(beside, target)
            os.rename(folder / "own", folder / "third")
            os.rename(folder / "other", folder / "own")
            os.rename(folder / "own", folder / "other")
            os.rename(folder / "third", folder / "own")

    found = {helper.header(str(target)).decode("latin-1")}
    other = threading.Thread(target=exchange)
    other.start()
    for _ in range(CHANGES):
        try:
            found.add(helper.header(str(target)).decode("latin-1"))
        except OSError:
            continue
    ended.set()
    other.join()
    return " ".join(sorted(found))


def main(folder: str, share: str, qemu: str) -> None:
    """See above."""
    config.parse_args(["compute", "--config-file", "/etc/nova/nova.conf"])
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    helper = NovasHelper()
    process = qemu_process(int(qemu))
    assert process is not None
    first = qemu_process(1)
    started = 1 if first is None else first.started
    overlay = f"{share}/overlay"
    header = helper.header(overlay)
    tries: dict[str, Callable[[], object]] = {
        "held": lambda: helper.held(process.pid, process.started)[2],
        "denied": lambda: Path(overlay).read_bytes(),
        "raw": lambda: helper.header(f"{share}/raw"),
        "raw-whole": lambda: helper.whole(f"{share}/raw"),
        "dots": lambda: helper.header(f"{share}/../../secret"),
        "outside": lambda: helper.header(f"{folder}/secret"),
        "shadow": lambda: helper.header("/etc/shadow"),
        "link": lambda: helper.header(f"{share}/link"),
        "folder-link": lambda: helper.header(f"{share}/folder/secret"),
        "hard-link": lambda: helper.header(f"{share}/hard"),
        "device": lambda: helper.header(f"{share}/device"),
        "fifo": lambda: helper.header(f"{share}/fifo"),
        "huge": lambda: helper.whole(f"{share}/huge"),
        "lock-link": lambda: helper.lock(f"{share}/link"),
        "mend": lambda: helper.mend(overlay, header, b"\0" * len(header)),
        "marker-name": lambda: helper.write_marker(f"{share}/volume-1", "x"),
        "marker-outside": lambda: helper.write_marker("/etc/.qmpsnap-1f", "x"),
        "marker-folder-link": lambda: helper.write_marker(f"{share}/folder/.qmpsnap-1f", "x"),
        "remove": lambda: helper.remove_marker(overlay),
        "reused": lambda: helper.held(process.pid, process.started + 1),
        "no-qemu": lambda: helper.held(1, started),
        "own": lambda: helper.held(os.getpid(), 1),
        "in-root": lambda: helper.in_root(process.pid, process.started, "/etc/shadow"),
        "function": lambda: privileged.context.channel.remote_call("os.system", ("id",), {}, 60),
        "function-below": lambda: privileged.context.channel.remote_call(
            "qmpsnap.openstack.nova.privileged.os.system", ("id",), {}, 60
        ),
    }
    answers = {name: tried(call) for name, call in tries.items()}
    answers["race"] = race(helper, Path(folder, "state/instances"), Path(folder, "secret"))
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
