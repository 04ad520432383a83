"""Transcripts: what is recorded answers again, and nothing else is taken for one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmpsnap.errors import Refused
from qmpsnap.monitor.base import CommandFailed, Event, Monitor
from qmpsnap.monitor.transcript import BadTranscript, Exchange, Recorder, ReplayMonitor, parse
from tests.unit.scripted import Each, ScriptedMonitor, refused

HEADER = {"qmpsnap-transcript": 1, "qemu": "7.2.22", "libvirt": None}


def text(*lines: object) -> str:
    return "\n".join(json.dumps(line) for line in (HEADER, *lines)) + "\n"


def replay(*lines: object) -> ReplayMonitor:
    return ReplayMonitor(parse(text(*lines), "t"))


class TestParse:
    def test_every_kind_of_line(self) -> None:
        found = parse(
            text(
                {"execute": "query-jobs", "return": []},
                {"execute": "a", "arguments": {"b": 1}, "error": {"class": "C", "desc": "d"}},
                {"event": "SHUTDOWN", "timestamp": {"seconds": 1}},
                {"event": "BLOCK_JOB_READY", "data": {"device": "j"}},
                {"xml": "<domain/>"},
            ),
            "t",
        )
        assert (found.qemu, found.libvirt, found.xml) == ("7.2.22", None, ("<domain/>",))
        assert found.events == (Event("SHUTDOWN"), Event("BLOCK_JOB_READY", {"device": "j"}))
        assert found.exchanges == (
            Exchange(command="query-jobs", arguments={}, value=[]),
            Exchange(command="a", arguments={"b": 1}, error=("C", "d")),
        )

    def test_empty_lines_do_not_matter(self) -> None:
        found = parse("\n\n" + text() + "\n  \n" + '{"xml": "a"}', "t")
        assert found.xml == ("a",)

    @pytest.mark.parametrize(
        "first",
        ["", "\n", "{}", '{"qmpsnap-transcript": 2}', '{"qmpsnap-transcript": "1"}', '{"xml": ""}'],
    )
    def test_not_a_transcript(self, first: str) -> None:
        with pytest.raises(BadTranscript, match="does not begin with") as caught:
            parse(first, "t")
        assert isinstance(caught.value, Refused)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("{", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("[]", "not a JSON object"),
            ("7", "not a JSON object"),
            ("{}", "neither an exchange"),
            ('{"execute": 7, "return": {}}', "neither an exchange"),
            ('{"xml": 7}', "neither an exchange"),
            ('{"execute": "a"}', "without a return or an error"),
            ('{"execute": "a", "error": "text"}', "without a return or an error"),
            ('{"execute": "a", "arguments": [], "return": {}}', "not an object"),
        ],
    )
    def test_bad_line(self, line: str, reason: str) -> None:
        with pytest.raises(BadTranscript, match=reason) as caught:
            parse(text() + line, "file.jsonl")
        assert (caught.value.name, caught.value.line) == ("file.jsonl", 2)


class TestReplay:
    def test_first_unused_line_then_the_last_used_one(self) -> None:
        monitor: Monitor = replay(
            {"execute": "query-jobs", "return": 1},
            {"execute": "query-jobs", "return": 2},
            {"execute": "query-block", "return": 3},
        )
        assert [monitor.execute("query-jobs") for _ in range(4)] == [1, 2, 2, 2]
        assert monitor.execute("query-block", {}) == 3

    def test_arguments_count(self) -> None:
        monitor = replay(
            {"execute": "qom-get", "arguments": {"path": "a"}, "return": 1},
            {"execute": "qom-get", "arguments": {"path": "b"}, "return": 2},
        )
        assert monitor.execute("qom-get", {"path": "b"}) == 2
        assert monitor.execute("qom-get", {"path": "a"}) == 1
        with pytest.raises(CommandFailed) as caught:
            monitor.execute("qom-get", {"path": "c"})
        assert caught.value.error_class == "GenericError"

    def test_error(self) -> None:
        monitor = replay({"execute": "a", "error": {"class": "C", "desc": "d"}})
        for _ in range(2):
            with pytest.raises(CommandFailed) as caught:
                monitor.execute("a")
            assert (caught.value.error_class, caught.value.description) == ("C", "d")

    def test_command_that_is_not_in_it(self) -> None:
        with pytest.raises(CommandFailed) as caught:
            replay({"execute": "a", "return": {}}).execute("b")
        assert caught.value.error_class == "CommandNotFound"

    def test_only_events_that_a_monitor_watches(self) -> None:
        monitor = replay({"event": "RTC_CHANGE"}, {"event": "SHUTDOWN"})
        assert monitor.events.get_nowait() == Event("SHUTDOWN")
        assert monitor.events.empty()


class TestRecord:
    def test_what_is_recorded_answers_again(self) -> None:
        real = ScriptedMonitor({"query-jobs": Each([], [{"id": "a"}]), "b": refused("b", "no")})
        file = io.StringIO()
        recorder = Recorder(real, file, qemu="7.2", libvirt="9.0.0")
        assert recorder.execute("query-jobs") == []
        assert recorder.execute("query-jobs") == [{"id": "a"}]
        with pytest.raises(CommandFailed):
            recorder.execute("b", {"c": 1})
        recorder.xml("<domain/>")
        found = parse(file.getvalue(), "t")
        assert (found.qemu, found.libvirt, found.xml) == ("7.2", "9.0.0", ("<domain/>",))
        again = ReplayMonitor(found)
        assert [again.execute("query-jobs") for _ in range(2)] == [[], [{"id": "a"}]]
        with pytest.raises(CommandFailed, match="QEMU refused b: no"):
            again.execute("b", {"c": 1})

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda below: (
                st.lists(below, max_size=2)
                | st.dictionaries(st.text(max_size=3), below, max_size=2)
            ),
            max_leaves=5,
        )
    )
    def test_any_reply(self, reply: Any) -> None:
        file = io.StringIO()
        Recorder(ScriptedMonitor({"a": reply}), file, qemu=None, libvirt=None).execute("a")
        assert ReplayMonitor(parse(file.getvalue(), "t")).execute("a") == reply
