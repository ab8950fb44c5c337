"""Keys as texts: how they are written, checked and shortened to a name. No files here, see ``keyfiles``.

A key has 32 bytes, written as the 40 characters of Z85. A key file is text: a comment begins with ``# ``, and each
other line is a word and a key, ``public …`` or ``secret …``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from minilambda.notation import BadSetting

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
"""The digits of Z85, in order."""

KEY_LENGTH = 40
"""Characters of a key."""

ENDINGS = (".secret", ".public")
"""What the names of key files end in."""

LOCAL = "local"
"""The principal of every peer where there are no keys."""

MAX_KEY_FILE = 4096
"""A key file has at most so many bytes."""

_VALUES = {char: value for value, char in enumerate(ALPHABET)}


class BadKey(BadSetting):
    """A text or a file is not the key that it should be. The message never has the text in it: it may be a secret."""

    code = "bad_key"
    sentence = "A key can't be used."


@dataclass(frozen=True, slots=True)
class Pair:
    """A key of one's own."""

    public: str  # Z85; others may know it
    secret: str = field(repr=False)  # Z85


@dataclass(frozen=True, slots=True)
class PeerKeys:
    """What a client or a worker needs to speak to a broker with keys."""

    own: Pair
    server: str  # the broker's public key, Z85


def looks_like_key(text: str) -> bool:
    """Whether a text can be a key and nothing else that is likely: the path of a key file may have as many signs."""
    return len(text) == KEY_LENGTH and all(char in _VALUES for char in text) and not text.endswith(ENDINGS)


def key_bytes(text: str) -> bytes:
    """The 32 bytes of a key. Raises ``BadKey``."""
    if not looks_like_key(text):
        raise BadKey(f"A key has {KEY_LENGTH} characters of Z85; this has {len(text)}, or others among them.")
    raw = b""
    for at in range(0, KEY_LENGTH, 5):
        number = 0
        for char in text[at : at + 5]:
            number = number * 85 + _VALUES[char]
        if number >= 2**32:
            raise BadKey("This is not a key: the characters are those of Z85, but stand for no bytes.")
        raw += number.to_bytes(4, "big")
    return raw


def key_text(raw: bytes) -> str:
    """The Z85 of 32 bytes."""
    text = ""
    for at in range(0, len(raw), 4):
        number = int.from_bytes(raw[at : at + 4], "big")
        text += "".join(ALPHABET[number // 85**power % 85] for power in range(4, -1, -1))
    return text


def principal_of(public: str) -> str:
    """The principal that a public key stands for: the same for ever, and another for any other key."""
    return hashlib.sha256(key_bytes(public)).hexdigest()[:32]


def secret_file(pair: Pair, name: str) -> str:
    """What a file with a secret key has in it."""
    head = f"# The secret key {name!r} of minilambda. Who has it can act as its owner: keep it to yourself.\n"
    return f"{head}secret {pair.secret}\npublic {pair.public}\n"


def public_file(pair: Pair, name: str) -> str:
    """What a file with a public key has in it."""
    return f"# The public key {name!r} of minilambda. Others may have it.\npublic {pair.public}\n"


def parse_key_file(text: str, where: str, kind: str) -> str:
    """The key of a kind, ``public`` or ``secret``, in a key file. ``where`` names the file. Raises ``BadKey``."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("# "):
            continue
        word, _, key = line.strip().partition(" ")
        if word not in ("public", "secret") or word in found:
            raise BadKey(f"{where}, line {number}: a key file has one line 'public KEY' or 'secret KEY' of each.")
        try:
            key_bytes(key.strip())
        except BadKey as error:
            raise BadKey(f"{where}, line {number}: {error.message}") from None
        found[word] = key.strip()
    if kind not in found:
        other = "a public key only; the secret one is in the file that ends in .secret" if found else "no key in it"
        raise BadKey(f"{where} has {other}.")
    return found[kind]
