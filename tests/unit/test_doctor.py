"""What `doctor` says of what is not there, and of libvirt."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.monitor.virt import LibvirtUnreachable
from tests.rig.rig import run_cli
from tests.rig.situations import situation


def checks(*options: str) -> dict[str, dict[str, Any]]:
    said = run_cli([*options, "doctor", "-o", "json"])
    return {one["name"]: one for one in json.loads(said.out)["checks"]}


@situation(
    "A program that the tool needs is not installed",
    happens="`doctor` says so, and who needs it: guests that are off need `qemu-system-x86_64`",
    code=3,
    then="Install it.",
    kind=20,
)
def test_who_needs_a_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmpsnap.cli.doctor.shutil.which", lambda _name: None)
    found = checks()
    assert found["qemu-img"]["state"] == "problem"
    qemu = found["qemu-system-x86_64"]
    assert (qemu["state"], qemu["found"]) == ("note", "not found")
    assert qemu["remedy"].startswith("Guests that are off need it")


@pytest.mark.parametrize("is_told", [True, False])
def test_versions_of_libvirt_and_of_its_binding(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    def fail(uri: str) -> None:
        raise LibvirtUnreachable(uri, "nobody there")

    libvirt = SimpleNamespace(getVersion=lambda: 9_000_000)
    monkeypatch.setattr("qmpsnap.cli.doctor.libvirt_module", lambda: libvirt)
    monkeypatch.setattr("qmpsnap.cli.doctor.open_connection", fail)
    name = "msgspec" if is_told else "is-not-installed"
    monkeypatch.setattr(
        "qmpsnap.cli.doctor.version",
        lambda asked: version(name if asked == "libvirt-python" else asked),
    )
    found = checks("-c", "qemu:///system")["libvirt-python"]["found"]
    own = version("msgspec") if is_told else "of a version that is not told"
    assert found == f"{own}, over libvirt 9.0.0"


def test_novas_configuration_is_named_for_nova_only() -> None:
    said = run_cli(["doctor", "--config-file", "nova.conf"])
    assert said.code == 2
    assert "it needs --nova" in said.err


@pytest.mark.skipif(find_spec("nova") is not None, reason="Nova is here")
def test_nova_is_not_here() -> None:
    said = run_cli(["doctor", "--nova", "-o", "json"])
    found = {one["name"]: one for one in json.loads(said.out)["checks"]}
    assert said.code == 3
    assert found["Nova"]["state"] == "problem"
    assert "No module named 'nova'" in found["Nova"]["found"]
    assert "journal" not in found  # nova-compute's is meant, and it cannot be told where that is
