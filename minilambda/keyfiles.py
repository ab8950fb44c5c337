"""Key files: made with safe modes, and refused where others could read or change them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from minilambda.keys import (
    ENDINGS,
    MAX_KEY_FILE,
    BadKey,
    Pair,
    looks_like_key,
    parse_key_file,
    public_file,
    secret_file,
)

SECRET, PUBLIC = ENDINGS
"""What the names of key files end in."""


def user_folder() -> Path:
    """Where one's own keys are, unless another place is named."""
    import platformdirs  # noqa: PLC0415 - only needed here

    return platformdirs.user_config_path("minilambda", appauthor=False) / "keys"


def write_pair(folder: Path, name: str, pair: Pair) -> tuple[Path, Path]:
    """Write a pair to new files; returns those of the secret and the public key. Raises ``BadKey``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_open_folder(folder)
        secret, public = folder / (name + SECRET), folder / (name + PUBLIC)
        for path in (secret, public):
            if path.exists() or path.is_symlink():
                raise BadKey(f"{path} exists, and is not overwritten; choose another name.")
        _create(secret, secret_file(pair, name), 0o600)
        _create(public, public_file(pair, name), 0o644)
    except FileExistsError as error:
        raise BadKey(f"{error.filename} exists, and is not overwritten; choose another name.") from None
    except OSError as error:
        raise BadKey(f"{error.filename or folder}: {error.strerror}.") from None
    return secret, public


def read_secret(source: str, folder: Path) -> tuple[str, Path]:
    """The secret key of a name in ``folder`` or of a path, and its file. Raises ``BadKey``, also for loose modes."""
    if looks_like_key(source) and not Path(source).exists():
        raise BadKey("this takes the name or the path of a key file, never a key: others can read a command line.")
    path = _path(source, folder, SECRET)
    text, mode, owner = _read(path)
    if os.geteuid() not in (owner, 0) and owner:
        raise BadKey(f"{path} belongs to another user.")
    key = parse_key_file(text, str(path), "secret")
    if mode & 0o077:
        raise BadKey(f"{path} can be read or changed by others (mode {mode:04o}); run: chmod 600 {path}")
    return key, path


def read_public(source: str, folder: Path) -> str:
    """A public key: itself, or that of a name in ``folder`` or of a path. Raises ``BadKey``."""
    if looks_like_key(source) and not Path(source).is_file():
        return source
    path = _path(source, folder, PUBLIC)
    return parse_key_file(_read(path)[0], str(path), "public")


def read_guarded(path: Path) -> str | None:
    """The text of a file that decides who may do what; None where there is none.

    Raises ``BadKey`` where others than its owner could change it.
    """
    try:
        text, mode, owner = _read(path, limit=16 * 1024 * 1024)
    except FileNotFoundError:
        return None
    if owner not in (os.geteuid(), 0, path.parent.stat().st_uid):
        raise BadKey(f"{path} belongs to another user.")
    if mode & 0o022:
        raise BadKey(f"{path} can be changed by others (mode {mode:04o}); run: chmod 600 {path}")
    return text


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within, no other process is within for the same folder, which is made where it is missing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace_guarded(path: Path, text: str) -> None:
    """Put a text in the place of a file, whole or not at all, for its owner only: root writes for the folder's."""
    descriptor, temporary = tempfile.mkstemp(prefix=path.name + ".", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if os.geteuid() == 0:
                folder_of = path.parent.stat()
                os.fchown(descriptor, folder_of.st_uid, folder_of.st_gid)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def change_guarded(path: Path, how: Callable[[str], str]) -> None:
    """Put what ``how`` makes of a guarded file's text in its place, all at once. Raises ``BadKey``."""
    try:
        with locked(path.parent):
            replace_guarded(path, how(read_guarded(path) or ""))
    except OSError as error:
        raise BadKey(f"{error.filename or path}: {error.strerror}.") from None


def stamp_of(path: Path) -> tuple[int, ...]:
    """Another one whenever the file has been changed or replaced; empty where it can't be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid)


def _path(source: str, folder: Path, ending: str) -> Path:
    """A name stands for a file in the folder; anything with a slash or one of the endings is a path."""
    if "/" in source or source.endswith((SECRET, PUBLIC)):
        return Path(source)
    return folder / (source + ending)


def _read(path: Path, limit: int = MAX_KEY_FILE) -> tuple[str, int, int]:
    """The text of a regular file, its permissions and its owner."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if limit != MAX_KEY_FILE:
            raise
        raise BadKey(f"{path} does not exist; `minilambda keygen NAME` makes a pair of keys.") from None
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror}.") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise BadKey(f"{path} is not a file.")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadKey(f"{path} is too large to be what it should be.")
    try:
        return data.decode(), stat.S_IMODE(found.st_mode), found.st_uid
    except UnicodeDecodeError:
        raise BadKey(f"{path} is not text.") from None


def _refuse_open_folder(folder: Path) -> None:
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o022:
        raise BadKey(f"{folder} can be changed by others (mode {mode:04o}); run: chmod 700 {folder}")


def _create(path: Path, text: str, mode: int) -> None:
    """A new file; the mode holds whatever the umask is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
