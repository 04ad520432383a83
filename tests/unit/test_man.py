"""The manual page and the files for shells, as the wheel installs them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from docs import manual
from docs.generate import all_commands
from qmpsnap.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "man" / "qmpsnap.1"


def test_every_command_has_a_section() -> None:
    found = re.findall(r"^\.SS (.*)$", PAGE.read_text(), re.MULTILINE)
    assert [name.replace("\\-", "-") for name in found] == [name for name, _ in all_commands()]


def test_nothing_in_a_text_is_a_request() -> None:
    requests = {line.split()[0] for line in PAGE.read_text().splitlines() if line[:1] in ".'"}
    known = ".B .BR .ad .EE .EX .PP .SH .SS .TH .TP .fi .nf"
    assert requests == {*known.split(), '.\\"'}
    assert manual._plain(".x \\ `a-b`") == r"\&.x \e \fBa\-b\fR"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_it_is_laid_out(width: int) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    # groff 1.23 writes SGR escapes, unless it is told not to; grotty(1).
    done = subprocess.run(
        ["groff", "-P-c", "-man", "-Tutf8", "-ww", f"-rLL={width}n", str(PAGE)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    shown = re.sub(r".\x08", "", done.stdout)
    assert all(name in shown for name, _ in all_commands())
    assert f"{cli.params[1].opts[0]} SOCKET" in shown


def test_the_wheel_installs_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared[str(PAGE.relative_to(ROOT))] == "share/man/man1/qmpsnap.1"
    assert {Path(place).parent.name for place in shared.values()} == {
        "man1",
        "completions",
        "site-functions",
        "vendor_completions.d",
        "rootwrap.d",
        "nova",
    }
    for source in shared:
        assert (ROOT / source).is_file()
        if "completion" in source:
            assert "qmpsnap completion " in (ROOT / source).read_text()
