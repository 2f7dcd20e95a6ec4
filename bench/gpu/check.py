"""A short check on a device, small enough for compute-sanitizer: python -m bench.gpu.check

Both tiers give the CPU's bits over dtypes, sizes and misalignments; a random op, several groups, a population.
"""

from __future__ import annotations

import itertools
import sys

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


def moved(x: torch.Tensor, offset: int) -> torch.Tensor:
    """On the device, as far off alignment as on the CPU."""
    room = torch.zeros(x.numel() + 8, dtype=x.dtype, device="cuda")
    view = room[offset : offset + x.numel()]
    view.copy_(x)
    return view


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(torch.equal(a.view(torch.uint8), b.view(torch.uint8)))


def main() -> int:
    wrong = compared = 0
    modes = ["never"] if nos_ext.build_info()["cuda"]["jit"].startswith("off") else ["never", "always"]
    for mode, text, dtype, offset in itertools.product(modes, RULES, (torch.float32, torch.bfloat16), (0, 1)):
        nos_ext.set_jit(mode)
        program = nos_ext.compile_rule(text)
        cpu = lists(dtype, offset)[: 2 + len(program.state_names)]
        gpu = [[moved(x, offset) for x in slot] for slot in cpu]
        for target in (cpu, gpu):
            for step in (1, 2):
                nos_ext.apply_rule(program, target[0], target[1], target[2:], lr=0.1, step=step, seed=7)
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
    gpu_lists = [[x.cuda() for x in slot] for slot in cpu_lists]
    for target in (cpu_lists, gpu_lists):
        nos_ext.apply_population(programs, target[0], target[1], target[2:], lr=0.1, seed=3)
    for a, b in zip(itertools.chain(*cpu_lists), itertools.chain(*gpu_lists), strict=True):
        compared += 1
        wrong += not same(a, b.cpu())
    print(f"{compared} tensors compared with the CPU, {wrong} with other bits; tiers: {', '.join(modes)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
