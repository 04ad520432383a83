"""`watch` under libvirt: its events, and a guest that is off."""

from __future__ import annotations

import threading
from queue import SimpleQueue

import pytest

from qmpsnap.cli.watch import Changes, Now, as_lines, watched
from tests.rig.off import Off
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig
from tests.rig.waiting import HANG_S


def test_a_job_is_seen_by_its_events(make_rig: MakeRig, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is looked at without one: the time between two looks is longer than the test."""
    moments: SimpleQueue[Now] = SimpleQueue()
    ends = threading.Event()

    def show(now: Now) -> None:
        moments.put(now)
        if ends.is_set():
            raise KeyboardInterrupt

    with make_rig("raw") as rig:
        rig.grow(3)

        def work() -> None:
            with rig.connect() as host, pytest.raises(KeyboardInterrupt):
                watched(host, None, 1e6, show)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        assert moments.get(timeout=HANG_S).jobs == ()
        said = rig.cli("delete", DISK, "s2", "--method", "commit")
        assert said.code == 0, said
        now = moments.get(timeout=HANG_S)
        while [layer.file for layer in now.disks[0].layers] != [f"{BASE}.s1", BASE]:
            now = moments.get(timeout=HANG_S)
        ends.set()
        assert rig.cli("delete", DISK, "s1", "--method", "commit").code == 0
        thread.join(HANG_S)
        assert not thread.is_alive()
    assert as_lines(None, now)
    Changes(as_lines).show(now)
    assert f"{BASE} (raw) <- {BASE}.s1 (qcow2)" in capsys.readouterr().out


@remedy("NothingHappens")
def test_a_guest_that_is_off(off: Off) -> None:
    said = off.rig.cli("watch")
    assert said.code == 4, said
    assert "has no jobs" in said.err
    assert off.rig.cli("chain").code == 0
