"""What pyproject.toml says of other Pythons and libraries is what tox.ini tries."""

from __future__ import annotations

import re
import tomllib
from configparser import RawConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OTHERS = "testenv:{py311,py312,py313,py314,lowest}"

_project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_tox = RawConfigParser()
_tox.read(ROOT / "tox.ini")


@pytest.mark.parametrize("requirement", _project["dependencies"])
def test_the_oldest_of_each_library_is_tried(requirement: str) -> None:
    bound = re.match(r"([\w.]+)>=([\d.]+)", requirement)
    assert bound, "without a lower bound nothing says what is known to work"
    name, oldest = bound.groups()
    tried = dict(re.findall(r"^lowest: ([\w.]+)==([\d.]+)$", _tox[OTHERS]["deps"], re.MULTILINE))
    assert re.fullmatch(rf"{re.escape(oldest)}(\.0)*", tried[name])


def test_each_python_that_is_named_is_tried() -> None:
    named = re.findall(r":: (3\.\d+)", " ".join(_project["classifiers"]))
    assert _project["requires-python"] == f">={named[0]}"
    assert [f"py{version.replace('.', '')}" for version in named] == re.findall(r"py3\d+", OTHERS)
    readme = (ROOT / "README.md").read_text()
    assert re.search(rf"\| Python \|.*{named[-1]}", readme)


def test_the_debian_package_brings_every_library() -> None:
    lines = (ROOT / "packaging" / "deb" / "requirements.txt").read_text().splitlines()
    brought = {line.partition("==")[0].lower() for line in lines if not line.startswith("#")}
    wanted = [*_project["dependencies"], *_project["optional-dependencies"]["openstack"]]
    needed = {re.split(r"[<>=]", one)[0].lower() for one in wanted}
    assert needed <= brought
