"""What a job writes, shown as it comes."""

from __future__ import annotations

from collections.abc import Callable

from minilambda.cli import render
from minilambda.cli.streams import complain, write_error, write_output
from minilambda.client.job import Job
from minilambda.client.live import Chunk

AGAIN = "the job lost its worker and runs again: its output begins anew."
"""Said between the output of one attempt and that of the next."""


class Shown:
    """Shows the output of one job: stdout on stdout and stderr on stderr, byte for byte; by ``as_json`` as lines of it.

    ``first`` is called before the first of it. Raises ``ReaderGone`` and ``OutputLost``.
    """

    def __init__(self, program: str, job_id: str, as_json: bool, first: Callable[[], None] = lambda: None) -> None:
        self._program = program
        self._job_id = job_id
        self._json = as_json
        self._first = first
        self._attempt = 0  # whose output was shown last; 0: nothing was

    def show(self, chunk: Chunk) -> None:
        """Show a piece of it, at once."""
        if not self._attempt:
            self._first()
        elif chunk.attempt != self._attempt and not self._json:
            complain(f"{self._program}: {AGAIN}")
        self._attempt = chunk.attempt
        if self._json:
            write_output(render.json_line(render.chunk_object(self._job_id, chunk)))
        elif chunk.stream == "stdout":
            write_output(chunk.data)
        else:
            write_error(chunk.data)


def logs(program: str, job: Job, as_json: bool, follow: bool) -> None:
    """Show what a job has written, and with ``follow`` what it writes until it ends. Raises as ``Shown``."""
    shown = Shown(program, job.id, as_json)
    for chunk in job.output(follow=follow):
        shown.show(chunk)
