"""What the tests of the ledger have in common: a volume, and what the services do to it."""

from __future__ import annotations

from typing import Final

from qmpsnap.ledger.judge import Accepted
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.store import Store
from qmpsnap.ledger.values import Format, Intent, Kind, Operation, Place, Statement, Update, Witness

BASE: Final = Statement(
    file="volume-1",
    format=Format.RAW,
    base=True,
    backing=None,
    place=Place.CHAIN,
    size=1 << 30,
    witness=Witness.MADE,
)


def create(snapshot: str = "a", onto: str = "volume-1") -> Intent:
    """A snapshot of the active file."""
    return _intent(snapshot, Kind.CREATE, f"volume-1.{snapshot}", onto)


def commit(snapshot: str = "a", onto: str = "volume-1") -> Intent:
    """Its file is merged into the one below."""
    return _intent(snapshot, Kind.COMMIT, f"volume-1.{snapshot}", onto)


def pull(snapshot: str = "a", file: str = "volume-1") -> Intent:
    """Its file takes over what is in the one below."""
    return _intent(snapshot, Kind.PULL, file, f"volume-1.{snapshot}")


def _intent(snapshot: str, kind: Kind, file: str, onto: str) -> Intent:
    return Intent(volume="1", snapshot=snapshot, kind=kind, file=file, onto=onto, host="h")


def update(
    snapshot: str,
    status: str,
    token: str | None = None,
    formats: dict[str, str] | None = None,
    *,
    progress: str | None = "90%",
    is_service: bool = True,
) -> Update:
    """A status update."""
    return Update(
        volume="1",
        snapshot=snapshot,
        status=status,
        progress=progress,
        file_format=formats or {},
        operation=token,
        is_service=is_service,
    )


def asked(ledger: Ledger, intent: Intent) -> Operation:
    """Begin an operation, and give control to compute."""
    operation = ledger.begin(intent)
    if intent.kind is Kind.CREATE:
        ledger.made(operation.token)
    ledger.hand_over(operation.token)
    return operation


def done(store: Store, intent: Intent, formats: dict[str, str] | None = None) -> str:
    """Do a whole operation with a compute side of ours."""
    status = "creating" if intent.kind is Kind.CREATE else "deleting"
    with store.writing() as ledger:
        token = asked(ledger, intent).token
        answer = update(intent.snapshot, f"{status}_compute_complete", token, formats)
        assert isinstance(ledger.accept(answer), Accepted)
        ledger.record(token)
        ledger.finish(token)
    return token
