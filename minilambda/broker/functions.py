"""A function: its versions, what its aliases name and have named, and how many of both there may be. Pure.

A function is a value. Each change makes another one, so the one before can be put back where the disk does not take
the change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import get_args

from minilambda.broker.jobs import spec_bytes
from minilambda.broker.records import FunctionGone, FunctionKept, Record, Recovered, VersionGone, VersionKept
from minilambda.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from minilambda.messages import LIVE, JobSpec
from minilambda.messages.functions import Name

MAX_VERSIONS = 100
"""Versions of one function, at most: the oldest one goes that no alias names, or named just before."""

MAX_ALIASES = 32
"""Aliases of one function, at most. Two versions are kept for each, so they are far fewer than versions."""

MAX_HISTORY = 16
"""Versions that an alias remembers, at most; it can be rolled back so often, but for one."""

OVERHEAD = 600
"""Counted for each version beside its texts, bytes."""

FunctionKey = tuple[str, str]
"""Principal and name."""

_NAME = get_args(Name)[1]  # what the protocol takes for one


@dataclass(frozen=True, slots=True)
class Version:
    """What a call runs. It never changes."""

    number: int  # from 1, in the order in which they were made
    spec: JobSpec
    made: float  # wall time, seconds
    cost: int  # what it takes in memory, about, bytes


@dataclass(frozen=True, slots=True)
class Function:
    """A name for versions of a job's specification."""

    last: int = 0  # number of the newest version that there ever was
    shared: bool = False  # everybody may call it
    versions: dict[int, Version] = field(default_factory=dict)  # oldest first
    aliases: dict[str, tuple[int, ...]] = field(default_factory=dict)  # to what each has named, the present one last

    @property
    def newest(self) -> Version | None:
        """The newest version that is there."""
        return next(reversed(self.versions.values()), None)

    @property
    def shown(self) -> Version | None:
        """The version that a call gets where it says nothing else, or the newest one where it would get none."""
        return self.versions[self.aliases[LIVE][-1]] if LIVE in self.aliases else self.newest

    def names_of(self, number: int) -> list[str]:
        """The aliases that name a version."""
        return [alias for alias, history in self.aliases.items() if history[-1] == number]

    def named(self, alias: str) -> int:
        """The version that an alias names; 0 where there is no such alias."""
        return self.aliases[alias][-1] if alias in self.aliases else 0

    # --- changes: each gives another function ----------------------------------------------------

    def deploy(self, spec: JobSpec, shared: bool, made: float) -> tuple[Function, int]:
        """With a version of this specification, and its number; the newest one is taken where it is the same."""
        newest = self.newest
        if newest is not None and newest.spec == spec:
            return replace(self, shared=shared), newest.number
        number = self.last + 1
        version = make_version(number, spec, made)
        return Function(number, shared, {**self.versions, number: version}, self.aliases), number

    def name(self, alias: str, number: int) -> Function:
        """With an alias that names a version. Raises ``NotFound`` and ``QuotaExceeded``."""
        if number not in self.versions:
            raise NotFound(f"The function has no version {number}.")
        history = self.aliases.get(alias, ())
        if not history and len(self.aliases) >= MAX_ALIASES:
            raise QuotaExceeded(f"A function has at most {MAX_ALIASES} aliases.")
        if history[-1:] != (number,):
            history = (*history, number)[-MAX_HISTORY:]
        return replace(self, aliases={**self.aliases, alias: history})

    def roll_back(self, alias: str) -> Function:
        """With an alias that names what it named before. Raises ``NotFound`` and ``Conflict``."""
        history = self._history(alias)
        if len(history) < 2:
            raise Conflict(f"The alias {alias!r} has named no other version before that is still there.")
        return replace(self, aliases={**self.aliases, alias: history[:-1]})

    def unname(self, alias: str) -> Function:
        """Without an alias. Raises ``NotFound``."""
        self._history(alias)
        return replace(self, aliases={name: history for name, history in self.aliases.items() if name != alias})

    def without(self, number: int) -> Function | None:
        """Without a version; None without the last one. Raises ``NotFound`` and ``Conflict``."""
        if number not in self.versions:
            raise NotFound(f"The function has no version {number}.")
        names = self.names_of(number)
        if names:
            raise Conflict(f"Version {number} is what the alias {names[0]!r} names; move that one first.")
        return self._without({number}) if len(self.versions) > 1 else None

    def trim(self, keep: int) -> Function:
        """Without the oldest versions, where there are too many; ``keep`` stays, and what aliases need."""
        excess = len(self.versions) - MAX_VERSIONS
        if excess <= 0:
            return self
        needed = {keep}.union(*(history[-2:] for history in self.aliases.values()))
        spare = [number for number in self.versions if number not in needed]
        return self._without(set(spare[:excess]))

    def only(self, numbers: Iterable[int]) -> Function | None:
        """With no other versions than these, and without the aliases that name others; None where there are none."""
        kept = set(numbers)
        aliases = {alias: history for alias, history in self.aliases.items() if history[-1] in kept}
        found = replace(self, aliases=aliases)._without(self.versions.keys() - kept)
        return found if found.versions else None

    def _without(self, numbers: set[int]) -> Function:
        versions = {number: version for number, version in self.versions.items() if number not in numbers}
        aliases = {alias: _of(history, versions) for alias, history in self.aliases.items()}
        return Function(self.last, self.shared, versions, aliases)

    def _history(self, alias: str) -> tuple[int, ...]:
        if alias not in self.aliases:
            raise NotFound(f"The function has no alias {alias!r}.")
        return self.aliases[alias]


