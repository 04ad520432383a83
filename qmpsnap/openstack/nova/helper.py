"""
Nova-compute's way to its helper: one call each, over oslo.privsep; see `privileged`.

The helper is started by the first call, through sudo and rootwrap, and ends with nova-compute. Where it
cannot be had, every call is denied as the kernel has denied it before, with the reason.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from oslo_log import log as logging
from oslo_privsep.daemon import FailedToDropPrivileges

from qmpsnap.formats.layers import Identity
from qmpsnap.openstack.nova import privileged

LOG = logging.getLogger(__name__)
AGAIN_S: Final = 60.0
"""Until a helper that could not be started is started again."""
WITHOUT: Final = (
    "what QEMU has open is `not-seen`, headers of files that this user may not read are no witness, no "
    "marker lies in a folder that it may not write, and such files are neither mended nor removed"
)
P = ParamSpec("P")
T = TypeVar("T")


class NovasHelper:
    """See `guests.files.helper.Helper`."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self._not_before = 0.0
        self._why = ""

    def folders(self) -> tuple[str, ...]:
        """
        Start the helper, and ask where it works.

        Raises:
            PermissionError: It cannot be had; why.
        """
        return tuple(self._ask(privileged.ready))

    def _ask(self, entry: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call the helper.

        Raises:
            OSError: What it answers; PermissionError where it cannot be had.
        """
        if time.monotonic() < self._not_before:
            raise PermissionError(errno.EPERM, self._why)
        try:
            return entry(*args, **kwargs)
        except FailedToDropPrivileges as error:
            self._why = f"the helper cannot be started: {error}"
            self._not_before = time.monotonic() + AGAIN_S
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError | BrokenPipeError):
                raise
            self._why = f"the helper is gone: {error}"
        except Exception as error:  # whatever goes wrong between here and there
            LOG.exception("Unforeseen, of the helper.")
            self._why = f"the helper does not answer: {type(error).__name__} {error}"
        raise PermissionError(errno.EPERM, self._why)

    def header(self, path: str) -> bytes:
        """See `Helper.header`."""
        return self._ask(privileged.header, path)

    def whole(self, path: str) -> bytes:
        """See `Helper.whole`."""
        return self._ask(privileged.whole, path)

    def mend(self, path: str, before: bytes, after: bytes) -> None:
        """See `Helper.mend`."""
        self._ask(privileged.mend, path, before, after)

    def write_marker(self, path: str, text: str) -> None:
        """See `Helper.write_marker`."""
        self._ask(privileged.write_marker, path, text)

    def remove_marker(self, path: str) -> None:
        """See `Helper.remove_marker`."""
        self._ask(privileged.remove_marker, path)

    def markers(self, folder: str) -> Collection[tuple[str, int | None, str | None, str]]:
        """See `Helper.markers`."""
        return self._ask(privileged.markers, folder)

    def held(
        self, pid: int, started: int
    ) -> tuple[dict[Identity, tuple[str, ...]], frozenset[str], bool]:
        """See `Helper.held`."""
        files, writable, elsewhere = self._ask(privileged.held, pid, started)
        return dict(files), frozenset(writable), elsewhere

    def in_root(self, pid: int, started: int, path: str) -> Identity | None:
        """See `Helper.in_root`."""
        return self._ask(privileged.in_root, pid, started, path)

    def opened_by(
        self, wanted: Collection[Identity], own: Identity | None, but: Collection[int]
    ) -> tuple[dict[Identity, list[str]], int, int]:
        """See `Helper.opened_by`."""
        found, seen, hidden = self._ask(privileged.opened_by, list(wanted), own, list(but))
        return {key: list(who) for key, who in found}, seen, hidden

    def is_locked(self, path: str, start: int, length: int) -> bool:
        """See `Helper.is_locked`."""
        return self._ask(privileged.is_locked, path, start, length)

    def lock(self, path: str) -> int:
        """See `Helper.lock`."""
        return self._ask(privileged.lock, path)

    def watch(self, path: str) -> int:
        """See `Helper.watch`."""
        return self._ask(privileged.watch, path)

    def sync(self, number: int) -> None:
        """See `Helper.sync`."""
        self._ask(privileged.sync, number)

    def release(self, number: int) -> None:
        """See `Helper.release`."""
        with suppress(OSError):
            self._ask(privileged.release, number)
