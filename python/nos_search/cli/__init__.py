"""The command line of nos-search begins here: `main` runs a command and says what went wrong in one line.

The exit status is 0 for done, 1 for failed, 2 for wrong usage and 130 for interrupted. arguments.py holds what the
commands take and imports nothing heavy, so that --help and --version need NumPy only. Each command is a module of its
name here, with a function `call(args)`, and is imported when it is called. Nothing here or below it uses the network
unless --download is given.
"""

from __future__ import annotations

import argparse
import errno
import signal
import sqlite3
import sys
from collections.abc import Sequence
from importlib import import_module

from .. import nursery
from ..errors import SearchError
from ..escape import line
from .arguments import parse
from .output import ReaderGoneError, note, settle_streams

__all__ = ["main"]

_EXTRAS = {  # maps a module to the extra of nos-ext that installs it
    "torch": "search",
    "rich": "search",
    "jinja2": "search",
    "markupsafe": "search",
    "sklearn": "search",
    "scipy": "search",
    "loky": "search",
    "cloudpickle": "search",
    "cmaes": "search",
    "matplotlib": "plot",
}
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory")  # how torch says it, in a RuntimeError
_REMEDIES = {  # for errors about a file that no other message explains
    errno.ENAMETOOLONG: "; choose a shorter name",
    errno.EACCES: "; choose another place, or change its permissions",
    errno.ENOSPC: "; free some space, or choose another disk",
}
_FAILED, _INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status. Wrong usage that the parser sees leaves by SystemExit, and so does
    --help."""
    settle_streams()
    command = ""
    try:
        command, args = parse(sys.argv[1:] if argv is None else argv)
        if _forks(args):
            nursery.prepare(getattr(args, "threads", None) or 1)  # workers get ready while this process does
        module = import_module(f".{command}", __name__)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # from here on Ctrl-C is an exception: see __main__.py
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status: int = module.call(args)
        return status
    except ReaderGoneError:
        return _FAILED
    except KeyboardInterrupt:
        return _said(command, "interrupted", _INTERRUPTED)
    except SearchError as error:
        return _said(command, str(error), error.exit_status)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        remedy = f'install it with: pip install "nos-ext[{_EXTRAS[package]}]"'
        return _said(command, f"this needs {package}, which is not installed; {remedy}", _FAILED)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        return _said(command, "out of memory; choose smaller sizes, or fewer workers", _FAILED)
    except sqlite3.Error as error:  # the store explains what it knows of; this is the rest
        return _said(command, f"the run's database failed: {error}", _FAILED)
    except OSError as error:  # an error about a file that no other message names
        place = f"{line(error.filename)}: " if error.filename else ""
        what_to_do = _REMEDIES.get(error.errno or 0, "")
        return _said(command, f"{place}{error.strerror or error}{what_to_do}", _FAILED)
    finally:
        nursery.discard()


def _forks(args: argparse.Namespace) -> bool:
    """Tells whether a command asks for several workers that are forked. A resumed run may find otherwise."""
    several = (getattr(args, "workers", None) or 1) > 1 and (getattr(args, "threads", None) or 1) > 0
    on_cpu = getattr(args, "device", None) in (None, "cpu")
    return several and on_cpu and getattr(args, "executor", None) in (None, "fork")


def _said(command: str, message: str, status: int) -> int:
    note(f"nos-search {command}: {message}" if command else f"nos-search: {message}")
    return status
