"""
LUKS made in milliseconds: qemu-img with a clock that runs ahead.

Before qemu-img makes a key out of a passphrase, it measures on the processor how many rounds take
`iter-time`: for a second at least, however short that is, and on one that is busy it sometimes fails
at that ("Unable to get accurate CPU usage"). With this clock the first measurement is enough.

Source: QEMU's crypto/pbkdf.c (qcrypto_pbkdf2_count_iters).
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

_CLOCK: Final = """
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int getrusage(__rusage_who_t who, struct rusage *used)
{
    static long ahead;
    int failed = syscall(SYS_getrusage, who, used);
    if (!failed && who == RUSAGE_THREAD)
        used->ru_utime.tv_sec += ++ahead;
    return failed;
}
"""


@cache
def clock() -> Path:
    """The library, for `LD_PRELOAD`; it goes with this process."""
    folder = Path(mkdtemp(prefix="qmpsnap-clock-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    made = folder / "clock.so"
    command = ["gcc", "-shared", "-fPIC", "-o", str(made), "-x", "c", "-"]
    subprocess.run(command, input=_CLOCK, text=True, check=True)
    return made


def environment() -> dict[str, str]:
    """For a qemu-img that makes keys."""
    return os.environ | {"LD_PRELOAD": str(clock())}
