"""`cinder import` of one volume: while the driver is at work on it, and without its `.info`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import pytest
from msgspec.structs import replace

from qmpsnap.ledger.files import moved
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Format, Intent, Kind, Place, Statement, Witness
from qmpsnap.openstack.cinder import adopt
from qmpsnap.openstack.cinder.cli import gathered, import_
from qmpsnap.openstack.cinder.cli.deployment import Backend, Deployment, Row, folder_of
from tests.ledger.acts import BASE as BASE_OF
from tests.ledger.acts import asked, update
from tests.unit.qcow2_header import header

KEY: Final = "11111111-1111-4111-8111-111111111111"
SNAPSHOT: Final = "22222222-2222-4222-8222-222222222222"
BASE: Final = f"volume-{KEY}"
OVERLAY: Final = f"{BASE}.{SNAPSHOT}"


@dataclass
class Share:
    """One volume on a share, whose overlay is there and is stated in `.info`."""

    store: Store
    backend: Backend
    row: Row = field(
        default_factory=lambda: Row(
            id=KEY,
            key=KEY,
            name=BASE,
            host="h@nfs1",
            share="nfs:/x",
            status="available",
            encrypted=False,
            metadata={"format": "qcow2", "base_format": "raw"},
        )
    )

    @property
    def folder(self) -> Path:
        """Where it is mounted."""
        return Path(folder_of(self.backend, self.row.share))

    @property
    def info(self) -> Path:
        """The volume's `.info`."""
        return self.folder / f"{BASE}.info"

    def volumes(self, _: Backend) -> Iterator[Row]:
        """As a deployment has them."""
        yield self.row

    def take(self, *, again: bool = False) -> import_.Taken:
        """Import it."""
        deployment = cast(Deployment, self)
        (taken,) = import_.taken(deployment, self.store, self.backend, {}, again=again)
        return taken

    def known(self) -> dict[str, tuple[Format | None, Place]]:
        """What the ledger has of its files."""
        with self.store.reading() as ledger:
            return {one.file: (one.format, one.place) for one in ledger.files(KEY)}

    def merge(self) -> None:
        """Delete the snapshot, as the driver does."""
        intent = Intent(
            volume=KEY, snapshot=SNAPSHOT, kind=Kind.COMMIT, file=OVERLAY, onto=BASE, host="h"
        )
        with self.store.writing() as ledger:
            ledger.adopt(KEY, SNAPSHOT)
            token = asked(ledger, intent).token
            said = update(SNAPSHOT, "deleting_compute_complete", token)
            ledger.accept(replace(said, volume=KEY))
            ledger.record(token)
            ledger.finish(token)
            ledger.removed(KEY, OVERLAY)
        self.info.write_text(json.dumps({"active": BASE}))
        (self.folder / OVERLAY).unlink()


@pytest.fixture
def share(store: Store, tmp_path: Path) -> Share:
    backend = Backend(name="nfs1", host="h@nfs1", driver="qmpsnap.NfsDriver", mounts=str(tmp_path))
    made = Share(store, backend)
    made.folder.mkdir()
    (made.folder / BASE).write_bytes(bytes(1 << 16))
    backing = BASE.encode()
    (made.folder / OVERLAY).write_bytes(
        header(backing=backing, extensions=[(0xE2792ACA, b"raw")]).ljust(1 << 16, b"\0")
    )
    made.info.write_text(json.dumps({"active": OVERLAY, SNAPSHOT: OVERLAY}))
    return made


CHAIN: Final = {OVERLAY: (Format.QCOW2, Place.CHAIN), BASE: (Format.RAW, Place.CHAIN)}


@pytest.mark.parametrize(("again", "is_known"), [(False, False), (True, False), (True, True)])
def test_the_driver_deletes_a_snapshot_meanwhile(
    share: Share, monkeypatch: pytest.MonkeyPatch, again: bool, is_known: bool
) -> None:
    if is_known:
        assert share.take().result == "imported"
    real = gathered.known_of
    held: list[adopt.Known] = []

    def overtaken(folder: str, row: Row, guests: Mapping[str, str]) -> adopt.Known:
        found = real(folder, row, guests)
        if not held:
            held.append(found)
            if not is_known:
                with share.store.writing() as ledger:
                    ledger.state(KEY, adopt.statements(found))  # the driver takes it over
            share.merge()
        return found

    monkeypatch.setattr(gathered, "known_of", overtaken)
    assert share.take(again=again).result == "known"
    assert share.known() == {BASE: (Format.RAW, Place.CHAIN)}


def test_nothing_is_taken_over_while_an_operation_is_open(share: Share) -> None:
    share.take()
    onto, file = OVERLAY, f"{BASE}.33333333-3333-4333-8333-333333333333"
    with share.store.writing() as ledger:
        asked(
            ledger,
            Intent(volume=KEY, snapshot="b", kind=Kind.CREATE, file=file, onto=onto, host="h"),
        )
    before = share.known()
    share.info.write_text(json.dumps({"active": BASE}))
    taken = share.take(again=True)
    assert (taken.result, taken.detail) == (
        "failed", "the create of snapshot b is not settled",
    )  # fmt: skip
    assert share.known() == before


