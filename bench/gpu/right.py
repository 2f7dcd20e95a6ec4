"""The probe's questions about results: does the device give the CPU's bits, and do captures and graphs hold?"""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch

import nos_ext
from nos_ext.optim import RuleOptimizer, library

from . import check
from .ask import RULE, NeedsDevice, Wrong, graph_of, lists, same, table
from .nvrtc import random_text

EDGES: Final = (0.0, -0.0, 1.0, -1.0, 0.3, 1e-40, -1e-45, 3e38, 88.7, -104.0, float("inf"), -float("inf"), float("nan"))


def build(device: str) -> str:
    """What is being asked about."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu (a dry run: its times say nothing)"
    info = nos_ext.build_info()
    return f"{name}; nos_ext {info['version']}, {info['cuda']['architectures']}; torch {torch.__version__}"


def bits_of_both_tiers(device: str) -> str:
    """Dtypes, sizes, misalignments, a population, captured steps: `bench.gpu.check`."""
    found = check.compare(device)
    if found.wrong:
        raise Wrong(str(found) + table(found.wrong[:12]))
    return str(found)


def on_both(program: nos_ext.Program, cpu: Sequence[list[torch.Tensor]], device: str) -> bool:
    """One step on the CPU and on the device: have all tensors the same bits?"""
    gpu = [[x.to(device, copy=True) for x in slot] for slot in cpu]
    for target in (cpu, gpu):
        nos_ext.apply_rule(program, target[0], target[1], target[2:], lr=0.37, step=3, seed=7)
    return all(same(a, b) for a, b in zip(itertools.chain(*cpu), itertools.chain(*gpu), strict=True))


def tiers() -> list[str]:
    return ["never"] if nos_ext._C.jit_status().startswith("off") else ["never", "always"]


def every_op_at_the_edges(device: str) -> str:
    """Zeros, subnormals, infinities, NaN: all pairs of them, and a third operand."""
    first, second = torch.cartesian_prod(torch.tensor(EDGES), torch.tensor(EDGES)).unbind(1)
    third = torch.tensor(EDGES).repeat(len(EDGES)).roll(5)
    wrong, asked = [], 0
    for row, mode in itertools.product(nos_ext.op_table(), tiers()):
        if row["domain"] == "scalar":
            continue
        operands = ["g", "lr"] if row["name"] == "drop" else ["lr"] if row["domain"] == "random" else ["g", "m", "p"]
        call = f"{row['name']}({', '.join(operands[: row['arity']])})"
        if row["domain"] in ("reduce", "global"):
            call = f"p + {call}"  # which is a number, and p has elements
        nos_ext.set_jit(mode)
        asked += 1
        program = nos_ext.compile_rule(f"def f(p, g, m, *, lr):\n    return {call}, m + g")
        if not on_both(program, [[third.clone()], [first.clone()], [second.clone()]], device):
            wrong.append(f"{call}, set_jit('{mode}')")
    if wrong:
        raise Wrong("other bits than on the CPU:" + table(wrong))
    return f"{asked} ops and tiers, 0 with other bits"


def random_rules_and_overflow(device: str) -> str:
    """Rules of 20 and 40 instructions, and some with more values alive than the registers hold."""
    programs = [nos_ext.compile_rule(random_text(seed, length)) for length in (20, 40) for seed in range(15)]
    for values in (20, 60):
        lines = "\n".join(f"    a{k} = exp(g * {0.01 * k:.2f}) + p" for k in range(values))
        total = " + ".join(f"a{k} * a{values - 1 - k}" for k in range(values))
        programs.append(nos_ext.compile_rule(f"def f(p, g, m, *, lr):\n{lines}\n    return p - lr * ({total}), m"))
    wrong = []
    for number, program in enumerate(programs):
        generator = torch.Generator().manual_seed(number)
        values_of = [[torch.randn(n, generator=generator) for n in (67, 2049, 30_000)] for _ in range(3)]
        if not on_both(program, values_of, device):
            wrong.append(program.to_text())
    if wrong:
        raise Wrong(f"{len(wrong)} of {len(programs)} rules with other bits than on the CPU:" + table(wrong[:3]))
    return f"{len(programs)} rules, 0 with other bits"


def first_launch_in_a_capture(device: str) -> str:
    """Neither kernel of the step has run in this process: a lazy driver loads them inside the capture."""
    p, g, m = lists([5000], device)
    if device != "cuda":
        raise NeedsDevice
    step = nos_ext.CapturedStep(RULE, p, g, [m], lr=0.1)
    before = p[0].clone()
    graph_of(step, device).replay()
    torch.cuda.synchronize()
    if torch.equal(before, p[0]):
        raise Wrong("the replay changed nothing")
    return "works"


def a_step_dies_in_a_capture(device: str) -> str:
    """The garbage collector finds a captured step, which has been replayed, while another one is captured. Its graph is
    kept: the destructor of torch.cuda.CUDAGraph itself would end the capture."""
    if device != "cuda":
        raise NeedsDevice
    p, g, m = lists([5000], device)
    graphs = []

    def leave_a_cycle() -> None:
        step = nos_ext.CapturedStep("g", p, g, [m], lr=0.1)
        graphs.append(graph_of(step, device))
        graphs[-1].replay()
        box: list[Any] = [step]
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


def captured_optimizer(device: str) -> str:
    """AdamW with capturable=True in a graph, against the same steps without one."""
    if device != "cuda":
        raise NeedsDevice
    start, g = torch.randn(5000), torch.randn(5000)
    ours, theirs = (torch.nn.Parameter(start.to(device, copy=True)) for _ in range(2))
    captured = RuleOptimizer([ours], library.adamw, lr=0.01, weight_decay=0.1, capturable=True)
    plain = RuleOptimizer([theirs], library.adamw, lr=0.01, weight_decay=0.1)
    ours.grad, theirs.grad = g.to(device), g.to(device)
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        captured.step()
    torch.cuda.synchronize()
    graph = graph_of(captured.step, device)
    for _ in range(9):
        graph.replay()
    for _ in range(10):
        plain.step()
    apart = float((ours - theirs).detach().abs().max())
    if not apart < 1e-6:
        raise Wrong(f"parameters are {apart:.2g} apart after 10 steps")
    return f"10 steps, parameters at most {apart:.2g} apart"


def captured_population(device: str) -> str:
    """150 programs in a graph, one of them replaced after the capture."""
    if device != "cuda":
        raise NeedsDevice
    programs = [nos_ext.compile_rule(t) for t in ("g", RULE, "clip(g, 1e-2)")] * 50
    lr = [0.1 / (k + 1) for k in range(len(programs))]
    cpu = [[torch.randn(len(programs), 37)] for _ in range(3)]
    gpu = [[x.to(device) for x in slot] for slot in cpu]
    step = nos_ext.CapturedStep(programs, gpu[0], gpu[1], gpu[2:], lr=lr)
    graph = graph_of(step, device)
    step.load("sign(g)", index=7, lr=0.5)
    programs[7], lr[7] = nos_ext.compile_rule("sign(g)"), 0.5
    for number in (1, 2):
        graph.replay()
        nos_ext.apply_population(programs, cpu[0], cpu[1], cpu[2:], lr=lr, step=number)
    wrong = sum(not same(a[0], b[0]) for a, b in zip(cpu, gpu, strict=True))
    if wrong:
        raise Wrong(f"{wrong} of 3 lists have other bits than on the CPU")
    return f"{len(programs)} programs, the CPU's bits"


def captured_child_stack(device: str) -> str:
    """Four children of a search whose whole training step is one graph, against the same without a graph."""
    if device != "cuda":
        raise NeedsDevice
    from nos_search.rules import compile_rule
    from nos_search.task import load
    from nos_search.train.graph import GraphStack
    from nos_search.train.stack import Stack

    task = load("digits").with_options(net="convnet-2-4")
    splits = {name: getattr(task, name) for name in ("train", "val", "test")}
    double = {name: replace(split, x=split.x.double()) for name, split in splits.items()}  # rounding hides no mistake
    task = replace(task, budget=replace(task.budget, batch_size=8), **double).to(device)
    rules = [compile_rule(text) for text in ("g", "adam", "g * exp(sign(g) * sign(m_hat))", "clip(m, 1e-3)")]
    stacks = [kind(rules, task, lrs=[0.1, 1e-3, 0.01, 0.03], total_steps=20, seed=3) for kind in (GraphStack, Stack)]
    for stack in stacks:
        stack.run(20)
    apart = max(abs(a - b) for a, b in zip(stacks[0].losses(), stacks[1].losses(), strict=True))
    if not apart < 1e-6:
        raise Wrong(f"losses are {apart:.2g} apart after 20 steps")
    return f"20 steps of {len(rules)} children, losses at most {apart:.2g} apart"


def sanitized(device: str, tool: str) -> str:
    """`bench.gpu.check` under a tool of compute-sanitizer: its summary. Each tensor is an allocation of its own, with
    nothing usable behind it."""
    if device != "cuda":
        raise NeedsDevice
    if not shutil.which("compute-sanitizer"):
        return "compute-sanitizer is not on PATH"
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-m", "bench.gpu.check"]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    out = subprocess.run(command, capture_output=True, text=True, env=environment)
    said = [line for line in out.stdout.splitlines() + out.stderr.splitlines() if line.strip("= ")]
    if out.returncode:
        raise Wrong(f"exit status {out.returncode}" + table([*said[:20], *said[-4:]]))
    return next((line.strip("= ") for line in reversed(said) if "SUMMARY" in line), said[-1])


def memcheck(device: str) -> str:
    """Does a kernel touch memory that is not its own?"""
    return sanitized(device, "memcheck")


def racecheck(device: str) -> str:
    """Do threads of a block meet in shared memory without a barrier between them?"""
    return sanitized(device, "racecheck")
