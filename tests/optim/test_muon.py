"""Muon: library.muon beside torch.optim.Muon, and in one optimizer with another rule for the rest."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nos_ext
from nos_ext.optim import RuleOptimizer, create, groups, library

STEPS, LR = 50, 0.02
MATCHED = library.ENTRIES["muon"].text.replace('"original"', '"match_rms_adamw"')


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8), (30, 7), (1, 5), (5, 1)], ids=str)
def test_it_is_torch_s_muon(shape: tuple[int, int], adjust: str) -> None:
    """The rounding of p, and of g and m before bfloat16, is that of float64. Beside it a product may round another way
    where torch computes many matrices at once: its result is then the next number of bfloat16, 2^-8 of it away. The
    steps that follow the product multiply an error by at most 3.4445 each, and the elements are about 1.2 at most, so a
    step of p differs by less than 3.4445^4 * 1.2 * 2^-8 = 0.7 of lr and scale, wherever it happened. It is rare."""
    generator = torch.Generator().manual_seed(shape[0])
    start = torch.randn(shape, dtype=torch.float64, generator=generator)
    ours, theirs = [nn.Parameter(start.clone()) for _ in range(2)]
    rule = library.muon if adjust == "original" else MATCHED
    optimizer = RuleOptimizer([ours], rule, lr=LR, weight_decay=0.1)
    twin = torch.optim.Muon([theirs], lr=LR, adjust_lr_fn=adjust)
    scale = max(1, shape[0] / shape[1]) ** 0.5 if adjust == "original" else 0.2 * max(shape) ** 0.5
    flips, largest = 0, 0.0
    difference = torch.zeros_like(start)
    for _ in range(STEPS):
        ours.grad = torch.randn(shape, dtype=torch.float64, generator=generator)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        twin.step()
        now = ours.detach() - theirs.detach()
        change = (now - difference * (1 - LR * 0.1)).abs().max().item() / (LR * scale)
        flips += change > 1e-9
        largest = max(largest, change)
        difference = now
    assert largest < 0.7
    assert flips <= 2
    if not flips:  # a few roundings in each step, of values below 8
        assert difference.abs().max() < STEPS * 4 * 8 * 2.0**-53
    m, buffer = optimizer.state[ours]["m"], twin.state[theirs]["momentum_buffer"]
    torch.testing.assert_close(m, buffer, rtol=0, atol=STEPS * 4 * 2.0**-53)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(F.gelu(self.up(x)))


class Transformer(nn.Module):
    def __init__(self, words: int = 17, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.Sequential(Block(width))
        self.head = nn.Linear(width, words)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(self.embedding(x)))
        return out


def transformer(dtype: torch.dtype = torch.float64) -> Transformer:
    torch.manual_seed(4)
    return Transformer().to(dtype)


def loss_of(model: Transformer, words: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(words[:, :-1]).flatten(0, 1), words[:, 1:].flatten())


def texts() -> torch.Tensor:
    start = torch.randint(17, (8, 1), generator=torch.Generator().manual_seed(2))
    return (start + 3 * torch.arange(12)) % 17


def both(model: nn.Module, **options: Any) -> RuleOptimizer:
    parts = groups(model, {"rule": library.muon, "lr": 0.02}, {"rule": library.adamw, "lr": 3e-3})
    return RuleOptimizer(parts, library.adamw, lr=3e-3, **options)


def torch_s(model: Transformer) -> list[torch.optim.Optimizer]:
    hidden = [p for p in model.blocks.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if all(p is not q for q in hidden)]
    return [torch.optim.Muon(hidden, lr=0.02), torch.optim.AdamW(rest, lr=3e-3)]


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_a_transformer_trains_as_with_torch(clip_norm: float | None) -> None:
    """Rounding grows as a training goes on, so the curves are equal in the first steps and close later."""
    ours, theirs = transformer(), transformer()
    optimizer, others = both(ours, clip_norm=clip_norm), torch_s(theirs)
    words, curves = texts(), []
    for _ in range(10):
        losses = []
        for model in (ours, theirs):
            model.zero_grad()
            loss = loss_of(model, words)
            loss.backward()
            losses.append(loss.item())
        curves.append(losses)
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm or float("inf"))
        optimizer.step()
        for other in others:
            other.step()
        if clip_norm:
            assert optimizer.grad_norm == pytest.approx(norm.item(), rel=1e-2)
    for ours_, theirs_ in curves[:5]:
        assert ours_ == pytest.approx(theirs_, rel=1e-6)
    assert curves[-1][0] == pytest.approx(curves[-1][1], rel=0.1)
    assert curves[-1][0] < 0.9 * curves[0][0]


def test_a_checkpoint_goes_on_bit_for_bit() -> None:
    words = texts()

    def train(model: Transformer, optimizer: RuleOptimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(model, words).backward()
            optimizer.step()

    model = transformer(torch.float32)
    optimizer = both(model, clip_norm=1.0)
    train(model, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    other = transformer(torch.float32)
    again = both(other, clip_norm=1.0)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    train(model, optimizer, 3)
    train(other, again, 3)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    assert {frozenset(entry) for entry in again.state.values()} == {
        frozenset(("step", "m")), frozenset(("step", "m", "v"))
    }  # fmt: skip
    copied = copy.deepcopy(again)
    assert [group["rule"] for group in copied.param_groups] == [group["rule"] for group in again.param_groups]


def test_functions_of_the_step_gaps_and_missing_gradients() -> None:
    whole = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    params = [nn.Parameter(whole.clone()), nn.Parameter(whole.clone()[:, ::2]), nn.Parameter(whole.clone().T)]
    plain = [nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format)) for p in params]
    a = RuleOptimizer(params, library.muon, lr=0.1, momentum=lambda t: 0.5 + t / 10)
    b = RuleOptimizer(plain, library.muon, lr=0.1)
    for t in range(3):
        for p, q in zip(params, plain, strict=True):
            p.grad = torch.full_like(p, 0.5 + t).cos() * q.detach()
            q.grad = p.grad.clone(memory_format=torch.contiguous_format)
        if t == 1:
            params[0].grad = plain[0].grad = None
        b.param_groups[0]["momentum"] = 0.5 + t / 10
        if t == 2:  # one step less taken
            b.param_groups[0]["momentum"] = lambda t: 0.5 + t / 10
        a.step()
        b.step()
    for p, q in zip(params, plain, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0.1 * 2.0**-6)


def test_grad_scale_is_taken_out() -> None:
    start = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for scale in (None, torch.tensor(1024.0)):
        p = nn.Parameter(start.clone())
        optimizer = RuleOptimizer([p], library.muon, lr=0.1, fused=True, clip_norm=0.5)
        optimizer.grad_scale, optimizer.found_inf = scale, torch.tensor(0.0)  # type: ignore[attr-defined]
        p.grad = start.cos() * (1.0 if scale is None else 1024.0)
        optimizer.step()
        results.append(p.detach())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0.1 * 2.0**-6)


def test_vectors_are_refused_when_the_optimizer_is_made() -> None:
    with pytest.raises(ValueError, match=r"parameter 1 has shape \(4,\).*nos_ext.optim.groups"):
        create("muon", nn.Linear(3, 4).parameters(), lr=0.1)
    optimizer = RuleOptimizer([nn.Parameter(torch.ones(3))], library.adamw, lr=0.1)
    with pytest.raises(ValueError, match=r"parameter 1 has shape \(\)"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(()))], "rule": library.muon})
    assert len(optimizer.param_groups) == 1


def test_captured_steps_are_refused() -> None:
    with pytest.raises(TypeError, match="rule 'muon' has orthogonalize, which a captured step"):
        create("muon", [nn.Parameter(torch.ones(3, 3))], lr=0.1, capturable=True)
    p = nn.Parameter(torch.ones(3, 3))
    optimizer = create("muon", [p], lr=0.1)
    optimizer.param_groups[0]["capturable"] = True
    p.grad = torch.ones(3, 3)
    with pytest.raises(TypeError, match="rule 'muon' has orthogonalize, which a captured step"):
        optimizer.step()
    assert torch.equal(p, torch.ones(3, 3))


def names(model: nn.Module, **options: Any) -> list[set[str]]:
    return [{name for name, _ in part["params"]} for part in groups(model, library.muon, library.adamw, **options)]


def test_groups_keeps_embeddings_vectors_and_the_head_from_muon() -> None:
    model = transformer()
    hidden = {name for name, p in model.blocks.named_parameters(prefix="blocks") if p.ndim == 2}
    assert names(model) == [hidden, {name for name, _ in model.named_parameters()} - hidden]
    assert names(model, head=model.blocks[0].down)[0] == (hidden - {"blocks.0.down.weight"}) | {"head.weight"}
    model.blocks[0].qkv.requires_grad_(False)
    assert names(model)[0] == hidden - {"blocks.0.qkv.weight"}
    tied = nn.ModuleDict({"a": nn.Embedding(5, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 5)})
    tied["c"].weight = tied["a"].weight
    assert names(tied)[0] == {"b.weight"}
    convolutions = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)
    )
    assert names(convolutions)[0] == {"0.weight", "2.weight"}
    assert len(names(nn.Linear(3, 2))) == 1


def test_groups_refuses_what_it_cannot_use() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"matrices is a dict without 'rule'; it has the keys \['lr'\]"):
        groups(model, {"lr": 1.0}, library.adamw)
    with pytest.raises(ValueError, match="rest has 'params'"):
        groups(model, library.muon, {"rule": library.adamw, "params": []})
    with pytest.raises(ValueError, match="head is a Linear that is no module of the model"):
        groups(model, library.muon, library.adamw, head=nn.Linear(2, 2))


def test_convolutions_are_matrices_of_their_first_dimension() -> None:
    start = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    p, flat = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    for x in (p, flat):
        x.grad = x.detach().cos()
        nos_ext.optim.create("muon", [x], lr=0.1).step()
    assert torch.equal(p.flatten(1), flat)


def test_the_examples_of_the_page_run() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "muon.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    assert isinstance(namespace["rule"], nos_ext.MatrixProgram)


def test_without_memory_counts_steps_and_temporaries_last_one_step() -> None:
    hollow, real = nn.Parameter(torch.ones(3, 4, device="meta")), nn.Parameter(torch.ones(3, 4))
    for p in (hollow, real):
        p.grad = torch.ones_like(p)
    optimizer = create("muon", [hollow, real], lr=0.1)
    optimizer.step()
    assert optimizer.state[hollow]["step"] == optimizer.state[real]["step"] == 1
    assert set(optimizer.state[real]) == {"step", "m"}
    assert optimizer._lists is not None
    assert sum(x.numel() for x in optimizer._lists._states[1]) == 0


def test_groups_take_a_model() -> None:
    with pytest.raises(TypeError, match=r"model is a generator; pass a torch\.nn\.Module"):
        groups(torch.nn.Linear(2, 2).parameters(), library.muon, library.adamw)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("own", ["", ', dtype="float32"', ', dtype="float64"'])
def test_autocast_does_not_choose_the_dtype_of_the_products(dtype: torch.dtype, own: str) -> None:
    rule = nos_ext.compile_rule(f"def rule(p, g, *, lr): return p - lr * orthogonalize(g{own})")
    grad = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=dtype):
        nos_ext.apply_rule(rule, inside := [torch.zeros(6, 8)], [grad], {}, lr=1.0)
    nos_ext.apply_rule(rule, outside := [torch.zeros(6, 8)], [grad], {}, lr=1.0)
    assert torch.equal(inside[0], outside[0])
