"""Owns how tests call a C++ compiler: through ccache where there is one. What has not changed since an earlier run, in this
checkout or another one, is then not compiled again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def compile_(
    compiler: str, arguments: Sequence[str | Path], *, root: Path, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the compiler in the folder `root` with `arguments`. Paths below `root` may be absolute: they
    do not decide whether something is found."""
    ccache = shutil.which("ccache")
    command = [*([ccache] if ccache else []), compiler, *map(str, arguments)]
    environment = {**os.environ, "CCACHE_BASEDIR": str(root), "CCACHE_NOHASHDIR": "1"}
    return subprocess.run(command, cwd=root, env=environment, text=True, **options)
