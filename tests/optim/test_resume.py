"""A checkpoint that one process wrote goes on in another with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.fresh import python

PROGRAM = """
import sys, torch
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, library
from nos_ext.schedules import NoisyLinearCosineDecay

CASES = {
    "powersign float32": lambda p: PowerSign(p, lr=0.02, sign_decay="cosine", total_steps=60),
    "addsign bfloat16": lambda p: AddSign(p, lr=0.02, weight_decay=0.01),
    "stochastic bfloat16": lambda p: PowerSign(p, lr=0.001, stochastic_rounding=True, seed=4),
    "adamw float64": lambda p: RuleOptimizer(p, library.adamw, lr=0.01),
    "random float32": lambda p: RuleOptimizer(p, "drop(m_hat, 0.3) + normal(0.01)", lr=0.1, seed=11),
}
folder, phase = sys.argv[1:]
first, last = {"first": (0, 30), "second": (30, 50), "straight": (0, 50)}[phase]
out = {}
for case, make in CASES.items():
    dtype = getattr(torch, case.split()[1])
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)).to(dtype)
    optimizer = make(net.parameters())
    scheduler = NoisyLinearCosineDecay(optimizer, 60, initial_variance=0.01, seed=2)
    if phase == "second":
        saved = torch.load(f"{folder}/first.pt", weights_only=True)[case]
        for thing, state in zip((net, optimizer, scheduler), saved):
            thing.load_state_dict(state)
    for step in range(first, last):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step)).to(dtype)
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
    out[case] = [net.state_dict(), optimizer.state_dict(), scheduler.state_dict()]
torch.save(out, f"{folder}/{phase}.pt")
"""


@pytest.mark.slow
def test_another_process_resumes(tmp_path: Path) -> None:
    for phase in ("straight", "first", "second"):
        done = python(PROGRAM, tmp_path, phase)
        assert done.returncode == 0, done.stderr
    straight, second = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("straight", "second"))
    assert len(straight) == 5
    for case, (net, optimizer, scheduler) in straight.items():
        others = second[case]
        for name, value in net.items():
            assert value.isfinite().all()
            assert torch.equal(value, others[0][name]), (case, name)
        for i, entry in optimizer["state"].items():
            for name, value in entry.items():
                other = others[1]["state"][i][name]
                assert value.dtype == other.dtype
                assert torch.equal(value, other), (case, name)
        assert optimizer["param_groups"] == others[1]["param_groups"]
        assert scheduler == others[2]
