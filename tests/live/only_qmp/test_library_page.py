"""The examples of docs/howto/use-as-a-library.md that do without libvirt."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.rig import images, qemu_machine
from tests.rig.disks import raw_disk
from tests.rig.page import examples, run
from tests.rig.rig import BASE, DISK, SERIAL, SIZE


def test_examples(tmp_path: Path) -> None:
    with ExitStack() as stack:
        words = {}
        for name in ("web1", "web2"):
            folder = tmp_path / name
            folder.mkdir()
            images.create_raw(folder / BASE, SIZE)
            disk = raw_disk(folder / BASE, DISK, SERIAL)
            guest = stack.enter_context(qemu_machine.run([disk], directory=folder))
            words[f"/run/{name}.qmp"] = str(guest.qmp_path)
        words["/share/"] = f"{tmp_path}/web1/"
        told, printed = run(examples(lambda code: "connect_qmp" in code), words)
        assert printed == told
        assert len(told) == 4
