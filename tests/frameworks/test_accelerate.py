"""Accelerate: prepared optimizers, accumulated gradients, a GradScaler, and its checkpoints."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nos_ext.schedules import CosineDecay
from tests.frameworks.training import MAKERS, assert_close, assert_learnt, assert_same, examples, network, torch_adamw

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.slow


def train(make: Callable[[Any], torch.optim.Optimizer], folder: Path, *, interrupted: bool = False) -> Any:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net = network()
    optimizer = make(net.parameters())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*examples()), batch_size=8)
    schedule = CosineDecay(optimizer, decay_steps=80)
    net, optimizer, loader, schedule = accelerator.prepare(net, optimizer, loader, schedule)
    for epoch in range(20):
        for x, y in loader:
            with accelerator.accumulate(net):
                accelerator.backward(torch.nn.functional.mse_loss(net(x), y))
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        if interrupted and epoch == 10:
            accelerator.save_state(str(folder))
            with torch.no_grad():
                for p in net.parameters():
                    p.fill_(3.0)
            optimizer.state.clear()
            accelerator.load_state(str(folder))
    return accelerator.unwrap_model(net)


@pytest.mark.parametrize("name", MAKERS)
def test_accumulation_clipping_and_a_checkpoint(name: str, tmp_path: Path) -> None:
    net = train(MAKERS[name], tmp_path)
    assert_learnt(net)
    assert_same(list(train(MAKERS[name], tmp_path, interrupted=True).parameters()), list(net.parameters()))
    if name == "adamw":
        assert_close(net, train(torch_adamw, tmp_path))


@pytest.mark.parametrize("name", MAKERS)
def test_the_wrapper_with_a_grad_scaler(name: str) -> None:
    """Accelerate puts its own step() on the optimizer to learn whether GradScaler called it."""
    accelerate.Accelerator(cpu=True)
    net, plain = network(), network()
    wrapped = accelerate.optimizer.AcceleratedOptimizer(
        MAKERS[name](net.parameters()), scaler=torch.amp.GradScaler("cpu", init_scale=8.0)
    )
    expected = MAKERS[name](plain.parameters())
    x, y = examples()
    for step in range(4):
        loss = torch.nn.functional.mse_loss(net(x), y)
        wrapped.scaler.scale(loss * (float("inf") if step == 2 else 1.0)).backward()
        wrapped.step()
        wrapped.zero_grad()
        assert wrapped.step_was_skipped == (step == 2)
        if step != 2:
            torch.nn.functional.mse_loss(plain(x), y).backward()
            expected.step()
            expected.zero_grad()
        assert_same(list(net.parameters()), list(plain.parameters()))
    again = pickle.loads(pickle.dumps(wrapped))
    assert again.state_dict()["param_groups"][0]["rule"] == wrapped.state_dict()["param_groups"][0]["rule"]
    assert len(copy.deepcopy(wrapped).state) == 4
