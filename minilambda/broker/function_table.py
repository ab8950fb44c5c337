"""All functions that the broker keeps, whose they are, and how many there may be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minilambda.broker.authority import EVERYBODY
from minilambda.broker.functions import MAX_VERSIONS, Function, FunctionKey, Version, cost_of
from minilambda.broker.jobs import InvariantError
from minilambda.errors import Busy, Conflict, NotFound, QuotaExceeded
from minilambda.messages import LIVE, JobSpec

MAX_FUNCTIONS = 1000
"""Functions of one principal, at most."""

MAX_BYTES = 64 * 1024 * 1024
"""What the versions of one principal may take in memory, about, bytes."""

MAX_ALL_BYTES = 256 * 1024 * 1024
"""What those of all principals may take together, about, bytes."""

Entitled = Callable[[str], bool]
"""Whether what a principal shares is there for everybody."""


class Functions:
    """All functions, by principal and name."""

    def __init__(self) -> None:
        self._owned: dict[str, dict[str, Function]] = {}
        self._shared: dict[str, dict[str, None]] = {}  # name to the principals that share one
        self._bytes: dict[str, int] = {}  # what the versions of a principal take, about
        self.bytes = 0  # of all

    def get(self, key: FunctionKey) -> Function | None:
        return self._owned.get(key[0], {}).get(key[1])

    def own(self, key: FunctionKey) -> Function:
        """The function of a principal. Raises ``NotFound``."""
        found = self.get(key)
        if found is None:
            raise NotFound(f"There is no function {key[1]!r}.")
        return found

    def keys_of(self, principal: str) -> Iterator[FunctionKey]:
        """Those of a principal, or of ``EVERYBODY``."""
        owners = self._owned if principal == EVERYBODY else [principal]
        return ((owner, name) for owner in owners for name in self._owned.get(owner, ()))

    def shared(self, entitled: Entitled) -> Iterator[FunctionKey]:
        """The key of each function that is there for everybody."""
        for name, principals in self._shared.items():
            for principal in principals:
                if entitled(principal):
                    yield principal, name
                    break

    def find(self, principal: str, reference: str, entitled: Entitled) -> tuple[str, str, Version]:
        """Owner, name and version that a call means: of one's own, else one that is shared. Raises ``NotFound``."""
        name, _, which = reference.partition("@")
        owner = principal
        function = self.get((principal, name))
        if function is None:
            owner = next((other for other in self._shared.get(name, ()) if entitled(other)), "")
            function = self.own((owner, name))
        number = int(which) if which.isdigit() else function.named(which or LIVE)
        version = function.versions.get(number)
        if version is None:
            what = f"version {which}" if which.isdigit() else f"alias {which or LIVE!r}"
            raise NotFound(f"The function {name!r} has no {what}.")
        return owner, name, version

    def check(self, key: FunctionKey, after: Function, entitled: Entitled) -> None:
        """Whether there may be such a function. Raises ``QuotaExceeded``, ``Busy`` and ``Conflict``."""
        principal, name = key
        before = self.get(key)
        if before is None and len(self._owned.get(principal, ())) >= MAX_FUNCTIONS:
            raise QuotaExceeded(f"A client has at most {MAX_FUNCTIONS} functions.")
        more = cost_of(after) - cost_of(before)
        if more > 0 and self._bytes.get(principal, 0) + more > MAX_BYTES:
            raise QuotaExceeded(f"The functions of a client take at most {MAX_BYTES} bytes, without their modules.")
        if more > 0 and self.bytes + more > MAX_ALL_BYTES:
            raise Busy(f"The functions of all clients take {self.bytes} bytes, without their modules.")
        if after.shared and any(other != principal and entitled(other) for other in self._shared.get(name, ())):
            raise Conflict(f"Somebody else shares a function {name!r}.")

    def put(self, key: FunctionKey, function: Function | None) -> None:
        """What there is under a key from now on; None: nothing."""
        principal, name = key
        more = cost_of(function) - cost_of(self.get(key))
        self.bytes += more
        self._bytes[principal] = self._bytes.get(principal, 0) + more
        owned, sharing = self._owned.setdefault(principal, {}), self._shared.setdefault(name, {})
        owned.pop(name, None) if function is None else owned.update({name: function})
        sharing.update({principal: None}) if function is not None and function.shared else sharing.pop(principal, None)
        if not owned:
            del self._owned[principal], self._bytes[principal]
        if not sharing:
            del self._shared[name]

    def specs(self) -> Iterator[JobSpec]:
        """Those of all versions."""
        for owned in self._owned.values():
            for function in owned.values():
                for version in function.versions.values():
                    yield version.spec

    def audit(self) -> None:
        """Raise ``InvariantError`` where the counts disagree."""
        found = {principal: sum(map(cost_of, owned.values())) for principal, owned in self._owned.items()}
        if found != self._bytes or sum(found.values()) != self.bytes:
            raise InvariantError("the bytes of the functions are miscounted")
        shared = {(name, who) for who, owned in self._owned.items() for name, each in owned.items() if each.shared}
        if shared != {(name, who) for name, principals in self._shared.items() for who in principals}:
            raise InvariantError("the functions that are shared are listed wrongly")
        for owned in self._owned.values():
            for name, function in owned.items():
                named = {number for history in function.aliases.values() for number in history}
                if not named <= function.versions.keys() or not 0 < len(function.versions) <= MAX_VERSIONS:
                    raise InvariantError(f"the function {name!r} has aliases of versions that it has not")
