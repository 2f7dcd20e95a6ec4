"""Runs code in processes that nothing was done in but some imports.

Those of torch take seconds. Where a process that has imported it can be forked, they are made once for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run_each(imports: str, codes: Mapping[str, str], folder: Path) -> dict[str, Done]:
    """Runs each of the codes, in a process of its own, after the imports."""
    names = list(codes)
    starts = [names] if sys.platform == "linux" else [[name] for name in names]
    for start in starts:
        task = json.dumps([imports, {f"{names.index(name)}": codes[name] for name in start}, str(folder)])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, __file__], input=task, text=True, env=environment, check=True)

    def found(name: str) -> Done:
        status, out, err = ((folder / f"{names.index(name)}.{part}").read_text() for part in ("status", "out", "err"))
        return Done(int(status), out, err)

    return {name: found(name) for name in names}


def main() -> None:
    imports, codes, folder = json.load(sys.stdin)
    exec(imports, {})
    for number, code in codes.items():
        if sys.platform == "linux":
            process = os.fork()
            status = (
                os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) if process else run(f"{folder}/{number}", code)
            )
        else:
            status = run(f"{folder}/{number}", code)
        Path(f"{folder}/{number}.status").write_text(str(status))


def run(files: str, code: str) -> int:
    """Runs the code in this process, which ends with it where it was forked."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{files}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
    status = 0
    try:
        exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "linux":
        os._exit(status)
    return status


if __name__ == "__main__":
    main()
