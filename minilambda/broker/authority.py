"""Who may talk to the broker, and say what: keys, their roles, and the messages of each role. Pure.

The list of keys is a text with a line ``ROLE PUBLIC-KEY NAME`` for each, kept in a file by the commands ``authorize``
and ``revoke``. An ``Authority`` never changes: a changed list makes another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minilambda.keys import BadKey, key_bytes, principal_of
from minilambda.messages import (
    WORKER_MESSAGES,
    Cancel,
    GetResult,
    GetStatus,
    Hello,
    ListJobs,
    ListModules,
    ListWorkers,
    Message,
    Put,
    Run,
    RunAgain,
    functions,
    live,
    overview,
)

ADMIN, CLIENT, OBSERVER, WORKER = "admin", "client", "observer", "worker"

_CLIENT: frozenset[type[Message]] = frozenset(
    {
        Hello,
        Run,
        GetStatus,
        GetResult,
        Cancel,
        Put,
        ListModules,
        ListJobs,
        RunAgain,
        *live.REQUESTS,
        *functions.REQUESTS,
    }
)

MAY: dict[str, frozenset[type[Message]]] = {
    CLIENT: _CLIENT,
    ADMIN: _CLIENT | {ListWorkers, *overview.REQUESTS},
    OBSERVER: frozenset(
        {Hello, GetStatus, ListJobs, ListModules, ListWorkers, functions.ListFunctions, *overview.REQUESTS}
    ),
    WORKER: frozenset(WORKER_MESSAGES),
}
"""Role to the messages that it may send. What stands nowhere here nobody may send who has shown a key."""

EVERYBODY = "*"
"""Stands for all principals, where an admin asks for jobs."""

MAX_NAME = 64
"""Characters of a name, at most."""

MAX_ENTRIES = 100_000
"""Keys in a list, at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key that may talk."""

    role: str  # of ``MAY``
    public: str  # Z85
    name: str  # what people call it, unique in its list
    principal: str  # whom it stands for


class Authority:
    """The keys that may talk. Compare by identity: it never changes."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = tuple(entries)
        self._by_principal = {entry.principal: entry for entry in self.entries}
        self._by_bytes = {key_bytes(entry.public): entry for entry in self.entries}

    def by_key(self, key: bytes) -> Entry | None:
        """The entry of a public key's 32 bytes."""
        return self._by_bytes.get(key)

    def role(self, principal: str) -> str:
        """The role of a principal; "" for one that has none."""
        entry = self._by_principal.get(principal)
        return entry.role if entry is not None else ""

    def name(self, principal: str) -> str:
        """What people call a principal; "" for one that is not here."""
        entry = self._by_principal.get(principal)
        return entry.name if entry is not None else ""

    def is_admin(self, principal: str) -> bool:
        return self.role(principal) == ADMIN

    def sees_all(self, principal: str) -> bool:
        """Whether it may ask for what belongs to others. What it may ask of that is for ``refusal``."""
        return self.role(principal) in (ADMIN, OBSERVER)

    def observes(self, principal: str) -> bool:
        """Whether it is an observer, which has nothing of its own."""
        return self.role(principal) == OBSERVER

    def refusal(self, principal: str, kind: type[Message]) -> str:
        """Why the principal may not send such a message; "" where it may."""
        entry = self._by_principal.get(principal)
        if entry is None:
            return "The broker does not know this key, or not any more."
        if kind not in MAY[entry.role]:
            return f"This key has the role {entry.role}, which may not send {kind.TYPE!r}."
        return ""

    def lost(self, later: Authority) -> frozenset[str]:
        """The principals that have not got their role any more in a later list."""
        return frozenset(entry.principal for entry in self.entries if later.role(entry.principal) != entry.role)

    # --- changes ---------------------------------------------------------------------------------

    def with_key(self, role: str, public: str, name: str) -> Authority:
        """With a key more, or with another role for a key that is there. Raises ``BadKey``."""
        entry = make_entry(role, public, name)
        for other in self.entries:
            if other.name == name and other.public != public:
                raise BadKey(f"The name {name!r} belongs to another key; choose one, or revoke that first.")
        return Authority([*(other for other in self.entries if other.public != public), entry])

    def without(self, who: str) -> tuple[Authority, Entry]:
        """Without the key of a name or principal, or without that very key, and what it was. Raises ``BadKey``."""
        for entry in self.entries:
            if who in (entry.public, entry.name, entry.principal):
                return Authority(other for other in self.entries if other is not entry), entry
        raise BadKey("No key of that name is authorized, nor that key.")

    # --- texts -----------------------------------------------------------------------------------

    def text(self) -> str:
        """The list as it is kept in a file."""
        head = "# Who may talk to this broker: role, public key, name. Kept by `minilambda authorize` and `revoke`.\n"
        return head + "".join(f"{entry.role} {entry.public} {entry.name}\n" for entry in self.entries)


def make_entry(role: str, public: str, name: str) -> Entry:
    """An entry of checked parts. Raises ``BadKey``."""
    if role not in MAY:
        raise BadKey(f"{role[:40]!r} is not a role; choose {', '.join(sorted(MAY))}.")
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or " " in name:
        raise BadKey(f"A name has 1 to {MAX_NAME} printable characters and no spaces.")
    key_bytes(public)
    return Entry(role, public, name, principal_of(public))


def parse_authority(text: str, where: str = "the list of keys") -> Authority:
    """The list that ``text`` made. Raises ``BadKey`` naming the line."""
    entries: list[Entry] = []
    names: set[str] = set()
    keys: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("# "):
            continue
        parts = line.split()
        try:
            if len(parts) != 3:
                raise BadKey("a line is ROLE PUBLIC-KEY NAME.")
            entry = make_entry(*parts)
            if entry.name in names or entry.public in keys:
                raise BadKey("the name or the key stands there twice.")
        except BadKey as error:
            raise BadKey(f"{where}, line {number}: {error.message}") from None
        names.add(entry.name)
        keys.add(entry.public)
        entries.append(entry)
        if len(entries) > MAX_ENTRIES:
            raise BadKey(f"{where} has more than {MAX_ENTRIES} keys.")
    return Authority(entries)
