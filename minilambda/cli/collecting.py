"""Where the files that a job leaves are written: where the caller has said, whatever names they have.

A file is there whole or not at all. What is in a folder is written relative to that folder's descriptor, so that
neither a name nor a link in it leads out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from minilambda.client.results import RunResult

_INTO = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of one path that was to come back."""

    path: str  # in the guest
    host: str  # where it was to be written
    files: int = 0  # written
    bytes: int = 0  # in these
    error: str = ""  # why it was not written, or not all of it; "" where it was


def write_all(targets: Mapping[str, str], result: RunResult, *, asked: bool = True) -> list[Collected]:
    """Write what came of each path in the guest to its place on the host; never raises for one that fails.

    ``asked``: all of them were asked for with the job, so that one of which nothing came was an empty folder.
    """
    return [_write(path, host, result, asked) for path, host in targets.items()]


def _write(path: str, host: str, result: RunResult, asked: bool) -> Collected:
    content = result.files.get(path)
    found = {name[len(path) + 1 :]: data for name, data in result.files.items() if name.startswith(path + "/")}
    if path in result.missing:
        return Collected(path, host, error="the guest has left nothing there")
    if content is None and not found and (not asked or (result.error is not None and not result.files)):
        return Collected(path, host, error="nothing came back")
    try:
        if content is not None:
            _write_file(host, content)
            return Collected(path, host, 1, len(content))
        _write_folder(host, found)
    except OSError as error:
        inside = isinstance(error.filename, str) and error.filename.startswith(os.path.realpath(host) + "/")
        return Collected(path, host, error=f"{error.filename if inside else host}: {error.strerror}")
    return Collected(path, host, len(found), sum(map(len, found.values())))


def _write_file(host: str, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(host).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe or a terminal can't be replaced
            with open(host, "wb", buffering=0) as file:
                _write_out(file.fileno(), data)
            return
    folder, name = os.path.split(os.path.realpath(host))
    with _opened(folder) as descriptor:
        _replace(descriptor, name, data)


def _write_folder(host: str, files: Mapping[str, bytes]) -> None:
    """The files, by their paths below the folder. A new folder is there whole or not at all."""
    place = os.path.realpath(host)
    if os.path.lexists(place):
        _fill(place, files)
        return
    fresh = os.path.join(os.path.dirname(place), _temporary())
    os.mkdir(fresh)
    try:
        _fill(fresh, files)
        os.rename(fresh, place)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _fill(place: str, files: Mapping[str, bytes]) -> None:
    with _opened(place) as root:
        for path in sorted(files):
            *folders, name = path.split("/")
            try:
                with _below(root, folders) as descriptor:
                    _replace(descriptor, name, files[path])
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.path.join(place, path)) from None


@contextlib.contextmanager
def _below(root: int, folders: list[str]) -> Iterator[int]:
    """A folder below another, made where it is missing; a link on the way is refused."""
    descriptor = os.dup(root)
    try:
        for name in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=descriptor)
            inner = os.open(name, _INTO | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, _INTO)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(folder: int, name: str, data: bytes) -> None:
    """A file with this content, in place of what had its name; a link there is replaced, not followed."""
    fresh = _temporary()
    descriptor = os.open(fresh, _NEW, 0o666, dir_fd=folder)
    try:
        try:
            _write_out(descriptor, data)
        finally:
            os.close(descriptor)
        os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh, dir_fd=folder)
        raise


def _write_out(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _temporary() -> str:
    return f".minilambda-{os.urandom(8).hex()}"
