"""What a server of minilambda writes to stderr: lines for people, or a JSON object a line for machines.

A peer's text in it can neither end a line nor tell a terminal what to do.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

FORMATS = ("text", "json")
"""What ``--log-format`` takes."""

_LOUD = ("urllib3", "requests", "opentelemetry")  # of others: their debugging is nobody's news


def configure(program: str, *, verbose: bool, form: str) -> None:
    """Set the log of this process up, once. Without ``verbose`` it has what somebody should do something about."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(program) if form == "json" else TextLines(program))
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, handlers=[handler])
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """``PROGRAM: LEVEL: text``; a traceback follows on lines of its own."""

    def __init__(self, program: str) -> None:
        super().__init__(f"{program}: %(levelname)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(map(_printable, super().formatException(ei).split("\n")))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


class JsonLines(logging.Formatter):
    """One object a line: time, level, program, logger, message, and what the line is about, field by field."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, Any] = {
            "time": f"{now}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "program": self._program,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)
