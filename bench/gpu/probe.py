"""Questions about the CUDA back-end that only a device answers: python -m bench.gpu.probe [QUESTION ...]

Each takes seconds, has a limit of its own and runs in a process of its own, so that a fault of the device spoils one
answer only; while one question is answered, the process of the next loads torch. An answer is a line, or an indented
table. The exit status is 1 where one is WRONG, FAILED or late. `--device cpu` is a dry run on CPU tensors; questions
about captures and counters then say that they need a device.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

import torch

import nos_ext

from . import fast, right
from .ask import NeedsDevice, Wrong

# Seconds until the answer, from when the question is asked.
QUESTIONS: Final[dict[Callable[[str], str], int]] = {
    right.build: 20,
    right.bits_of_both_tiers: 40,
    right.every_op_at_the_edges: 40,
    right.random_rules_and_overflow: 30,
    right.first_launch_in_a_capture: 20,
    right.a_step_dies_in_a_capture: 20,
    right.one_stream_for_warm_up_and_capture: 20,
    right.captured_optimizer: 20,
    right.captured_population: 20,
    right.captured_child_stack: 40,
    right.memcheck: 75,
    right.racecheck: 75,
    fast.host_time_of_a_step: 30,
    fast.moved_gradients: 30,
    fast.many_lists_of_tensors: 30,
    fast.compiled_tier: 30,
    fast.captured_replay: 20,
    fast.share_of_copy: 30,
    fast.share_of_copy_by_chunk: 30,
    fast.small_states: 30,
    fast.stalls: 40,
}
BY_NAME: Final = {question.__name__: question for question in QUESTIONS}
PATIENCE: Final = 4  # times the limit in a dry run, whose machine may be busy


def answer(name: str, device: str) -> int:
    """Prints the answer; 1 if it is wrong. Every question begins with the interpreter."""
    before = nos_ext.set_jit("never")
    try:
        print(f"{name}: {BY_NAME[name](device)}", flush=True)
    except NeedsDevice:
        print(f"{name}: needs a device", flush=True)
    except Wrong as wrong:
        print(f"{name}: WRONG: {wrong}", flush=True)
        return 1
    finally:
        nos_ext.set_jit(before)
    return 0


class Asked:
    """A process that has loaded what it needs and answers its question once it is told to."""

    def __init__(self, name: str, device: str) -> None:
        self._name = name
        self._limit = QUESTIONS[BY_NAME[name]] * (1 if device == "cuda" else PATIENCE)
        command = [sys.executable, "-m", "bench.gpu.probe", name, "--when-told", "--device", device]
        # with its own children, such as ncu, in a group that can be ended as one
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def tell(self) -> bool:
        """Prints the answer, or why there is none; whether it is a good one."""
        try:
            out, errors = self._process.communicate("now\n", timeout=self._limit)
        except subprocess.TimeoutExpired:
            self.end()
            print(f"{self._name}: LATE: no answer within {self._limit} s", flush=True)
            return False
        print(out.rstrip() or f"{self._name}:", flush=True)
        status = self._process.returncode
        if status and ": WRONG: " not in out:
            lines = errors.splitlines()
            said = [line for line in lines if "Error" in line] or lines or ["nothing said why"]
            print(f"  FAILED, exit status {status}: {said[-1]}", flush=True)
        return status == 0

    def end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def ask(names: Sequence[str], device: str) -> int:
    """How many answers are not good."""
    bad = 0
    waiting: list[Asked] = []
    try:
        for name, then in zip(names, [*names[1:], None], strict=True):
            now = waiting.pop() if waiting else Asked(name, device)
            if then:
                waiting.append(Asked(then, device))
            try:
                bad += not now.tell()
            except BaseException:
                now.end()
                raise
    finally:
        for each in waiting:
            each.end()
    return bad


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.probe", description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[[], *BY_NAME], metavar="QUESTION", help=", ".join(BY_NAME))
    parser.add_argument(
        "--but", action="append", default=[], choices=[*BY_NAME], metavar="QUESTION", help="not this one"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--here", action="store_true", help="in this process")
    how.add_argument("--when-told", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    names = [name for name in options.questions or BY_NAME if name not in options.but]
    if options.when_told:
        return answer(names[0], options.device) if sys.stdin.readline() else 1
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device; --device cpu makes a dry run", file=sys.stderr)
        return 1
    if options.here:
        return 1 if sum(answer(name, options.device) for name in names) else 0
    return 1 if ask(names, options.device) else 0


if __name__ == "__main__":
    sys.exit(main())
