"""A headless Chromium that is told what to do over a pipe: the DevTools protocol, as far as needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = "chromium"


class Browser:
    """One page of it; made by `browser`."""

    def __init__(self, reads: FileIO, writes: FileIO) -> None:
        self._in, self._out = reads, writes
        self._number = 0
        self._rest = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """What it has told by itself: messages of the console, requests."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command; its result."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])
            self.events.append(said)

    def waits_for(self, method: str) -> None:
        """Wait for an event."""
        while all(one.get("method") != method for one in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._in.read(1 << 16)
            assert more, "it has ended"
            self._rest += more
        one, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(one))

    def shows(self, page: Path, width: int) -> None:
        """Load a page into a window so wide, as on a phone or a screen."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        self.waits_for("Page.loadEventFired")

    def tells(self, expression: str) -> Any:
        """Evaluate JavaScript, which a page's policy does not keep away."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def draws(self, file: Path) -> None:
        """Write all of the page as a picture."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run one for the length of a block."""
    assert shutil.which(PROGRAM), "install chromium"
    commands, answers = os.pipe(), os.pipe()

    def place() -> None:
        ends = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (commands[0], answers[1])]
        for number, end in enumerate(ends, start=3):
            os.dup2(end, number)

    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    with subprocess.Popen(
        [PROGRAM, *words, f"--user-data-dir={profile}", "--no-first-run"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=place,
        close_fds=False,
    ) as process:
        os.close(commands[0])
        os.close(answers[1])
        with (
            os.fdopen(answers[0], "rb", buffering=0) as reads,
            os.fdopen(commands[1], "wb", buffering=0) as writes,
        ):
            try:
                yield Browser(reads, writes)
            finally:
                process.kill()
