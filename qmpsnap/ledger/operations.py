"""
What the volume service does with an operation, from the intent to its end.

    begin → (make the file) → hand_over → call compute … answer … → record
          → (.info, connection_info) → finish → (unlink) → removed

Each is one transaction; between any two of them the process may die. `open_operations` and
`machine.after_a_restart` then say what is left to do, and each of these may be called again.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from msgspec.structs import replace

from qmpsnap.errors import Refused
from qmpsnap.ledger.chain import chain_of, effect
from qmpsnap.ledger.exchange import checked_name
from qmpsnap.ledger.files import Files, moved
from qmpsnap.ledger.judge import recorded
from qmpsnap.ledger.machine import COMPLETE, TABLE, WAITED_FOR, Event, State
from qmpsnap.ledger.named import OfLedger
from qmpsnap.ledger.snapshots import ENDED, MISSED
from qmpsnap.ledger.values import (
    Difference,
    File,
    Format,
    Intent,
    Kind,
    Operation,
    Place,
    Snapshot,
    Statement,
    Witness,
)


class OperationUnsettled(OfLedger, Refused):
    """Another operation on the volume is under way."""

    msg = (
        "volume {self.volume}: the {self.kind} of snapshot {self.snapshot} ({self.token}) is not "
        "settled, it is {self.state}"
    )
    remedy = (
        "Give the same request again, which takes it up; or, once it is certain that no compute "
        "host is at work on it, `qmpsnap ledger settle {self.token} --why REASON{self.ledger}`."
    )

    volume: str
    snapshot: str
    kind: str
    token: str
    state: str


class OutOfTurn(OfLedger, Refused):
    """The state of a snapshot does not allow this."""

    msg = "snapshot {self.snapshot} is {self.state}, which {self.event} does not follow"
    remedy = "`qmpsnap ledger show{self.ledger}` tells who has control of it. Nothing was changed."

    snapshot: str
    state: str
    event: str


class Operations(Files):
    """Operations, in the hands of the volume service."""

    def begin(self, intent: Intent, token: str | None = None) -> Operation:
        """
        Write down what is going to be done, before anybody is asked to do it.

        The same request, given again while it is not settled, gets the operation that stands there
        already (`again`), with its token.

        Args:
            intent: Files by bare name.
            token: None: a new one.

        Raises:
            OperationUnsettled: Another operation on the volume is not settled.
            OutOfTurn: The snapshot is not in a state to begin this in.
            BadName: A file's name leads elsewhere.
            ChainUnknown, DoesNotFit: It does not fit the chain that the ledger knows.
        """
        for name in intent.names:
            checked_name(intent.volume, name)
        self.lock(intent.volume)
        for one in self.open_operations(volume=intent.volume):
            if replace(one.intent, host=intent.host) == intent:
                return replace(one, again=True)
            state = self._of(one).state
            raise OperationUnsettled(one.volume, one.snapshot, one.kind, one.token, state.word)
        creates = intent.kind is Kind.CREATE
        event = Event.BEGIN_CREATE if creates else Event.BEGIN_DELETE
        before = self.snapshot(intent.snapshot)
        state_before = None if before is None else before.state
        if (state_before, event) not in TABLE:
            word = "not known" if state_before is None else state_before.word
            raise OutOfTurn(intent.snapshot, word, event)
        if intent.kind is not Kind.NOTHING:
            effect(chain_of(intent.volume, self._newest(intent.volume)), intent)
        operation = self._intend(intent, token or str(uuid.uuid4()))
        after = TABLE[state_before, event]
        self._put(intent.volume, intent.snapshot, after, operation.token, "")
        return operation

    def adopt(self, volume: str, snapshot: str, state: State = State.AVAILABLE) -> None:
        """Take a snapshot over that was made without this ledger; nothing where it is known."""
        self.lock(volume)
        if self.snapshot(snapshot) is None:
            self._put(volume, snapshot, state, None, "adopted")

    def made(self, token: str) -> None:
        """State that the new file of a create is there: qcow2, not yet in the chain."""
        operation = self._locked(token)
        chain = chain_of(operation.volume, self._newest(operation.volume))
        comes = effect(chain, operation).comes
        if comes is None:
            raise OutOfTurn(operation.snapshot, operation.kind, "made")
        overlay = next(
            one
            for one, _ in recorded(chain, effect(chain, operation), operation, None)
            if one.file == comes
        )
        self.state(operation.volume, [replace(overlay, place=Place.MADE)])

    def hand_over(self, token: str) -> Snapshot:
        """
        Give control to compute, right before it is called; again before each call.

        Raises:
            OutOfTurn: It is done: compute has finished, or it is recorded.
        """
        operation = self._locked(token)
        self._not_recorded(operation, Event.HAND_OVER)
        return self._step(operation, Event.HAND_OVER)

    def before_call(self, token: str) -> int:
        """
        Hand over, unless an earlier call for it has been answered in this very moment.

        Returns:
            How many calls may be at work then; 0 where compute has finished, and is not to be asked.
        """
        operation = self._locked(token)
        if self._of(operation).state in COMPLETE:
            return 0
        self.hand_over(token)
        return self.calls(operation)

    def missed(self, token: str) -> bool:
        """
        Note that our nova-compute on the guest's host has started, and does not know the operation.

        The call has died with the process that it had reached, or is still on its way: it counts as
        one that may be at work. Whoever waits calls again, which ours does not do twice.

        Returns:
            Whether the volume service waits for compute, so that somebody calls again.
        """
        operation = self._locked(token)
        before = self.snapshot(operation.snapshot)
        if before is None or before.operation != token or before.state not in WAITED_FOR:
            return False
        if before.why != MISSED:
            self._moved(before, before.state, MISSED)
        return True

    def give_up(self, token: str, why: str) -> Snapshot:
        """Wait no longer. The operation stays open: an answer may still come, and is accepted."""
        return self._step(self._locked(token), Event.GIVE_UP, why)

    def abandon(self, token: str, why: str) -> Snapshot:
        """
        Settle an operation that compute will not answer; for who knows that none is at work on it.

        Once compute was asked, whether a file made for it is in use stays unsure: the file is never
        removed, and nothing begins on the volume, until somebody states where it is (`state`).

        Raises:
            OutOfTurn: It is done, and only to be concluded.
        """
        operation = self._locked(token)
        self._not_recorded(operation, Event.ABANDON)
        after = self._step(operation, Event.ABANDON, why)
        self._place_new_file(operation, is_certain=self.asked(operation) == 0)
        return after

    def refused(self, token: str, why: str) -> Snapshot:
        """
        Nova has certainly not passed the last call on.

        It settles the operation if it was the only one. Otherwise an earlier call may be at work,
        so the volume service only waits no longer.
        """
        operation = self._locked(token)
        if self.calls(operation) > 1:
            return self._heard(self._of(operation), why)
        return self.fail(token, why)

    def record(self, token: str) -> tuple[Difference, ...]:
        """
        Write down what a successful operation has left: formats, and the chain.

        After compute's report, or of an operation that the volume service has done by itself. A
        second time it does nothing.

        Returns:
            What compute reported otherwise than the operation must leave; kept, and not believed.

        Raises:
            OutOfTurn: Compute has not finished.
        """
        operation = self._locked(token)
        if not self._is_recorded(operation):
            self._record(operation)
        return tuple(
            one for one in self.differences(operation.volume) if one.said.operation == token
        )

    def finish(self, token: str) -> Snapshot:
        """
        Settle an operation that has succeeded, once all that follows from it is written.

        Raises:
            OutOfTurn: It was not recorded, or compute has not finished.
        """
        operation = self._locked(token)
        before = self._of(operation)
        if before.state in (State.AVAILABLE, State.DELETED):
            return before
        if not self._is_recorded(operation):
            raise OutOfTurn(operation.snapshot, "not recorded", Event.FINISH)
        return self._step(operation, Event.FINISH)

    def fail(self, token: str, why: str) -> Snapshot:
        """
        Settle an operation that did not come about.

        For what the volume service could not do, for a call that Nova certainly refused (4xx), and
        once compute has reported a failure, when the new file's place is written down.
        When a call broke off, `give_up`: it may have reached compute. If compute has reported
        success, what it did stands, and is recorded first.
        """
        operation = self._locked(token)
        before = self._of(operation)
        if before.state in COMPLETE and not self._is_recorded(operation):
            self._record(operation)
        if before.state in (State.CREATING, State.DELETING):
            self._not_recorded(operation, Event.FAILED)
        if before.state not in (State.ERROR, State.ERROR_DELETING):
            before = self._step(operation, Event.FAILED, why)
        self._place_failed(operation)
        return before

    def disprove(self, token: str, why: str) -> Snapshot:
        """
        Settle an operation of which compute reports success, while the files show that it was none.

        Nothing of it is recorded: the chain is as it was. (Stock Nova takes a job that has failed,
        or was aborted, for one that is done.)

        Raises:
            OutOfTurn: Compute does not report that; or it is recorded already.
        """
        operation = self._locked(token)
        before = self._of(operation)
        if before.state is not State.DELETING_COMPUTE_COMPLETE:
            raise OutOfTurn(operation.snapshot, before.state.word, "disprove")
        self._not_recorded(operation, Event.FAILED)
        return self._step(operation, Event.FAILED, why)

    def is_recorded(self, token: str) -> bool:
        """Whether what the operation has left is recorded; never so where no file is concerned."""
        operation = self.operation(token)
        return (
            operation is not None
            and operation.kind is not Kind.NOTHING
            and self._is_recorded(operation)
        )

    def _place_failed(self, operation: Operation) -> None:
        """
        Say where the file of a create that has failed is.

        It has not come into the chain if compute was never asked, or once, and Nova refused, or a
        compute side of ours says so, which has looked. Stock compute may have switched the guest
        all the same. When it was asked more than once, one call may fail because another has done
        it, or before another does it.
        """
        asked, answer = self.asked(operation), self.answer(operation.token)
        alone = asked == 1 and (answer is None or answer.is_named)
        self._place_new_file(operation, is_certain=asked == 0 or alone)

    def _place_new_file(self, operation: Operation, *, is_certain: bool) -> None:
        """The file of a create that is settled has left for certain, or nobody knows."""
        if operation.kind is not Kind.CREATE or operation.file is None:
            return
        file = self.file(operation.volume, operation.file)
        if file is None:
            self.state(operation.volume, [_nowhere_stated(operation, is_certain=is_certain)])
        elif file.place is Place.MADE:
            place = Place.LEFT if is_certain else Place.UNSURE
            self.state(operation.volume, [moved(file, place)])

    def _record(self, operation: Operation) -> Sequence[File]:
        answer = self.answer(operation.token)
        state = self._of(operation).state
        if (state, Event.FINISH) not in TABLE or (answer is None) != (
            state in (State.CREATING, State.DELETING)
        ):
            raise OutOfTurn(operation.snapshot, state.word, "record")
        volume = operation.volume
        chain = chain_of(volume, self._newest(volume))
        stated = recorded(chain, effect(chain, operation), operation, answer)
        return [self._write(volume, one, believed=believed) for one, believed in stated]

    def _is_recorded(self, operation: Operation) -> bool:
        leaves = Place.CHAIN if operation.kind is Kind.CREATE else Place.LEFT
        return operation.kind is Kind.NOTHING or any(
            one.operation == operation.token and one.believed and one.place is leaves
            for one in self.history(operation.volume, operation.file)
        )

    def _not_recorded(self, operation: Operation, event: Event) -> None:
        if operation.kind is not Kind.NOTHING and self._is_recorded(operation):
            raise OutOfTurn(operation.snapshot, "recorded as done", event)

    def _locked(self, token: str) -> Operation:
        operation = self.operation(token, now=True)
        if operation is None:
            raise OutOfTurn(token, "not known", "any event")
        self.lock(operation.volume)
        return operation

    def _of(self, operation: Operation) -> Snapshot:
        found = self.snapshot(operation.snapshot)
        if found is None or found.operation != operation.token:
            word = "not known" if found is None else f"in the hands of {found.operation}"
            raise OutOfTurn(operation.snapshot, word, operation.token)
        return found

    def _step(self, operation: Operation, event: Event, why: str = "") -> Snapshot:
        before = self._of(operation)
        after = TABLE.get((before.state, event))
        if after is None:
            raise OutOfTurn(operation.snapshot, before.state.word, event)
        if after is before.state and event is not Event.HAND_OVER:
            return before
        return self._moved(before, after, why)

    def _heard(self, before: Snapshot, why: str) -> Snapshot:
        """One of several calls has ended without effect; another may be at work."""
        after = TABLE.get((before.state, Event.GIVE_UP), before.state)
        return self._moved(before, after, ENDED + why)


def _nowhere_stated(operation: Operation, *, is_certain: bool) -> Statement:
    """
    The new file of a create of which nobody has stated that it was made.

    Interrupted right after it was, the file is there, and is to be removed like any other; one that
    was handed over all the same may be in use.
    """
    return Statement(
        file=str(operation.file),
        format=Format.QCOW2,
        base=False,
        backing=operation.onto,
        place=Place.LEFT if is_certain else Place.UNSURE,
        witness=Witness.RULE,
        detail="it may have been made" if is_certain else "compute was asked to use it",
        operation=operation.token,
    )
