"""What Cinder's log of requests says of status updates."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_LINE: Final = re.compile(r"\[(?:None )?(?P<request>(?:req-[-0-9a-f]+ ?)+)[^]]*\] (?P<text>.*)")
_BODY: Final = re.compile(r"Action body: b'(.*)' get_method")
_ANSWER: Final = re.compile(
    r'"POST [^"]*/snapshots/(?P<id>[^/]+)/action [^"]*" status: (?P<status>\d+)'
)


def updates_in(log: str, snapshot: str) -> list[tuple[dict[str, Any], int]]:
    """Return the bodies that were answered, in that order, each with the status of the answer."""
    bodies: dict[str, str] = {}
    found: list[tuple[dict[str, Any], int]] = []
    for line in log.splitlines():
        if (of := _LINE.search(line)) is None:
            continue
        if body := _BODY.search(of["text"]):
            bodies[of["request"]] = body[1]
        answer = _ANSWER.search(of["text"])
        if answer is None or answer["id"] != snapshot:
            continue
        whole = json.loads(bodies.get(of["request"], "{}"))
        if update := whole.get("os-update_snapshot_status"):
            found.append((update, int(answer["status"])))
    return found
