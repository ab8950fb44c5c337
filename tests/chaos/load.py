"""One client of the chaos, a process: jobs of every kind until it is told to stop, each noted before and after.

``python -m tests.chaos.load ADDRESS NAME SEED FILE``. Each line of the file is a JSON list: a monotonic time in
seconds, what happened, the job's id, and the rest. End of file on standard input tells the client to finish what it
has begun.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

from minilambda import Client
from minilambda.client.results import RunResult
from minilambda.errors import MinilambdaError
from tests.chaos.guests import NONCE, nap
from tests.integration.guests import LOOP, slow_to_compile

NAPS = (0, 0, 0, 0, 5, 20, 50, 200)
"""How long the guests sleep, milliseconds."""

LATER = 200
"""Ended jobs that are remembered, to be asked for again."""


class Load:
    """A client with a pen."""

    def __init__(self, client: Client, name: str, seed: int, file: int) -> None:
        self.client, self.name, self.file = client, name, file
        self.chance = random.Random(seed)
        self.count = 0
        self.ended: list[str] = []

    def note(self, what: str, job: str, *rest: Any) -> None:
        os.write(self.file, json.dumps([time.monotonic(), what, job, *rest]).encode() + b"\n")

    def ask(self, kind: str, text: str | None = None, expect: str = "") -> dict[str, Any]:
        """A new job, noted; its options."""
        self.count += 1
        job = f"{self.name}-{self.count}"
        retries = self.chance.choice((0, 2, 5))
        self.note("asked", job, kind, retries, job if text is None else text, expect)
        return {"job_id": job, "retries": retries, "stdin": job}

    def answer(self, result: RunResult) -> None:
        self.note("answer", result.job_id, *told(result))
        if len(self.ended) < LATER:
            self.ended.append(result.job_id)

    # --- kinds of work ---

    def waiting(self) -> None:
        for _ in range(10):
            self.answer(self.client.run(nap(self.chance.choice(NAPS)), check=False, **self.ask("run")))

    def mapped(self) -> None:
        inputs = [self.ask("map") for _ in range(self.chance.randrange(20, 80))]
        for result in self.client.map(nap(self.chance.choice(NAPS)), inputs, ordered=False, check=False):
            self.answer(result)

    def detached(self) -> None:
        jobs = []
        for _ in range(self.chance.randrange(5, 25)):
            options = self.ask("detached")
            jobs.append(self.client.submit(nap(self.chance.choice(NAPS)), **options))
            self.note("accepted", options["job_id"])
        for job in jobs[: self.chance.randrange(len(jobs))]:  # the others are fetched by somebody else, at the end
            self.answer(job.result(check=False))

    def stubborn(self) -> None:
        """A guest that is stopped at its deadline, and a module that nobody has seen."""
        self.answer(self.client.run(LOOP, timeout=0.2, check=False, **self.ask("run", expect="deadline_exceeded")))
        module = slow_to_compile(self.chance.randrange(10, 20))
        self.answer(self.client.run(module, check=False, **self.ask("run", text="")))

    def again(self) -> None:
        """Ask for what has ended; a broker that was restarted does not know the waiting jobs any more."""
        for job in self.chance.sample(self.ended, min(5, len(self.ended))):
            try:
                self.answer(self.client.job(job).result(0, check=False))
            except MinilambdaError as error:
                if error.code not in ("not_found", "expired"):
                    raise

    def work(self) -> None:
        kinds = (self.waiting, self.mapped, self.detached, self.again, self.stubborn)
        while not stopped():
            work = self.chance.choices(kinds, (6, 3, 5, 2, 1))[0]
            try:
                work()
            except Exception as error:  # it goes into the ledger, and is a problem there
                self.note("error", f"{work.__name__}: {type(error).__name__}: {error}")


def told(result: RunResult) -> tuple[Any, ...]:
    """What an answer says, in the order that the ledger knows."""
    text, nonce = result.stdout[:-NONCE].decode("utf-8", "replace"), result.stdout[-NONCE:].hex()
    code = "" if result.error is None else result.error.code
    return result.state, code, text, nonce, result.attempt, result.exit_code, result.worker


def stopped() -> bool:
    """Standard input is at its end."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


def lines(path: os.PathLike[str]) -> Iterator[list[Any]]:
    """What is in a client's or a witness's file; a last line that is cut off was never written."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def main(address: str, name: str, seed: str, path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with Client(address, connect_timeout=30) as client:
        Load(client, name, int(seed), file).work()


if __name__ == "__main__":
    main(*sys.argv[1:])
