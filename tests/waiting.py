"""Owns how tests wait for other processes and threads: for an event, never for a time.

No test passes or fails by how long something takes. HUNG only turns a wait that would never end into a failure.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

HUNG = 1800.0  # seconds: hundreds of times what the slowest wait takes on an idle machine


def wait_until(
    reached: Callable[[], object], *, process: subprocess.Popen[str] | None = None, pause: float = 0.01
) -> None:
    """Returns once `reached()` is true, which is asked every `pause` seconds. It may not come true any more once
    `process` has ended: then, or when everything hangs, an AssertionError."""
    begin = time.monotonic()
    while True:
        over = process is not None and process.poll() is not None
        if reached():
            return
        if over and process is not None:
            said = process.stderr.read() if process.stderr else ""
            raise AssertionError(
                f"the process ended, with status {process.returncode}, before what was waited for:\n{said}"
            )
        if time.monotonic() - begin > HUNG:
            raise AssertionError(f"waited for {HUNG:g} s in vain")
        time.sleep(pause)
