"""What needs more than minilambda itself has installed."""

from __future__ import annotations

from minilambda.errors import MinilambdaError


class MissingExtra(MinilambdaError):
    """A package is not there that only some of minilambda's options need."""

    code = "missing_extra"
    sentence = "A package is missing that this needs."

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'minilambda[{extra}]'.")
