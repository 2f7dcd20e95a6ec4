"""A process of nos-search begins here, as the command and as `python -m nos_search`. Importing this module does
nothing."""

import os
import signal
import sys
import threading
from contextlib import suppress


def run() -> int:
    """Runs the command line of this process and returns the exit status.

    Until the command has been imported, which takes a while, Ctrl-C ends the process as it ends any program: at once,
    without a traceback, and with status 130 for a shell. After that `main` gets it as an exception. Where Ctrl-C is
    ignored, as in what a shell starts in the background, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main

    status = main()
    if status and any(thread.name.startswith("training") for thread in threading.enumerate()):
        # Python would wait for the trainings of train/side.py, of which nobody wants the end any more.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(run())
