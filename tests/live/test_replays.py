"""A recording of a guest, replayed, says what the guest said."""

from __future__ import annotations

import json
from pathlib import Path

from tests.rig.rig import DISK, Rig, Said
from tests.rig.roads import MakeRig


class TestReplays:
    def _replay(self, rig: Rig, file: Path, command: str, *arguments: str) -> Said:
        away = Rig(rig.guest, rig.folder, ["--replay", str(file)], [], rig.connect, rig.kill)
        return away.cli(command, *arguments)

    def test_a_replay_says_what_the_guest_said(self, make_rig: MakeRig, tmp_path: Path) -> None:
        file = tmp_path / "transcript"
        with make_rig("raw") as rig:
            rig.grow(4)
            live = rig.cli("chain", "-o", "json").json
            said = rig.cli("record", str(file))
            assert said.code == 0, said
        for one in rig.folder.iterdir():
            one.unlink()  # a replay opens none of them
        replayed = self._replay(rig, file, "chain", "-o", "json").json
        for document in (live, replayed):
            for layer in document["disks"][0]["layers"]:
                for name in ("allocated", "created", "modified"):  # of the files alone
                    layer.pop(name)
                for evidence in layer["evidence"]:
                    evidence.pop("detail")
        assert replayed == live
        assert json.loads(file.read_text().splitlines()[0])["qmpsnap-transcript"] == 1

    def test_a_transcript_cannot_be_changed(self, make_rig: MakeRig, tmp_path: Path) -> None:
        file = tmp_path / "transcript"
        with make_rig("raw") as rig:
            assert rig.cli("record", str(file)).code == 0
            assert self._replay(rig, file, "create", DISK, "x").code == 4
            assert self._replay(rig, file, "delete", DISK, "x").code == 4
