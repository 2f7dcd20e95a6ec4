"""Where a process of nos-search begins, as the command and as `python -m nos_search`. Importing this does nothing."""

import signal
import sys


def run() -> int:
    """Runs the command line of this process; returns the exit status.

    Until the command has been imported, which takes a while, Ctrl-C ends the process as it ends any program: at once,
    without a traceback, 130 for a shell. After that `main` has it as an exception. Where it is ignored, as a shell
    does for what it starts in the background, that stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
