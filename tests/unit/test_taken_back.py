"""A snapshot whose call has died: finished when it was switched to, else taken back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.graph.nodes import Node
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Overlay
from qmpsnap.operations.outcome import HeaderWrong
from qmpsnap.operations.plan_snapshot import CreatePlan, plan_creates
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import finish, take_back
from qmpsnap.operations.snapshot_outcome import forgotten, left_out, mend_headers
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest, with_layers

CREATE = CreateRequest(disk="vda", new_file="volume-1.new", snapshot="new")
OVERLAY = "/share/volume-1.new"


@pytest.fixture
def fake() -> FakeGuest:
    fake = FakeGuest(samples.guest(samples.disk(2)))
    fake.found = Overlay(is_there=True)
    fake.existing = {OVERLAY}
    fake.nodes = {OVERLAY}
    return fake


def planned(guest: Disks) -> tuple[CreatePlan, ...]:
    return plan_creates(guest, [CREATE])


class TestTakenBack:
    def test_what_it_made(self, fake: FakeGuest) -> None:
        take_back(fake, planned(fake.guest), [True])
        assert (fake.existing, fake.nodes) == (set(), set())

    def test_not_what_was_handed_over(self, fake: FakeGuest) -> None:
        take_back(fake, planned(fake.guest), [False])
        assert (fake.existing, fake.nodes) == ({OVERLAY}, set())

    def test_not_what_somebody_has_open(self, fake: FakeGuest) -> None:
        plans = planned(fake.guest)
        fake.guest = replace(fake.guest, open_files=frozenset({OVERLAY}))
        take_back(fake, plans, [True])
        assert fake.existing == {OVERLAY}

    @pytest.mark.parametrize("found", ["gone", "no overlay of ours"])
    def test_not_what_is_another_file_by_now(self, fake: FakeGuest, found: str) -> None:
        if found == "gone":
            fake.found = Overlay(is_there=False)
        else:
            fake.fails["overlay"] = CommandFailed("overlay", "", "it holds data")
        take_back(fake, planned(fake.guest), [True])
        assert "discard" not in fake.calls

    def test_node_that_is_not_there(self, fake: FakeGuest) -> None:
        fake.fails["close"] = CommandFailed("blockdev-del", "", "no such node")
        take_back(fake, planned(fake.guest), [True])
        assert fake.existing == set()


class TestFinished:
    def test_after_the_switch(self, fake: FakeGuest) -> None:
        plans = planned(fake.guest)
        layers = samples.linked([samples.layer("volume-1.new"), *fake.guest.disks[0].layers])
        fake.guest = with_layers(fake.guest, layers)
        (result,) = finish(fake, plans)
        assert samples.files(result.disk) == ["volume-1.new", "volume-1.s1", "volume-1"]
        assert result.file_format == {"volume-1.new": "qcow2"}
        assert not {"make", "open", "switch", "discard"} & set(fake.calls)


class TestHeadersOfALostRace:
    """Somebody's overlay lies between ours and the file that its header names."""

    def after(self, fake: FakeGuest) -> Disk:
        ours, theirs, *lower = samples.linked(
            [samples.layer("volume-1.new"), samples.layer("theirs"), *fake.guest.disks[0].layers]
        )
        fake.guest = with_layers(
            fake.guest, [replace(ours, backing_name="volume-1.s1"), theirs, *lower]
        )
        return fake.guest.disks[0]

    def test_is_mended(self, fake: FakeGuest) -> None:
        plans = planned(fake.guest)
        after = self.after(fake)
        mend_headers(fake, plans, [after])
        assert fake.guest.disks[0].layers[0].backing_name == "theirs"
        assert fake.calls.count("start") == 1

    @pytest.mark.parametrize("path", ["/share/theirs", None])
    def test_by_its_whole_path_where_the_relative_name_does_not_stay(
        self, fake: FakeGuest, path: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plans = planned(fake.guest)
        after = samples.changed_layer(self.after(fake), 1, path=path)
        names: list[str] = []

        def ensured(_guest: object, _after: Disk, above: object, below: object, name: str) -> None:
            names.append(name)
            if len(names) == 1:
                raise HeaderWrong("volume-1.new", "it names volume-1.s1", "qemu-img")

        monkeypatch.setattr("qmpsnap.operations.snapshot_outcome.ensured", ensured)
        mend_headers(fake, plans, [after])
        assert (len(names), names[1]) == (2, path or "theirs")

    def test_nothing_is_mended_where_the_overlay_is_not(self, fake: FakeGuest) -> None:
        mend_headers(fake, planned(fake.guest), fake.guest.disks)
        assert fake.calls == []

    def test_that_cannot_be_mended(self, fake: FakeGuest) -> None:
        plans = planned(fake.guest)
        after = self.after(fake)
        fake.fails["start"] = CommandFailed("block-stream", "", "no")
        with pytest.raises(HeaderWrong, match=r"it names 'volume-1.s1', not 'theirs'"):
            mend_headers(fake, plans, [after])


class TestDetectZeroes:
    @pytest.mark.parametrize(
        ("before", "now", "told"),
        [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
    )
    def test_forgotten(self, before: bool, now: bool, told: bool) -> None:
        said = self.said(before, now)
        assert bool(said) == told
        if told:
            words = "volume-1.new was opened without detect-zeroes, which volume-1.s1 has"
            assert said[0].startswith(words)

    @pytest.mark.parametrize(("before", "now"), [(None, False), (True, None)])
    def test_not_known(self, before: bool | None, now: bool | None) -> None:
        assert self.said(before, now) == ()

    def said(self, before: bool | None, now: bool | None) -> tuple[str, ...]:
        def node(zeroes: bool | None) -> Node | None:
            if zeroes is None:
                return None
            return Node(name="n", driver="qcow2", filename="", detect_zeroes=zeroes)

        disk = samples.changed_layer(samples.disk(2), 0, node_details=node(before))
        (plan,) = planned(samples.guest(disk))
        new = samples.layer("volume-1.new", node_details=node(now))
        return forgotten(plan, replace(disk, layers=(new, *disk.layers)))


@pytest.mark.parametrize(
    ("besides", "said"),
    [
        ((), ()),
        (("nvram",), ("not part of a snapshot: the firmware's settings (nvram)",)),
        (
            ("nvram", "TPM"),
            ("not part of a snapshot: the firmware's settings (nvram) and the state of the TPM",),
        ),
    ],
)
def test_what_a_snapshot_does_not_hold(besides: tuple[str, ...], said: tuple[str, ...]) -> None:
    assert left_out(replace(samples.guest(), besides=besides)) == said
