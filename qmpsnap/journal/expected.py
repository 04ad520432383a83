"""
A letter is due from the moment a call arrives, and while it runs the call holds it.

A call that dies before its operation has begun leaves a letter that nobody holds and that tells of
no operation: nothing was touched, and that is what is told. One that dies later leaves an open
operation, which `resume` settles; with it the letter gets its content.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import msgspec

from qmpsnap.journal.file import Journal
from qmpsnap.journal.hold import OperationBusy, held
from qmpsnap.journal.letter import DUE, Content, Due
from qmpsnap.journal.record import Request

ABANDONED: Final = Content(
    outcome="failed", why="its process ended, or lost the guest, before anything was touched"
)
LOOK_S: Final = 0.05
"""So often a call looks whether another one of its token has written down what it is at work on."""


class Expected(msgspec.Struct, frozen=True):
    """A letter that is due, and held."""

    journal: Journal
    id: str

    def answer(self, content: Content) -> bool:
        """
        Write down what is to be told.

        Returns:
            False while its operation is open: `resume` tells.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self.journal.opened() as store:
            store.letters.answer(self.id, content, time.time())
            (letter,) = store.letters.find((), ids=(self.id,))
        return letter.state != "due"

    def join(self, request: Request) -> None:
        """
        Tell of the open operation that was asked for in the same words, if there is one.

        For a call that has not reached the guest: what it asked for may be at work all the same.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self.journal.opened() as store:
            for one in store.open_entries():
                if one.record.request == request:
                    store.letters.join(self.id, one.record.id, time.time())

    @contextmanager
    def alone(self, token: str, request: Request) -> Iterator[str | None]:
        """
        Be the only call of a caller's token at work, from the first look at the guest on.

        Another one that has looked, and has written nothing down yet, is waited for: what this call
        would see in between may be refused for what that one does, and told as its failure.

        Yields:
            The operation that another call is at work on, which this letter tells of from now on;
            None: there is no such call.

        Raises:
            JournalUnusable: It cannot be read, or written.
        """
        name = f"token-{hashlib.sha256(token.encode(errors='surrogateescape')).hexdigest()[:32]}"
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(held(self.journal.opened_folder, name))
                    break
                except OperationBusy:
                    found = self._at_work(token, request)
                if found is not None:
                    yield found
                    return
                time.sleep(LOOK_S)
            yield None

    def _at_work(self, token: str, request: Request) -> str | None:
        with self.journal.opened() as store:
            for one in store.by_token(token):
                if one.conclusion is None and one.record.request == request:
                    store.letters.join(self.id, one.record.id, time.time())
                    return one.record.id
        return None

    def give_up(self, why: str) -> None:
        """
        Leave it to a person: nothing that can be told would be true.

        Raises:
            JournalUnusable: It is not written down.
        """
        with self.journal.opened() as store:
            store.letters.note(self.id, "dead", answer=why, now=time.time())


@contextmanager
def expected(journal: Journal, due: Due) -> Iterator[Expected]:
    """
    Note that the volume service waits for an update, and hold that for the length of a block.

    Raises:
        JournalUnusable: It cannot be written down; nothing was touched.
    """
    id_ = secrets.token_hex(8)
    with held(journal.opened_folder, _lock(id_)):
        with journal.opened() as store:
            store.letters.expect(id_, due)
        yield Expected(journal, id_)


def answer_abandoned(journal: Journal) -> None:
    """
    Write down, for every letter that nobody holds and that tells of no operation, that it failed.

    Raises:
        JournalUnusable: It is not written down.
    """
    with journal.opened() as store:
        for letter in store.letters.find(DUE):
            if letter.operation is not None:
                continue
            try:
                with held(journal.opened_folder, _lock(letter.id)):
                    store.letters.answer(letter.id, ABANDONED, time.time())
            except OperationBusy:
                continue


def _lock(id_: str) -> str:
    return f"letter-{id_}"
