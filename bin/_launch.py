"""Run a command of minilambda from a clone that was not installed.

The clone's root goes onto the import path. A Python without the dependencies hands over to the clone's own
environment where there is one, and says how to make it where there is none. This file is kept parseable by any
Python 3, so that an old one gets the sentence and not a syntax error.
"""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and is not ignored
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C while all is imported: no traceback
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # blocked by ``_hand_over``

import importlib  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
DEPENDENCIES = ("docopt", "msgpack", "platformdirs", "rich", "wasmtime", "zmq")
OLDEST = (3, 10)


def launch(module: str) -> None:
    """Import ``module`` and exit with what its ``main()`` returns."""
    if sys.version_info[:2] < OLDEST:
        _hand_over("Python 3.10 or newer is needed, this is %d.%d" % sys.version_info[:2])  # noqa: UP031
    sys.path.insert(0, str(ROOT))
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in DEPENDENCIES:
            raise
        _hand_over("the package %s is not installed for %s" % (error.name, sys.executable))  # noqa: UP031
    sys.exit(main())


def _hand_over(reason: str) -> None:
    """Start again with the clone's environment; without one, say what to do and exit with 125."""
    in_venv = Path(sys.prefix).resolve() == VENV_PYTHON.parent.parent.resolve()
    if VENV_PYTHON.exists() and not in_venv:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until that Python has got here
        os.execv(str(VENV_PYTHON), [str(VENV_PYTHON), *sys.argv])
    name = Path(sys.argv[0]).name
    print("%s: %s. Run `make venv` in %s first." % (name, reason, ROOT), file=sys.stderr)  # noqa: UP031
    sys.exit(125)
