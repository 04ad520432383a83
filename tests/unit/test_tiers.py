"""A check that silently does not run is worse than none."""

from __future__ import annotations

import pytest

from tests.rig.tiers import missing


def test_what_is_missing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMPSNAP_REQUIRE", "qemu,guest")
    with pytest.raises(pytest.skip.Exception, match="install it"):
        missing("libvirt", "install it")


def test_what_is_missing_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMPSNAP_REQUIRE", "qemu,libvirt")
    with pytest.raises(pytest.fail.Exception, match=r"libvirt is required .*: install it"):
        missing("libvirt", "install it")
