"""Guests for the pains: on their own QMP socket (`make_rig`), and libvirt's (`connection`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig.roads import MakeRig, direct_rigs


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """The folder of the volumes."""
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@pytest.fixture
def make_rig(share: Path) -> MakeRig:
    """`make_rig(base)`: a guest whose disk is one file, open in that way."""
    return direct_rigs(share)


@pytest.fixture
def copy_begins_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let somebody begin to copy a disk right after a create has looked whether anybody does."""
    monkeypatch.setattr("qmpsnap.operations.snapshot.check_idle", lambda *_: None)
