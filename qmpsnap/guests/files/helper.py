"""
Who looks at files, and changes them, where this process may not: somebody with more rights.

A process has at most one, handed to it from above (`lend`); most have none. It is asked only when the
kernel has said no, for the same look or change, and refuses what it finds unsafe as the kernel does:
by an `OSError`. Nothing here is imported that libvirt's hook could do without.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from qmpsnap.formats.layers import Identity


class Helper(Protocol):
    """
    What can be asked for. Every function raises an `OSError` for what cannot be had or is refused.

    Numbers of `lock` and `watch` are of this helper, and no descriptors of this process.
    """

    def header(self, path: str) -> bytes:
        """The first `qcow2.READ_SIZE` bytes of a qcow2 file."""
        ...

    def whole(self, path: str) -> bytes:
        """All bytes of a qcow2 file that is as small as an overlay without data."""
        ...

    def mend(self, path: str, before: bytes, after: bytes) -> None:
        """Write the first cluster of a qcow2 file that nobody has open, with another backing format."""
        ...

    def write_marker(self, path: str, text: str) -> None:
        """See `markers.write_marker`."""
        ...

    def remove_marker(self, path: str) -> None:
        """See `markers.remove_marker`."""
        ...

    def markers(self, folder: str) -> Collection[tuple[str, int | None, str | None, str]]:
        """The markers of a folder: bare name, and as `MarkerFile`."""
        ...

    def held(
        self, pid: int, started: int
    ) -> tuple[dict[Identity, tuple[str, ...]], frozenset[str], bool]:
        """What a QEMU has open: `Held.files`, `Held.writable` and `Held.elsewhere`."""
        ...

    def in_root(self, pid: int, started: int, path: str) -> Identity | None:
        """What a name means to a QEMU; None: nothing."""
        ...

    def opened_by(
        self, wanted: Collection[Identity], own: Identity | None, but: Collection[int]
    ) -> tuple[dict[Identity, list[str]], int, int]:
        """See `neighbours.processes_with`; `but` are processes that do not count."""
        ...

    def is_locked(self, path: str, start: int, length: int) -> bool:
        """See `bytes.has_lock`."""
        ...

    def lock(self, path: str) -> int:
        """Lock our byte of a file, as `bytes.lock_byte`; EAGAIN: somebody has it."""
        ...

    def watch(self, path: str) -> int:
        """Open a file to have it synced later."""
        ...

    def sync(self, number: int) -> None:
        """Bring a file that is watched to its disk."""
        ...

    def release(self, number: int) -> None:
        """Let go of a file; raises nothing."""
        ...


_lent: Helper | None = None


def lend(helper: Helper | None) -> None:
    """Hand over the helper of this process, or None to take it away."""
    global _lent
    _lent = helper


def lent() -> Helper | None:
    """The helper of this process."""
    return _lent


def instead_of(error: PermissionError) -> Helper:
    """
    The helper, to be asked for what the kernel has denied.

    Raises:
        PermissionError: No helper was lent, so the denial stands.
    """
    if _lent is None:
        raise error
    return _lent
