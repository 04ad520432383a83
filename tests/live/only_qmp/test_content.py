"""The digest of a chain is that of what a guest would read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from qmpsnap.guests.files.content import CannotVerify, digest_of
from tests.rig import images
from tests.rig.waiting import HANG_S, until

MIB = 1024 * 1024


def write(path: Path, format_: str, *commands: str) -> None:
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", format_, *arguments, str(path)], check=True, stdout=subprocess.DEVNULL)  # fmt: skip


@pytest.fixture
def chain(tmp_path: Path) -> list[tuple[str, str]]:
    images.create_raw(tmp_path / "base", 3 * MIB)
    write(tmp_path / "base", "raw", "write -P 1 0 1M")
    images.create_qcow2(tmp_path / "top", 3 * MIB, "base", "raw")
    write(tmp_path / "top", "qcow2", "write -P 2 512k 1M", "write -z 2M 64k")
    return [(str(tmp_path / "top"), "qcow2"), (str(tmp_path / "base"), "raw")]


def test_of_a_chain(chain: list[tuple[str, str]]) -> None:
    assert digest_of(chain) == images.sha256_of(chain[0][0], "qcow2")
    assert digest_of(chain[1:]) == images.sha256_of(chain[1][0], "raw")


def test_backing_file_is_the_one_that_is_given(chain: list[tuple[str, str]]) -> None:
    """A header that names another one is not believed."""
    before = digest_of(chain)
    command = ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw"]
    subprocess.run([*command, chain[0][0]], check=True)
    assert digest_of(chain) == before


@pytest.mark.parametrize(("position", "offset"), [(0, "512k"), (1, "0"), (1, "2500k")])
def test_every_byte_counts(chain: list[tuple[str, str]], position: int, offset: str) -> None:
    before = digest_of(chain)
    path, format_ = chain[position]
    write(Path(path), format_, f"write -P 9 {offset} 512")
    assert digest_of(chain) != before


def test_file_of_another_format(chain: list[tuple[str, str]]) -> None:
    with pytest.raises(CannotVerify, match="not in qcow2 format"):
        digest_of([(chain[1][0], "qcow2")])


@pytest.mark.parametrize("program", ["qemu-nbd", "nbdcopy"])
def test_program_that_is_missing(
    chain: list[tuple[str, str]], program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in {"qemu-nbd", "nbdcopy"} - {program}:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / other).symlink_to(f"/usr/bin/{other}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(CannotVerify, match="Debian's package"):
        digest_of(chain)


def users(path: str) -> set[int]:
    """The processes that have a file open."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended since
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{number}") == path:
                        found.add(int(pid))
    return found


def program(folder: Path, name: str, *lines: str) -> None:
    """Put a script in the place of a program."""
    folder.mkdir(exist_ok=True)
    script = folder / name
    script.write_text("\n".join(("#!/bin/sh", *lines, "")))
    script.chmod(0o755)


def test_server_is_gone_afterwards(
    chain: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds locks, on which the job that comes next would fail; here it ends a second late."""
    late = (
        f"exec 9<{chain[0][0]}",
        "trap 'sleep 1; exit' TERM",
        '/usr/bin/qemu-nbd "$@" &',
        "wait",
    )
    program(tmp_path / "bin", "qemu-nbd", *late)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    digest_of(chain)
    assert users(chain[0][0]) == set()


def test_server_of_another_process_group_is_gone_afterwards(
    chain: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script may have put it there; its process id is in its file."""
    lines = ("trap 'exit' TERM", 'setsid sh -c \'exec /usr/bin/qemu-nbd "$@"\' sh "$@" &', "pid=$!")
    forward = "trap '(sleep 1; kill $pid) & exit' TERM"
    program(tmp_path / "bin", "qemu-nbd", *lines, forward, "wait")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    digest_of(chain)
    assert users(chain[0][0]) == set()


def test_killed_in_the_middle(chain: list[tuple[str, str]], tmp_path: Path) -> None:
    """Neither the server nor the copy outlives a tool that is killed."""
    program(tmp_path / "bin", "nbdcopy", f"exec 9<{chain[0][0]}", "exec sleep 1000")
    code = f"from qmpsnap.guests.files.content import digest_of; digest_of({chain!r})"
    path = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=path)
    until(lambda: len(users(chain[0][0])) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait(HANG_S)
    until(lambda: users(chain[0][0]) == set(), "somebody still reads the chain")
