"""Owns how tests start Python processes that nothing was done in but some imports.

Those of torch take seconds. Where a process that has imported it can be forked, a Home makes them once: it has one thread
and runs no parallel code, so that a fork of it is as good as a new process. What begins there has an environment, a working
directory and streams of its own, and ends as any interpreter does. Variables that a process reads as it begins choose the
Home. Tests of how a process itself begins start one by `subprocess`.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

FORKS = sys.platform == "linux"
NUMBER = struct.Struct("!q")
# of variables that the interpreter or a library reads once, as it begins
READ_AT_THE_START = ("LD_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "CUDA_", "MALLOC_", "PYTHON", "TORCH")
ABOVE = 200  # all numbers of files that a test has open are below


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


class Process:
    """What the tests and the nursery use of a subprocess.Popen: this one is a grandchild, whose end its parent tells."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.pid = self._read()
        self.returncode: int | None = None

    def _read(self) -> int:
        data = self._link.recv(NUMBER.size, socket.MSG_WAITALL)
        assert len(data) == NUMBER.size, "the process that tests are forked from has ended"
        return int(NUMBER.unpack(data)[0])

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._link.settimeout(timeout)
            try:
                self.returncode = self._read()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("a fork", timeout or 0.0) from None
            self._link.close()
        return self.returncode

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Home:
    """A process that has done the imports, and is forked for each that `start` begins."""

    def __init__(self, imports: str, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        paths = os.pathsep.join(filter(None, sys.path))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), imports],
                pass_fds=[theirs.fileno()],
                env={**environment, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def start(
        self,
        code: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        streams: Sequence[int],
        pass_fds: Sequence[int] = (),
        folder: str | None = None,
        session: bool = False,
    ) -> Process:
        """Begins what `python -c code arguments` would begin, with these files as stdin, stdout and stderr."""
        mine, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as request:
            task = [code, list(arguments), dict(environment), folder or os.getcwd(), list(pass_fds), session]
            request.write(json.dumps(task).encode())
            request.flush()
            files = [request.fileno(), theirs.fileno(), *streams, *pass_fds]
            socket.send_fds(self._control, [b"s"], files)
        return Process(mine)

    def close(self) -> None:
        self._control.close()
        self._process.wait()


_homes: dict[tuple[str, frozenset[tuple[str, str]]], Home] = {}


def home(imports: str, environment: Mapping[str, str]) -> Home:
    """The Home with these imports, which serves until this process ends."""
    read = frozenset(
        (name, value)
        for name, value in environment.items()
        if name.startswith(READ_AT_THE_START) and name != "PYTHONPATH"
    )
    if (imports, read) not in _homes:
        _homes[imports, read] = Home(imports, environment)
        atexit.register(_homes[imports, read].close)
    return _homes[imports, read]


def python(
    code: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    imports: str = "import torch",
) -> Done:
    """What `python -c code arguments` does and prints in a process that has done the imports before."""
    environment = dict(os.environ if env is None else env)
    words = [str(argument) for argument in arguments]
    if not FORKS:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=environment, cwd=cwd, capture_output=True, text=True
        )
        return Done(done.returncode, done.stdout, done.stderr)
    return _done(home(imports, environment), code, words, environment, cwd)


def _done(home: Home, code: str, words: Sequence[str], environment: Mapping[str, str], cwd: Path | None) -> Done:
    with open(os.devnull) as nothing, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        streams = [file.fileno() for file in (nothing, out, err)]
        process = home.start(code, words, environment, streams=streams, folder=str(cwd) if cwd else None)
        status = process.wait()
        out.seek(0), err.seek(0)
        return Done(status, out.read(), err.read())


def run_each(imports: str, codes: Mapping[str, str]) -> dict[str, Done]:
    """Runs each of the codes, in a process of its own, after the imports, which nothing else needs."""
    if not FORKS:
        return {name: python(f"{imports}\n{code}") for name, code in codes.items()}
    only = Home(imports, os.environ)
    try:
        return {name: _done(only, code, [], os.environ, None) for name, code in codes.items()}
    finally:
        only.close()


# --- in the process that is forked -----------------------------------------------------------------------------------


def serve(control: socket.socket) -> str:
    """Returns in each process that begins, with its code. The Home's own ends here, as soon as nobody can ask any more."""
    while True:
        word, files, _, _ = socket.recv_fds(control, 1, 32)
        if not word:
            os._exit(0)
        helper = os.fork()
        if helper == 0:
            control.close()
            return begin(files)
        os.waitpid(helper, 0)
        for file in files:
            os.close(file)


def begin(files: Sequence[int]) -> str:
    """Makes three of this process: one is gone at once, one tells how the third, in which this returns, has ended."""
    if os.fork():
        os._exit(0)
    process = os.fork()
    if process:
        link = socket.socket(fileno=files[1])
        with suppress(OSError):  # nobody wants to know
            link.sendall(NUMBER.pack(process))
            for file in (*files[:1], *files[2:], 0, 1, 2):
                os.close(file)
            link.sendall(NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])))
        os._exit(0)
    request, link_, *others = (fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, ABOVE) for file in files)
    for file in (*files, link_):
        os.close(file)
    with open(request, "rb") as stream:
        stream.seek(0)
        code, arguments, environment, folder, numbers, session = json.load(stream)
    if session:
        os.setsid()
    for file, number in zip(others, (0, 1, 2, *numbers), strict=True):
        os.dup2(file, number, inheritable=number < 3)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    paths = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    sys.path[:] = dict.fromkeys(paths)
    sys.argv[:] = ["-c", *arguments]
    return str(code)


if __name__ == "__main__":
    exec(sys.argv[2], {})
    _code = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.modules["__main__"] = _main = ModuleType("__main__")
    exec(compile(_code, "<string>", "exec"), vars(_main))
