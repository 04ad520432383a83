"""What other files do not run of the table of mixed deployments in docs/howto/cinder.md."""

from __future__ import annotations

import pytest

from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.pairings import Pairing
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until


class Attached:
    """A guest, what was written to it, and its snapshots; whichever side is ours."""

    def __init__(self, rig: Rig, guest: Guest) -> None:
        self.rig, self.guest = rig, guest
        self.base = f"volume-{guest.volume}"
        self.patterns = 0

    def writes(self) -> None:
        """A mebibyte more."""
        self.guest.io(f"write -P {self.patterns + 1} {self.patterns}M 1M")
        self.patterns += 1

    def creates(self) -> str:
        """Take a snapshot, until Nova has heard of it as well."""
        snapshot, became, _ = self.rig.snapshot(self.guest.volume)
        assert became == "available"
        file = f"{self.base}.{snapshot}"
        read_until(lambda: self.guest.nova_connection["name"], lambda it: it == file)
        return snapshot

    def deletes(self, snapshot: str) -> None:
        """Delete one."""
        assert self.rig.delete(snapshot)[0] is None

    def is_chain(self, *snapshots: str) -> None:
        """From the active file down; '' is the first. What was written is there, and still so later."""
        wanted = [
            (f"{self.base}.{one}", "qcow2") if one else (self.base, "raw") for one in snapshots
        ]
        for _ in range(2):
            read_until(lambda: self.guest.nova_connection["format"], lambda it: it == wanted[0][1])
            assert self.guest.chain() == wanted
            for number in range(self.patterns):
                assert self.guest.reads(number + 1, f"{number}M", "1M")
            self.guest.stop()
            self.guest.start()
            assert self.guest.live_chain() == wanted


def test_snapshots_where_nothing_is_ours(stock: Rig) -> None:
    with attached(stock) as guest:
        it = Attached(stock, guest)
        it.writes()
        first = it.creates()
        it.writes()
        second = it.creates()
        it.writes()
        it.is_chain(second, first, "")
        it.deletes(first)  # a commit
        it.is_chain(second, "")
        it.deletes(second)  # a pull
        it.is_chain(second)


@pytest.mark.parametrize("pairing", ["stock", "our_cinder", "ours"])
def test_a_guest_that_is_off(request: pytest.FixtureRequest, pairing: str) -> None:
    """Attached, so that compute is asked: with the first of them, it looks into the base."""
    rig: Rig = request.getfixturevalue(pairing)
    with attached(rig) as guest:
        it = Attached(rig, guest)
        it.writes()
        guest.stop()
        snapshot = it.creates()
        guest.start()
        it.writes()
        it.is_chain(snapshot, "")
        guest.stop()
        it.deletes(snapshot)
        guest.start()
        it.is_chain(snapshot)


@pytest.mark.parametrize(
    "steps",
    [
        [(pairings.OUR_CINDER, "cinder"), (pairings.OURS, "compute")],
        [(pairings.OUR_NOVA, "compute"), (pairings.OURS, "cinder")],
    ],
    ids=["volume side first", "compute first"],
)
def test_a_rolling_upgrade_and_back(stock: Rig, steps: list[tuple[Pairing, str]]) -> None:
    """One side, then the other, and back in the reverse order; each stage merges what another took."""
    rig = stock
    with attached(rig) as guest:
        it = Attached(rig, guest)
        it.writes()
        oldest, newest = it.creates(), it.creates()

        def stage() -> None:
            nonlocal oldest, newest
            it.writes()
            third = it.creates()
            it.deletes(oldest)
            oldest, newest = newest, third
            it.is_chain(newest, oldest, "")

        stage()
        (one, first), (both, second) = steps
        with rig.configured(one, first):
            stage()
            with rig.configured(both, second):
                stage()
            stage()
        stage()
