"""Guests of our own in the template, before it forks: what their runs teach Python, all its children know.

Python looks each name up once and adapts the code that it runs; that writes to memory, which children would then have
each for themselves. Nothing here starts a thread, which a fork would lose, and no guest gets WASI, whose random numbers
would be all children's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from minilambda.worker import codec, engine, primer
from minilambda.worker.cell import Cell
from minilambda.worker.child import close_all, memfds
from minilambda.worker.guest import GuestHost
from minilambda.worker.limits import KernelLimits
from minilambda.worker.places import Cell as AnyCell
from minilambda.worker.places import Places

_ROUNDS: Final = 12  # Python adapts in the eighth call of a function, or after that


def practise(places: Mapping[str, Places], primers: primer.Artifacts) -> None:
    """Run primers in ``places``, which are left as they were, but for memory that a pool keeps.

    Does nothing where only the public way through wasmtime is there: that can't do without WASI. Raises
    MinilambdaError where a primer fails, OSError where the process is out of descriptors.
    """
    if not engine.SHORT:
        return
    cells = [place.cell for each in places.values() for place in (each.pool, each.general) if place]
    stdout, stderr = outputs = memfds("stdout", "stderr", flags=os.MFD_CLOEXEC)
    try:
        with contextlib.closing(KernelLimits()) as limits, _bare(cells):
            host = GuestHost(stdout, stderr, places, limits, still=True)
            for _ in range(_ROUNDS):
                for order, fd in ((primer.ORDER, primers.still), (primer.COMPONENT_ORDER, primers.component)):
                    host.prime(codec.decode_order(codec.unpack(codec.encode_order(order))), f"/proc/self/fd/{fd}")
    finally:
        close_all(outputs)


@contextlib.contextmanager
def _bare(cells: Iterable[AnyCell]) -> Iterator[None]:
    """Make the cells bare for as long as the context lasts, and close them then."""
    short = [each for each in cells if isinstance(each, Cell)]
    for each in short:
        each.bare = True
    try:
        yield
    finally:
        for each in short:
            each.close()
            each.bare = False
