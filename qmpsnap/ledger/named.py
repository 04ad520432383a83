"""How the ledger that this process works on is named in a command: `--ledger`."""

from __future__ import annotations

import shlex

CINDERS = "cinder:"
"""Instead of a URL: Cinder's own database, by Cinder's configuration; its files may follow."""
_words = ""


def name_it(name: str) -> None:
    """Have what is printed from now on name this ledger; an empty name: that of this host."""
    global _words
    _words = f" --ledger {shlex.quote(name)}" if name else ""


def words() -> str:
    """What is added to a command, so that it is about this ledger."""
    return _words


class OfLedger:
    """Of an error: its remedy is a command about this very ledger."""

    @property
    def ledger(self) -> str:
        """What is added to it; with the space before."""
        return words()
