"""Owns the talk with a program that proposes rules: it is started once, and lines go both ways over its standard input
and output. docs/howto/external_proposals.md says what the lines mean.

Nothing here waits for the program without a limit, and nothing grows without one. What it sends too early stays in the
pipe, and while that is full the program waits.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import SearchError, UsageError
from ..escape import line as one_line

_AHEAD = 1 << 20  # bytes that are read before they are needed
_LONGEST_LINE = 1 << 24  # bytes
_UNREAD = 1 << 20  # bytes that may wait for the program to read them
_PIECE = 1 << 16  # bytes of one read or write
_GRACE = 2.0  # seconds in which a program may end when its input has ended
_SHOWN = 100  # characters of a command in a message
_ODD = "not a JSON string with the text of a rule, nor a list of such"


def check_command(command: str) -> list[str]:
    """Returns the words of a command. Raises UsageError where they name no program of this machine."""
    shown = f"--command {one_line(command)[:_SHOWN]!r}"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{shown} cannot be read: {error}; quote it as a shell wants it") from None
    if not words:
        raise UsageError(f"{shown} is empty; say what proposes rules, for example --command 'python my_proposer.py'")
    if shutil.which(words[0]) is None:
        raise UsageError(f"{shown}: there is no program {one_line(words[0])!r}; give its path, or install it")
    return words


class Proposal(NamedTuple):
    """A proposal is text that may be a rule. `fault` says what was wrong with the form of its line; "" if nothing
    was."""

    text: str
    fault: str = ""


class Proposer:
    """This is the program, running. Every method raises SearchError when it was silent for `timeout` seconds while
    something was expected of it, or ended; what it writes to its standard error is not touched.

    It does not get the Ctrl-C of a terminal, and ends when this process does: then its input is at its end.
    """

    def __init__(self, command: str, *, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        words = check_command(command)
        self._name, self._timeout, self._clock = f"--command {one_line(command)[:_SHOWN]!r}", timeout, clock
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
            )
        except OSError as error:
            raise SearchError(f"{self._name} cannot be started: {error.strerror}; try it in a shell") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        for end in (self._input, self._output):
            os.set_blocking(end.fileno(), False)
        self._to_write = bytearray()
        self._read = bytearray()
        self._searched = 0  # so many bytes of `_read` hold no line end
        self._hears, self._speaks = True, True
        self._surplus: deque[Proposal] = deque()  # those that came before they were asked for
        self._fault: SearchError | None = None  # to be raised when it is asked the next time

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a message. One that has closed its input is told nothing more."""
        if not self._hears:
            return
        self._to_write += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self._turn(0.0)
        moved = self._clock()
        while len(self._to_write) > _UNREAD:
            if self._turn(self._left(moved)):
                moved = self._clock()
            elif self._left(moved) <= 0:
                raise SearchError(
                    f"{self._name} does not read its standard input: nothing in {self._timeout:g} seconds, and "
                    f"{len(self._to_write)} bytes wait; let it read all lines, or close it"
                )

    def ask(self, n: int) -> list[Proposal]:
        """Returns n proposals in the order in which they came. Where the program fails before it has made so many,
        those that it has made are returned, and the next call raises what is due."""
        if self._fault is not None:
            raise self._fault
        try:
            if n > len(self._surplus):
                self.tell({"ask": n - len(self._surplus)})
            while len(self._surplus) < n:
                self._surplus += _proposals(self._line(n))
        except SearchError as error:
            if not self._surplus:
                raise
            self._fault = error
        return [self._surplus.popleft() for _ in range(min(n, len(self._surplus)))]

    def close(self) -> None:
        """Ends the program, which is given a moment to end by itself."""
        until = self._clock() + _GRACE
        with suppress(SearchError):
            while self._to_write and self._clock() < until:
                self._turn(until - self._clock())
        with suppress(OSError):
            self._input.close()
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            if number:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, number)
            try:
                self._process.wait(_GRACE)
                break
            except subprocess.TimeoutExpired:
                continue
        self._output.close()

    # --- lines -----------------------------------------------------------------------------------------------------

    def _line(self, n: int) -> bytes:
        """Returns the next line, when it has come."""
        moved = self._clock()
        while (end := self._read.find(b"\n", self._searched)) < 0:
            self._searched = len(self._read)
            if len(self._read) > _LONGEST_LINE:
                raise SearchError(
                    f"{self._name} sends a line of more than {_LONGEST_LINE} bytes; end each line with a newline"
                )
            if not self._speaks:
                if self._read:  # the last line of a program that has ended
                    end = len(self._read)
                    break
                raise SearchError(f"{self._name} {self._end()} with {self._owed(n)}")
            if self._turn(self._left(moved), wanted=True):
                moved = self._clock()
            elif self._left(moved) <= 0:
                raise SearchError(
                    f"{self._name} was silent for {self._timeout:g} seconds with {self._owed(n)}; see what it waits "
                    "for, or give it longer: --strategy-option timeout=SECONDS"
                )
        found = bytes(self._read[:end])
        del self._read[: end + 1]
        self._searched = 0
        return found

    def _owed(self, n: int) -> str:
        return f"{n - len(self._surplus)} of {n} proposals owed"

    def _end(self) -> str:
        try:
            status = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return "closed its standard output"
        return f"ended by signal {-status}" if status < 0 else f"ended with exit status {status}"

    # --- bytes -----------------------------------------------------------------------------------------------------

    def _left(self, moved: float) -> float:
        """Returns the seconds that are left of the time limit when something moved at `moved`."""
        return max(0.0, moved + self._timeout - self._clock())

    def _turn(self, seconds: float, *, wanted: bool = False) -> bool:
        """Writes and reads what can be at once, or waits so long for it. Tells whether anything moved. It reads ahead
        only a little, unless a line is `wanted`."""
        poll = select.poll()
        if self._speaks and (wanted or len(self._read) < _AHEAD):
            poll.register(self._output, select.POLLIN)
        if self._hears and self._to_write:
            poll.register(self._input, select.POLLOUT)
        moved = False
        for number, _ in poll.poll(1000 * seconds):
            moved = (self._write() if number == self._input.fileno() else self._take()) or moved
        return moved

    def _write(self) -> bool:
        try:
            written = os.write(self._input.fileno(), self._to_write[:_PIECE])
        except BlockingIOError:
            return False
        except BrokenPipeError:
            self._hears = False
            self._to_write.clear()
            return False
        del self._to_write[:written]
        return True

    def _take(self) -> bool:
        try:
            piece = os.read(self._output.fileno(), _PIECE)
        except BlockingIOError:
            return False
        self._speaks = bool(piece)
        self._read += piece
        return True


def _proposals(line: bytes) -> list[Proposal]:
    """Returns the proposals of a line: a JSON string, or a list of them. Whatever else it holds is taken for the text
    of a rule as it stands, which it hardly ever is, so that every line has an answer."""
    text = line.decode(errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return [Proposal(text, f"not JSON: {error}")]
    if isinstance(found, list) and found:
        return [Proposal(each) if isinstance(each, str) else Proposal(json.dumps(each), _ODD) for each in found]
    return [Proposal(found) if isinstance(found, str) else Proposal(text, _ODD)]
