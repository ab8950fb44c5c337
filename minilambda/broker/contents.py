"""What a specification needs of the module store, from its acceptance to its end: its module and its files."""

from __future__ import annotations

from collections.abc import Iterable

from minilambda.broker.jobs import spec_bytes
from minilambda.broker.modules import Module, ModuleStore
from minilambda.errors import BadRequest, InputTooLarge, NotFound
from minilambda.fields import MAX_FRAME
from minilambda.messages import JobSpec
from minilambda.paths import NOTHING, refusal

NO_FILES: frozenset[str] = frozenset()

MAX_SPEC_BYTES = MAX_FRAME - 16 * 1024
"""Arguments, environment and files together, so that the header of a dispatch fits a frame; bytes."""


def files_of(spec: JobSpec) -> frozenset[str]:
    """The digests of the files that must be in the store, each once."""
    return frozenset(spec.files.values()) - {NOTHING} if spec.files else NO_FILES


def check_paths(spec: JobSpec) -> None:
    """Raise ``BadRequest`` where the paths of a specification can't stand together."""
    problem = refusal(spec.files, spec.scratch, spec.collect)
    if problem:
        raise BadRequest(problem)


def check_spec(spec: JobSpec) -> int:
    """What the texts of a specification take, bytes. Raises ``InputTooLarge`` and ``BadRequest`` where none may."""
    if not (spec.args or spec.env or spec.files or spec.collect):
        return 0
    texts = spec_bytes(spec)
    if texts > MAX_SPEC_BYTES:
        what = "Arguments, environment and the paths of files"
        raise InputTooLarge(f"{what} have {texts} bytes, the broker accepts {MAX_SPEC_BYTES}.")
    if spec.files or spec.collect:
        check_paths(spec)
    return texts


def acquire(store: ModuleStore, principal: str | None, spec: JobSpec, now: float) -> None:
    """Hold the module and the files of a specification, all or none of them, until ``release``.

    Raises ``NotFound``, which names the first one that is not here or that the principal has not sent; without a
    principal, that nobody has.
    """
    hold(store, find_all(store, principal, spec), now)


def find_all(store: ModuleStore, principal: str | None, spec: JobSpec) -> list[Module]:
    """The module and the files of a specification. Raises ``NotFound`` as ``acquire`` does."""
    module = store.find(principal, spec.module)
    if module is None:
        raise NotFound(f"The broker does not have the module {spec.module}; send its bytes along, or put them first.")
    return [module, *find_files(store, principal, spec)]


def pin(store: ModuleStore, contents: Iterable[Module], now: float) -> None:
    """As ``hold``, for a version of a function."""
    for module in contents:
        store.pin(module, now)


def unpin(store: ModuleStore, spec: JobSpec, now: float) -> None:
    """A version of a function is gone."""
    for digest in (spec.module, *files_of(spec)):
        store.unpin(digest, now)


def find_files(store: ModuleStore, principal: str | None, spec: JobSpec) -> list[Module]:
    """The files of a specification, each once. Raises ``NotFound``, which names the first that is missing."""
    found: dict[str, Module] = {}
    for path, digest in spec.files.items():
        if digest == NOTHING or digest in found:
            continue
        file = store.find(principal, digest)
        if file is None:
            raise NotFound(f"The broker does not have the file {digest} for {path!r}; put it first.")
        found[digest] = file
    return list(found.values())


def hold(store: ModuleStore, contents: Iterable[Module], now: float) -> None:
    for module in contents:
        store.acquire(module, now)


def release(store: ModuleStore, spec: JobSpec, now: float) -> None:
    """The module and the files are not needed any more by whom they were acquired for."""
    store.release(spec.module, now)
    for digest in files_of(spec):
        store.release(digest, now)
