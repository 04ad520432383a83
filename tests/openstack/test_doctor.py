"""What `qmpsnap doctor --nova` says of the compute service of a rig."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.journal.file import Journal
from qmpsnap.journal.letter import Addressee, Content, Due
from tests.openstack.rig.layout import HERE
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.settings import with_settings

ROOT = HERE.parents[2]


def doctor(conf: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run it with a configuration; returns its exit code, and what it says, by name."""
    command = [
        *words,
        sys.executable,
        "-m",
        "qmpsnap",
        "doctor",
        "--nova",
        "--config-file",
        str(conf),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "-o", "json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, {one["name"]: one for one in json.loads(done.stdout)["checks"]}


def changed(rig: Rig, folder: Path, *settings: str) -> Path:
    """The rig's nova.conf, with other settings."""
    conf = folder / "nova.conf"
    conf.write_text(with_settings((rig.folder / "nova.conf").read_text(), settings))
    return conf


def states(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["state"] for name, one in found.items()}


def test_a_service_that_is_as_it_should_be(our_nova: Rig) -> None:
    code, found = doctor(our_nova.folder / "nova.conf")
    assert code == 0, found
    assert found["Nova"]["found"].endswith(f"{our_nova.folder}/nova.conf")
    wanted = ("compute_driver", "concurrency_backend", "[cinder] auth", "Cinder", "share")
    assert {name: states(found)[name] for name in wanted} == dict.fromkeys(wanted, "ok")
    assert "does not know os-qmpsnap" in found["Cinder"]["found"]
    assert str(our_nova.folder / "state/qmpsnap-state") in found["journal"]["found"]


def test_cinder_is_ours_too(ours: Rig) -> None:
    _, found = doctor(ours.folder / "nova.conf")
    assert found["Cinder"]["found"] == "it answers, and knows os-qmpsnap: it is told formats"


@pytest.mark.parametrize(
    ("setting", "name", "said"),
    [
        ("DEFAULT.compute_driver=libvirt.LibvirtDriver", "compute_driver", "not ours"),
        ("DEFAULT.concurrency_backend=eventlet", "concurrency_backend", "does not start"),
        ("cinder.auth_type=", "[cinder] auth", "no identity"),
        ("cinder.endpoint_template=http://127.0.0.1:1/", "Cinder", "does not answer"),
        ("qmpsnap.on_error=maybe", "nova.conf", "on_error"),
    ],
)
def test_what_is_wrong(our_nova: Rig, tmp_path: Path, setting: str, name: str, said: str) -> None:
    code, found = doctor(changed(our_nova, tmp_path, setting))
    assert code == 3
    assert found[name]["state"] == "problem"
    assert said in found[name]["found"]
    assert found[name]["remedy"]


def test_an_update_that_is_dead(our_nova: Rig, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with Journal(state).opened() as store:
        who = Addressee(snapshot="s", volume="v")
        store.letters.expect("one", Due(kind="create", addressee=who, since=1.0))
        store.letters.answer("one", Content(outcome="done"), 2.0)
        store.letters.note("one", "dead", answer="404", now=3.0)
    code, found = doctor(changed(our_nova, tmp_path, f"qmpsnap.state_folder={state}"))
    assert code == 3
    assert (found["outbox"]["state"], found["outbox"]["found"]) == ("problem", "1 dead")


def test_a_state_folder_of_somebody_else(our_nova: Rig, tmp_path: Path) -> None:
    """Also of nova's, where root looks: what is in it would be acted on."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    code, found = doctor(changed(our_nova, tmp_path, f"qmpsnap.state_folder={state}"))
    assert code == 3
    assert f"{state} belongs to " in found["state_folder"]["found"]
    assert "sudo -u" in found["state_folder"]["remedy"]
    assert "journal" not in found


def test_a_share_that_may_not_be_written(our_nova: Rig) -> None:
    """Without the capabilities by which root writes everywhere."""
    mount = Path(our_nova.layout.mount)  # what lies below it outside the rig
    mount.chmod(0o555)
    try:
        _, found = doctor(our_nova.folder / "nova.conf", "setpriv", "--bounding-set=-all")
    finally:
        mount.chmod(0o755)
    assert (found["share"]["state"], str(mount) in found["share"]["found"]) == ("note", True)
