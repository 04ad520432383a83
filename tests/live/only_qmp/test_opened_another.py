"""
QEMU opens a file again by its name, and gets another one that has taken it.

A base is opened for writing when a commit into it begins, and for reading when it ends.
"""

from __future__ import annotations

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.doors import at, patch
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SIZE
from tests.rig.roads import MakeRig
from tests.rig.situations import situation


@situation(
    "A base is replaced while a commit into it runs, and QEMU opens it again by its name",
    happens="an error (`OpenedAnother`), whether the commit was done or cancelled: the guest reads "
    "what lies in the new file; no file is removed",
    code=1,
    then="Shut the guest down, and give the old file its name back.",
    kind=1,
)
@remedy("OpenedAnother")
@pytest.mark.parametrize("does", [Does.START, Does.COMMIT])
@pytest.mark.parametrize("depth", [3, 2], ids=["commit", "active commit"])
def test_base_that_is_replaced_while_it_is_committed_into(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, depth: int, does: Does
) -> None:
    with make_rig("raw") as rig:
        rig.grow(depth)
        content = rig.guest.read_sha256(DISK)
        rig.guest.qemu_io(DISK, "flush")
        base, kept = rig.folder / BASE, rig.folder / "kept"
        kept.hardlink_to(base)

        def replace(_step: Step) -> None:
            images.create_raw(rig.folder / "other", SIZE)
            (rig.folder / "other").replace(base)

        with monkeypatch.context() as patched:
            patch(patched, QmpGuest, before=at(does, replace))
            said = rig.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
        assert said.code == 1, said
        assert f"QEMU opened {base} again by its name" in said.err
        assert rig.guest.read_sha256(DISK) != content
        files = rig.files()
        assert len(list(rig.folder.glob(f"{BASE}*"))) == depth
        rig.guest.quit()  # type: ignore[attr-defined]
        base.rename(rig.folder / "aside")
        kept.rename(base)
        assert (
            images.sha256_of(rig.folder / files[0], "raw" if files == [BASE] else "qcow2")
            == content
        )
