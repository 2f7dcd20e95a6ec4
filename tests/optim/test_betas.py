"""`betas` beside beta1 and beta2, and the schedulers of torch that cycle momentum."""

from __future__ import annotations

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

import nos_ext
from nos_ext.optim import AddSign, PowerSign, RuleOptimizer, create, library
from nos_ext.testing._case import copies, parameters, same, steps


def agree(optimizer: RuleOptimizer, *betas: float) -> bool:
    """Tells whether every group and every name in it has these values."""
    names = [name for name in optimizer.program.hyperparameters if name.startswith("beta")]
    groups = optimizer.param_groups
    return all(g["betas"] == betas and tuple(g[name] for name in names) == betas for g in groups)


def test_given_at_construction_and_in_groups() -> None:
    params = parameters((2,), (3,), (4,))
    groups = [
        {"params": params[:1]},
        {"params": params[1:2], "betas": [0.5, 0.6]},
        {"params": params[2:], "beta2": 0.7},
    ]
    optimizer = create("adamw", groups, lr=0.1, betas=(0.8, 0.95))
    assert optimizer.defaults["betas"] == (0.8, 0.95)
    seen = [(group["betas"], group["beta1"], group["beta2"]) for group in optimizer.param_groups]
    assert seen == [((0.8, 0.95), 0.8, 0.95), ((0.5, 0.6), 0.5, 0.6), ((0.8, 0.7), 0.8, 0.7)]


def test_as_published() -> None:
    assert agree(create("adan", parameters(), lr=0.1), 0.98, 0.92, 0.99)
    assert agree(create("ademamix", parameters(), lr=0.1, betas=(0.9, 0.99, 0.999)), 0.9, 0.99, 0.999)
    assert agree(create("lion", parameters(), lr=0.1), 0.9, 0.99)
    assert agree(PowerSign(parameters()), 0.9)
    assert "betas" not in create("rmsprop", parameters(), lr=0.1).param_groups[0]


def test_whichever_is_written() -> None:
    optimizer = create("adamw", parameters(), lr=0.1)
    group = optimizer.param_groups[0]
    group["betas"] = (0.1, 0.2)
    assert agree(optimizer, 0.1, 0.2)
    group["beta1"] = 0.3
    assert agree(optimizer, 0.3, 0.2)
    group.update(beta2=0.4, lr=0.5)
    assert agree(optimizer, 0.3, 0.4)
    group |= {"betas": [0.5, 0.6]}
    assert agree(optimizer, 0.5, 0.6)
    with pytest.raises(ValueError, match=r"betas is \(0.5,\), which has 1 values; pass a tuple of 2: \(beta1, beta2\)"):
        group["betas"] = (0.5,)
    assert agree(optimizer, 0.5, 0.6)


def test_what_is_written_counts() -> None:
    runs = []
    for write in ({"betas": (0.5, 0.6)}, {"beta1": 0.5, "beta2": 0.6}):
        params = parameters()
        optimizer = create("adamw", params, lr=0.1)
        steps(optimizer, params, 2)
        optimizer.param_groups[0].update(write)
        steps(optimizer, params, 2, first=2)
        runs.append(params)
    untouched = parameters()
    steps(create("adamw", untouched, lr=0.1), untouched, 4)
    assert same(runs[0], runs[1])
    assert not same(runs[0], untouched)


def through_a_pickle(optimizer: RuleOptimizer) -> RuleOptimizer:
    return pickle.loads(pickle.dumps(optimizer))  # type: ignore[no-any-return]


