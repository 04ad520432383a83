"""
Our NFS driver, dying at a point that a file names: as `kill -9` would hit it right there.

The file `die-at` in the rig's folder holds the point; it is used up by the death. `fail-at` holds
one before which it fails instead. While there is a file `looks-away`, it does not look after what
nobody waits for (which it does every five seconds otherwise).
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qmpsnap.openstack.cinder import bus, extension
from qmpsnap.openstack.cinder.extension import Extension
from qmpsnap.openstack.cinder.nfs import NfsDriver as Ours

__all__ = ["Extension", "NfsDriver"]
"""The extension is here for an API that is a process of its own: it dies at `wake`."""
_wake = bus.wake


def die_at(point: str) -> None:
    """Die, if it is here that this is wanted."""
    wanted = Path(os.environ["RIG"]) / "die-at"
    if wanted.exists() and wanted.read_text() == point:
        wanted.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def fail_at(point: str) -> None:
    """Fail, if it is here that this is wanted."""
    wanted = Path(os.environ["RIG"]) / "fail-at"
    if wanted.exists() and wanted.read_text() == point:
        wanted.unlink()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wake(*arguments: Any, **named: Any) -> None:
    """The API has stored the answer, and the volume service does not hear of it."""
    die_at("wake")
    _wake(*arguments, **named)


extension.bus.wake = wake  # type: ignore[attr-defined]


class _Books:
    """The driver's ledger, with deaths after its steps."""

    def __init__(self, books: Any) -> None:
        self._books = books

    def __getattr__(self, name: str) -> Any:
        return getattr(self._books, name)

    def run(self, work: Callable[[Any], Any]) -> Any:
        called: list[str] = []

        class Seen:
            def __init__(self, ledger: Any) -> None:
                self._ledger = ledger

            def __getattr__(self, name: str) -> Any:
                called.append(name)
                return getattr(self._ledger, name)

        done = self._books.run(lambda ledger: work(Seen(ledger)))
        for name in called:
            die_at(
                {"before_call": "handed-over", "record": "recorded", "finish": "finished"}.get(
                    name, name
                )
            )
        return done


class NfsDriver(Ours):
    """Dies where it is told to."""

    def do_setup(self, context: Any) -> None:
        super().do_setup(context)
        self._books = _Books(self._books)

    def _settle(self) -> None:
        if not (Path(os.environ["RIG"]) / "looks-away").exists():
            super()._settle()

    def _do_create_snapshot(self, *arguments: Any) -> None:
        super()._do_create_snapshot(*arguments)
        die_at("overlay")
        fail_at("overlay")

    def _write_info_file(self, info_path: str, snap_info: dict[str, str]) -> None:
        fail_at("info")
        super()._write_info_file(info_path, snap_info)
        die_at("info")

    def _commit_into(self, *arguments: Any) -> None:
        super()._commit_into(*arguments)
        die_at("committed")
        fail_at("committed")

    def _name_below(self, *arguments: Any) -> None:
        super()._name_below(*arguments)
        die_at("rebased")

    def _delete(self, path: str) -> None:
        super()._delete(path)
        die_at("unlinked")