def _of(history: tuple[int, ...], versions: dict[int, Version]) -> tuple[int, ...]:
    """A history of these versions alone, without two of the same in a row."""
    left: list[int] = []
    for number in history:
        if number in versions and left[-1:] != [number]:
            left.append(number)
    return tuple(left)


def check_alias(alias: str) -> None:
    """Raise ``BadRequest`` for what can't be an alias, or would be taken for a version."""
    if not _NAME.accept(alias):
        raise BadRequest(f"An alias is {_NAME.what}.")


def make_version(number: int, spec: JobSpec, made: float) -> Version:
    """``made``: wall time, seconds."""
    return Version(number, spec, made, OVERHEAD + spec_bytes(spec))


def cost_of(function: Function | None) -> int:
    """What the versions take in memory, about, bytes."""
    return 0 if function is None else sum(version.cost for version in function.versions.values())


def dropped(before: Function | None, after: Function | None) -> tuple[Version, ...]:
    """The versions that a change does away with; with the two exchanged, those that it makes."""
    if before is None:
        return ()
    left = {} if after is None else after.versions
    return tuple(version for number, version in before.versions.items() if number not in left)


def records(key: FunctionKey, before: Function | None, after: Function | None) -> list[Record]:
    """What is to be written for a change."""
    if after is None:
        return [FunctionGone(*key)]
    found: list[Record] = [VersionKept(*key, each.number, each.spec, each.made) for each in dropped(after, before)]
    found += [VersionGone(*key, version.number) for version in dropped(before, after)]
    old = before or Function()
    if (old.last, old.shared, old.aliases) != (after.last, after.shared, after.aliases):
        found.append(FunctionKept(*key, after.last, after.shared, after.aliases))
    return found


def restored(found: Recovered) -> dict[FunctionKey, Function]:
    """The functions that an earlier broker has written down."""
    versions: dict[FunctionKey, dict[int, Version]] = {}
    for each in found.versions:
        mine = versions.setdefault((each.principal, each.name), {})
        mine[each.number] = make_version(each.number, each.spec, each.made)
    return {
        key: Function(each.last, each.shared, versions.get(key, {}), dict(each.aliases))
        for each in found.functions
        for key in [(each.principal, each.name)]
    }
