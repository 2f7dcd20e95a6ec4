"""A short check on a device, small enough for compute-sanitizer: python -m bench.gpu.check [--device cpu]

Both tiers give the CPU's bits over dtypes, sizes and misalignments; a random op, several groups, a population. With
`--device cpu` the CPU is compared with itself: a dry run of this script.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence

import torch

import nos_ext

RULES = ("g * exp(sign(g) * sign(m))", "adam", "drop(g, 0.3) + normal(0.1) * m")
SIZES = (1, 5, 1023, 4100)


def lists(dtype: torch.dtype, offset: int) -> list[list[torch.Tensor]]:
    """p, g, and two states, on the CPU; views that start `offset` elements into their memory."""
    generator = torch.Generator().manual_seed(offset)
    return [
        [torch.randn(n + 8, generator=generator).abs().to(dtype)[offset : offset + n] for n in SIZES] for _ in range(4)
    ]


def moved(x: torch.Tensor, offset: int, device: str) -> torch.Tensor:
    """On the device, as far off alignment as on the CPU."""
    room = torch.zeros(x.numel() + 8, dtype=x.dtype, device=device)
    view = room[offset : offset + x.numel()]
    view.copy_(x)
    return view


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.view(torch.uint8), b.view(torch.uint8)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args(argv).device
    if device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device; --device cpu makes a dry run", file=sys.stderr)
        return 1
    wrong = compared = 0
    modes = ["never"] if nos_ext.build_info()["cuda"]["jit"].startswith("off") else ["never", "always"]
    for mode, text, dtype, offset in itertools.product(modes, RULES, (torch.float32, torch.bfloat16), (0, 1)):
        nos_ext.set_jit(mode)
        program = nos_ext.compile_rule(text)
        cpu = lists(dtype, offset)[: 2 + len(program.state_names)]
        gpu = [[moved(x, offset, device) for x in slot] for slot in cpu]
        for target in (cpu, gpu):
            for step in (1, 2):
                nos_ext.apply_rule(program, target[0], target[1], target[2:], lr=0.1, step=step, seed=7)
        if device == "cuda":
            torch.cuda.synchronize()
        for a, b in zip(itertools.chain(*cpu), itertools.chain(*gpu), strict=True):
            compared += 1
            if not same(a, b.cpu()):
                wrong += 1
                print(f"{mode} {text!r} {dtype} offset {offset}: other bits than on the CPU", file=sys.stderr)
    programs = [nos_ext.compile_rule(t) for t in RULES] * 2
    params, grads = ([torch.ones(len(programs), 1000) * x] for x in (1.0, 0.3))
    state = nos_ext.init_population_state(programs, params)
    cpu_lists = [params, grads, *state]
    gpu_lists = [[x.to(device, copy=True) for x in slot] for slot in cpu_lists]
    for target in (cpu_lists, gpu_lists):
        nos_ext.apply_population(programs, target[0], target[1], target[2:], lr=0.1, seed=3)
    for a, b in zip(itertools.chain(*cpu_lists), itertools.chain(*gpu_lists), strict=True):
        compared += 1
        wrong += not same(a, b.cpu())
    print(f"{compared} tensors compared with the CPU, {wrong} with other bits; tiers: {', '.join(modes)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
