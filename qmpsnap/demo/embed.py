"""
libvirt's QEMU driver inside this process.

`qemu:///embed?root=DIR` needs no daemon and touches nothing outside of DIR. Opening takes 30 ms, a
guest 0.3 s; the first guest in a new DIR takes up to 4 s, in which libvirt asks QEMU what it can do
and writes the answer to DIR/cache. So use one DIR for long. A process can have one such DIR only.

libvirt-python has no types, and is imported only when a connection is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from qmpsnap.monitor.virt import libvirt_module, open_connection

ROOT_LIMIT: Final = 50
"""Bytes. libvirt makes a socket `lib/qemu/domain-<id>-<20 bytes of the name>/monitor.sock` below it,
and the path of a socket has at most 107."""

_CONFIG: Final = """\
stdio_handler = "file"
security_driver = "none"
cgroup_controllers = []
namespaces = []
dynamic_ownership = 0
"""
"""QEMU's output goes straight to its log file (otherwise to virtlogd, which is not there); nothing
is asked of the host that a container might not have; the images keep their owner and get no
extended attributes."""

FEATURES_UNASKED: Final = 'capability_filters = ["cpu-unavailable-features"]\n'
"""At each start of a guest libvirt asks for its processor's features one by one: 27 KB that QEMU reads
by the byte, a third of the processor time of a test. Nothing here is about processors."""

_CONFIG_OF_ROOT: Final = 'user = "root"\ngroup = "root"\n'
"""As another user, QEMU could not read the master key that libvirt writes for it below DIR."""


@contextmanager
def embedded_connection(root_dir: str | os.PathLike[str]) -> Iterator[Any]:
    """
    Open a `virConnect` to libvirt's QEMU driver inside this process.

    On leaving, all guests of this connection are ended. libvirt's own log is DIR/libvirt.log, if
    libvirt was not imported before.

    Args:
        root_dir: The driver's folder, made if it is missing; at most `ROOT_LIMIT` bytes long and
            without blanks. One that was used before starts guests faster.

    Raises:
        ValueError: `root_dir` is too long, or has blanks in it.
        LibvirtMissing: libvirt-python is not installed.
        LibvirtUnreachable: This libvirt has no embedded QEMU driver, another folder is in use in
            this process, or another process uses this one.
    """
    root = Path(root_dir).absolute()
    if len(os.fsencode(root)) > ROOT_LIMIT:
        raise ValueError(f"{root} is longer than {ROOT_LIMIT} bytes, so sockets below it fail")
    if len(os.fspath(root).split()) != 1:
        raise ValueError(f"'{root}' has blanks in it, which libvirt's log setting cannot have")
    config = root / "etc" / "qemu.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    of_root = _CONFIG_OF_ROOT if os.geteuid() == 0 else ""
    config.write_text(_CONFIG + FEATURES_UNASKED + of_root)
    with _log_to(root / "libvirt.log"):
        libvirt = libvirt_module()
    connection = open_connection(f"qemu:///embed?root={quote(os.fspath(root))}")
    try:
        yield connection
    finally:
        for domain in connection.listAllDomains():
            with suppress(libvirt.libvirtError):  # it ends by itself at this moment
                domain.destroy()
        connection.close()


def root_of(connection: Any) -> Path:
    """
    Tell the driver's folder from a connection.

    Raises:
        ValueError: It is not a connection to an embedded driver.
    """
    roots = parse_qs(urlsplit(connection.getURI()).query).get("root", [])
    if len(roots) != 1:
        raise ValueError("not a connection from embedded_connection()")
    return Path(roots[0])


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """
    Have libvirt write its warnings to a file instead of standard error.

    It reads its environment once, when it is imported. Later processes must not inherit this: when
    the file's folder is gone, libvirt cannot even be imported.
    """
    if "LIBVIRT_LOG_OUTPUTS" in os.environ:
        yield
        return
    os.environ["LIBVIRT_LOG_OUTPUTS"] = f"3:file:{file}"
    try:
        yield
    finally:
        del os.environ["LIBVIRT_LOG_OUTPUTS"]
