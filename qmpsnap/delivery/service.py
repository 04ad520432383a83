"""What the sender needs of a volume service; who carries it out stands in modules of their own."""

from __future__ import annotations

from typing import Protocol

from qmpsnap.delivery.machine import Answer, Ask
from qmpsnap.journal.letter import Letter


class Service(Protocol):
    """
    A volume service.

    Several threads may ask at once. No request takes for ever.
    """

    def ask(self, letter: Letter, ask: Ask) -> Answer:
        """
        Make one request.

        Args:
            letter: The letter that it is about.
            ask: `dialect`: whether the service knows the extension `os-qmpsnap`; `update`: the
                update itself, in a dialect; `row`: how the snapshot is.

        Returns:
            The answer; a request that fails is an answer too.
        """
