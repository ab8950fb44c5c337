"""The page of errors: every wire code with its sentence, its class, its exit code and its HTTP status."""

from __future__ import annotations

from minilambda.cli.exits import for_code
from minilambda.errors import BY_CODE, JOB_CODES, JobError, MinilambdaError, RequestError
from minilambda.web.problems import SENTENCES, STATUS

HEAD = """# Errors

<!-- Made by `make reference` from the code; changes here are lost. -->

Every failure has one **code**. It is the same in the [protocol](protocol.md#errors), in the messages of the
commands, in [HTTP](http.md#errors) and in Python, where each code is a class in `minilambda.errors`. Codes are
stable; later versions may add some. The sentence here is the general one: a real failure says which limit, which
import or which trap it was.

```console
$ minilambda-client --timeout 0.2 examples/hostile/loop.wasm
minilambda-client: deadline_exceeded: The guest was stopped at its deadline of 0.2 s.
…
$ minilambda-client --json --timeout 0.2 examples/hostile/loop.wasm | python -m json.tool | grep '"code"'
        "code": "deadline_exceeded",
```

```python
from minilambda import Client
from minilambda.errors import DeadlineExceeded, JobError

with Client("127.0.0.1:8080") as client:
    try:
        client.run("examples/hostile/loop.wasm", timeout=0.2)
    except DeadlineExceeded as error:
        print(error.code, error.result.usage.run_ms > 190)
    except JobError as error:
        print("another way to end:", error.code, error.message)
```

```text
deadline_exceeded True
```

"""

JOBS = """## The job ended, and not by itself
Classes below `JobError`. The job has reached its terminal state, and `error.result` is what is known of it: output so
far, times, files that were collected. A guest that exits with a code other than 0 is none of these: it is a completed
job.

"""

REQUESTS = """## The request was refused
Classes below `RequestError`. Nothing has changed. `error.retry_after` is in seconds, or None where trying again is no
use. The client by itself asks a busy broker again, and one whose quota has no place at the moment (`busy_timeout`), and
one that it has lost (`lost_timeout`).

"""

ROOTS = """## Roots
To be caught, not to be told: a code that this version does not know is one of these, with the code in its text.

"""

OWN = """## Only over HTTP
The gateway's own codes, in problem documents.

"""

END = """The exit code is that of `minilambda-client`; 125 means that the platform or the request failed, as the message
says. All exit codes: `minilambda-client --help`. For jobs the HTTP status is that of `POST /run`; a function that was
called by its path answers 500 for every fault of its guest.
"""

_ABSTRACT = (MinilambdaError, JobError, RequestError)


def page() -> str:
    """The whole page."""
    jobs = [cls for cls in BY_CODE.values() if cls.code in JOB_CODES and cls not in _ABSTRACT]
    requests = [cls for cls in BY_CODE.values() if issubclass(cls, RequestError) and cls not in _ABSTRACT]
    own = [f"| `{code}` | {SENTENCES[code]} | {STATUS[code]} |" for code in STATUS if code not in BY_CODE]
    parts = [HEAD, JOBS, _table(jobs), "\n", REQUESTS, _table(requests), "\n", ROOTS, _table(list(_ABSTRACT)), "\n"]
    return "".join(
        [*parts, OWN, "| code | sentence | HTTP |\n|---|---|---:|\n", *(f"{row}\n" for row in own), "\n", END]
    )


def _table(classes: list[type[MinilambdaError]]) -> str:
    head = "| code | sentence | class | exit code | HTTP |\n|---|---|---|---:|---:|\n"
    return head + "".join(
        f"| `{cls.code}` | {cls.sentence} | `{cls.__name__}` | {for_code(cls.code)} | {STATUS.get(cls.code, 500)} |\n"
        for cls in sorted(classes, key=lambda cls: cls.code)
    )
