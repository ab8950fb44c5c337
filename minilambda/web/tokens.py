"""Bearer tokens: made here, kept as hashes in a file, and looked up by a comparison that takes always as long.

A token is random and long, so that a plain hash of it tells nothing; who has the file can't use it as a visitor.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from minilambda.keyfiles import change_guarded, read_guarded, stamp_of
from minilambda.keys import BadKey

SCOPES = ("read", "call", "run", "deploy")
"""What a token may be good for: to look, to call functions, to run jobs and send modules, to change functions."""

PREFIX = "mlt_"
"""What a token begins with, so that a scanner for leaked secrets finds it."""

FILE = "web-tokens"
MAX_TOKENS = 1000
_LOOK_EVERY = 0.5  # how often the file's state is asked for, at most, seconds
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63}) ([a-z,]+) sha256:([0-9a-f]{64})")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that is known, without the token itself."""

    name: str  # what people call it
    may: frozenset[str]  # some of SCOPES
    digest: str  # 64 hex digits


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one file."""

    entries: tuple[Token, ...] = ()

    def find(self, secret: str) -> Token | None:
        """The token that a visitor shows. It takes as long for one as for another."""
        digest, found = digest_of(secret), None
        for entry in self.entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        return found

    def with_token(self, name: str, may: Iterable[str]) -> tuple[Tokens, str]:
        """These and another one, and its secret. Raises ``BadKey`` for a name that is taken."""
        if any(entry.name == name for entry in self.entries):
            raise BadKey(f"there is a token {name!r} already; revoke it first, or choose another name.")
        if len(self.entries) >= MAX_TOKENS:
            raise BadKey(f"there are {MAX_TOKENS} tokens already.")
        secret = PREFIX + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
        return Tokens((*self.entries, Token(name, frozenset(may), digest_of(secret)))), secret

    def without(self, name: str) -> Tokens:
        """These but one. Raises ``BadKey`` where there is none of the name."""
        left = tuple(entry for entry in self.entries if entry.name != name)
        if len(left) == len(self.entries):
            raise BadKey(f"there is no token {name!r}.")
        return Tokens(left)

    def text(self) -> str:
        """What the file has in it."""
        lines = ["# The tokens of `minilambda web`, as hashes: name, what it may, hash.\n"]
        for entry in self.entries:
            may = ",".join(scope for scope in SCOPES if scope in entry.may)
            lines.append(f"{entry.name} {may} sha256:{entry.digest}\n")
        return "".join(lines)


def digest_of(secret: str) -> str:
    """The hash of a token, 64 hex digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def parse_scopes(text: str) -> frozenset[str]:
    """Scopes with commas between them. Raises ``BadKey``."""
    found = frozenset(text.split(","))
    if not found <= set(SCOPES):
        raise BadKey(f"{text!r} is not a list of {', '.join(SCOPES)} with commas between them.")
    return found


def parse_tokens(text: str, where: str) -> Tokens:
    """The tokens in a file's text. Raises ``BadKey`` naming the line."""
    entries: dict[str, Token] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match[1] in entries:
            raise BadKey(f"{where}, line {number}: a line is NAME SCOPES sha256:HASH, each name once.")
        entries[match[1]] = Token(match[1], parse_scopes(match[2]), match[3])
    return Tokens(tuple(entries.values()))


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file; none where there is no file. Raises ``BadKey``."""
    return parse_tokens(read_guarded(path) or "", str(path))


def change_tokens(path: Path, how: Callable[[Tokens], Tokens]) -> None:
    """Put changed tokens in the place of a file's, all at once. Raises ``BadKey``."""
    change_guarded(path, lambda text: how(parse_tokens(text, str(path))).text())


class TokenFile:
    """The tokens of a file, as it is now. Raises ``BadKey`` when it can't be used at first, and never later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = stamp_of(path)
        self._tokens = read_tokens(path)
        self._look = 0.0  # when to look at the file again, seconds

    def current(self) -> Tokens:
        """The tokens. A file that went away, or that can't be read, has none: nobody is let in by mistake."""
        now = time.monotonic()
        if now >= self._look:
            self._look = now + _LOOK_EVERY
            stamp = stamp_of(self.path)
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._tokens = read_tokens(self.path)
                except (BadKey, OSError) as error:
                    log.error("no token is good any more: %s", error)
                    self._tokens = Tokens()
        return self._tokens


def user_file() -> Path:
    """Where the tokens are, unless another place is named."""
    import platformdirs  # noqa: PLC0415 - only needed here

    return platformdirs.user_config_path("minilambda", appauthor=False) / FILE
