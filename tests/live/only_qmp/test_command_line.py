"""The command line as a process: signals, pipes, and what is not installed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import jsonschema
import pytest

from tests.rig import images
from tests.rig.disks import DiskSpec
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, assert_sound
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.waiting import HANG_S, until

CHAIN_SCHEMA = {
    "type": "object",
    "required": ["schema", "guest", "disks"],
    "properties": {
        "schema": {"const": "qmpsnap.chain/1"},
        "guest": {"type": ["string", "null"]},
        "disks": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["disk", "serial", "qdev", "layers"],
                "properties": {
                    "layers": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": [
                                *("file", "path", "protocol", "format", "verdict", "node"),
                                *("virtual_size", "flags", "evidence"),
                            ],
                            "properties": {
                                "verdict": {
                                    "enum": [
                                        *("exact", "agreed", "stated"),
                                        *("inferred", "conflict", "unknown"),
                                    ]
                                },
                                "virtual_size": {"type": ["integer", "null"]},
                                "evidence": {
                                    "items": {
                                        "required": ["witness", "format", "detail"],
                                        "properties": {
                                            "witness": {
                                                "enum": ["qmp", "xml", "header", "ledger", "rule"]
                                            }
                                        },
                                    }
                                },
                            },
                        },
                    }
                },
            },
        },
    },
}


def _process(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # A background job of a shell ignores Ctrl-C, and its children would as well.
        ["env", "--default-signal=INT,TERM,HUP", sys.executable, "-m", "qmpsnap", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_result_that_cannot_be_written(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig, Path("/dev/full").open("w") as full:
        for command in (["chain"], ["chain", "-o", "dot"], ["verify", "-o", "json"]):
            done = subprocess.run(
                [sys.executable, "-m", "qmpsnap", *rig.road, *command],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            assert done.returncode == 1
            assert "cannot be printed: No space left on device" in done.stderr
            assert "Traceback" not in done.stderr


def test_closed_stdout_and_stderr(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        line = [sys.executable, "-m", "qmpsnap", *rig.road]
        for end, code in ((["chain"], 1), (["chain", "nosuch"], 4), (["job", "list"], 1)):
            for closed in (">&-", ">&- 2>&-"):
                shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *line, *end]
                done = subprocess.run(shell, check=False, stderr=subprocess.PIPE, text=True)
                assert done.returncode == code
                assert ("stdout is closed" in done.stderr) == (code == 1 and closed == ">&-")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_the_job_running_and_says_how_to_go_on(
    make_rig: MakeRig, number: signal.Signals
) -> None:
    with make_rig("raw") as rig:
        rig.create("s1")
        rig.guest.write(DISK, 0, SIZE, 7)
        rig.create("s2")
        content = rig.guest.read_sha256(DISK)
        info = {"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": BASE}
        command = [*rig.road, "volume-snapshot-delete", SERIAL, "id", json.dumps(info)]
        process = _process(*command, "--bandwidth", "1")
        until(lambda: bool(rig.guest.qmp("query-jobs")) or process.poll() is not None)
        process.send_signal(number)
        out, err = process.communicate(timeout=HANG_S)
        assert process.returncode == 6, err
        assert json.loads(out)["os-update_snapshot_status"] == {
            "status": "deleting",
            "progress": "0%",
        }
        assert "Give the same command again" in err
        assert "Traceback" not in err
        jobs = rig.guest.qmp("query-jobs")
        assert isinstance(jobs, list)
        assert [job["type"] for job in jobs] == ["commit"]
        rig.guest.qmp("block-job-set-speed", {"device": jobs[0]["id"], "speed": 0})
        process = _process(*command)
        out, err = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, err
        assert json.loads(out)["os-update_snapshot_status"]["file_format"] == {BASE: "raw"}
        assert rig.files() == [f"{BASE}.s2", BASE]
        assert_sound(rig.disk())
        assert rig.guest.read_sha256(DISK) == content


def test_signal_that_is_ignored_stays_so(make_rig: MakeRig) -> None:
    """`nohup`: the command outlives its terminal."""
    with make_rig("raw") as rig:
        rig.grow(3)
        info = {"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": BASE}
        words = [*rig.road, "volume-snapshot-delete", SERIAL, "id", json.dumps(info)]
        process = subprocess.Popen(
            [
                "env",
                "--ignore-signal=HUP",
                sys.executable,
                "-m",
                "qmpsnap",
                *words,
                "--bandwidth",
                "1",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: bool(rig.guest.qmp("query-jobs")) or process.poll() is not None)
        process.send_signal(signal.SIGHUP)
        (job,) = cast("list[dict[str, str]]", rig.guest.qmp("query-jobs"))
        rig.guest.qmp("block-job-set-speed", {"device": job["id"], "speed": 0})
        out, err = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, err
        assert json.loads(out)["os-update_snapshot_status"]["file_format"] == {BASE: "raw"}


def test_chain_follows_its_schema(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        document = rig.cli("chain", "-o", "json").json
        jsonschema.validate(document, CHAIN_SCHEMA)
        assert document["disks"][0]["disk"] == DISK
        assert document["disks"][0]["serial"] == SERIAL
        for by in (DISK, SERIAL, document["disks"][0]["layers"][0]["node"]):
            assert rig.cli("chain", by, "-o", "json").json["disks"] == document["disks"]


def test_a_reader_that_goes_away(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        process = _process(*rig.road, "chain", "-o", "json")
        assert process.stdout is not None
        process.stdout.close()
        with process.stderr or process.stdout as messages:
            assert messages.read() == ""
        assert process.wait(HANG_S) == 1


def test_names_with_terminal_escapes_are_shown_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    name = "evil\x1b]0;x\x07\n.img"
    images.create_raw(folder / name, MIB)
    disk = DiskSpec(
        blockdevs=({"driver": "file", "node-name": "n", "filename": str(folder / name)},),
        root="n",
        id=DISK,
    )
    with direct_rig(folder, disk) as rig:
        said = rig.cli("disks")
        assert "\x1b]" not in said.out
        assert "evil\\x1b]0;x\\x07\\n.img" in said.out
        assert rig.cli("disks", "-o", "json").json["disks"][0]["file"] == name


def test_without_the_libvirt_module() -> None:
    program = (
        "import sys; sys.modules['libvirt'] = None\n"
        "from qmpsnap.cli.main import main\n"
        "main(['-c', 'qemu:///system', 'chain', 'web1'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 7
    assert "pip install libvirt-python" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_a_node_still_holds_is_not_removed(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.create("s1")
        held = {
            "driver": "file",
            "node-name": "holder",
            "filename": str(rig.folder / f"{BASE}.s1"),
            "locking": "off",
            "read-only": True,
        }
        rig.guest.qmp("blockdev-add", held)
        said = rig.cli("delete", DISK, "s1", "--remove-file")
        assert said.code == 0, said
        assert "is or may be in use" in said.err
        assert (rig.folder / f"{BASE}.s1").exists()


def test_doctor(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        names: list[str] = []
        rig.names[:] = names
        document = rig.cli("doctor", "-o", "json").json
        states = {check["name"]: check["state"] for check in document["checks"]}
        assert states["QMP"] == "ok"
        assert states["qemu-img"] == "ok"
        assert {states["dot"], states["nbdcopy"]} == {"ok"}
        found = {check["name"]: check["found"] for check in document["checks"]}
        assert found["dot"].startswith("dot - graphviz")
    said = rig.cli("doctor")
    assert said.code == 3
    assert "problem" in said.out


def test_the_demo_tells_its_story() -> None:
    environment = {**os.environ, "COLUMNS": "60"}
    done = subprocess.run(
        [sys.executable, "-m", "qmpsnap", "demo"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "believes: qcow2, backed by" in done.stdout
    assert "raw (by qmp)" in done.stdout
    assert done.stdout.count("The guest reads the same before and after") in (4, 8)
    said = " ".join(done.stdout.split())
    assert 'hands the guest a file of the host ("not for this guest"), and no longer finds' in said
    assert re.search(r"\$ qmpsnap --qmp \S+/qmp delete vda first sends: .*block-commit", said)
    assert "vda second --method pull" in said
    assert "What to try next" in said


def test_libvirt_prints_nothing_by_itself(make_rig: MakeRig) -> None:
    """`orphans` asks it as well; by default every error of its goes to stderr."""
    pytest.importorskip("libvirt")
    with make_rig("raw") as rig:
        words = [sys.executable, "-m", "qmpsnap", *rig.road, "orphans", DISK]
        uri = f"qemu:///system?socket={rig.folder}/none"
        environment = {**os.environ, "LIBVIRT_DEFAULT_URI": uri}
        said = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False
        )
        assert said.returncode == 0, said
        assert "was not asked: cannot open a libvirt connection" in said.stdout
        assert said.stderr == ""
