"""timm makes the optimizers by name, with its own groups, its Lookahead and its schedules."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from nos_ext import optim
from nos_ext.optim import PowerSign, create, library
from tests.frameworks.training import assert_close, assert_learnt, assert_same, examples, network

timm_optim = pytest.importorskip("timm.optim")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def registered() -> tuple[str, ...]:
    return optim.register_with_timm()


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 60) -> None:
    x, y = examples()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()


def test_every_rule_has_a_name(registered: tuple[str, ...]) -> None:
    assert {f"nos-{name.replace('_', '')}" for name in library.names()} - set(registered) == {"nos-muon"}
    assert {"powersign", "addsign", "schedulefreeadamw"} < set(registered)
    assert {"adamw", "lion", "sgd"}.isdisjoint(registered)  # these are timm's
    assert set(registered) <= set(timm_optim.list_optimizers())
    assert timm_optim.get_optimizer_info("nos-adamw").description == library.ENTRIES["adamw"].doc
    for name in registered:
        decay = 0.1 if "weight_decay" in getattr(create_by(name), "defaults") else 0.0  # noqa: B009
        net = network()
        optimizer = timm_optim.create_optimizer_v2(net, opt=name, lr=1e-3, weight_decay=decay)
        train(net, optimizer, 1)
        assert all(p.isfinite().all() for p in net.parameters()), name


def create_by(name: str) -> torch.optim.Optimizer:
    return timm_optim.create_optimizer_v2(network(), opt=name, lr=1e-3)


def test_a_second_call_changes_nothing(registered: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    assert optim.register_with_timm() == registered
    assert caplog.text == ""


def test_powersign_by_name() -> None:
    """With timm's groups, in which vectors do not decay, and the class's own lr."""
    net, plain = network(), network()
    optimizer = timm_optim.create_optimizer_v2(net, opt="powersign", weight_decay=0.1, base=2.0)
    assert type(optimizer) is PowerSign
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]
    groups = [
        {"params": [p for p in plain.parameters() if (p.ndim < 2) == flat], "weight_decay": 0.0 if flat else 0.1}
        for flat in (True, False)
    ]
    train(net, optimizer, 3)
    train(plain, PowerSign(groups, base=2.0), 3)
    assert_same(list(net.parameters()), list(plain.parameters()))


def test_adamw_is_timm_s() -> None:
    nets = []
    for name in ("adamw", "nos-adamw"):
        net = network()
        train(
            net, timm_optim.create_optimizer_v2(net, opt=name, lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-7)
        )
        nets.append(net)
        assert_learnt(net)
    assert_close(*nets)


def test_layer_decay_lookahead_and_a_schedule() -> None:
    from timm.scheduler import CosineLRScheduler

    net = network()
    optimizer = timm_optim.create_optimizer_v2(net, opt="lookahead_powersign", lr=0.05, layer_decay=0.9)
    schedule = CosineLRScheduler(optimizer, t_initial=60, warmup_t=5, warmup_lr_init=1e-3)
    assert all("lr_scale" in group for group in optimizer.param_groups)
    x, y = examples()
    for step in range(60):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        schedule.step(step + 1)
    assert_learnt(net)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nos-adam", {}, "lr is None, and rule 'adam' has no learning rate of its own"),
        ("gexpsigns", {"lr": 0.1, "weight_decay": 0.1}, "weight_decay is 0.1, but rule 'g_exp_signs' has none"),
        ("powersign", {"lr": 0.1, "foreach": True}, "foreach is True"),
    ],
)
def test_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm_optim.create_optimizer_v2(network(), opt=name, **options)


def test_the_library_s_way_is_the_same() -> None:
    net, plain = network(), network()
    train(net, timm_optim.create_optimizer_v2(net, opt="gexpsigns", lr=0.01), 3)
    train(plain, create("g_exp_signs", plain.parameters(), lr=0.01), 3)
    assert_same(list(net.parameters()), list(plain.parameters()))


def test_importing_the_package_does_not_import_timm() -> None:
    code = "import sys, nos_ext.optim as optim; optim.register_with_timm; assert 'timm' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