def through_a_checkpoint(optimizer: RuleOptimizer) -> RuleOptimizer:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = create("adamw", copies([p for g in optimizer.param_groups for p in g["params"]]), lr=1.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    return resumed


def through_plain_groups(optimizer: RuleOptimizer) -> RuleOptimizer:
    """Some trainers put dicts of their own into param_groups."""
    optimizer = copy.deepcopy(optimizer)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    params = optimizer.param_groups[0]["params"]
    steps(optimizer, params, 1)
    return optimizer


@pytest.mark.parametrize("way", [copy.deepcopy, through_a_pickle, through_a_checkpoint, through_plain_groups])
def test_groups_stay_linked(way: Any) -> None:
    params = parameters()
    optimizer = create("adamw", params, lr=0.1, betas=(0.8, 0.9))
    steps(optimizer, params, 2)
    other = way(optimizer)
    assert agree(other, 0.8, 0.9)
    other.param_groups[0]["betas"] = (0.5, 0.6)
    assert agree(other, 0.5, 0.6)
    assert agree(optimizer, 0.8, 0.9)


def test_a_checkpoint_without_betas_loads() -> None:
    """As those that were made before there were any."""
    optimizer = create("adamw", parameters(), lr=0.1, betas=(0.8, 0.9))
    saved = optimizer.state_dict()
    assert saved["param_groups"][0].pop("betas") == (0.8, 0.9)
    resumed = create("adamw", parameters(), lr=1.0)
    resumed.load_state_dict(saved)
    assert agree(resumed, 0.8, 0.9)


def test_functions_and_tensors() -> None:
    def warm(step: int) -> float:
        return 0.5

    tensor = torch.tensor(0.9)
    optimizer = create("adamw", parameters(), lr=0.1, betas=(warm, tensor))
    assert optimizer.param_groups[0]["betas"] == (warm, tensor)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = create("adamw", parameters(), lr=0.1, beta1=warm)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.param_groups[0]["beta1"] is warm
    assert resumed.param_groups[0]["betas"] == (warm, tensor)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"betas": 0.9}, TypeError, r"betas is 0.9; pass a tuple of 2: \(beta1, beta2\)"),
        ({"betas": (0.9, 0.9, 0.9)}, ValueError, "which has 3 values; pass a tuple of 2"),
        (
            {"betas": (0.9, 0.99), "beta1": 0.8},
            ValueError,
            r"betas is \(0.9, 0.99\) but beta1 is 0.8; pass one of the two",
        ),
        ({"betas": (0.9, 1.0)}, ValueError, "Invalid beta2: 1.0; pass a number that is at least 0 and below 1"),
        ({"betas": ("high", 0.9)}, TypeError, "beta1 is 'high'; pass a number"),
    ],
)
def test_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        create("adamw", parameters(), lr=0.1, **options)
    optimizer = create("adamw", parameters(), lr=0.1)
    with pytest.raises(error, match=message):
        optimizer.add_param_group({"params": parameters(), **options})
    assert len(optimizer.param_groups) == 1


def test_refused_elsewhere() -> None:
    with pytest.raises(TypeError, match="rule 'rmsprop' has no hyperparameter 'betas'"):
        create("rmsprop", parameters(), lr=0.1, betas=(0.9, 0.9))
    optimizer = create("adamw", parameters(), lr=0.1)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["beta1"] = 0.5
    with pytest.raises(
        ValueError, match=r"param_groups\[0\] of the checkpoint: betas is \(0.9, 0.999\) but beta1 is 0.5"
    ):
        optimizer.load_state_dict(saved)


def test_a_rule_may_use_the_name_for_itself() -> None:
    rule = "def r(p, g, *, lr, betas=0.5, beta1=0.9):\n    return p - lr * betas * beta1 * g\n"
    optimizer = RuleOptimizer(parameters(), rule, lr=0.1, betas=0.25)
    assert optimizer.param_groups[0]["betas"] == 0.25
    assert optimizer.param_groups[0]["beta1"] == 0.9


TWINS: list[tuple[str, Any, dict[str, Any]]] = [
    ("momentum", torch.optim.SGD, {"momentum": 0.9}),
    ("nesterov", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ("adam", torch.optim.Adam, {}),
    ("adamw", torch.optim.AdamW, {}),
    ("amsgrad", torch.optim.Adam, {"amsgrad": True}),
    ("nadam", torch.optim.NAdam, {}),
    ("radam", torch.optim.RAdam, {}),
    ("adamax", torch.optim.Adamax, {}),
]
SCHEDULERS = {
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=21),
    "CyclicLR": lambda optimizer: CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=6),
}


