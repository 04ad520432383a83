"""The QMP socket, against a real one that misbehaves."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Final

import pytest

from qmpsnap.errors import Refused, Unknown, Unreachable
from qmpsnap.monitor.base import (
    CONNECTION_LOST,
    CommandFailed,
    CommandTimedOut,
    ConnectionLost,
    Event,
    LostInMidCommand,
    Monitor,
    Query,
)
from qmpsnap.monitor.socket import CannotConnect, NotQmp, SocketMonitor
from tests.rig.waiting import HANG_S
from tests.unit.qmp_server import GREETING, Client, connected, serve


def silent(client: Client) -> None:
    """Says nothing more, until the other end is closed."""
    while client.receive():
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


class TestConnect:
    def test_no_such_file(self, path: Path) -> None:
        with pytest.raises(CannotConnect, match="no such socket") as caught:
            SocketMonitor.connect(path)
        assert isinstance(caught.value, Refused)
        assert (caught.value.exit_code, caught.value.path) == (7, str(path))
        assert caught.value.way_out

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_not_a_socket(self, path: Path, kind: str) -> None:
        path.touch() if kind == "file" else path.mkdir()
        with pytest.raises(CannotConnect, match="not a socket") as caught:
            SocketMonitor.connect(path)
        assert caught.value.way_out == "Check the path."

    def test_nobody_listens(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        with pytest.raises(CannotConnect, match="nobody listens there"):
            SocketMonitor.connect(path)

    def test_name_that_is_too_long_for_a_socket(self, path: Path) -> None:
        with pytest.raises(CannotConnect, match="too long"):
            SocketMonitor.connect(path.with_name("x" * 200))

    def test_name_with_a_nul(self) -> None:
        with pytest.raises(CannotConnect):
            SocketMonitor.connect("/tmp/a\0b")

    @pytest.mark.parametrize("count", [1, 3])
    def test_events_before_the_greeting(self, path: Path, count: int) -> None:
        """QEMU 7.2 without -S: RESUME, when somebody connects at that moment."""
        resume = {"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}

        def talk(client: Client) -> None:
            client.send(*[resume] * count)
            client.greet()
            client.answer(client.receive(), {"status": "running"})
            silent(client)

        with serve(path, talk) as address:
            monitor = SocketMonitor.connect(address)
            assert monitor.execute("query-status") == {"status": "running"}
            monitor.close()

    @pytest.mark.parametrize("after", [b"garbage\r\n", b'{"return": {}}\r\n', b""])
    def test_events_and_then_no_greeting(self, path: Path, after: bytes) -> None:
        def talk(client: Client) -> None:
            client.send({"event": "RESUME"}, after)

        with serve(path, talk) as address, pytest.raises(NotQmp):
            SocketMonitor.connect(address)

    def test_monitor_that_another_client_holds(self, path: Path) -> None:
        with serve(path, silent) as address, pytest.raises(CannotConnect) as caught:
            SocketMonitor.connect(address, timeout=0.01)
        assert caught.value.reason == "no greeting within 0.01 s"
        assert "Another client" in caught.value.way_out

    @pytest.mark.parametrize(
        "said",
        [
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            b"\xff\xfe\0garbage\n",
            b"\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"{}\n",
            b"[]\n",
            b"7\n",
            b'{"QMP": 7}\n',
            b'{"QMP": {}}\n',
            b'{"return": {}}\n',
            b'{"event": "SHUTDOWN"}\n',
            b"",
            b'{"QMP"',
        ],
    )
    def test_somebody_else(self, path: Path, said: bytes) -> None:
        with (
            serve(path, lambda client: client.send(said)) as address,
            pytest.raises(NotQmp, match=r"does not speak QMP: \S") as caught,
        ):
            SocketMonitor.connect(address)
        assert isinstance(caught.value, Refused)
        assert (caught.value.exit_code, caught.value.path) == (7, address)
        assert "\n" not in caught.value.reason

    def test_greeting_without_an_end(self, path: Path) -> None:
        """The library would take in all of it before it says anything."""
        sent = 0

        def talk(client: Client) -> None:
            nonlocal sent
            for _ in range(3000):
                client.send(b"x" * 65536)
                sent += 65536

        with serve(path, talk), pytest.raises(NotQmp, match="no end within 65536 bytes"):
            SocketMonitor.connect(path, HANG_S)
        assert sent < 3000 * 65536

    def test_greeting_that_stops(self, path: Path) -> None:
        """Not a monitor that somebody else holds: that one says nothing."""

        def talk(client: Client) -> None:
            client.send(b'{"QMP": {')
            silent(client)

        def reason(timeout: float) -> str:
            address = path.with_name(f"{timeout:g}")
            with serve(address, talk), pytest.raises((CannotConnect, NotQmp)) as caught:
                SocketMonitor.connect(address, timeout)
            return str(caught.value)

        timeouts = [0.1 * 2**number for number in range(11)]  # until it has begun in time
        assert any(f"no end within {one:g} s" in reason(one) for one in timeouts)

    def test_greeting_in_pieces(self, path: Path) -> None:
        def talk(client: Client) -> None:
            greeting = json.dumps(GREETING).encode() + b"\r\n"
            for byte in (greeting[:1], greeting[1:9], greeting[9:]):
                client.send(byte)
            client.answer(client.receive(), {})
            silent(client)

        with serve(path, talk):
            SocketMonitor.connect(path, HANG_S).close()

    def test_negotiation_that_is_refused(self, path: Path) -> None:
        def talk(client: Client) -> None:
            client.send(GREETING)
            client.receive()
            client.send({"error": {"class": "GenericError", "desc": "no"}})

        with serve(path, talk) as address, pytest.raises(NotQmp):
            SocketMonitor.connect(address)

    def test_negotiation_that_is_cut_off(self, path: Path) -> None:
        # Which end notices first is a matter of luck, and so is the class.
        with (
            serve(path, lambda client: client.send(GREETING)) as address,
            pytest.raises((NotQmp, CannotConnect)),
        ):
            SocketMonitor.connect(address)

    def test_hang_up_right_after_the_negotiation(self, path: Path) -> None:
        with serve(path, Client.greet) as address:
            try:
                monitor = SocketMonitor.connect(address)
            except Unreachable:
                return
            assert monitor.events.get(timeout=HANG_S) == Event(CONNECTION_LOST)
            monitor.close()

    def test_again_after_a_failure(self, path: Path) -> None:
        with pytest.raises(CannotConnect):
            SocketMonitor.connect(path)
        with connected(path, silent) as monitor:
            assert monitor.events.empty()


class TestExecute:
    def test_command_and_its_reply(self, path: Path) -> None:
        seen: list[object] = []

        def talk(client: Client) -> None:
            command = client.receive()
            seen.append((command["execute"], command.get("arguments")))
            client.answer(command, [{"device": "vda"}])

        with connected(path, talk) as monitor:
            road: Monitor = monitor
            assert road.execute("query-block", {"flat": True}) == [{"device": "vda"}]
        assert seen == [("query-block", {"flat": True})]

    def test_reply_that_is_larger_than_the_librarys_limit(self, path: Path) -> None:
        large = "x" * (10 * 1024 * 1024 + 1)
        with connected(path, lambda client: client.answer(client.receive(), large)) as monitor:
            assert monitor.execute("query-block") == large

    def test_error_reply(self, path: Path) -> None:
        def talk(client: Client) -> None:
            command = client.receive()
            error = {"class": "CommandNotFound", "desc": "The command x has not been found"}
            client.send({"error": error, "id": command["id"]})
            client.answer(client.receive(), 7)

        with connected(path, talk) as monitor:
            with pytest.raises(CommandFailed, match="The command x has not been found") as caught:
                monitor.execute("x")
            assert caught.value.error_class == "CommandNotFound"
            assert (caught.value.command, caught.value.changed) == ("x", "no")
            assert monitor.execute("y") == 7

    def test_no_reply_in_time(self, path: Path) -> None:
        def talk(client: Client) -> None:
            late = client.receive()
            command = client.receive()
            client.answer(late, "too late")
            client.answer(command, "in time")

        with connected(path, talk) as monitor:
            with pytest.raises(CommandTimedOut, match="no reply to job-finalize") as caught:
                monitor.execute("job-finalize", timeout=0.01)
            assert isinstance(caught.value, Unknown)
            assert monitor.execute("query-jobs") == "in time"

    @pytest.mark.parametrize(
        ("said", "closes"),
        [
            (b"", True),
            (b'{"return"', True),
            (b"garbage\n", True),
            (b"garbage\n", False),
            (b"\xff\n", False),
            (b"[]\n", False),
            (b'{"return": ' + b"[" * 200_000 + b"\n", False),
        ],
        ids=lambda value: str(value[:20]) if isinstance(value, bytes) else None,
    )
    def test_connection_that_breaks_in_mid_command(
        self, path: Path, said: bytes, closes: bool
    ) -> None:
        def talk(client: Client) -> None:
            client.receive()
            client.send(said)
            if not closes:
                silent(client)

        with connected(path, talk) as monitor:
            with pytest.raises(LostInMidCommand, match="whether QEMU carried it out") as caught:
                monitor.execute("transaction")
            assert isinstance(caught.value, Unknown)
            assert (caught.value.command, caught.value.exit_code) == ("transaction", 6)
            assert caught.value.reason
            with pytest.raises(ConnectionLost):
                monitor.execute("query-jobs")

    @pytest.mark.parametrize("reply", [{"neither": 1}, {"error": "text"}, {"error": {}}])
    def test_reply_that_is_neither_a_return_nor_an_error(
        self, path: Path, reply: dict[str, object]
    ) -> None:
        def talk(client: Client) -> None:
            client.send({**reply, "id": client.receive()["id"]})
            silent(client)

        with connected(path, talk) as monitor, pytest.raises(LostInMidCommand):
            monitor.execute("transaction")

    def test_connection_that_is_gone_already(self, path: Path) -> None:
        with connected(path, lambda client: client.answer(client.receive(), {})) as monitor:
            monitor.execute("quit")
            assert monitor.events.get(timeout=HANG_S) == Event(CONNECTION_LOST)
            with pytest.raises(ConnectionLost, match="query-block was not sent") as caught:
                monitor.execute("query-block")
            assert isinstance(caught.value, Refused)
            assert caught.value.exit_code == 7

    def test_after_close(self, path: Path) -> None:
        with connected(path, silent) as monitor:
            monitor.close()
            with pytest.raises(ConnectionLost):
                monitor.execute("query-block")

    def test_two_threads_get_each_its_own_reply(self, path: Path) -> None:
        def talk(client: Client) -> None:
            for command in reversed([client.receive(), client.receive()]):
                client.answer(command, command["execute"])

        replies: dict[str, object] = {}
        with connected(path, talk) as monitor:

            def ask(command: str) -> None:
                replies[command] = monitor.execute(command)

            threads = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b")]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert replies == {"a": "a", "b": "b"}


class TestExecuteAll:
    QUERIES: Final[tuple[Query, ...]] = (
        ("query-jobs", {}),
        ("query-block", {"flat": True}),
        ("query-name", {}),
    )

    def test_all_are_sent_before_the_first_reply(self, path: Path) -> None:
        def talk(client: Client) -> None:
            commands = [client.receive() for _ in self.QUERIES]
            for command in commands:
                client.answer(command, [command["execute"], command.get("arguments")])

        with connected(path, talk) as monitor:
            assert monitor.execute_all(self.QUERIES) == [
                [command, arguments] for command, arguments in self.QUERIES
            ]
            assert monitor.execute_all([]) == []

    def test_one_that_is_refused(self, path: Path) -> None:
        def talk(client: Client) -> None:
            first, second, third = (client.receive() for _ in self.QUERIES)
            client.answer(first, 1)
            error = {"class": "GenericError", "desc": "Parameter 'flat' is unexpected"}
            client.send({"error": error, "id": second["id"]})
            client.answer(third, 3)

        with connected(path, talk) as monitor:
            first, second, third = monitor.execute_all(self.QUERIES)
        assert (first, third) == (1, 3)
        assert isinstance(second, CommandFailed)
        assert (second.command, second.error_class) == ("query-block", "GenericError")

    def test_connection_that_breaks_after_the_first_reply(self, path: Path) -> None:
        def talk(client: Client) -> None:
            client.answer(client.receive(), 1)

        with connected(path, talk) as monitor:
            with pytest.raises(LostInMidCommand):
                monitor.execute_all(self.QUERIES)
            with pytest.raises(ConnectionLost, match="query-jobs was not sent"):
                monitor.execute_all(self.QUERIES)

    def test_no_reply_in_time(self, path: Path) -> None:
        with connected(path, silent) as monitor, pytest.raises(CommandTimedOut):
            monitor.execute_all(self.QUERIES, timeout=0.01)


class TestEvents:
    def test_only_what_is_watched_in_its_order(self, path: Path) -> None:
        def talk(client: Client) -> None:
            stamp = {"seconds": 1, "microseconds": 2}
            for name, data in (
                ("JOB_STATUS_CHANGE", {"id": "job0", "status": "running"}),
                ("RTC_CHANGE", {"offset": 1}),
                ("BLOCK_JOB_READY", {"device": "job0"}),
                ("SHUTDOWN", None),
            ):
                more = {"data": data} if data is not None else {}
                client.send({"event": name, "timestamp": stamp, **more})
            client.answer(client.receive(), {})
            silent(client)

        with connected(path, talk) as monitor:
            monitor.execute("query-jobs")  # events before a reply are there when it is
            assert [monitor.events.get_nowait() for _ in range(monitor.events.qsize())] == [
                Event("JOB_STATUS_CHANGE", {"id": "job0", "status": "running"}),
                Event("BLOCK_JOB_READY", {"device": "job0"}),
                Event("SHUTDOWN"),
            ]

    def test_end_of_the_connection(self, path: Path) -> None:
        def talk(client: Client) -> None:
            client.answer(client.receive(), {})
            client.send({"event": "SHUTDOWN"})

        with connected(path, talk) as monitor:
            monitor.execute("quit")
            assert monitor.events.get(timeout=HANG_S).name == "SHUTDOWN"
            assert monitor.events.get(timeout=HANG_S).name == CONNECTION_LOST

    def test_end_that_we_asked_for_is_none(self, path: Path) -> None:
        with connected(path, silent) as monitor:
            pass
        assert monitor.events.empty()
