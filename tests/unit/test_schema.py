"""What a QEMU can do, by its own schema."""

from __future__ import annotations

import pytest

from qmpsnap.monitor.base import ConnectionLost
from qmpsnap.monitor.schema import NO_FEATURES, Features, features_from, read_features
from tests.unit.scripted import ScriptedMonitor, refused, schema

# As QEMU 7.2 writes it: types have numbers for names, and other kinds have members of other shapes.
REPLY: list[object] = [
    {"name": "block-commit", "ret-type": "0", "meta-type": "command", "arg-type": "17"},
    {"name": "query-jobs", "ret-type": "[9]", "meta-type": "command", "arg-type": "0"},
    {"name": "0", "members": [], "meta-type": "object"},
    {
        "name": "17",
        "members": [
            {"name": "job-id", "default": None, "type": "str"},
            {"name": "device", "type": "str"},
        ],
        "meta-type": "object",
    },
    {"name": "41", "members": [{"type": "int"}, {"type": "str"}], "meta-type": "alternate"},
    {"name": "42", "values": ["a"], "members": [{"name": "a"}], "meta-type": "enum"},
    {"name": "[9]", "element-type": "9", "meta-type": "array"},
    {"name": "str", "json-type": "string", "meta-type": "builtin"},
    {"name": "SHUTDOWN", "meta-type": "event", "arg-type": "17"},
    {"name": "no-arguments", "meta-type": "command"},
    {"name": "odd", "meta-type": "command", "arg-type": "gone"},
]


def test_commands_and_arguments() -> None:
    features = features_from(REPLY)
    assert features.has("block-commit")
    assert features.has("block-commit", "job-id")
    assert not features.has("block-commit", "backing-mask-protocol")
    assert features.has("query-jobs")
    assert not features.has("query-jobs", "flat")
    assert features.has("no-arguments")
    assert features.has("odd")
    assert not features.has("block-stream")
    assert not features.has("block-stream", "job-id")


@pytest.mark.parametrize("name", ["17", "42", "str", "SHUTDOWN"])
def test_what_is_no_command(name: str) -> None:
    assert not features_from(REPLY).has(name)


@pytest.mark.parametrize(
    "reply",
    [None, {}, [], "schema", 7, [None], [7], [{}], [{"name": 1, "meta-type": "command"}]],
)
def test_reply_of_another_shape_tells_nothing(reply: object) -> None:
    assert features_from(reply) == NO_FEATURES


def test_one_odd_entry_does_not_hide_the_others() -> None:
    odd = [{"name": None}, {"\ud800": 1, "name": "a", "meta-type": "command"}]
    assert features_from([7, *REPLY, *odd]) == features_from(REPLY)


def test_read() -> None:
    monitor = ScriptedMonitor({"query-qmp-schema": schema(block_stream=("job_id",))})
    assert read_features(monitor) == Features({"block-stream": frozenset({"job-id"})})


def test_qemu_or_recording_without_a_schema() -> None:
    assert read_features(ScriptedMonitor({})) == NO_FEATURES
    assert read_features(ScriptedMonitor({"query-qmp-schema": refused("x")})) == NO_FEATURES


def test_connection_that_is_lost_is_no_answer() -> None:
    lost = ConnectionLost("query-qmp-schema", "gone")
    with pytest.raises(ConnectionLost):
        read_features(ScriptedMonitor({"query-qmp-schema": lost}))
