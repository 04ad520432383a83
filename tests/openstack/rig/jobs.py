"""Get hold of a block job before it has ended."""

from __future__ import annotations

import time
from typing import Any

import libvirt

from tests.rig.waiting import HANG_S

SLOW: int = libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES


def hold(domain: Any, gone: bool = False) -> bool:
    """
    Slow the job of `vda` down to a byte a second, as soon as there is one.

    Returns:
        False: it has ended too soon.
    """
    deadline = time.monotonic() + HANG_S
    while not domain.blockJobInfo("vda", 0):
        assert time.monotonic() < deadline, "no job has begun"
    try:
        domain.blockJobSetSpeed("vda", 1, SLOW)
    except libvirt.libvirtError:
        return False
    return True
