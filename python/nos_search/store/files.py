"""Owns how files that a user names are written: whole or not at all, with errors that name the option."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import SearchError, StoreError, UsageError

_NAMED_WRONG = (  # with these, another name would do; others, such as a full disk, have other remedies
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)

_DATABASE = b"SQLite format 3\0"
_RUN = "it is a database, as a run folder has"


def check_place(option: str, path: str) -> None:
    """Raises UsageError when the file cannot be written. Commands that work long before they write it call this
    first."""
    if not path:
        raise UsageError(f"{option} is empty; name a file")
    folder = os.path.dirname(os.path.abspath(path))
    reason = ""
    try:
        os.lstat(path)
    except FileNotFoundError:
        if not os.path.isdir(folder):
            reason = f"there is no folder {folder}"
        elif not os.access(folder, os.W_OK):
            reason = f"the folder {folder} cannot be written to"
    except OSError as error:  # a name that is too long, a file in the place of a folder
        reason = f"{error.strerror}"
    else:
        if os.path.isdir(path):
            reason = "it is a folder"
        elif _is_database(path):
            reason = _RUN
    if reason:
        raise UsageError(f"{option} {path} cannot be written: {reason}; choose another file")


def check_apart(paths: Mapping[str, str | None]) -> None:
    """Raises UsageError when two of these options, by name, are one file: the later would take the other's place."""
    seen: dict[str, str] = {}
    for option, path in paths.items():
        if path is None or _is_device(path):
            continue
        first = seen.setdefault(os.path.realpath(path), option)
        if first != option:
            raise UsageError(f"{first} and {option} are one file, {path}; choose another for one of them")


@contextmanager
def alone(option: str, folder: str | Path) -> Iterator[None]:
    """Holds a folder in which one process at a time may work. Raises SearchError when another one holds it.

    It is the folder itself that is locked, so nothing is left behind, however a process ends. Where the file system
    knows no locks, nothing is held.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SearchError(
                f"{option} {folder} is in use by another nos-search; wait for it, or choose another folder"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def held(path: str) -> Iterator[None]:
    """Holds a file while it is read and written anew, so that of several processes that do so none undoes what another
    has written. Where there is no file it makes an empty one.

    It is the file itself that is locked, so nothing is left behind. `write` puts another file in its place: whoever has
    waited for the one before looks again. Where the file system knows no locks, nothing is held.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)
        except OSError:  # said when it is written
            yield
            return
        try:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                yield
                return
        finally:
            os.close(handle)


def inside(folder: Path, name: str, *, remedy: str) -> str:
    """Returns the path of a file or folder that a command writes into a run folder by itself.

    Raises StoreError when a link, a pipe or a device has that name: whoever made the run folder would choose what is
    written.
    """
    path = folder / name
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # said when it is written
        return str(path)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise StoreError(f"{path} is a link, pipe or device, through which nothing is written; {remedy}")
    return str(path)


def check_new(option: str, path: str, *, force: bool) -> None:
    """Raises UsageError when the file is there already and must not be lost."""
    if not force and os.path.lexists(path) and not _is_device(path):
        raise UsageError(f"{option} {path} exists; choose another file, or add --force to replace it")


def write(option: str, path: str | Path, content: str | bytes) -> None:
    """Writes a file, text in UTF-8. Raises UsageError, which names `option`, when there can be no such file, and
    SearchError when the disk fails; then an older file of that name is as it was."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        stream = _stream(path)
        if stream is not None:  # after what was printed before; opened anew, a file behind it would lose all of that
            if sys.stdout is not None:  # as it is where it was closed
                sys.stdout.flush()
            with open(stream, "wb", closefd=False) as file:
                file.write(data)
        elif _is_device(path):
            Path(path).write_bytes(data)
        elif _is_database(path):
            raise UsageError(f"{option} {path} cannot be written: {_RUN}; choose another file")
        else:
            _replace(os.path.realpath(path), data)
    except OSError as error:
        kind = UsageError if error.errno in _NAMED_WRONG else SearchError
        raise kind(f"{option} {path} cannot be written: {error.strerror}; choose another file") from None


def _is_device(path: str | Path) -> bool:
    """Tells whether it is such as /dev/stdout or a pipe, which a new file must not take the place of. What stands
    behind /dev/stdout may be a file."""
    return _stream(path) is not None or (os.path.exists(path) and not os.path.isfile(path))


def _stream(path: str | Path) -> int | None:
    """Returns the descriptor, of the output or the error output, to which a path in /dev or /proc leads."""
    if not os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return None
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
    return None


def _is_database(path: str | Path) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(_DATABASE)) == _DATABASE
    except OSError:  # said when it is written
        return False


def _replace(path: str, data: bytes) -> None:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        with open(path, "r+b"):  # what is read-only stays as it is, though its folder would let it be replaced
            pass
    except FileNotFoundError:
        mode = 0o666 & ~_umask()
    handle, part = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".nos-search-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
