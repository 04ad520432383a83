"""
The Debian package in a clean Debian: `apt install ./….deb`, and then what an operator tries first.

Run by `tox -e nightly-deb`, which has built it. Each release is installed once, into `.matrix/`, and
every run works on a copy. Needs root and the right to mount.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.matrix.roots import bare

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("QMPSNAP_MATRIX") or ROOT / ".matrix")
COMPLETED = """
. /usr/share/bash-completion/bash_completion
_comp_load qmpsnap 2>/dev/null || _completion_loader qmpsnap
function=$(complete -p qmpsnap | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=(qmpsnap orph) COMP_CWORD=1
$function qmpsnap orph qmpsnap
printf '%s\\n' "${COMPREPLY[@]}"
"""

Runs = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def package() -> Path:
    if os.geteuid():
        pytest.skip("a clean Debian is made by root")
    (found,) = (ROOT / "dist").glob("qmpsnap_*.deb")
    return found


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def run(
    request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Runs]:
    """Run something in a release in which the package has been installed by apt, and nothing else."""
    root = tmp_path_factory.mktemp(str(request.param)) / "root"
    clean = bare(str(request.param), CACHE)
    subprocess.run(["cp", "-a", "--reflink=auto", str(clean.path), str(root)], check=True)

    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        mounted = f'mount -t proc proc "{root}/proc" && exec chroot "{root}" "$@"'
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", mounted, "sh", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
                 "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip

    shutil.copy(package, root / "root")
    for words in (
        ("apt-get", "-q", "update"),
        # What shows a manual and completes: an operator's, not the package's.
        ("apt-get", "-qy", "install", "--no-install-recommends", "man-db", "bash-completion"),
        ("apt", "-qy", "install", f"/root/{package.name}"),
    ):
        done = inside(*words)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    yield inside
    shutil.rmtree(root)


def test_doctor(run: Runs) -> None:
    done = run("qmpsnap", "doctor", "-o", "json")
    said = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    names = {one["name"]: one["state"] for one in said["checks"]}
    assert names["libvirt-python"] == "ok", said


def test_man(run: Runs) -> None:
    done = run("man", "-P", "cat", "qmpsnap")
    assert done.returncode == 0, done.stderr
    assert "qmpsnap" in done.stdout
    assert "EXIT" in done.stdout.upper()


def test_completion(run: Runs) -> None:
    done = run("bash", "-c", COMPLETED)
    assert done.stdout.split() == ["orphans"], done


def test_it_reads_a_guest(run: Runs) -> None:
    """All libraries are there, in the package's own folder, but for libvirt's."""
    code = (
        "import click, libvirt, lxml.etree, msgspec, qemu.qmp, rich, yaml\n"
        "import keystoneauth1.session, openstack.config, pg8000, sqlalchemy, tenacity\n"
        "own = (click, lxml.etree, msgspec._core, qemu.qmp, rich, yaml._yaml,\n"
        "       keystoneauth1.session, openstack.config, pg8000, sqlalchemy, tenacity)\n"
        "assert all(one.__file__.startswith('/usr/lib/qmpsnap/') for one in own)\n"
        "assert libvirt.__file__.startswith('/usr/lib/python3/')\n"
    )
    done = run("/usr/lib/qmpsnap/bin/python3", "-sP", "-c", code)
    assert done.returncode == 0, done.stderr
    assert run("qmpsnap", "--version").stdout.startswith("qmpsnap, version ")
    done = run("qmpsnap", "-c", "test:///default", "guests", "-o", "json")
    assert json.loads(done.stdout)["guests"][0]["guest"] == "test", done


def test_the_hook_and_the_unit(run: Runs) -> None:
    done = run("sh", "-c", "echo '<domain/>' | qmpsnap-libvirt-hook web1 prepare begin -")
    assert (done.returncode, done.stderr) == (0, "")
    done = run("cat", "/usr/lib/systemd/system/qmpsnap-resume.service")
    assert "qmpsnap resume" in done.stdout


def test_nothing_is_left_when_it_goes(run: Runs) -> None:
    assert run("apt-get", "-qy", "purge", "qmpsnap").returncode == 0
    assert run("test", "-e", "/usr/lib/qmpsnap").returncode == 1
