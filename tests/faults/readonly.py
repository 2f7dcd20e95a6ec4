"""A folder that cannot be written, as on read-only media: by its mode, or, for root whom modes do not stop, by a mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NotPossibleError(Exception):
    """This machine does not let us make a folder read-only, or hold a small disk."""


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Inside, nothing in the folder can be written. NotPossibleError where that cannot be had."""
    if os.geteuid() != 0:
        files = [folder, *folder.iterdir()]
        modes = [path.stat().st_mode for path in files]
        for path, mode in zip(files, modes, strict=True):
            path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            for path, mode in zip(files, modes, strict=True):
                path.chmod(mode)
        return
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Inside, the folder is a disk of so many bytes ("2m")."""
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount(*args: str | Path) -> None:
    try:
        done = subprocess.run(["mount", *args], capture_output=True, text=True)
    except FileNotFoundError:
        raise NotPossibleError("there is no mount") from None
    if done.returncode:
        raise NotPossibleError(done.stderr.strip())
