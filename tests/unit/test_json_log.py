"""`--log-json`: every line is JSON, whatever stands in a name."""

from __future__ import annotations

import json
import logging

import pytest

from qmpsnap.cli.json_log import JsonHandler, line


def test_a_line() -> None:
    said = json.loads(line("info", "a\x1b\n\udc80"))
    assert (said["schema"], said["level"], said["logger"]) == (
        "qmpsnap.message/1",
        "info",
        "qmpsnap",
    )
    assert said["message"] == "a\x1b\n\udc80"
    assert "\n" not in line("info", "a\nb")


def test_the_programs_log(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("qmpsnap.tests.json")
    logger.addHandler(JsonHandler())
    logger.warning("%s was %d", "it", 1)
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == (
        "warning",
        "qmpsnap.tests.json",
        "it was 1",
    )
    assert second["message"].endswith("ValueError: no")
