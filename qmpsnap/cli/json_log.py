"""`--log-json`: what is said on standard error, as one JSON document a line."""

from __future__ import annotations

import json
import logging
import sys
import time

from qmpsnap.cli.units import moment


def line(level: str, message: str, logger: str = "qmpsnap") -> str:
    """`qmpsnap.message/1`."""
    document = {
        "schema": "qmpsnap.message/1",
        "time": moment(time.time()),
        "level": level,
        "logger": logger,
        "message": message,
    }
    return json.dumps(document)


class JsonHandler(logging.Handler):
    """Writes records of the program's own log in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        print(line(record.levelname.lower(), message, record.name), file=sys.stderr, flush=True)
