"""Plan files are hostile input: a bad one is a mistake in the call, and nothing is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from qmpsnap.operations.forecast import forecast_create, forecast_delete
from qmpsnap.operations.merge import delete
from qmpsnap.operations.options import DEFAULT_OPTIONS
from qmpsnap.operations.planned import (
    Asked,
    PlanDiffers,
    ShownAfter,
    ShownDisk,
    ShownLayer,
    ShownStep,
    check_asked,
    check_same_plan,
    shown,
    shown_ready,
)
from qmpsnap.operations.requests import BadFileName, BadRequest, CreateRequest, DeleteRequest
from qmpsnap.operations.snapshot import create_all
from qmpsnap.operations.step import Does, Step
from tests.rig.rig import run_cli
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

NAMED = {"disk": "vda", "snapshot": "s1", "method": "auto"}
PLAN: dict[str, Any] = {
    "schema": "qmpsnap.plan/1",
    "operation": "delete",
    "request": {"delete_by_name": NAMED, "way": {"qmp": "/nonexistent/qmp.sock"}},
    "disks": [{"disk": "vda", "kind": "commit", "before": [], "after": [], "steps": []}],
}


def request(**changes: Any) -> dict[str, Any]:
    return PLAN | {"request": PLAN["request"] | changes}


def create(**changes: Any) -> dict[str, Any]:
    one = {"disk": "vda", "new_file": None, "snapshot": "s1"} | changes
    return request(delete_by_name=None, create=[one])


BAD: dict[str, object] = {
    "nothing": "",
    "no JSON": "{",
    "no object": [],
    "too deep": "[" * 100_000,
    "no plan": {"schema": "qmpsnap.chain/1"},
    "another schema": PLAN | {"schema": "qmpsnap.plan/2"},
    "without its request": PLAN | {"request": None},
    "asks for nothing": request(delete_by_name=None),
    "asks for two things": request(create=[{"disk": "a", "new_file": None, "snapshot": "b"}]),
    "disk is no text": request(delete_by_name=NAMED | {"disk": 1}),
    "no such method": request(delete_by_name=NAMED | {"method": "rm"}),
    "no such guard": request(allow=["everything"]),
    "too fast": request(options={"bandwidth": 2**64}),
    "no time": request(options={"timeout_s": -1}),
    "time is no number": '{"schema": NaN}',
    "frozen for ever": request(quiesce={"policy": "try", "limit_s": 1e9}),
    "frozen for no number": request(quiesce={"policy": "try", "limit_s": float("nan")}),
    "file elsewhere": create(new_file="../victim"),
    "protocol": create(new_file="nbd:victim"),
    "relative folder": create(into="there"),
    "folder with a zero byte": create(into="/a\0b"),
    "target without a file": request(
        delete_by_name=None,
        delete={"disk": "a", "file_to_merge": None, "merge_target_file": "b"},
    ),
    "no way": request(way={}),
    "relative socket": request(way={"qmp": "qmp.sock"}),
    "program": request(way={"connect": "qemu+ext:///system?command=/tmp/evil"}),
    "elsewhere": request(way={"connect": "qemu+ssh://victim/system"}),
    "host": request(way={"connect": "qemu://victim/system"}),
    "no URI": request(way={"connect": "qemu://[/system"}),
    "too long": " " * (17 * 1024 * 1024),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files(tmp_path: Path, what: str) -> None:
    bad = BAD[what]
    path = tmp_path / "plan"
    path.write_text(bad if isinstance(bad, str) else json.dumps(bad))
    said = run_cli(["apply", str(path), "-o", "json"])
    assert (said.code, said.out) == (2, ""), said
    assert json.loads(said.err)["error"] == "BadPlan"


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def of_everybody(path: Path) -> None:
    path.write_text(json.dumps(PLAN))
    path.chmod(0o666)


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("make", [a_folder, a_pipe, of_everybody, no_text, lambda _path: None])
def test_what_is_no_file_of_ours(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "plan")
    said = run_cli(["apply", str(tmp_path / "plan")])
    assert said.code == 2, said


def test_a_good_one_goes_to_its_guest(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text(json.dumps(PLAN | {"note": "keys may be added"}))
    said = run_cli(["apply", str(tmp_path / "plan")])
    assert said.code == 7
    assert "/nonexistent/qmp.sock" in said.err


class TestAsked:
    @pytest.mark.parametrize(
        "asked",
        [
            Asked(create=(CreateRequest(disk="vda", new_file="a", snapshot="b", into="/c"),)),
            Asked(delete=DeleteRequest(disk="a", file_to_merge=None, merge_target_file=None)),
            Asked(delete=DeleteRequest(disk="a", file_to_merge="b", merge_target_file="c")),
            Asked(delete=DeleteRequest(disk="a", file_to_merge="b", merge_target_file=None)),
        ],
    )
    def test_good(self, asked: Asked) -> None:
        check_asked(asked)
        assert asked.options == DEFAULT_OPTIONS

    def test_name(self) -> None:
        asked = DeleteRequest(disk="a", file_to_merge="b/c", merge_target_file=None)
        with pytest.raises(BadFileName):
            check_asked(Asked(delete=asked))

    def test_nothing(self) -> None:
        with pytest.raises(BadRequest):
            check_asked(Asked())


def test_what_is_shown_of_a_step() -> None:
    """What JSON makes of its arguments: a plan that was read again is equal to the one that was made."""
    made = forecast_delete(
        FakeGuest(samples.guest(samples.disk(3))),
        DeleteRequest(disk="vda", file_to_merge="volume-1.s1", merge_target_file="volume-1"),
    )
    arguments = {"path": Path("/a"), "does": Does.CLOSE, "names": ("a", "b"), "size": 1}
    one = Step(does=Does.CLOSE, by="file", what="x", arguments=arguments)
    told = shown(replace(made, steps=(one, *made.steps)))
    words = {"path": "/a", "does": "close", "names": ["a", "b"], "size": 1}
    assert told.steps[0] == ShownStep(by="file", what="x", arguments=words)
    assert [(step.by, step.what) for step in told.steps[1:]] == [
        (step.by, step.what) for step in made.steps
    ]
    assert (told.disk, told.kind) == ("vda", "commit")
    assert [(layer.file, layer.path, layer.node, layer.format) for layer in told.before] == [
        (layer.file, layer.path, layer.node, layer.format) for layer in made.before
    ]
    assert [(layer.file, layer.format) for layer in told.after] == list(made.after)


class TestWhatIsAboutToBeDone:
    """It is compared with what was shown, but for its steps."""

    def test_a_snapshot_of_two_disks(self) -> None:
        lower = samples.linked([samples.layer("volume-2.s1"), samples.layer("volume-2", "raw")])
        second = samples.disk(disk="vdb", serial="2", layers=lower, root="volume-2.s1-node")
        fake = FakeGuest(samples.guest(samples.disk(2), second))
        requests = [
            CreateRequest(disk=name, new_file=None, snapshot="new") for name in ("vda", "vdb")
        ]
        plans = [shown(one) for one in forecast_create(fake, requests)]
        done: list[Any] = []
        create_all(fake, requests, begins=done.append)
        ready = shown_ready(done[0])
        assert [(one.disk, one.kind, one.steps) for one in ready] == [
            ("vda", "create", ()),
            ("vdb", "create", ()),
        ]
        assert ready[0].after[0] == ShownAfter(file="volume-1.new", format="qcow2")
        assert ready[1].after[1:] == (
            ShownAfter(file="volume-2.s1", format="qcow2"),
            ShownAfter(file="volume-2", format="raw"),
        )
        check_same_plan(plans, ready, steps=False)

    @pytest.mark.parametrize("merge", ["volume-1.s2", "volume-1.s1"])
    def test_a_merge(self, merge: str) -> None:
        target = "volume-1.s1" if merge.endswith("2") else "volume-1"
        request = DeleteRequest(disk="vda", file_to_merge=merge, merge_target_file=target)
        fake = FakeGuest(samples.guest(samples.disk(3)))
        plan = shown(forecast_delete(fake, request))
        done: list[Any] = []
        delete(fake, request, begins=done.append)
        (ready,) = shown_ready(done[0])
        assert [one.file for one in ready.before] == samples.names(3)
        assert [one.file for one in ready.after] == [
            name for name in samples.names(3) if name != merge
        ]
        check_same_plan([plan], [ready], steps=False)


LAYER = ShownLayer(file="a", path="/s/a", node="n", format="raw")
STEP = ShownStep(by="qmp", what="block-commit", arguments={"device": "a"})
AFTER = ShownAfter(file="a", format="raw")
DISK = ShownDisk(disk="vda", kind="commit", before=(LAYER,), after=(AFTER,), steps=(STEP,))


def changed(**changes: Any) -> ShownDisk:
    values = {name: getattr(DISK, name) for name in ("disk", "kind", "before", "after", "steps")}
    return ShownDisk(**values | changes)


class TestComparison:
    def test_same(self) -> None:
        check_same_plan((DISK, DISK), (DISK, DISK))

    @pytest.mark.parametrize(
        ("now", "why"),
        [
            ([], "vda, and would be about no disk"),
            ([DISK, DISK], "no disk, and would be about vda"),
            ([changed(disk="vdb")], "about vda, and would be about vdb"),
            ([changed(kind="pull")], "had a commit, and would have a pull"),
            ([changed(before=())], "the chain of vda was a (raw, n), and is "),
            (
                [changed(before=(ShownLayer(file="a", path="/t/a", node="n", format="raw"),))],
                "the chain of vda",
            ),
            ([changed(after=())], "afterwards, and not a (raw)"),
            (
                [changed(steps=())],
                'step 1 on vda was block-commit {"device": "a"}, and would be none',
            ),
            ([changed(steps=(STEP, STEP))], "step 2 on vda was none"),
        ],
    )
    def test_differs(self, now: list[ShownDisk], why: str) -> None:
        with pytest.raises(PlanDiffers) as caught:
            check_same_plan((DISK,), now)
        assert why in str(caught.value)

    def test_steps_need_not_count(self) -> None:
        check_same_plan((DISK,), (changed(steps=()),), steps=False)
