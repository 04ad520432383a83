"""
The folders that hold other Debian releases, with their QEMU and libvirt.

    CACHE/trixie          a root, complete: it is built under another name and renamed at the end
    CACHE/trixie.partial  left by a run that was interrupted; the next one begins anew
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUITES: Final = ("bullseye", "trixie", "sid")
"""QEMU 5.2 and libvirt 7.0, 10.0 and 11.3, and what is newest. The host itself is a fourth one."""

_PACKAGES: Final = (
    "qemu-system-x86",
    "qemu-utils",
    "qemu-block-extra",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
)
_SECRETS: Final = "libvirt-daemon-driver-secret"
"""A package of its own after bullseye."""

_SOURCES: Final = Path("/etc/apt/sources.list.d")
_ONE_LINE: Final = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", re.MULTILINE)
_FIELD: Final = re.compile(r"^(URIs|Suites):\s*(.*)$", re.MULTILINE)


class RootError(Exception):
    """A release could not be installed."""


@dataclass(frozen=True, slots=True)
class Root:
    """A release that is ready: its folder, `/` for the host itself."""

    suite: str
    path: Path

    @property
    def is_host(self) -> bool:
        """Whether this is no release of ours but what runs here anyway."""
        return self.path == Path("/")

    def command(self, *words: str) -> list[str]:
        """The command line that runs a program of this release, in its root folder."""
        return list(words) if self.is_host else ["chroot", str(self.path), *words]


def ensure(suite: str, cache: Path) -> Root:
    """
    Install a release, if it is not there yet.

    Raises:
        RootError: It could not be installed; the log that is named says why.
    """
    if suite == "host":
        return Root(suite, Path("/"))
    return _made(suite, cache / suite, _install)


def bare(suite: str, cache: Path) -> Root:
    """
    Install a release, if it is not there yet, with nothing in it but apt.

    Raises:
        RootError: As `ensure`.
    """
    return _made(suite, cache / f"bare-{suite}", _prepare)


def _made(suite: str, done: Path, install: Callable[[str, Path, int], None]) -> Root:
    partial, log = done.with_name(f"{done.name}.partial"), done.with_name(f"{done.name}.log")
    if done.is_dir():
        return Root(suite, done)
    done.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists():
        shutil.rmtree(partial)
    with log.open("wb") as output:
        try:
            _debootstrap(suite, partial, output.fileno())
            install(suite, partial, output.fileno())
        except (OSError, subprocess.CalledProcessError) as error:
            raise RootError(f"{suite} could not be installed, see {log}: {error}") from error
    partial.rename(done)
    return Root(suite, done)


def _debootstrap(suite: str, path: Path, output: int) -> None:
    if shutil.which("debootstrap") is None:
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "debootstrap"]
        _run(["apt-get", "update"], output)
        _run(install, output)
    options = ["--variant=minbase", "--include=ca-certificates"]
    _run(["debootstrap", *options, suite, str(path), mirror()], output)


def _prepare(_suite: str, path: Path, _output: int) -> None:
    """Let apt work in there as it does here."""
    policy = path / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")  # no daemon is to start by itself
    policy.chmod(0o755)
    shutil.copytree("/etc/apt/apt.conf.d", path / "etc/apt/apt.conf.d", dirs_exist_ok=True)
    for file in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{file}", path / "etc" / file)


def _install(suite: str, path: Path, output: int) -> None:
    _prepare(suite, path, output)
    packages = [*_PACKAGES, *([] if suite == "bullseye" else [_SECRETS])]
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        _run(["chroot", str(path), "apt-get", "-q", *arguments], output)
    # libvirt's QEMU driver does not open while this user is missing; only a package that would
    # bring systemd along makes it.
    if "libvirt-qemu:" not in (path / "etc/passwd").read_text():
        _run(["chroot", str(path), "useradd", "--system", "--user-group", "libvirt-qemu"], output)
    _run(["chroot", str(path), "apt-get", "clean"], output)


def _run(command: list[str], output: int) -> None:
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        check=True,
        # A locale of the host's need not exist in there.
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )


def mirror() -> str:
    """
    Tell the mirror from which the host itself was installed.

    Raises:
        RootError: Its apt sources name none for its own release.
    """
    release = _codename()
    files = [_SOURCES.parent / "sources.list", *sorted(_SOURCES.glob("*"))]
    for text in (file.read_text() for file in files if file.is_file()):
        for uri, suite in [*_ONE_LINE.findall(text), *_deb822(text)]:
            if suite == release:
                return str(uri)
    raise RootError(f"no source of {release} in {_SOURCES.parent}")


def _deb822(text: str) -> list[tuple[str, str]]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(_FIELD.findall(stanza))
        uris, suites = fields.get("URIs", "").split(), fields.get("Suites", "").split()
        found += [(uri, suite) for uri in uris for suite in suites]
    return found


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise RootError("/etc/os-release names no release; this needs a Debian")