def _without(share: Share, sign: str) -> None:
    share.info.unlink()
    if sign != "ledger":
        share.row = replace(share.row, snapshots=(SNAPSHOT,) if sign == "row" else ())
    if sign != "file":
        (share.folder / OVERLAY).unlink()


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        ("file", f"{OVERLAY} lies on the share"),
        ("row", f"Cinder has its snapshot {SNAPSHOT}"),
        ("ledger", f"the ledger has {OVERLAY}"),
    ],
)
def test_a_lost_info_is_not_taken_for_no_snapshots(share: Share, sign: str, said: str) -> None:
    content = share.info.read_text()
    if sign == "ledger":
        assert share.take().result == "imported"
    before = share.known()
    _without(share, sign)
    taken = share.take(again=True)
    assert taken.result == "failed"
    assert said in taken.detail
    assert "`qmpsnap cinder import --again`" in taken.remedy
    assert share.known() == before
    if sign == "file":
        share.info.write_text(content)
        assert share.take(again=True).result == "imported"
        assert share.known() == CHAIN


@pytest.mark.parametrize("is_known", [False, True])
def test_the_file_of_a_failed_create_is_left_to_whoever_looks(share: Share, is_known: bool) -> None:
    """Stock has written `qcow2` into the row before `.info`, if it has come so far."""
    content = (share.folder / OVERLAY).read_bytes()
    (share.folder / OVERLAY).unlink()
    share.info.unlink()
    share.row = replace(share.row, metadata={"format": "raw"})
    if is_known:
        assert share.take().result == "imported"
    (share.folder / OVERLAY).write_bytes(content)
    taken = share.take(again=is_known)
    assert taken.result == "unknown"
    assert f"`qmpsnap ledger set {KEY} {OVERLAY} --place left" in taken.remedy
    found = {OVERLAY: (Format.QCOW2, Place.UNSURE), BASE: (Format.RAW, Place.CHAIN)}
    assert share.known() == found
    assert share.take(again=True).result == "unknown"
    with share.store.writing() as ledger:
        known = ledger.file(KEY, OVERLAY)
        assert known is not None
        ledger.state(KEY, [moved(known, Place.LEFT)])
    assert share.take(again=True).result == "known"
    assert share.known() == found | {OVERLAY: (Format.QCOW2, Place.LEFT)}


@pytest.mark.parametrize(
    ("metadata", "backing"),
    [
        ({}, BASE),
        ({"format": "qcow2"}, BASE),
        ({"format": "raw"}, f"{BASE}.x"),
        ({"format": "raw"}, ""),
    ],
)
def test_what_may_be_the_active_file_is_not_taken_for_it(
    share: Share, metadata: dict[str, str], backing: str
) -> None:
    share.info.unlink()
    named = header(backing=backing.encode(), extensions=[(0xE2792ACA, b"raw")]) if backing else b"x"
    (share.folder / OVERLAY).write_bytes(named.ljust(1 << 16, b"\0"))
    share.row = replace(share.row, metadata=metadata)
    taken = share.take()
    assert (taken.result, "lies on the share" in taken.detail) == ("failed", True)
    assert share.known() == {}


@pytest.mark.parametrize("status", ["creating", "error"])
def test_a_volume_that_was_being_made_is_left_out(share: Share, status: str) -> None:
    """A clone that was killed has a torn file; a volume that is known has not."""
    made, share.row = share.row, replace(share.row, status=status)
    deployment = cast(Deployment, share)
    assert [*import_.taken(deployment, share.store, share.backend, {}, again=True)] == []
    share.row = made
    assert share.take().result == "imported"
    share.row = replace(made, status=status)
    assert share.take(again=True).result == "known"


def test_what_the_ledger_knew_is_not_a_guests_word(share: Share) -> None:
    with share.store.writing() as ledger:
        base = replace(BASE_OF, file=BASE, witness=Witness.MADE, detail="created")
        ledger.state(KEY, [base])
    assert share.take(again=True).result == "imported"  # stock has taken a snapshot
    with share.store.reading() as ledger:
        known = ledger.file(KEY, BASE)
    assert known is not None
    assert (known.format, known.witness, known.detail) == (Format.RAW, Witness.MADE, "created")


def test_a_volume_without_snapshots_has_no_info(share: Share) -> None:
    _without(share, "none")
    share.row = replace(share.row, metadata={"format": "raw"})
    assert share.take().result == "imported"
    assert share.take(again=True).result == "known"
    assert share.known() == {BASE: (Format.RAW, Place.CHAIN)}


@pytest.mark.parametrize("place", [Place.LEFT, Place.UNSURE])
def test_what_is_beside_the_chain_is_not_forgotten(share: Share, place: Place) -> None:
    share.take()
    name = f"{BASE}.33333333-3333-4333-8333-333333333333"
    beside = Statement(
        file=name, format=Format.QCOW2, base=False, backing=OVERLAY, place=place,
        witness=Witness.OPERATOR,
    )  # fmt: skip
    with share.store.writing() as ledger:
        ledger.state(KEY, [beside])
    is_open = place is Place.UNSURE
    assert share.take().result == ("unknown" if is_open else "known")
    assert share.take(again=True).result == ("unknown" if is_open else "known")
    share.info.write_text(json.dumps({"active": BASE}))  # stock has merged
    taken = share.take(again=True)
    assert share.known()[name] == (Format.QCOW2, place)
    if is_open:
        assert (taken.result, "is not known" in taken.detail) == ("failed", True)
    else:
        assert taken.result == "imported"
        assert OVERLAY not in share.known()
