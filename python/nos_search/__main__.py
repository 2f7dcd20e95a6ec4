"""A process of nos-search begins here, as the command and as `python -m nos_search`. Importing this module does
nothing."""

import signal
import sys


def run() -> int:
    """Runs the command line of this process and returns the exit status.

    Until the command has been imported, which takes a while, Ctrl-C ends the process as it ends any program: at once,
    without a traceback, and with status 130 for a shell. After that `main` gets it as an exception. Where Ctrl-C is
    ignored, as in what a shell starts in the background, it stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
