"""What ``minilambda-client`` exits with."""

from __future__ import annotations

from minilambda.client.results import RunResult

PLATFORM = 125
NOT_RUNNABLE = 126
NO_SUCH_FILE = 127
INTERRUPTED = 130
UNREAD = 141  # what shells say of a program that ended by SIGPIPE

_BY_CODE = {
    "deadline_exceeded": 124,
    "trap": 134,
    "stack_overflow": 134,
    "unknown_import_called": 134,
    "out_of_memory": 137,
    "invalid_module": NOT_RUNNABLE,
    "unknown_import": NOT_RUNNABLE,
    "unknown_export": NOT_RUNNABLE,
}


def for_code(code: str) -> int:
    """The exit code for a failure's wire code."""
    return _BY_CODE.get(code, PLATFORM)


def for_result(result: RunResult) -> int:
    """The exit code for a job that ended: the guest's own where it has one.

    The system keeps eight bits of it; where they are 0 and the guest's code is not, it is 255.
    """
    if result.error is not None:
        return for_code(result.error.code)
    code = result.exit_code or 0
    return (code & 255) or (255 if code else 0)
