"""What the commands that run until they are told to stop have in common."""

from __future__ import annotations

import resource
from collections.abc import Callable

from minilambda.cli import logs
from minilambda.cli.options import USAGE_EXIT, BadOption, Options
from minilambda.cli.streams import complain
from minilambda.errors import MinilambdaError
from minilambda.notation import BadSetting

FAILED = 1
"""Exit code of a server that could not start or go on."""


def report(program: str, act: Callable[[], int]) -> int:
    """Do something once; a failure is one sentence. Returns the exit code."""
    try:
        return act()
    except (MinilambdaError, OSError) as error:
        complain(f"{program}: {error}")
        return FAILED


def serve(program: str, prepare: Callable[[], Callable[[], int]], found: Options) -> int:
    """Read the options with ``prepare``, run the server that it returns to its end; a failure is one sentence.

    Of the options it takes itself what is about the log.
    """
    try:
        form = found.choice("--log-format", logs.FORMATS, "text")
        logs.configure(program, verbose=found.flag("--verbose"), form=form)
        run = prepare()
    except (BadOption, BadSetting) as error:
        complain(f"{program}: {error}")
        return USAGE_EXIT
    try:
        return run()
    except (MinilambdaError, OSError) as error:
        complain(f"{program}: {error}")
        return FAILED
    except MemoryError:
        complain(f"{program}: there is no more memory for it.")
        return FAILED
    except KeyboardInterrupt:
        return 0


def limit_memory(size: int) -> None:
    """From now on this process gets no more memory of its own than ``size`` bytes; 0: as much as there is."""
    if not size:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
