"""What both the agent and the runner say of a limit that a guest has passed."""

from __future__ import annotations


def past_deadline(seconds: float) -> str:
    return f"The guest was stopped at its deadline of {seconds:g} s."


def past_output(limit: int) -> str:
    """``limit`` is in bytes."""
    return f"The guest wrote more than the {limit} bytes that the job allows."
