"""A private libvirtd that can be restarted while its guests go on."""

from __future__ import annotations

import os
import shutil


def which(name: str) -> str | None:
    """Find a program; daemons are in folders that a user's `PATH` may lack."""
    return shutil.which(name, path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/sbin"]))
