"""nova-compute is killed after its API has answered a call, and before the call is written down."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.ledger.machine import WAITED_FOR
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, ledger_of, open_operations


@contextmanager
def held_up(rig: Rig, what: str) -> Iterator[None]:
    """
    Have calls be answered, and go no further.

    Those of the block are never carried out: compute is to die first, and its next process is in time.
    """
    heard(rig)  # what was said before
    rig.nova("POST", "delay", {what: 3600})
    yield


def heard(rig: Rig) -> list[dict[str, Any]]:
    """What compute was called with since it was last asked: `create_info`, or `delete_info`."""
    return [said for verb, said, *_ in rig.nova("GET", "log") if verb in ("POST", "DELETE")]


def called(rig: Rig) -> dict[str, Any]:
    """Wait until compute has answered one more call."""
    (one,) = read_until(lambda: heard(rig), bool)
    return one


def died(rig: Rig) -> None:
    """Let compute die, and the next one begin."""
    rig.restart("compute", signal.SIGKILL)


@contextmanager
def written(rig: Rig) -> Iterator[Guest]:
    """A guest that has written its first mebibyte."""
    with attached(rig) as guest:
        guest.io("write -P 1 0 1M")
        yield guest


def ended(rig: Rig, snapshot: str) -> str | None:
    """Wait until Cinder has concluded a snapshot; returns what it has become."""
    return read_until(
        lambda: rig.status("snapshots", snapshot), lambda it: it not in ("creating", "deleting")
    )


def test_a_call_that_has_died_with_compute_is_made_again(ours: Rig) -> None:
    """For a create, a commit and a pull; nothing but compute is restarted."""
    with written(ours) as guest:
        snapshots = []
        for _ in range(2):
            with held_up(ours, "create"):
                snapshots.append(ours.begin_snapshot(guest.volume))
                first = called(ours)
            died(ours)
            assert ended(ours, snapshots[-1]) == "available"
            assert called(ours) == first
        older, newer = snapshots
        check(ours, guest.volume, [newer, older, ""], guest)
        for snapshot in (older, newer):
            with held_up(ours, "delete"):
                ours.volumes("DELETE", f"/snapshots/{snapshot}")
                first = called(ours)
            died(ours)
            assert ended(ours, snapshot) is None
            assert called(ours) == first
        check(ours, guest.volume, [newer], guest)
        assert guest.reads(1, "0", "1M")


@pytest.mark.parametrize("what", ["create", "delete"])
def test_cinder_dies_too(ours: Rig, what: str) -> None:
    """Its next process has asked already, and the call has died with compute once more."""
    with written(ours) as guest:
        snapshot = None if what == "create" else ours.snapshot(guest.volume)[0]
        with held_up(ours, what):
            if snapshot is None:
                snapshot = ours.begin_snapshot(guest.volume)
            else:
                ours.volumes("DELETE", f"/snapshots/{snapshot}")
            first = called(ours)
            ours.restart("cinder", signal.SIGKILL)
            assert called(ours) == first
        died(ours)
        assert ended(ours, snapshot) == (None if what == "delete" else "available")
        check(ours, guest.volume, [snapshot, *([] if what == "delete" else [""])], guest)
        assert guest.reads(1, "0", "1M")


@pytest.mark.parametrize("what", ["create", "delete"])
def test_a_call_that_was_only_late_is_made_twice_and_done_once(ours: Rig, what: str) -> None:
    """It was on the bus while compute started, which could not know of it."""
    started = {"started": {"host": "rig", "volumes": [], "operations": []}}
    with written(ours) as guest:
        started["started"]["volumes"] = [guest.volume]
        snapshot = None if what == "create" else ours.snapshot(guest.volume)[0]
        if what == "delete":
            ours.ended("create")
        heard(ours)
        ours.nova("POST", "delay", {what: 600})
        try:
            if snapshot is None:
                snapshot = ours.begin_snapshot(guest.volume)
            else:
                ours.volumes("DELETE", f"/snapshots/{snapshot}")
            first = called(ours)
            assert ours.volumes("POST", "/os-qmpsnap", started) == {"missed": [snapshot]}
            assert called(ours) == first
        finally:
            ours.nova("POST", "delay", {what: 0})
            ours.nova("POST", "release")
        assert ended(ours, snapshot) == (None if what == "delete" else "available")
        errors = [ours.ended(what)[1] for _ in range(2)]
        assert None in errors
        assert all(one is None or "UnderWay" in one for one in errors), errors
        check(ours, guest.volume, [snapshot, *([] if what == "delete" else [""])], guest)
        assert guest.reads(1, "0", "1M")
        assert ours.volumes("POST", "/os-qmpsnap", started) == {"missed": []}


def test_what_compute_knows_of_or_does_not_have_is_not_asked_for_again(ours: Rig) -> None:
    with written(ours) as guest, held_up(ours, "create"):
        snapshot = ours.begin_snapshot(guest.volume)
        token = called(ours)["id"]
        for volumes, operations in ([guest.volume], [token]), ([snapshot], []):
            said = {"host": "rig", "volumes": volumes, "operations": operations}
            assert ours.volumes("POST", "/os-qmpsnap", {"started": said}) == {"missed": []}
        assert heard(ours) == []
        died(ours)
        assert ended(ours, snapshot) == "available"


def test_a_stock_cinder_is_told_in_vain(our_nova: Rig) -> None:
    """It cannot be had to ask again, and compute, whose call may be on its way, may not say error."""
    with written(our_nova) as guest, held_up(our_nova, "create"):
        snapshot = our_nova.begin_snapshot(guest.volume)
        called(our_nova)
        log, told = our_nova.folder / "log/cinder.log", re.compile('"POST .*/os-qmpsnap .* 404')
        begun = len(log.read_bytes())
        died(our_nova)
        read_until(
            lambda: log.read_bytes()[begun:].decode(errors="replace"),
            lambda it: told.search(it) is not None,
        )
        assert our_nova.status("snapshots", snapshot) == "creating"
        assert heard(our_nova) == []
        assert guest.live_chain() == [(f"volume-{guest.volume}", "raw")]
        body = {"os-reset_status": {"status": "error"}}  # which ends Cinder's wait
        our_nova.volumes("POST", f"/snapshots/{snapshot}/action", body)


@pytest.mark.parametrize("what", ["create", "delete"])
def test_a_stock_compute_is_not_asked_twice(our_cinder: Rig, what: str) -> None:
    """Its next process says nothing, so that the volume side waits; an operator may know better."""
    rig = our_cinder
    with written(rig) as guest:
        snapshot = None if what == "create" else rig.snapshot(guest.volume)[0]
        with held_up(rig, what):
            if snapshot is None:
                snapshot = rig.begin_snapshot(guest.volume)
            else:
                rig.volumes("DELETE", f"/snapshots/{snapshot}")
            called(rig)
        died(rig)
        (operation,) = open_operations(rig)
        with ledger_of(rig).writing() as ledger:
            standing = ledger.snapshot(snapshot)
            assert standing is not None
            assert standing.state in WAITED_FOR
            assert ledger.asked(operation) == 1
            ledger.abandon(operation.token, "compute has died of it")  # as `qmpsnap ledger settle`
        assert ended(rig, snapshot) == ("error" if what == "create" else "error_deleting")
        assert heard(rig) == []
        live = [(f"volume-{guest.volume}", "raw")]
        if what == "delete":
            live.insert(0, (f"volume-{guest.volume}.{snapshot}", "qcow2"))
        assert guest.live_chain() == live


def test_oslo_messaging_acknowledges_a_cast_before_it_calls() -> None:
    """So whoever is killed right then has lost it: the bus has it no more."""
    order: list[str] = []
    server: Any = SimpleNamespace(
        conf=SimpleNamespace(oslo_messaging_tracing=SimpleNamespace(tracing_enabled=False)),
        dispatcher=SimpleNamespace(dispatch=lambda _: order.append("call")),
    )
    message = SimpleNamespace(
        message={"method": "volume_snapshot_create"},
        msg_id=None,
        acknowledge=lambda: order.append("acknowledge"),
        reply=lambda _: order.append("reply"),
    )
    rpc = pytest.importorskip("oslo_messaging.rpc.server")
    rpc.RPCServer._process_incoming(server, [message])
    assert order == ["acknowledge", "call", "reply"]


def test_more_than_one_request_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tells of the operations on its own volumes, so that Cinder asks again for none of them."""
    missed = pytest.importorskip("qmpsnap.openstack.nova.missed")
    volumes = [f"v{one}" for one in range(3)]
    own = {volume: [f"{volume}-{one}" for one in range(600)] for volume in [*volumes, "elsewhere"]}
    letters = [
        SimpleNamespace(due=SimpleNamespace(token=token, addressee=SimpleNamespace(volume=volume)))
        for volume, tokens in own.items()
        for token in [*tokens, tokens[0], None]
    ]
    store: Any = nullcontext(SimpleNamespace())
    store.letters = SimpleNamespace(find=lambda _states: letters)
    said: list[dict[str, Any]] = []

    def started(one: dict[str, Any], project: str) -> SimpleNamespace:
        assert project == "p"
        said.append(one["started"])
        return SimpleNamespace(status=202, text="")

    monkeypatch.setattr(missed, "has_identity", lambda: True)
    instances = [SimpleNamespace(uuid="u", project_id="p")]
    mappings = [SimpleNamespace(volume_id=volume) for volume in [*volumes, None]]
    records = SimpleNamespace(
        InstanceList=SimpleNamespace(get_by_host=lambda *_, **__: instances),
        BlockDeviceMappingList=SimpleNamespace(get_by_instance_uuids=lambda *_: mappings),
    )
    monkeypatch.setattr(missed, "objects", records)
    journal: Any = SimpleNamespace(looked_into=lambda: store)
    assert missed.tell_started(journal, SimpleNamespace(started=started), "host")
    assert said == [
        {"host": "host", "volumes": [volume], "operations": own[volume]} for volume in volumes
    ]
