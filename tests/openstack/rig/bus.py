"""
A message bus between the processes of a rig's Cinder: a driver of oslo.messaging's, over files.

It replaces RabbitMQ, which needs a hundred megabytes of Erlang. As with RabbitMQ, each topic has a
queue, and so has each server of a topic. A queue remains when its reader dies; a message that was
taken is lost with the process that took it. A message is a file, and unlinking it takes it.

`transport_url = files:/` finds it by its entry point, in the folder `plugins`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Final

import oslo_messaging
from oslo_messaging._drivers import base, common

_PAUSE_S: Final = 0.02


def _put(path: Path, what: object) -> None:
    """Have a file be there as a whole."""
    begun = path.parent.parent / f"new-{uuid.uuid4()}"
    begun.write_text(common.jsonutils.dumps(what))  # with times, as the other drivers do
    begun.rename(path)


def _take(path: Path) -> Any:
    """What a file holds, for the one who unlinks it; None for all others."""
    try:
        text = path.read_text()
        path.unlink()
    except FileNotFoundError:
        return None
    return json.loads(text)


class _Incoming(base.RpcIncomingMessage):  # type: ignore[misc]
    def __init__(self, sent: dict[str, Any]) -> None:
        super().__init__(sent["context"], sent["message"])
        self._answer = sent["answer"]

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        if self._answer is not None:
            said = None if failure is None else common.serialize_remote_exception(failure)
            _put(Path(self._answer), {"reply": reply, "failure": said})

    def requeue(self) -> None:
        raise AssertionError("Cinder gives no message back")

    def heartbeat(self) -> None:
        """Whoever waits has a limit of its own."""


class _Listener(base.PollStyleListener):  # type: ignore[misc]
    def __init__(self, queues: list[Path]) -> None:
        super().__init__()
        self._queues, self._goes_on = queues, True
        for one in queues:
            one.mkdir(parents=True, exist_ok=True)

    @base.batch_poll_helper  # type: ignore[untyped-decorator]
    def poll(self, timeout: float | None = None) -> _Incoming | None:
        end = time.monotonic() + (sys.maxsize if timeout is None else timeout)
        while self._goes_on and time.monotonic() < end:
            for queue in self._queues:
                for name in sorted(os.listdir(queue)):
                    sent = _take(queue / name)
                    if sent is not None:
                        return _Incoming(sent)
            time.sleep(_PAUSE_S)
        return None

    def stop(self) -> None:
        self._goes_on = False


class Driver(base.BaseDriver):  # type: ignore[misc]
    """Sends to processes of the same rig, and listens."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._folder = Path(os.environ["RIG"]) / "bus"
        self._answers = self._folder / "answers"
        self._answers.mkdir(parents=True, exist_ok=True)

    def _queue(self, topic: str, server: str | None) -> Path:
        return self._folder / (f"{topic}@@{server}" if server else topic)

    def send(
        self,
        target: Any,
        ctxt: Any,
        message: Any,
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        **_named: Any,
    ) -> Any:
        """Put it into the queues of a target, and wait for the answer where one is wanted."""
        queues = [self._queue(target.topic, target.server)]
        if target.fanout:
            queues = [*self._folder.glob(f"{target.topic}@@*")]
        answer = self._answers / str(uuid.uuid4()) if wait_for_reply else None
        sent = {"context": ctxt, "message": message, "answer": answer and str(answer)}
        for queue in queues:
            queue.mkdir(exist_ok=True)
            _put(queue / f"{time.time_ns():020}-{uuid.uuid4()}", sent)
        return None if answer is None else self._answered(target, answer, timeout)

    def _answered(self, target: Any, answer: Path, timeout: float | None) -> Any:
        end = time.monotonic() + (sys.maxsize if timeout is None else timeout)
        while time.monotonic() < end:
            said = _take(answer)
            if said is not None and said["failure"] is not None:
                modules = self._allowed_remote_exmods
                raise common.deserialize_remote_exception(said["failure"], modules)
            if said is not None:
                return said["reply"]
            time.sleep(_PAUSE_S)
        raise oslo_messaging.MessagingTimeout(f"no answer on {target.topic}")

    def send_notification(self, target: Any, ctxt: Any, message: Any, **_named: Any) -> None:
        """Nobody listens to these."""

    def listen(self, target: Any, batch_size: int, batch_timeout: float | None) -> Any:
        """Take what is for this server, and what is for any of the topic."""
        queues = [self._queue(target.topic, one) for one in (target.server, None)]
        return base.PollStyleListenerAdapter(_Listener(queues), batch_size, batch_timeout)

    def listen_for_notifications(self, *_arguments: Any) -> Any:
        raise AssertionError("no service of Cinder's listens to notifications")

    def cleanup(self) -> None:
        """Nothing is kept open."""
