"""Keys as texts and as files: formats, modes, refusals that never show a secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilambda.curve import load_peer_keys, make_pair, pair_of
from minilambda.keyfiles import locked, read_guarded, read_public, read_secret, replace_guarded, write_pair
from minilambda.keys import (
    KEY_LENGTH,
    BadKey,
    Pair,
    PeerKeys,
    key_bytes,
    key_text,
    parse_key_file,
    principal_of,
    public_file,
    secret_file,
)

PAIR = make_pair()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_the_same_after_it_was_written_and_read(raw: bytes) -> None:
    assert key_bytes(key_text(raw)) == raw


def test_z85_is_that_of_its_specification() -> None:
    assert key_text(bytes.fromhex("864fd26fb559f75b")) == "HelloWorld"


@pytest.mark.parametrize("text", ["", "x" * 39, "x" * 41, "~" * 40, "#" * 40, "é" * 40])
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadKey) as caught:
        key_bytes(text)
    assert not text or text not in str(caught.value)


def test_a_principal_fits_the_protocol_and_differs_by_key() -> None:
    other = make_pair()
    assert principal_of(PAIR.public) == principal_of(PAIR.public) != principal_of(other.public)
    assert len(principal_of(PAIR.public)) == 32 and principal_of(PAIR.public).isalnum()


def test_a_made_public_key_never_looks_like_an_option() -> None:
    assert all(make_pair().public[0].isalnum() for _ in range(100))


def test_the_public_key_follows_from_the_secret_one() -> None:
    assert pair_of(PAIR.secret) == PAIR


def test_no_text_of_a_pair_has_the_secret_in_it() -> None:
    for thing in (PAIR, PeerKeys(PAIR, PAIR.public)):
        assert PAIR.secret not in repr(thing) and PAIR.secret not in f"{thing} {[thing]}"


def test_a_key_file_has_what_it_says() -> None:
    assert parse_key_file(secret_file(PAIR, "a"), "a", "secret") == PAIR.secret
    assert parse_key_file(secret_file(PAIR, "a"), "a", "public") == PAIR.public
    assert parse_key_file(public_file(PAIR, "a"), "a", "public") == PAIR.public


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no key in it"),
        (public_file(PAIR, "a"), "a public key only"),
        (f"secret {PAIR.secret}\nsecret {PAIR.secret}\n", "line 2"),
        (f"# c\n\nsecret {PAIR.secret[:-1]}\n", "line 3: A key has 40 characters"),
        (f"{PAIR.secret}\n", "line 1: a key file has"),
        ("private x\n", "line 1"),
    ],
    ids="empty public twice short bare word".split(),
)
def test_a_bad_key_file_is_refused_with_its_line_and_without_the_key(text: str, says: str) -> None:
    with pytest.raises(BadKey, match=says) as caught:
        parse_key_file(text, "a.secret", "secret")
    assert PAIR.secret[:-1] not in str(caught.value)


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_pair_is_written_with_safe_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        secret, public = write_pair(tmp_path / "new" / "keys", "a", PAIR)
    finally:
        os.umask(before)
    assert (mode(secret), mode(public), mode(secret.parent)) == (0o600, 0o644, 0o700)
    assert read_secret("a", secret.parent) == (PAIR.secret, secret)
    assert read_secret(str(secret), Path("elsewhere"))[0] == PAIR.secret
    assert read_public("a", secret.parent) == read_public(str(public), tmp_path) == PAIR.public


@pytest.mark.parametrize("there", ["a.secret", "a.public"])
def test_a_pair_is_never_overwritten(tmp_path: Path, there: str) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / there).write_text("mine")
    with pytest.raises(BadKey, match=f"{there} exists"):
        write_pair(tmp_path, "a", PAIR)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


def test_a_pair_is_not_put_where_others_can_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BadKey, match=f"chmod 700 {tmp_path}"):
        write_pair(tmp_path, "a", PAIR)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("loose", [0o640, 0o604, 0o660, 0o602])
def test_a_secret_that_others_can_read_or_change_is_refused_with_the_remedy(tmp_path: Path, loose: int) -> None:
    secret, _ = write_pair(tmp_path / "k", "a", PAIR)
    secret.chmod(loose)
    with pytest.raises(BadKey, match=f"chmod 600 {secret}") as caught:
        read_secret("a", tmp_path / "k")
    assert PAIR.secret not in str(caught.value)


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match="never a key") as caught:
        read_secret(PAIR.secret, tmp_path)
    assert PAIR.secret not in str(caught.value)


def test_a_missing_file_and_what_is_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadKey, match=r"b\.secret does not exist; `minilambda keygen"):
        read_secret("b", tmp_path)
    with pytest.raises(BadKey, match="is not a file"):
        read_public(str(tmp_path), tmp_path)
    (tmp_path / "large.public").write_bytes(b"#" * 5000)
    with pytest.raises(BadKey, match="too large"):
        read_public("large", tmp_path)
    (tmp_path / "raw.public").write_bytes(b"\xff\xfe")
    with pytest.raises(BadKey, match="not text"):
        read_public("raw", tmp_path)


def test_one_key_without_the_other_is_refused(tmp_path: Path) -> None:
    secret, public = write_pair(tmp_path / "k", "a", PAIR)
    assert load_peer_keys(None, None) is None
    assert load_peer_keys(secret, public) == load_peer_keys(str(secret), PAIR.public) == PeerKeys(PAIR, PAIR.public)
    with pytest.raises(BadKey, match="no server key"):
        load_peer_keys(secret, None)
    with pytest.raises(BadKey, match="no key"):
        load_peer_keys(None, PAIR.public)


def test_a_guarded_file_is_replaced_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "list"
    assert read_guarded(path) is None
    with locked(path.parent):
        replace_guarded(path, "one")
    replace_guarded(path, "two")
    assert (read_guarded(path), mode(path), mode(path.parent)) == ("two", 0o600, 0o700)
    assert [each.name for each in path.parent.iterdir()] == ["list"]
    path.chmod(0o620)
    with pytest.raises(BadKey, match=f"chmod 600 {path}"):
        read_guarded(path)


def test_a_pair_shows_its_public_key_only() -> None:
    assert repr(Pair("p", "s")) == "Pair(public='p')"


def test_a_path_with_as_many_signs_as_a_key_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    pair = make_pair()
    short = Path("/" + "k" * (KEY_LENGTH - len("/.public")) + ".public")
    assert len(str(short)) == KEY_LENGTH
    with pytest.raises(BadKey, match="does not exist"):
        read_public(str(short), folder)
    _, public = write_pair(folder, "k" * 30, pair)
    assert read_public(str(public), folder) == pair.public
    assert read_public(pair.public, folder) == pair.public
