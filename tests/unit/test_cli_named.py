"""Which words on the client's command line name functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilambda.cli import named
from minilambda.cli.options import BadOption


@pytest.mark.parametrize("word", ["greet", "greet@3", "greet@live", "a-b_c", "G" * 64])
def test_a_plain_word_is_a_function(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named.is_function(word)


@pytest.mark.parametrize(
    "word", ["greet.wasm", "greet.wat", "./greet", "a/b", "sha256:" + "0" * 64, "3d", "-x", "", "greet@", "a@b@c", "ü"]
)
def test_any_other_word_is_a_file(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not named.is_function(word)


@pytest.mark.parametrize("link", [False, True])
def test_a_word_that_is_there_as_a_file_is_that_file(
    link: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if link:
        Path("greet").symlink_to("nowhere")
    else:
        Path("greet").touch()
    assert not named.is_function("greet")


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.0", "²", "", str(2**63)])
def test_what_is_no_number_of_a_version_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="version"):
        named.version(text)


@pytest.mark.parametrize("text", ["", "1", "a b", "a@1", "x" * 65])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(BadOption, match="a letter and up to 63"):
        named.function_name(text)