def momentum_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize(("name", "kind", "options"), TWINS, ids=[twin[0] for twin in TWINS])
def test_schedulers_that_cycle_momentum(name: str, kind: Any, options: dict[str, Any], make: Any) -> None:
    """With their defaults, over 20 steps: learning rates, momenta and weights are those of torch's own optimizer."""
    mine = parameters((4, 3), (5,), dtype=torch.float64)
    theirs = copies(mine)
    runs: list[Any] = []
    for params, optimizer in (
        (mine, create(name, [{"params": mine[:1]}, {"params": mine[1:]}], lr=0.01)),
        (theirs, kind([{"params": theirs[:1]}, {"params": theirs[1:]}], lr=0.01, **options)),
    ):
        scheduler, seen = make(optimizer), []
        for i in range(20):
            steps(optimizer, params, 1, first=i)
            scheduler.step()
            seen.append((momentum_of(optimizer), [group["lr"] for group in optimizer.param_groups]))
        runs.append(seen)
    assert runs[0] == runs[1]
    assert len({momenta[0] for momenta, _ in runs[0]}) > 5
    for a, b in zip(mine, theirs, strict=True):
        # torch keeps NAdam's product of momenta in float32
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-6 if name == "nadam" else 1e-12)


@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
@pytest.mark.parametrize("name", ["powersign", "signum", "lion", "adan", "schedule_free_adamw", "g_exp_signs"])
def test_momentum_of_rules_that_torch_does_not_have(name: str, make: Any) -> None:
    params = parameters()
    optimizer = create(name, params, lr=0.01)
    scheduler = make(optimizer)
    first = next(hyper for hyper in optimizer.program.hyperparameters if hyper.startswith("beta"))
    seen = []
    for i in range(8):
        steps(optimizer, params, 1, first=i)
        scheduler.step()
        assert optimizer.param_groups[0][first] == optimizer.param_groups[0]["betas"][0]
        seen.append(optimizer.param_groups[0][first])
    assert len(set(seen)) > 5


def test_rules_without_momentum_say_so() -> None:
    """In torch's own words, as for torch's Adagrad."""
    with pytest.raises(ValueError, match="optimizer must support momentum or beta1 with `cycle_momentum`"):
        OneCycleLR(create("adagrad", parameters(), lr=0.1), max_lr=0.1, total_steps=5)


def test_as_fastai_writes_it() -> None:
    """fastai's OptimWrapper calls the first of `betas` mom, and writes a new tuple for it."""
    optimizer = create("adamw", parameters(), lr=0.1)
    for group in optimizer.param_groups:
        group["betas"] = tuple(0.5 if i == 0 else x for i, x in enumerate(group["betas"]))
    assert agree(optimizer, 0.5, 0.999)


def test_the_order_is_that_of_the_numbers() -> None:
    rule = "def r(p, g, *, lr, beta10=0.3, beta2=0.2, beta1=0.1):\n    return p - lr * beta1 * beta2 * beta10 * g\n"
    optimizer = RuleOptimizer(parameters(), nos_ext.compile_rule(rule), lr=0.1)
    assert optimizer.param_groups[0]["betas"] == (0.1, 0.2, 0.3)


def test_library_has_no_rule_whose_betas_have_gaps() -> None:
    for name in library.names():
        betas = [hyper for hyper in library.get(name).hyperparameters if re.fullmatch(r"beta\d*", hyper)]
        assert betas in ([], ["beta"], [f"beta{i + 1}" for i in range(len(betas))]), name


@pytest.mark.parametrize("kind", [PowerSign, AddSign])
def test_the_classes_of_the_paper_take_them_too(kind: Any) -> None:
    params = parameters()
    optimizer = kind(params, betas=(0.5,))
    assert (optimizer.param_groups[0]["beta"], optimizer.param_groups[0]["betas"]) == (0.5, (0.5,))
    with pytest.raises((TypeError, ValueError), match="betas"):
        kind(params, betas=(0.5, 0.9))
