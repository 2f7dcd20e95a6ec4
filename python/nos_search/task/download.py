"""Owns the only place that uses the network: it fetches a task's data when --download asks for it."""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import SearchError, UsageError
from . import cifar10

_TIMEOUT = 60  # seconds without a byte


def urls() -> dict[str, str]:
    """Returns for each task where --download fetches its data from if the user names no other place."""
    return {"cifar10": cifar10.URL}


def download(task: str, folder: Path, url: str | None) -> None:
    """Fetches the task's archive into `folder` unless it is there. A file that fails its MD5 is not kept.

    Raises UsageError when the task has nothing to fetch, and SearchError when the fetch fails.
    """
    if task not in urls():
        raise UsageError(f"--download: task {task!r} has nothing to fetch; it serves: {', '.join(urls())}")
    source = url or urls()[task]
    name = source.rpartition("/")[2]
    if name not in cifar10.ARCHIVES:
        raise UsageError(f"--download {source}: the address must end in {' or '.join(cifar10.ARCHIVES)}")
    target = folder / name
    if target.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            part = Path(place) / name
            with urllib.request.urlopen(source, timeout=_TIMEOUT) as reply, part.open("wb") as file:
                shutil.copyfileobj(reply, file)
            cifar10.check_md5(part, cifar10.ARCHIVES[name])
            part.replace(target)
    except (OSError, urllib.error.URLError, ValueError) as error:
        if isinstance(error, SearchError):
            raise
        raise SearchError(
            f"--download {source}: {error}; fetch it by hand and name its folder with --data-dir"
        ) from None
