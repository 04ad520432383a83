"""libvirt's module and a `virDomain` of it, by script: its numbers, its errors, and what was called."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import pytest

NUMBERS: Final = {
    "DOMAIN_BLOCKED": 2,
    "DOMAIN_BLOCK_COMMIT_ACTIVE": 4,
    "DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES": 16,
    "DOMAIN_BLOCK_COMMIT_RELATIVE": 8,
    "DOMAIN_BLOCK_JOB_ABORT_ASYNC": 1,
    "DOMAIN_BLOCK_JOB_ABORT_PIVOT": 2,
    "DOMAIN_BLOCK_JOB_CANCELED": 2,
    "DOMAIN_BLOCK_JOB_COMPLETED": 0,
    "DOMAIN_BLOCK_JOB_FAILED": 1,
    "DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES": 1,
    "DOMAIN_BLOCK_JOB_READY": 3,
    "DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES": 1,
    "DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT": 4,
    "DOMAIN_BLOCK_JOB_TYPE_BACKUP": 5,
    "DOMAIN_BLOCK_JOB_TYPE_COMMIT": 3,
    "DOMAIN_BLOCK_JOB_TYPE_COPY": 2,
    "DOMAIN_BLOCK_JOB_TYPE_PULL": 1,
    "DOMAIN_BLOCK_PULL_BANDWIDTH_BYTES": 64,
    "DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES": 64,
    "DOMAIN_BLOCK_REBASE_RELATIVE": 16,
    "DOMAIN_BLOCK_RESIZE_BYTES": 1,
    "DOMAIN_CRASHED": 6,
    "DOMAIN_JOB_OPERATION_MIGRATION_IN": 4,
    "DOMAIN_JOB_OPERATION_MIGRATION_OUT": 5,
    "DOMAIN_PAUSED": 3,
    "DOMAIN_PAUSED_CRASHED": 10,
    "DOMAIN_PAUSED_IOERROR": 5,
    "DOMAIN_PAUSED_SHUTTING_DOWN": 8,
    "DOMAIN_PAUSED_USER": 1,
    "DOMAIN_PAUSED_WATCHDOG": 6,
    "DOMAIN_PMSUSPENDED": 7,
    "DOMAIN_RUNNING": 1,
    "DOMAIN_SHUTDOWN": 4,
    "DOMAIN_SNAPSHOT_CREATE_ATOMIC": 128,
    "DOMAIN_SNAPSHOT_CREATE_DISK_ONLY": 16,
    "DOMAIN_SNAPSHOT_CREATE_NO_METADATA": 4,
    "DOMAIN_SNAPSHOT_CREATE_REUSE_EXT": 32,
    "DOMAIN_XML_INACTIVE": 2,
    "ERR_BLOCK_COPY_ACTIVE": 83,
    "ERR_INTERNAL_ERROR": 1,
    "ERR_NO_DOMAIN": 42,
    "ERR_OPERATION_INVALID": 55,
    "ERR_RPC": 39,
    "ERR_SYSTEM_ERROR": 38,
    "STORAGE_VOL_BLOCK": 1,
    "STORAGE_VOL_FILE": 0,
}
"""libvirt-domain.h, libvirt-storage.h and virterror.h, without `VIR_`; a test compares them with the real ones."""


class Error(Exception):
    """`libvirtError`."""

    def __init__(self, code: str, text: str = "no") -> None:
        super().__init__(text)
        self._code = NUMBERS[f"ERR_{code}"]

    def get_error_code(self) -> int:
        return self._code


LIBVIRT: Final[Any] = SimpleNamespace(
    libvirtError=Error, **{f"VIR_{name}": number for name, number in NUMBERS.items()}
)


class Domain:
    """
    One guest; it is its own connection.

    An answer is a value, an exception to raise, or a function of the arguments. What is not among
    the answers answers None.
    """

    def __init__(self, **answers: object) -> None:
        self.answers: dict[str, object] = {
            "getURI": "qemu:///system",
            "UUIDString": "a-b-c",
            "name": "web1",
            "isActive": True,
        } | answers
        self.calls: list[tuple[object, ...]] = []
        """Each with its arguments; not those that only tell which guest it is."""

    def connect(self) -> Domain:
        return self

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: object) -> object:
            if name not in ("getURI", "UUIDString", "name"):
                self.calls.append((name, *arguments))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer(*arguments) if callable(answer) else answer

        return call


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rooms of libvirt find this module, whether or not libvirt is installed."""
    for module in (
        "monitor.passthrough",
        "monitor.virt",
        "guests.libvirt.door",
        "guests.libvirt.guest",
        "guests.libvirt.jobs",
        "guests.libvirt.named",
        "guests.libvirt.neighbours",
        "guests.offline.guest",
        "guests.offline.volumes",
    ):
        monkeypatch.setattr(f"qmpsnap.{module}.libvirt_module", lambda name="libvirt": LIBVIRT)
