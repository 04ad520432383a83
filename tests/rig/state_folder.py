"""A journal of a test's own."""

from __future__ import annotations

from pathlib import Path

import pytest


def own_state(factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name an empty state folder in QMPSNAP_STATE, apart from the images' folder, which is watched."""
    folder = factory.mktemp("state")
    folder.chmod(0o700)
    monkeypatch.setenv("QMPSNAP_STATE", str(folder))
    return folder
