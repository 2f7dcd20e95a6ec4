"""Questions about the CUDA back-end that only a device answers: python -m bench.gpu.probe [QUESTION ...]

Each takes seconds and runs in a process of its own, so that a fault of the device spoils one answer only. An answer is
a line, or an indented table. `--device cpu` is a dry run on CPU tensors; questions about CUDA graphs then say that they
need a device.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

import nos_ext
from nos_ext.optim import RuleOptimizer, library

RULE: Final = "g * exp(sign(g) * sign(m))"
Lists = tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]
LIMIT: Final = 90  # seconds that one question may take


class NeedsDevice(Exception):
    """The question is about CUDA graphs."""


def lists(sizes: Sequence[int], device: str, dtype: torch.dtype = torch.float32) -> Lists:
    """Parameters, gradients and one state of these sizes."""
    p, g, m = ([torch.full((n,), x, device=device, dtype=dtype) for n in sizes] for x in (1.0, 0.5, 0.25))
    return p, g, m


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def microseconds(call: Callable[[], object], device: str, calls: int) -> tuple[float, float]:
    """Of one call: until the device is done, and until the host may go on. The best of five rounds."""
    best = [float("inf")] * 2
    call()
    for _ in range(5):
        wait(device)
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        host = time.perf_counter() - begin
        wait(device)
        done = time.perf_counter() - begin
        best = [min(a, b / calls * 1e6) for a, b in zip(best, (done, host), strict=True)]
    return best[0], best[1]


def times(call: Callable[[], object], device: str, calls: int = 200) -> str:
    done, host = microseconds(call, device, calls if device == "cuda" else 2)
    return f"{done:.1f} us (host {host:.1f})"


def table(rows: Sequence[str]) -> str:
    return "".join("\n  " + row for row in rows)


def stepper(p: Any, g: Any, m: Any) -> Callable[[], None]:
    program = nos_ext.compile_rule(RULE)
    return lambda: nos_ext.apply_rule(program, p, g, [m], lr=1e-6)


def graph_of(step: Callable[[], object], device: str, **options: Any) -> Any:
    if device != "cuda":
        raise NeedsDevice
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, **options):
        step()
    return graph


def first_launch_in_a_capture(device: str) -> str:
    """Neither kernel of the step has run in this process: a lazy driver loads them inside the capture."""
    p, g, m = lists([5000], device)
    if device != "cuda":
        raise NeedsDevice
    step = nos_ext.CapturedStep(RULE, p, g, [m], lr=0.1)
    before = p[0].clone()
    graph_of(step, device).replay()
    torch.cuda.synchronize()
    return "works" if not torch.equal(before, p[0]) else "WRONG: the replay changed nothing"


def a_step_dies_in_a_capture(device: str) -> str:
    """The garbage collector finds a captured step, which has been replayed, while another one is captured."""
    if device != "cuda":
        raise NeedsDevice
    p, g, m = lists([5000], device)

    def leave_a_cycle() -> None:
        step = nos_ext.CapturedStep("g", p, g, [m], lr=0.1)
        graph = graph_of(step, device)
        graph.replay()
        box: list[Any] = [step, graph]
        box.append(box)

    gc.collect()
    gc.disable()
    leave_a_cycle()
    other = nos_ext.CapturedStep("g", p, g, [m], lr=0.1)

    def body() -> None:
        other()
        gc.collect()
        other()

    graph_of(body, device).replay()
    torch.cuda.synchronize()
    return "the capture survived"


def one_stream_for_warm_up_and_capture(device: str) -> str:
    """Tables that return to the pool were last used on the very stream that is captured then."""
    if device != "cuda":
        raise NeedsDevice
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    x = torch.randn(8, 16, device=device)

    def make() -> tuple[torch.nn.Module, RuleOptimizer]:
        model = torch.nn.Linear(16, 4).to(device)
        return model, RuleOptimizer(model.parameters(), library.adamw, lr=1e-3, capturable=True)

    def train(model: torch.nn.Module, optimizer: RuleOptimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        optimizer.step()

    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        early = [make() for _ in range(6)]
        for pair in early:
            train(*pair)
        del early, pair
        gc.collect()
        kept = make()
        for _ in range(3):
            train(*kept)
    torch.cuda.synchronize()
    graph_of(lambda: train(*kept), device, stream=stream).replay()
    torch.cuda.synchronize()
    return "works"


def host_time_of_a_step(device: str) -> str:
    """Unchanged tensors: what the host pays before the device has work."""
    rows = []
    for count in (1, 10, 148, 1000, 5000):
        step = stepper(*lists([256] * (count if device == "cuda" else min(count, 10)), device))
        rows.append(f"{count} tensors: {times(step, device, 50)}")
    return table(rows)


def moved_gradients(device: str) -> str:
    """Gradients at new addresses in every step, as after every backward pass: the tables go up again."""
    rows = []
    for count in (10, 148, 1000):
        p, g, m = lists([256] * (count if device == "cuda" else 10), device)
        others = [[x.clone() for x in g] for _ in range(2)]
        program, turn = nos_ext.compile_rule(RULE), [0]

        def step(p: Any = p, m: Any = m, others: Any = others, program: Any = program, turn: Any = turn) -> None:
            turn[0] ^= 1
            nos_ext.apply_rule(program, p, others[turn[0]], [m], lr=1e-6)

        rows.append(f"{count} tensors: {times(step, device, 50)}")
    return table(rows)


def many_lists_of_tensors(device: str) -> str:
    """One rule for each of many lists in turn, as an optimizer per layer: is a plan kept for each?"""
    program, rows = nos_ext.compile_rule(RULE), []
    for count in (8, 9, 148):
        every = [lists([4096], device) for _ in range(count)]

        def step(every: Any = every) -> None:
            for p, g, m in every:
                nos_ext.apply_rule(program, p, g, [m], lr=1e-6)

        done, _ = microseconds(step, device, 20 if device == "cuda" else 1)
        rows.append(f"{count} lists: {done / count:.1f} us a list")
    return table(rows)


def compiled_tier(device: str) -> str:
    """Interpreter against the kernel of NVRTC, by the size of tensors."""
    if nos_ext._C.jit_status().startswith("off"):
        return nos_ext._C.jit_status()
    rows = []
    sizes = {"5000 x 256": [256] * 5000, "1 x 256": [256], "10 x 1e5": [100_000] * 10, "1 x 2^24": [1 << 24]}
    for name, every in sizes.items():
        step = stepper(*lists(every if device == "cuda" else [256], device))
        for mode in ("never", "always"):
            nos_ext.set_jit(mode)
            rows.append(f"{name}, {mode}: {times(step, device, 50)}")
    return table(rows)


def captured_replay(device: str) -> str:
    """What a replay costs beside a plain step: its prologue computes the scalars on the device."""
    rows = []
    for name, every in {"1 x 256": [256], "10 x 1e5": [100_000] * 10}.items():
        p, g, m = lists(every, device)
        if device != "cuda":
            raise NeedsDevice
        rows.append(f"{name}, step: {times(stepper(p, g, m), device)}")
        step = nos_ext.CapturedStep(RULE, p, g, [m], lr=1e-6)
        rows.append(f"{name}, replay: {times(graph_of(step, device).replay, device)}")
    return table(rows)


def share_of_copy(device: str) -> str:
    """Bytes moved a second, by dtype and number of elements, as a part of torch's copy_ at the same size."""
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        for power in (20, 24, 27):
            n = 1 << (power if device == "cuda" else 10)
            p, g, m = lists([n], device, dtype)
            copy, _ = microseconds(lambda a=p[0], b=g[0]: a.copy_(b), device, 20)  # type: ignore[misc]
            step, _ = microseconds(stepper(p, g, m), device, 20)
            # five tensors are moved by the step (reads p, g, m; writes p, m), two by the copy
            rows.append(
                f"2^{power} {str(dtype).removeprefix('torch.')}: {2.5 * copy / step:.2f} of copy, {step:.1f} us"
            )
    return table(rows)


