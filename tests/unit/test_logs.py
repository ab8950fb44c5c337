"""What servers log: a line is a line, whatever a peer has called itself."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from minilambda.cli.logs import JsonLines, TextLines

HOSTILE = 'a\nminilambda: ERROR: "fake"\r\x1b[31m\u2028\ud800"}{'


def record(text: str, *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("minilambda.x", logging.WARNING, __file__, 1, text, args, None)
    made.__dict__.update(extra)
    return made


@pytest.mark.parametrize("lines", [JsonLines("minilambda"), TextLines("minilambda")], ids=["json", "text"])
def test_a_hostile_text_can_not_end_its_line(lines: logging.Formatter) -> None:
    told = lines.format(record("a worker named %s", HOSTILE, fields={"worker": HOSTILE}))
    assert len(told.splitlines()) == 1 and "\x1b" not in told
    told.encode()  # it can be written


def test_a_json_line_has_what_it_is_about_field_by_field() -> None:
    told = json.loads(JsonLines("minilambda").format(record("job %s", "j", fields={"job": HOSTILE, "attempt": 2})))
    assert told["message"] == "job j" and told["level"] == "warning" and told["program"] == "minilambda"
    assert (told["job"], told["attempt"], told["logger"]) == (HOSTILE, 2, "minilambda.x")
    assert told["time"].endswith("Z") and len(told["time"]) == len("2026-01-01T00:00:00.000Z")


def test_an_exception_is_part_of_its_json_line_and_follows_one_of_text() -> None:
    try:
        raise RuntimeError(HOSTILE)
    except RuntimeError:
        about = sys.exc_info()
    told = JsonLines("p").format(record("it failed", exc_info=about))
    assert len(told.splitlines()) == 1 and "RuntimeError" in json.loads(told)["traceback"]
    text = TextLines("p").format(record("it failed", exc_info=about)).splitlines()
    assert text[0] == "p: WARNING: it failed" and text[1].startswith("Traceback")
    assert "\x1b" not in "".join(text)
