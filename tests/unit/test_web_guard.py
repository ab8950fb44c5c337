"""Which names, pages and tokens are let in."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from minilambda.keys import BadKey
from minilambda.notation import BadSetting
from minilambda.web.binding import Binding, listen, parse_bind
from minilambda.web.guard import bearer, check_host, check_page
from minilambda.web.problems import Problem
from minilambda.web.tokens import SCOPES, TokenFile, Tokens, change_tokens, parse_scopes, read_tokens

KNOWN = frozenset({"api.example"})


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:80", "192.0.2.7", "API.example:8000"])
def test_an_address_and_a_known_name_are_ours(host: str) -> None:
    check_host(host, KNOWN)


@pytest.mark.parametrize(
    "host", ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil", "a b", "[x]", "evil:1:2"]
)
def test_a_name_that_others_can_own_is_refused(host: str) -> None:
    with pytest.raises(Problem) as caught:
        check_host(host, KNOWN)
    assert caught.value.status == 421


OURS = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("method", "headers", "calls"),
    [
        ("POST", {}, True),  # no browser
        ("POST", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, True),
        ("GET", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),  # a link to the page
    ],
)
def test_a_request_that_no_other_site_has_caused_is_let_in(method: str, headers: dict[str, str], calls: bool) -> None:
    check_page(method, {**OURS, **headers}, "http", calls)


@pytest.mark.parametrize(
    ("method", "headers", "calls"),
    [
        ("POST", {"origin": "http://evil.example"}, True),
        ("POST", {"origin": "null"}, True),
        ("POST", {"origin": "https://127.0.0.1:8000"}, True),
        ("POST", {"origin": "http://127.0.0.1:9000"}, True),  # another server of this machine
        ("POST", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),  # a form
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),  # an image
        ("GET", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),  # a link to a function
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
    ],
)
def test_a_request_that_another_site_has_caused_is_refused(method: str, headers: dict[str, str], calls: bool) -> None:
    with pytest.raises(Problem) as caught:
        check_page(method, {**OURS, **headers}, "http", calls)
    assert caught.value.status == 403


@pytest.mark.parametrize("header", ["", "Basic YTpi", "Bearer", "Bearer a b", "Bearer " + "x" * 300])
def test_a_header_without_a_token_is_refused_with_a_challenge(header: str) -> None:
    with pytest.raises(Problem) as caught:
        bearer(header)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_token_is_found_by_its_secret_and_kept_as_a_hash(tmp_path: Path) -> None:
    # given
    file, secrets = tmp_path / "tokens", {}

    def add(name: str) -> None:
        def how(known: Tokens) -> Tokens:
            tokens, secrets[name] = known.with_token(name, SCOPES if name == "alice" else ["read"])
            return tokens

        change_tokens(file, how)

    # when
    add("alice")
    add("bob")
    # then
    known = read_tokens(file)
    alice, bob = known.find(secrets["alice"]), known.find(secrets["bob"])
    assert alice is not None and alice.name == "alice" and alice.may == set(SCOPES)
    assert bob is not None and bob.name == "bob" and bob.may == {"read"}
    assert known.find(secrets["alice"][:-1]) is None
    assert not [secret for secret in secrets.values() if secret in file.read_text()]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_revoked_token_is_good_for_nothing_at_once_and_a_lost_file_lets_nobody_in(tmp_path: Path) -> None:
    # given
    file = tmp_path / "tokens"
    tokens, secret = Tokens().with_token("alice", SCOPES)
    change_tokens(file, lambda _: tokens)

    def seen(now: TokenFile) -> bool:
        now._look = 0.0  # the file is looked at twice a second
        return now.current().find(secret) is not None

    watched = TokenFile(file)
    assert seen(watched)
    # when, then
    change_tokens(file, lambda known: known.without("alice"))
    assert not seen(watched)
    change_tokens(file, lambda _: tokens)
    assert seen(watched)
    file.unlink()
    assert not seen(watched)
    change_tokens(file, lambda _: tokens)
    os.chmod(file, 0o666)
    assert not seen(watched)


@pytest.mark.parametrize("text", ["alice read", "alice read sha256:00", "alice fly sha256:" + "0" * 64, "a b c d"])
def test_a_file_that_is_no_list_of_tokens_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# fine\n{text}\n")
    file.chmod(0o600)
    with pytest.raises(BadKey, match=r"line 2|not a list"):
        TokenFile(file)


def test_names_are_taken_once_and_scopes_are_known_words() -> None:
    tokens, _ = Tokens().with_token("alice", SCOPES)
    with pytest.raises(BadKey):
        tokens.with_token("alice", SCOPES)
    with pytest.raises(BadKey):
        tokens.without("bob")
    with pytest.raises(BadKey):
        parse_scopes("read,fly")


@pytest.mark.parametrize(
    ("text", "binding", "local"),
    [
        ("127.0.0.1:8000", Binding("127.0.0.1", 8000), True),
        ("[::1]:0", Binding("::1", 0), True),
        ("localhost:1", Binding("localhost", 1), True),
        ("*:80", Binding("0.0.0.0", 80), False),
        ("http://192.0.2.7:80/", Binding("192.0.2.7", 80), False),
        ("localhost.evil:80", Binding("localhost.evil", 80), False),
    ],
)
def test_an_address_to_listen_on_says_whether_others_reach_it(text: str, binding: Binding, local: bool) -> None:
    assert parse_bind(text) == binding
    assert parse_bind(text).local is local


def test_a_reply_does_not_wait_for_the_acknowledgement_of_its_headers() -> None:
    with listen(Binding("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("text", ["", "8000", "127.0.0.1", "127.0.0.1:99999", "ipc:///tmp/x", "a b:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadSetting):
        parse_bind(text)