QUESTIONS: Final[tuple[Callable[[str], str], ...]] = (
    first_launch_in_a_capture, a_step_dies_in_a_capture, one_stream_for_warm_up_and_capture, host_time_of_a_step,
    moved_gradients, many_lists_of_tensors, compiled_tier, captured_replay, share_of_copy,
)  # fmt: skip


def build(device: str) -> str:
    """What is being asked about."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu (a dry run: its times say nothing)"
    info = nos_ext.build_info()
    return f"{name}; nos_ext {info['version']}, {info['cuda']['architectures']}; torch {torch.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    by_name = {f.__name__: f for f in (build, *QUESTIONS)}
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.probe", description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[[], *by_name], metavar="QUESTION", help=", ".join(by_name))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device; --device cpu makes a dry run", file=sys.stderr)
        return 1
    failed = 0
    for name in options.questions or by_name:
        if options.here:
            try:
                print(f"{name}: {by_name[name](options.device)}", flush=True)
            except NeedsDevice:
                print(f"{name}: needs a device", flush=True)
            continue
        command = [sys.executable, "-m", "bench.gpu.probe", name, "--here", "--device", options.device]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
            problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
            answer = done.stdout.rstrip()
        except subprocess.TimeoutExpired:
            problem, answer = [f"no answer within {LIMIT} s"], ""
        failed += bool(problem)
        print(f"{name}: FAILED: {problem[0]}" if problem else answer, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
