"""
No sequence of updates, retries, duplicates, lies and crashes deletes a file that a chain holds.

`Sequences` plays the volume service (each rule is one transaction, so the process may die between
any two), the API, Nova, and a compute host of ours or a stock one, which keeps the true chain.
What the ledger believes is compared with the truth after each step.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.ledger.chain import ChainUnknown
from qmpsnap.ledger.files import FileHeld
from qmpsnap.ledger.judge import Accepted
from qmpsnap.ledger.machine import WAITED_FOR, Control, State, after_a_restart
from qmpsnap.ledger.operations import OutOfTurn
from qmpsnap.ledger.schema import db_sync
from qmpsnap.ledger.store import Store, open_engine
from qmpsnap.ledger.values import (
    Format,
    Intent,
    Kind,
    Operation,
    Place,
    Statement,
    Update,
    Witness,
)

BASE: Final = "volume-1"
COMPLETE: Final = (State.CREATING_COMPUTE_COMPLETE, State.DELETING_COMPUTE_COMPLETE)
FAILED: Final = (State.ERROR, State.ERROR_DELETING)


@dataclass
class Truth:
    """What is on the share, and what the guest has open: the active file first."""

    chain: list[str]
    disk: set[str]
    formats: dict[str, str]

    def does(self, call: Operation) -> bool:
        """Carry an operation out, where it fits."""
        file, onto = str(call.file), str(call.onto)
        if call.kind is Kind.CREATE:
            if onto != self.chain[0] or file in self.chain or file not in self.disk:
                return False
            self.chain.insert(0, file)
            return True
        upper, lower = (file, onto) if call.kind is Kind.COMMIT else (onto, file)
        if upper not in self.chain or lower not in self.chain:
            return False
        if self.chain.index(lower) != self.chain.index(upper) + 1:
            return False
        self.chain.remove(file)
        return True


class Sequences(RuleBasedStateMachine):
    @initialize(stock=st.booleans(), raw=st.booleans())
    def start(self, stock: bool, raw: bool) -> None:
        engine = open_engine("sqlite://")
        db_sync(engine)
        self.store = Store(engine)
        self.written: list[str] = []
        sa.event.listen(engine, "before_cursor_execute", self.seen)
        self.stock = stock
        self.truth = Truth([BASE], {BASE}, {BASE: "raw" if raw else "qcow2"})
        self.calls: list[Operation] = []
        self.ended: dict[str, str] = {}
        self.abandoned: set[str] = set()
        """Tokens that somebody has settled, whether or not compute was at work."""
        self.masked: set[str] = set()
        """Files that an abandoned deletion may have taken out of the chain, unseen."""
        self.mail: list[Update] = []
        self.number = 0
        self.state: State | None = None
        base = Statement(
            file=BASE,
            format=Format(self.truth.formats[BASE]),
            base=True,
            backing=None,
            place=Place.CHAIN,
            witness=Witness.MADE,
        )
        with self.store.writing() as ledger:
            ledger.state("1", [base])

    def seen(self, _c: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        self.written.append(statement)

    # The volume service.

    @precondition(lambda self: self.state is None)
    @rule()
    def begin_create(self) -> None:
        with self.store.writing() as ledger:
            try:
                active = ledger.chain("1").active.file
                self.number += 1
                intent = Intent(
                    volume="1",
                    snapshot=f"s{self.number}",
                    kind=Kind.CREATE,
                    file=f"{BASE}.s{self.number}",
                    onto=active,
                    host="h",
                )
                ledger.begin(intent)
            except Refused:
                return

    @precondition(lambda self: self.state is None and self.number)
    @rule(data=st.data())
    def begin_delete(self, data: st.DataObject) -> None:
        """As Cinder's driver chooses: a commit below the active file, a pull into it."""
        with self.store.writing() as ledger:
            known = [one for one in ledger.snapshots("1") if one.state is not State.DELETED]
            if not known:
                return
            chosen = data.draw(st.sampled_from(known)).snapshot
            try:
                chain = ledger.chain("1")
            except Refused:
                return
            layer = chain.layer(f"{BASE}.{chosen}")
            pair: tuple[str | None, str | None] = (None, None)
            kind = Kind.NOTHING
            if layer is not None and layer.file == chain.active.file and layer.backing:
                kind, pair = Kind.PULL, (layer.backing, layer.file)
            elif layer is not None:
                kind, pair = Kind.COMMIT, (layer.file, layer.backing)
            intent = Intent(
                volume="1", snapshot=chosen, kind=kind, file=pair[0], onto=pair[1], host="h"
            )
            try:
                ledger.begin(intent)
            except Refused:
                return

    def opened(self) -> tuple[Operation, State] | None:
        with self.store.reading() as ledger:
            for one in ledger.open_operations():
                found = ledger.snapshot(one.snapshot)
                assert found is not None
                return one, found.state
        return None

    @precondition(lambda self: self.state is State.CREATING)
    @rule(dies=st.booleans())
    def make(self, dies: bool) -> None:
        found = self.opened()
        if found is not None and found[1] is State.CREATING:
            name = str(found[0].file)
            self.truth.disk.add(name)
            self.truth.formats[name] = "qcow2"
            with self.store.writing() as ledger:
                if not dies and not ledger.is_recorded(found[0].token):
                    ledger.made(found[0].token)

    @precondition(lambda self: self.state not in (None, *COMPLETE))
    @rule(nova=st.sampled_from(["takes", "takes", "refuses", "is not reached", "is cut off"]))
    def call(self, nova: str) -> None:
        found = self.opened()
        if found is None or found[1] in COMPLETE or found[0].kind is Kind.NOTHING:
            return
        operation = found[0]
        if operation.kind is Kind.CREATE:
            with self.store.reading() as ledger:
                if ledger.file("1", str(operation.file)) is None:
                    return  # not made: a driver that has died before rolls back
        with self.store.writing() as ledger:
            is_recorded = ledger.is_recorded(operation.token)
            try:
                ledger.hand_over(operation.token)
            except OutOfTurn:
                assert is_recorded
                return
            assert not is_recorded
        if nova in ("takes", "is cut off"):
            self.calls.append(operation)
        if nova == "refuses":
            with self.store.writing() as ledger:
                ledger.refused(operation.token, "403")

    @precondition(lambda self: self.number)
    @rule()
    def fail(self) -> None:
        """Before Nova is called, and after compute's failure."""
        found = self.opened()
        if found is None:
            with self.store.writing() as ledger:
                for one in ledger.snapshots("1"):
                    if one.state in FAILED and one.operation:
                        ledger.fail(one.operation, "")
            return
        operation, state = found
        if state in (State.CREATING, State.DELETING, *COMPLETE):
            with self.store.writing() as ledger:
                is_recorded = ledger.is_recorded(operation.token)
                try:
                    after = ledger.fail(operation.token, "it could not")
                except OutOfTurn:
                    assert is_recorded
                    return
                assert after.state in FAILED
                assert not is_recorded or state in COMPLETE

    @precondition(lambda self: self.state in (State.CREATING, State.DELETING))
    @rule()
    def offline(self) -> None:
        """Nobody has the volume: the service does it itself, and may die before it says so."""
        found = self.opened()
        if found is None or self.calls or found[1] not in (State.CREATING, State.DELETING):
            return
        with self.store.reading() as ledger:
            if found[1] is State.CREATING and ledger.file("1", str(found[0].file)) is None:
                return  # not made
        if found[0].kind is not Kind.NOTHING and self.truth.does(found[0]):
            with self.store.writing() as ledger:
                ledger.record(found[0].token)

    @precondition(lambda self: self.state in COMPLETE)
    @rule()
    def record(self) -> None:
        """Once it is proven: a stock compute calls a job done that was aborted."""
        found = self.opened()
        if found is None or found[1] not in COMPLETE:
            return
        operation = found[0]
        shown = operation.kind in (Kind.CREATE, Kind.NOTHING) or self.is_shown_done(operation)
        with self.store.writing() as ledger:
            if shown or ledger.is_recorded(operation.token):
                ledger.record(operation.token)
            else:
                ledger.disprove(operation.token, "the header says otherwise")

    def is_shown_done(self, operation: Operation) -> bool:
        return operation.file not in self.truth.chain

    @precondition(lambda self: self.state is not None and self.state.control is Control.COMPUTE)
    @rule()
    def headers(self) -> None:
        """The volume service looks at them while it waits."""
        found = self.opened()
        if found is None or found[0].kind not in (Kind.COMMIT, Kind.PULL):
            return
        if self.is_shown_done(found[0]):
            update = Update(
                volume="1",
                snapshot=found[0].snapshot,
                status="deleting",
                progress="90%",
                operation=found[0].token,
                is_service=True,
            )
            with self.store.writing() as ledger:
                ledger.accept(update)

    @precondition(lambda self: self.state is not None)
    @rule()
    def finish(self) -> None:
        found = self.opened()
        if found is None:
            return
        with self.store.writing() as ledger:
            try:
                ledger.finish(found[0].token)
            except OutOfTurn:
                return

    @precondition(lambda self: self.state is not None)
    @rule()
    def give_up(self) -> None:
        found = self.opened()
        if found is not None:
            with self.store.writing() as ledger:
                try:
                    ledger.give_up(found[0].token, "600 s")
                except OutOfTurn:
                    return

    @precondition(lambda self: self.state is not None)
    @rule()
    def abandon(self) -> None:
        """Somebody says that compute is not at work; of a deletion he may be wrong."""
        found = self.opened()
        if found is None or (self.calls and found[0].kind is Kind.CREATE):
            return
        with self.store.writing() as ledger:
            is_recorded = ledger.is_recorded(found[0].token)
            try:
                ledger.abandon(found[0].token, "no compute is there")
            except OutOfTurn:
                return
            assert not is_recorded
        self.abandoned.add(found[0].token)
        if found[0].kind in (Kind.COMMIT, Kind.PULL):
            self.masked.add(str(found[0].file))

    @precondition(lambda self: len(self.truth.disk) > 1)
    @rule()
    def remove(self) -> None:
        """Whatever the ledger gives away, at any moment."""
        for name in sorted(self.truth.disk):
            try:
                with self.store.writing() as ledger:
                    ledger.removed("1", name)
            except FileHeld:
                continue
            assert name not in self.truth.chain
            self.truth.disk.discard(name)

    @precondition(lambda self: not self.calls)
    @rule()
    def somebody_looks(self) -> None:
        """An operator says where a file is, of which nobody knows."""
        with self.store.writing() as ledger:
            for one in ledger.files("1"):
                if one.place is Place.UNSURE:
                    place = Place.CHAIN if one.file in self.truth.chain else Place.LEFT
                    said = replace(one.statement, place=place, witness=Witness.OPERATOR)
                    ledger.state("1", [said])

    # Compute.

    @precondition(lambda self: bool(self.calls))
    @rule(data=st.data(), ok=st.booleans(), lies=st.booleans())
    def compute(self, data: st.DataObject, ok: bool, lies: bool) -> None:
        """
        Do one call; ours does none twice, and may be taken in by a header (`lies`).

        A stock one may fail after it has switched the guest, or call a job done that was aborted
        (also `lies`).
        """
        call = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        creates = call.kind is Kind.CREATE
        running, failed = ("creating", "error") if creates else ("deleting", "error_deleting")
        if not self.stock and self.ended.get(call.token) == "done":
            done = True
        else:
            done = ok and self.truth.does(call)
            if done:
                self.ended[call.token] = "done"
            if done and self.stock and creates and lies:
                done = False
            if not done and self.stock and not creates and lies:
                done = True
            if not self.stock and not creates:  # its other calls for the same have joined this one
                self.calls = [one for one in self.calls if one.token != call.token]
        if self.stock:
            update = Update(
                volume="1",
                snapshot=call.snapshot,
                status=running if done else failed,
                progress="90%",
                is_service=True,
            )
        else:
            changed = str(call.file if creates else call.onto)
            update = Update(
                volume="1",
                snapshot=call.snapshot,
                status=f"{running}_compute_complete" if done else failed,
                progress="90%" if done else "0%",
                file_format={changed: "qcow2" if lies else self.truth.formats[changed]}
                if done
                else {},
                operation=call.token,
                is_service=True,
            )
        self.mail.append(update)

    @precondition(lambda self: self.state is not None and not self.stock)
    @rule(died=st.booleans())
    def compute_starts(self, died: bool) -> None:
        """Calls may have died with the process before, or are on their way, which ours cannot tell."""
        found = self.opened()
        if found is None:
            return
        if died:
            self.calls.clear()
        operation, state = found
        with self.store.writing() as ledger:
            assert ledger.missed(operation.token) == (state in WAITED_FOR)
            if state in WAITED_FOR:
                on_their_way = [one for one in self.calls if one.token == operation.token]
                assert ledger.calls(operation) >= len(on_their_way)

    @precondition(lambda self: bool(self.mail))
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data: st.DataObject, again: bool) -> None:
        """In any order, never, or more than once (a stock compute sends each once)."""
        number = data.draw(st.integers(0, len(self.mail) - 1))
        update = self.mail[number] if again and not self.stock else self.mail.pop(number)
        with self.store.writing() as ledger:
            ledger.accept(update)

    # An attacker.

    @precondition(lambda self: self.state is not None and self.state.control is Control.COMPUTE)
    @rule(
        snapshot=st.integers(0, 6),
        status=st.sampled_from(
            [
                "creating",
                "deleting",
                "error",
                "error_deleting",
                "available",
                "deleted",
                "x\x00",
                "-",
                "creating_compute_complete",
                "deleting_compute_complete",
            ]
        ),
        progress=st.sampled_from(["90%", "0%", "100%", None]),
        files=st.dictionaries(
            st.sampled_from([BASE, f"{BASE}.s1", "volume-2", "../x", "\0", "", "\ud800"]),
            st.sampled_from(["raw", "qcow2", "vmdk", "ploop", ""]),
            max_size=2,
        ),
        token=st.sampled_from([None, "", "old", "x" * 300, "\0", "\ud800"]),
    )
    def spoof(
        self,
        snapshot: int,
        status: str,
        progress: str | None,
        files: dict[str, str],
        token: str | None,
    ) -> None:
        """A member of the project, and a service that knows no token."""
        update = Update(
            volume="1",
            snapshot=f"s{snapshot}",
            status=status,
            progress=progress,
            file_format=files,
            operation=token,
            is_service=False,
        )
        with self.store.writing() as ledger:
            assert not isinstance(ledger.accept(update), Accepted)
            if token is not None:
                service = replace(update, is_service=True)
                assert not isinstance(ledger.accept(service), Accepted)

    @precondition(lambda self: self.state is None)
    @rule(
        data=st.data(),
        creates=st.booleans(),
        stops=st.sampled_from([9, 9, 9, 3, 4, 5, 6]),
        ok=st.sampled_from([True, True, False]),
        lies=st.sampled_from([False, False, True]),
        calls=st.sampled_from([1, 1, 2]),
    )
    def operation(
        self,
        data: st.DataObject,
        creates: bool,
        stops: int,
        ok: bool,
        lies: bool,
        calls: int,
    ) -> None:
        """Most of an operation at once, so that chains grow, and broken ones are among whole ones."""
        steps: list[Callable[[], object]] = [
            self.begin_create if creates else lambda: self.begin_delete(data),
            lambda: self.make(dies=False),
            *[lambda: self.call("takes")] * calls,
            lambda: self.calls and self.compute(data, ok=ok, lies=lies),
            lambda: self.mail and self.deliver(data, again=lies),
            self.record,
            self.finish,
            self.remove,
        ]
        for step in steps[:stops]:
            step()

    @precondition(lambda self: self.state is None)
    @rule(
        data=st.data(),
        creates=st.booleans(),
        made=st.booleans(),
        acts=st.lists(st.sampled_from(["call", "abandon", "fail", "record", "finish", "remove"])),
    )
    def by_itself(self, data: st.DataObject, creates: bool, made: bool, acts: list[str]) -> None:
        """An offline operation, killed, and whatever anybody tries then."""
        if creates:
            self.begin_create()
            self.make(dies=not made)
        else:
            self.begin_delete(data)
        self.offline()
        for act in acts:
            self.act(act, data)

    @precondition(lambda self: self.state is None)
    @rule(
        data=st.data(),
        creates=st.booleans(),
        acts=st.lists(
            st.sampled_from(
                [
                    *("call", "call", "refused", "abandon", "begin", "done", "failed", "deliver"),
                    *("headers", "record", "finish"),
                ]
            ),
            min_size=3,
            max_size=12,
        ),
    )
    def asked_again(self, data: st.DataObject, creates: bool, acts: list[str]) -> None:
        """Operations that are asked for again, and whose answers come late."""
        if creates:
            self.begin_create()
            self.make(dies=False)
        else:
            self.begin_delete(data)
        self.call("takes")
        for act in acts:
            self.act(act, data)

    @precondition(lambda self: self.state is None)
    @rule(
        data=st.data(),
        second=st.sampled_from(["takes", "takes", "refuses"]),
        abandons=st.sampled_from([False, False, True]),
        ok=st.sampled_from([False, False, True]),
        lies=st.booleans(),
    )
    def two_calls(
        self, data: st.DataObject, second: str, abandons: bool, ok: bool, lies: bool
    ) -> None:
        """Two calls for one deletion, of which one has ended in some way."""
        self.whole_create(data)
        self.begin_delete(data)
        self.call("takes")
        if abandons:
            self.abandon()
            self.begin_delete(data)
        self.call(second)
        self.nobody_works_for_what_has_failed()
        if self.calls:
            self.compute(data, ok=ok, lies=lies)
            self.deliver(data, again=False)
        self.record()

    def whole_create(self, data: st.DataObject) -> None:
        """A snapshot that may be deleted, where nothing stands in the way."""
        if not self.calls and not self.mail:
            self.begin_create()
            self.make(dies=False)
            self.call("takes")
            if self.calls:
                self.compute(data, ok=True, lies=False)
                self.deliver(data, again=False)
            self.record()
            self.finish()

    def act(self, what: str, data: st.DataObject) -> None:
        acts: dict[str, Callable[[], object]] = {
            "call": lambda: self.call("takes"),
            "refused": lambda: self.call("refuses"),
            "begin": lambda: self.begin_delete(data),
            "done": lambda: self.calls and self.compute(data, ok=True, lies=False),
            "failed": lambda: self.calls and self.compute(data, ok=False, lies=False),
            "deliver": lambda: self.mail and self.deliver(data, again=False),
        }
        acts.get(what, getattr(self, what, None) or (lambda: None))()
        self.every_status_has_an_owner()
        self.what_is_settled_is_the_truth()
        self.nobody_works_for_what_has_failed()

    # What always holds.

    @invariant()
    def every_file_of_the_chain_is_there(self) -> None:
        assert set(self.truth.chain) <= self.truth.disk

    @invariant()
    def no_format_is_wrong(self) -> None:
        with self.store.reading() as ledger:
            for name in self.truth.chain:
                assert ledger.format("1", name) in (None, self.truth.formats[name])

    @invariant()
    def every_status_has_an_owner(self) -> None:
        with self.store.reading() as ledger:
            working = {one.token for one in ledger.open_operations()}
            self.state = None
            assert len(working) <= 1
            for one in ledger.snapshots("1"):
                assert (one.state.control is Control.NOBODY) is (one.state is State.DELETED)
                if one.state.is_open:
                    self.state = one.state
                    assert after_a_restart(one.state) is not None
                    assert one.operation in working

    @invariant()
    def what_is_settled_is_the_truth(self) -> None:
        """Or it is known to be unknown: then nothing begins."""
        if self.state is not None:
            return
        with self.store.reading() as ledger:
            try:
                known = [one.file for one in ledger.chain("1").layers]
            except ChainUnknown:
                return
        assert [one for one in known if one not in self.masked] == [
            one for one in self.truth.chain if one not in self.masked
        ]

    @invariant()
    def nobody_works_for_what_has_failed(self) -> None:
        """Unless somebody has said that nobody does, or nothing begins on the volume."""
        with self.store.reading() as ledger:
            for call in self.calls:
                found = ledger.snapshot(call.snapshot)
                if found is None or found.operation != call.token or found.state not in FAILED:
                    continue
                file = ledger.file("1", str(call.file))
                unsure = file is not None and file.place is Place.UNSURE
                stands = ledger.is_recorded(call.token)
                assert call.token in self.abandoned or unsure or stands

    @invariant()
    def nothing_is_overwritten(self) -> None:
        for one in self.written:
            words = [*one.split(), "", ""]
            if words[0] == "UPDATE":
                assert words[1] in ("qmpsnap_volumes", "qmpsnap_refusals")
            assert words[0] not in ("DELETE", "REPLACE", "DROP", "ALTER")
        self.written.clear()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.engine.dispose()


TestSequences = Sequences.TestCase
TestSequences.settings = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("QMPSNAP_UNIT_EXAMPLES", "40")),
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
