"""The program of every process of test_sharded_reductions.py: rules with norms and other reductions on DTensors, beside
one optimizer that has all parameters whole.

Gradients are given, the same for both, so that nothing but the rules can make a difference grow.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from nos_ext.optim import RuleOptimizer, library
from nos_ext.optim._shards import check_shardable

STEPS, LR = 10, 0.01
U, U32 = 2.0**-53, 2.0**-24
WORLD, RANK = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])

# The reductions that the library does not have, in two depths, and a state that is one number per tensor.
EACH = """
def each(p, g, m, k, *, lr, decay=0.5):
    m = decay * m + g / (mean(g ** 2) + max_abs(p))
    k = decay * k + sum(abs(g)) * (2 - t / T) + rms(m)
    return p - lr * m * sqrt(k) / (1 + norm(m + p)), m, k
"""
EVERY = """
def every(p, g, m, *, lr):
    m = m + g / (1 + global_norm(g) + dot(p, p))
    return p - lr * m / (1 + global_sum(abs(m)) + global_dot(m, p + m) ** 2), m
"""
RULES: dict[str, Any] = {name: getattr(library, name) for name in ("lamb", "lars", "stable_adamw", "adamh")}
RULES |= {name: getattr(library, name) for name in ("normalized_sgd", "adafactor", "cautious_adamw")}
RULES |= {"each": EACH, "every": EVERY}
# The calls of all_reduce in a step, for one kind of sharding: one for each depth, and one more where it has a max_abs.
CALLS = {"lamb": 1, "lars": 1, "stable_adamw": 1, "adamh": 2, "normalized_sgd": 1, "adafactor": 1, "cautious_adamw": 1}
CALLS |= {"each": 3, "every": 2}

# Of dimension 0 every process has some of (7, 3), but only one has some of (1, 4); (2, 5) is between.
SHAPES = ((7, 3), (1, 4), (2, 5), (9,), (4, 6), (5,))
KINDS = ("shard 0", "shard 0", "shard 0", "shard 0", "shard 1", "whole")


def numbers(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def placements(mesh: DeviceMesh, kind: str) -> list[Any]:
    """Those of FSDP in the last dimension of a mesh, and copies in the others, as HSDP has them; "both" are those of
    FSDP and tensor parallelism."""
    if kind == "both":
        return [Shard(0), Shard(1)]
    return [*[Replicate()] * (mesh.ndim - 1), Replicate() if kind == "copy" else Shard(int(kind[-1]))]


def distributed(x: torch.Tensor, mesh: DeviceMesh, kind: str) -> torch.Tensor:
    return x.clone() if kind == "whole" else distribute_tensor(x.clone(), mesh, placements(mesh, kind))


def whole(x: torch.Tensor) -> torch.Tensor:
    return (x.full_tensor() if isinstance(x, DTensor) else x).detach()


def here(x: torch.Tensor) -> torch.Tensor:
    return (x.to_local() if isinstance(x, DTensor) else x).detach()


@contextmanager
def counted() -> Iterator[list[Any]]:
    """Lists the calls of all_reduce by their operations."""
    calls, original = [], dist.all_reduce

    def count(tensor: torch.Tensor, op: Any, group: Any) -> None:
        calls.append(op)
        original(tensor, op, group)

    dist.all_reduce = count
    try:
        yield calls
    finally:
        dist.all_reduce = original


class Pair:
    """An optimizer that has all tensors whole, and one that has shards of the same tensors."""

    def __init__(
        self, make: Callable[[list[torch.Tensor]], RuleOptimizer], mesh: DeviceMesh, kinds: tuple[str, ...] = KINDS,
        dtype: torch.dtype = torch.float64,
    ) -> None:  # fmt: skip
        start = [numbers(i, shape).to(dtype) for i, shape in enumerate(SHAPES)]
        self.mesh, self.kinds, self.dtype = mesh, kinds, dtype
        self.plain = [torch.nn.Parameter(x.clone()) for x in start]
        self.parts = [torch.nn.Parameter(distributed(x, mesh, k)) for x, k in zip(start, kinds, strict=True)]
        self.first, self.second = make(self.plain), make(self.parts)

    def give(self, step: int, without: tuple[int, ...] = (), factor: float = 1.0) -> None:
        for i, (p, q) in enumerate(zip(self.plain, self.parts, strict=True)):
            g = (factor * numbers(100 * step + i, SHAPES[i])).to(self.dtype)
            p.grad = None if i in without else g
            q.grad = None if i in without else distributed(g, self.mesh, self.kinds[i])

    def step(self) -> list[Any]:
        self.first.step()
        with counted() as calls:
            self.second.step()
        return calls

    def compare(self, bound: float) -> None:
        for i, (p, q) in enumerate(zip(self.plain, self.parts, strict=True)):
            assert p.isfinite().all()
            torch.testing.assert_close(whole(q), p.detach(), rtol=bound, atol=bound, msg=lambda m, i=i: f"{i}: {m}")
            mine, others = self.first.state[p], self.second.state[q]
            assert set(mine) == set(others)
            for name in sorted(set(mine) - {"step"}):  # all processes communicate in the same order
                assert mine[name].shape == others[name].shape
                assert others[name].dtype == mine[name].dtype
                torch.testing.assert_close(whole(others[name]), mine[name], rtol=bound, atol=bound)
                if mine[name].ndim == 0:
                    same_everywhere(here(others[name]))
            if self.kinds[i] in ("whole", "copy"):
                same_everywhere(here(q))


def same_everywhere(x: torch.Tensor) -> None:
    gathered = [torch.empty_like(x) for _ in range(WORLD)]
    dist.all_gather(gathered, x.contiguous())
    assert all(torch.equal(x, other) for other in gathered), gathered


def bound(dtype: torch.dtype) -> float:
    """Two orders in which positive terms are added up, with at most 8 additions, a rounded product and one addition for
    each process, differ by less than 2 * 9 + 4 roundings; what a rule makes of a few such numbers by less than 100. A
    step is shorter than a tenth of what it moves, and moves what it is made of by as much: in ten steps 100 u become
    less than 10 * 1.1**10 * 100 u / 10, and numbers are below 4. In fp32 numbers are rounded before they meet an
    element. That mostly hides the difference; else an element of a step is off by a few roundings, of fp32."""
    return 4 * 260 * U if dtype == torch.float64 else 4 * 10 * 2.6 * U32


def rules_have_what_one_process_has(mesh: DeviceMesh, dtype: torch.dtype) -> None:
    for name, rule in RULES.items():
        pair = Pair(lambda p, rule=rule: RuleOptimizer(p, rule, lr=LR, total_steps=STEPS), mesh, dtype=dtype)
        for step in range(STEPS):
            pair.give(step)
            calls = pair.step()
            assert len(calls) == CALLS[name], (name, calls)
        pair.compare(bound(dtype))
        if name in ("lamb", "adamh"):  # nothing is joined for it, so it has the bits of the whole rule
            assert torch.equal(pair.plain[-1], pair.parts[-1])


def copies_are_not_counted_twice(mesh: DeviceMesh) -> None:
    kinds = ("shard 0", "shard 0", "copy", "shard 0", "copy", "whole")
    for name in ("lamb", "each", "every"):
        pair = Pair(lambda p, name=name: RuleOptimizer(p, RULES[name], lr=LR, total_steps=STEPS), mesh, kinds)
        for step in range(STEPS):
            pair.give(step)
            assert len(pair.step()) == CALLS[name]
        pair.compare(bound(torch.float64))
    pair = Pair(lambda p: RuleOptimizer(p, library.lamb, lr=LR), mesh, ("copy",) * 6)
    pair.give(0)
    assert pair.step() == []  # no tensor is in parts, and the rule is not cut
    assert all(torch.equal(p, here(q)) for p, q in zip(pair.plain, pair.parts, strict=True))


def both_dimensions_are_split(mesh: DeviceMesh) -> None:
    """There is an all_reduce for each dimension that splits tensors, and for each way in which they are split."""
    kinds = ("both", "shard 0", "both", "shard 0", "shard 1", "whole")
    for name, calls in (("lamb", 3), ("each", 9)):
        pair = Pair(lambda p, name=name: RuleOptimizer(p, RULES[name], lr=LR, total_steps=STEPS), mesh, kinds)
        for step in range(STEPS):
            pair.give(step)
            assert len(pair.step()) == calls
        pair.compare(bound(torch.float64))


def groups_of_several_rules(mesh: DeviceMesh) -> None:
    """A rule whose global norm goes over shards is cut in a group that has none, too; gradients that all rules see
    count together. Parameters without a gradient stay behind in their number of steps."""

    def make(params: list[torch.Tensor]) -> RuleOptimizer:
        own = "def own(p, g, *, lr):\n    return p - lr * g / (1 + global_norm(g) + max_abs(g))\n"
        return RuleOptimizer(
            [
                {"params": [params[0], params[5]]},
                {"params": [params[1]], "rule": library.adamw, "lr": torch.tensor(LR)},
                {"params": [params[2]], "rule": "g / (1 + global_norm(g))", "lr": 2 * LR},
                {"params": [params[3]], "rule": own},
                {"params": [params[4]], "rule": library.adamh, "beta1": lambda t: 0.8 + t / 100},
            ],
            library.lamb, lr=LR, weight_decay=0.1, maximize=True,
        )  # fmt: skip

    pair = Pair(make, mesh, ("shard 0", "shard 0", "whole", "shard 0", "shard 1", "whole"))
    for step in range(STEPS):
        without = {2: (0, 3), 3: (3,), 5: (2,), 7: (0, 1, 2, 3, 4, 5)}.get(step, ())
        pair.give(step, without)
        # sums of depth 1 of one kind in one call; max_abs; the second depth of adamh
        assert len(pair.step()) == 3
    assert {pair.second.state[p]["step"].item() for p in pair.parts} == {7.0, 8.0, 9.0}
    pair.compare(bound(torch.float64))


def clipped_and_scaled(mesh: DeviceMesh) -> None:
    pair = Pair(lambda p: RuleOptimizer(p, library.lamb, lr=LR, clip_norm=0.5, fused=True), mesh)
    for step in range(STEPS):
        pair.give(step, factor=1024.0)
        for optimizer in (pair.first, pair.second):
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(1024.0), torch.tensor(0.0)  # type: ignore[attr-defined]
        assert len(pair.step()) == 2  # the norm of the gradients, then those of the rule
        assert pair.first.grad_norm is not None
        assert pair.second.grad_norm is not None
        assert abs(pair.first.grad_norm - pair.second.grad_norm) < bound(torch.float64) * pair.first.grad_norm
    pair.compare(bound(torch.float64))


def matrix_products_beside_shards(mesh: DeviceMesh) -> None:
    """Both kinds of rules that are cut into stages in one optimizer. What is orthogonalized is whole."""

    def make(params: list[torch.Tensor]) -> RuleOptimizer:
        return RuleOptimizer(
            [{"params": params[:3], "rule": library.muon}, {"params": params[3:]}], library.lamb, lr=LR
        )

    pair = Pair(make, mesh, ("whole", "copy", "whole", *KINDS[3:]))
    for step in range(STEPS):
        pair.give(step, (2,) if step == 4 else ())
        assert len(pair.step()) == 1
    pair.compare(bound(torch.float64))
    for p, q in zip(pair.plain[:3], pair.parts, strict=False):
        assert torch.equal(p, here(q))


def nan_and_infinity_spread(mesh: DeviceMesh) -> None:
    """A single one, in one process, is in the number of all processes; also in the largest magnitude."""
    for rule in ("g / max_abs(g)", "g / sum(abs(g))", "g / norm(g)", "g / global_norm(g)"):
        for bad in (math.nan, -math.nan, math.inf):
            pair = Pair(lambda p, rule=rule: RuleOptimizer(p, rule, lr=LR), mesh)
            pair.give(0)
            values = whole(pair.parts[0].grad).clone()
            values[6, 1] = bad
            pair.plain[0].grad = values.clone()
            pair.parts[0].grad = distributed(values, mesh, "shard 0")
            pair.step()
            for p, q in zip(pair.plain, pair.parts, strict=True):
                torch.testing.assert_close(whole(q), p.detach(), rtol=bound(p.dtype), atol=0, equal_nan=True)
            broken = pair.plain[0].isnan()
            assert broken.all() if math.isnan(bad) else broken.sum() == 1


def checkpoints_go_on(mesh: DeviceMesh) -> None:
    pair = Pair(lambda p: RuleOptimizer(p, library.adamh, lr=LR), mesh)
    for step in range(3):
        pair.give(step)
        pair.step()
    saved = pair.second.state_dict()
    assert all(set(entry) == {"step", "m", "v", "size"} for entry in saved["state"].values())
    other = [torch.nn.Parameter(p.detach().clone()) for p in pair.parts]
    again = RuleOptimizer(other, library.adamh, lr=LR)
    again.load_state_dict(saved)
    of_one = RuleOptimizer(other, library.adamh, lr=LR)
    of_one.load_state_dict(again.state_dict())
    for p, q in zip(pair.parts, other, strict=True):
        for name in ("m", "v", "size"):
            a, b = pair.second.state[p][name], again.state[q][name]
            assert type(a) is type(b)
            assert torch.equal(here(a), here(b))
    pair.give(3)
    for p, q in zip(pair.parts, other, strict=True):
        q.grad = p.grad
    pair.step()
    again.step()
    assert all(torch.equal(here(p), here(q)) for p, q in zip(pair.parts, other, strict=True))


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))


def trainings_with_fsdp2(mesh: DeviceMesh) -> None:
    """fp32 gradients differ by roundings, and lead to others; so these bounds are wide."""
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(1))
    for name in ("lamb", "lars", "stable_adamw", "adamh"):
        plain, sharded = network(), network()
        fully_shard(sharded[2], mesh=mesh)  # its bias has one element, and only one process has it
        fully_shard(sharded, mesh=mesh)
        optimizers = [RuleOptimizer(net.parameters(), RULES[name], lr=0.01) for net in (plain, sharded)]
        for _ in range(STEPS):
            for net, optimizer in zip((plain, sharded), optimizers, strict=True):
                optimizer.zero_grad()
                net(x).square().mean().backward()
                optimizer.step()
        for p, q in zip(plain.parameters(), sharded.parameters(), strict=True):
            torch.testing.assert_close(whole(q), p.detach(), rtol=1e-4, atol=1e-5)
        other = network()
        fully_shard(other[2], mesh=mesh)
        fully_shard(other, mesh=mesh)
        for full in (False, True):
            options = StateDictOptions(full_state_dict=full)
            third = RuleOptimizer(other.parameters(), RULES[name], lr=0.01)
            saved = get_optimizer_state_dict(sharded, optimizers[1], options=options)
            set_optimizer_state_dict(other, third, saved, options=options)
            for p, q in zip(sharded.parameters(), other.parameters(), strict=True):
                for key, value in optimizers[1].state[p].items():
                    assert torch.equal(here(value), here(third.state[q][key])), key


def what_is_refused(mesh: DeviceMesh) -> None:
    many = "+".join(f"g * norm({k} * p)" for k in range(1, 10))
    for rule, error, message in (
        (library.muon, RuntimeError, "rule 'muon' has orthogonalize, but parameter 0 is a DTensor with placements .* "
         "replicate the parameter, or give it to a param group with another rule"),
        ("drop(g, 0.5) / norm(g)", RuntimeError, "every shard would draw the same"),
        (many, ValueError, "0 states and 9 reductions on shards"),
    ):  # fmt: skip
        params = [torch.nn.Parameter(distributed(numbers(i, (4, 6)), mesh, "shard 0")) for i in range(2)]
        optimizer = RuleOptimizer(params, rule, lr=LR)
        for p in params:
            p.grad = p.detach().clone()
        before = [here(p).clone() for p in params]
        with pytest.raises(error, match=message):
            optimizer.step()
        assert not optimizer.state
        assert all(torch.equal(here(p), old) for p, old in zip(params, before, strict=True))
    with pytest.raises(RuntimeError, match="a captured step does not communicate; leave capturable False"):
        check_shardable(library.lamb.compile(), 0, params[0], clips=False, captured=True)


def errors_of_one_process_do_not_hang(mesh: DeviceMesh) -> None:
    """A gradient whose strides differ is copied after an error of the engine. It is in one process only, in a group
    whose rule is not cut, so the reductions have been joined by then, and are not joined again."""

    def make(params: list[torch.Tensor]) -> RuleOptimizer:
        return RuleOptimizer(
            [{"params": params[:4]}, {"params": params[4:], "rule": library.adamw}], library.lamb, lr=LR
        )

    pair = Pair(make, mesh)
    for step in range(3):
        pair.give(step)
        if step and RANK == 0:
            other = here(pair.parts[4].grad).t().contiguous().t()
            kind = placements(mesh, KINDS[4])
            pair.parts[4].grad = DTensor.from_local(other, mesh, kind, shape=SHAPES[4], stride=(6, 1))
        assert len(pair.step()) == 1
    pair.compare(bound(torch.float64))


def main(part: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=RANK, world_size=WORLD)
    mesh = init_device_mesh("cpu", (WORLD,))
    if part == "rules":
        for dtype in (torch.float64, torch.float32):
            rules_have_what_one_process_has(mesh, dtype)
    elif part == "steps":
        groups_of_several_rules(mesh)
        clipped_and_scaled(mesh)
        matrix_products_beside_shards(mesh)
        nan_and_infinity_spread(mesh)
        checkpoints_go_on(mesh)
        errors_of_one_process_do_not_hang(mesh)
        what_is_refused(mesh)
        trainings_with_fsdp2(mesh)
    else:
        copies_are_not_counted_twice(init_device_mesh("cpu", (2, WORLD // 2)))
        both_dimensions_are_split(init_device_mesh("cpu", (2, WORLD // 2)))
        both_dimensions_are_split(init_device_mesh("cpu", (WORLD // 2, 2)))
    dist.destroy_process_group()
    print("fine", flush=True)
    os._exit(0)  # gloo's own threads have been seen to abort while the interpreter shuts down; all is asserted by now


if __name__ == "__main__":
    main(sys.argv[1])
