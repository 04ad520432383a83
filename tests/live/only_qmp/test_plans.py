"""By QMP; the tests stand in `tests/rig/plans.py`."""

from __future__ import annotations

from typing import Any

import pytest

from qmpsnap.monitor.socket import SocketMonitor
from tests.rig import plans
from tests.rig.rig import DISK
from tests.rig.roads import MakeRig


class TestPlans(plans.Plans):
    @pytest.mark.parametrize("name", ["s1", "s2"])
    def test_every_command_that_changes_something_was_shown(
        self, make_rig: MakeRig, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            shown = plans.planned(rig, "delete", DISK, name)["steps"]
            sent: list[tuple[str, Any]] = []
            execute = SocketMonitor.execute

            def noting(
                self: SocketMonitor, command: str, arguments: Any = None, timeout: float = 30
            ) -> object:
                if not command.startswith(("query-", "x-debug-", "qom-get")):
                    sent.append((command, dict(arguments or {})))
                return execute(self, command, arguments, timeout)

            with rig.host():  # the rig's own reading is over before
                pass
            monkeypatch.setattr(SocketMonitor, "execute", noting)
            assert rig.cli("delete", DISK, name).code == 0
            monkeypatch.undo()
            qmp = [(step["what"], step["arguments"]) for step in shown if step["by"] == "qmp"]
            assert [one for one in sent if one[0] != "blockdev-del"] == qmp
