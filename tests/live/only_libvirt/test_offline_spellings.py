"""Names in two spellings, of a guest that runs and is off by turns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.test_spellings import PLACES
from tests.rig.defined import defined
from tests.rig.rig import DISK


@pytest.mark.parametrize("place", PLACES)
def test_chain_of_its_own_making(
    connection: Any, tmp_path: Path, place: Callable[[Path], tuple[Path, str]]
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    base, _ = place(share)
    with defined(connection, base, "raw") as guest:
        guest.start()
        for snapshot in ("s1", "s2"):
            said = guest.cli("create", DISK, snapshot)
            assert said.code == 0, said
        guest.stop()
        for snapshot in ("s3", "s4"):
            said = guest.cli("create", DISK, snapshot)
            assert said.code == 0, said
        for snapshot in ("s2", "s4", "s3", "s1"):
            said = guest.cli("delete", DISK, snapshot, "--method", "commit", "--remove-file")
            assert said.code == 0, (snapshot, said)
        guest.start()
        assert guest.active_file() == str(base)
