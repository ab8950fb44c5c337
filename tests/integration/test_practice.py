"""The template runs guests of ours before it forks: that leaves nothing behind but what Python has learned."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from minilambda.worker import engine

_PRACTICE = """
import json, os, resource
from minilambda.worker import primer
from minilambda.worker.places import make_places
from minilambda.worker.practice import practise

def state():
    numbers = [name for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")]
    return {
        "descriptors": {name: os.readlink(f"/proc/self/fd/{name}") for name in numbers},
        "threads": len(os.listdir("/proc/self/task")),
        "limits": [resource.getrlimit(each) for each in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE)],
        "bare": [place.cell.bare for each in places.values() for place in (each.pool, each.general)],
    }

places = make_places(("cranelift", "winch"))
primers = primer.artifacts("cranelift")
before = state()
practise(places, primers)
print(json.dumps([before, state(), places["cranelift"].pool.kept]))
"""

pytestmark = pytest.mark.skipif(not engine.SHORT, reason="this wasmtime has the public way only")


def test_practice_leaves_no_thread_no_descriptor_and_no_limit() -> None:
    # given, when
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", _PRACTICE]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60, text=True, env=environment)
    # then
    assert done.returncode == 0, done.stderr
    before, after, kept = json.loads(done.stdout)
    assert after == before
    assert after["threads"] == 1
    assert not any(after["bare"])
    assert kept == 65536  # a guest was there, and its page is accounted for
