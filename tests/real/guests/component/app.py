"""A component in Python: a command (``wasi:cli/run``) and functions with records, strings, options and results."""

import os
import sys

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.counting import Tally


class WitWorld:
    def join(self, parts: list[str], separator: str | None) -> str:
        return (", " if separator is None else separator).join(parts)


class Counting(exports.Counting):
    def count(self, text: str) -> Tally:
        words = text.split()
        if not words:
            raise Err("the text is empty")
        return Tally(lines=len(text.splitlines()), words=len(words), longest=max(words, key=len))


class Run(exports.Run):
    def run(self) -> None:
        """Upper-case stdin; the first argument asks for another ending: ``fail`` or ``raise``."""
        wish = sys.argv[1] if len(sys.argv) > 1 else ""
        if wish == "env":
            print(sorted(os.environ.items()))
        elif wish == "fail":
            raise Err(None)
        elif wish == "raise":
            raise ValueError("asked to raise")
        else:
            sys.stdout.write(sys.stdin.read().upper())
