"""Keras 3 on torch: a model of Keras in a loop of one's own, whose variables are torch's parameters."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from tests.frameworks.training import MAKERS, examples

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", "torch")
import keras  # it reads its back-end from the environment, once

if keras.backend.backend() != "torch":
    pytest.skip("keras runs on another back-end", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]


def model() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = [keras.Input((4,)), keras.layers.Dense(16, activation="tanh"), keras.layers.BatchNormalization()]
    return keras.Sequential([*layers, keras.layers.Dense(1)])


def losses(net: keras.Model, optimizer: torch.optim.Optimizer) -> list[float]:
    x, y = examples()
    out = []
    for _ in range(40):
        net.zero_grad()
        loss = torch.nn.functional.mse_loss(net(x.to(keras.src.backend.torch.core.get_device()), training=True), y)
        loss.backward()
        with torch.no_grad():
            optimizer.step()
        out.append(loss.item())
    return out


@pytest.mark.parametrize("name", MAKERS)
def test_a_loop_of_one_s_own(name: str) -> None:
    net = model()
    before = [variable.numpy() for variable in net.trainable_variables]
    found = losses(net, MAKERS[name](net.parameters()))
    assert found[-1] < 0.5 * found[0]
    assert all(
        (variable.numpy() != value).any() for variable, value in zip(net.trainable_variables, before, strict=True)
    )
    if name == "adamw":
        other = model()
        expected = losses(other, torch.optim.AdamW(other.parameters(), lr=0.02, weight_decay=0.1))
        assert found == pytest.approx(expected, rel=1e-3)
