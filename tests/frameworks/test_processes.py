"""Two processes: DistributedDataParallel, ZeroRedundancyOptimizer, and checkpoints of torch.distributed.checkpoint that one
process goes on from. tests/optim/test_sharded.py has FSDP2's steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.optim.processes import run_together

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch has no gloo"
)

PROGRAM = """
import os, sys, torch, torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from nos_ext.optim import PowerSign, RuleOptimizer, library
from tests.frameworks.training import TEXT, examples, network

torch.set_num_threads(1)
rank = int(os.environ["RANK"])
dist.init_process_group("gloo", rank=rank, world_size=2)
x, y = examples()
KINDS = (
    (PowerSign, {"lr": 0.05, "weight_decay": 0.1}),
    (RuleOptimizer, {"rule": library.adamw, "lr": 0.02, "betas": (0.9, 0.95)}),
    (RuleOptimizer, {"rule": TEXT, "lr": 0.05}),
)

def train(net, optimizer, steps, share=slice(None), schedule=None):
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x[share]), y[share]).backward()
        optimizer.step()
        if schedule:
            schedule.step()

def close(net, other):
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(getattr(p, "full_tensor", lambda: p)().detach(), q.detach(), rtol=1e-4, atol=1e-5)

def cycle(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=10, cycle_momentum=False)

half = slice(rank, None, 2)
for kind, arguments in KINDS:
    alone = network()
    expected = kind(alone.parameters(), **arguments)
    train(alone, expected, 3)
    net = DistributedDataParallel(network())
    train(net, kind(net.parameters(), **arguments), 3, half)
    close(net, alone)

    # each process has the state of a part of the parameters; a schedule writes into the groups of the whole
    alone = network()
    expected = kind(alone.parameters(), **arguments)
    train(alone, expected, 4, schedule=cycle(expected))
    net = DistributedDataParallel(network())
    optimizer = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=kind, **arguments)
    schedule = cycle(optimizer)
    train(net, optimizer, 2, half, schedule)
    assert 0 < len(optimizer.optim.state) < 4
    optimizer.consolidate_state_dict(to=0)
    saved = [optimizer.state_dict() if rank == 0 else None]
    dist.broadcast_object_list(saved)
    other = DistributedDataParallel(network())
    other.load_state_dict(net.state_dict())
    resumed = ZeroRedundancyOptimizer(other.parameters(), optimizer_class=kind, **arguments)
    resumed.load_state_dict(saved[0])
    again = cycle(resumed)
    again.load_state_dict(schedule.state_dict())
    for group in resumed.param_groups:
        group["lr"] = again.get_last_lr()[0]
    train(other, resumed, 2, half, again)
    close(other, alone)

    # FSDP2's shards go to a folder, and to a model of another process number
    net = network()
    for layer in (net[0], net[2], net):
        fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
    optimizer = kind(net.parameters(), **arguments)
    train(net, optimizer, 3, half)
    model_state, optimizer_state = get_state_dict(net, optimizer)
    folder = os.path.join(sys.argv[1], str(KINDS.index((kind, arguments))))
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)
    train(net, optimizer, 2, half)
    whole = [p.full_tensor().detach() for p in net.parameters()]
    if rank == 0:
        single = network()
        optimizer = kind(single.parameters(), **arguments)
        model_state, optimizer_state = get_state_dict(single, optimizer)
        dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder, no_dist=True)
        set_state_dict(single, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
        assert all(state["step"] == 3 for state in optimizer.state.values())
        train(single, optimizer, 2)
        for p, q in zip(single.parameters(), whole, strict=True):
            torch.testing.assert_close(p.detach(), q, rtol=1e-4, atol=1e-5)
    dist.barrier()

dist.destroy_process_group()
print("fine", flush=True)
os._exit(0)  # gloo's own threads have been seen to abort while the interpreter shuts down; all is asserted by now
"""


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    run_together(program, [str(tmp_path)], 2, tmp_path)
