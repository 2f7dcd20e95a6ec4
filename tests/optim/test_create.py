"""Optimizers by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from nos_ext import optim
from nos_ext.optim import RuleOptimizer, create, library
from nos_ext.rule import RuleError
from nos_ext.testing._case import copies, parameters, same, steps
from tests.reference.named import ONE_PROGRAM


def test_every_name_trains() -> None:
    assert optim.names() == library.names()
    for name in optim.names():
        params = parameters((6, 5), (11,) if name in ONE_PROGRAM else (3, 4))
        before = copies(params)
        optimizer = create(name, params, lr=0.01)
        assert type(optimizer) is RuleOptimizer
        assert optimizer.program.name == name
        steps(optimizer, params, 3)
        assert all(torch.isfinite(p).all() for p in params), name
        assert not same(params, before), name


def test_options_go_to_the_optimizer() -> None:
    params = parameters()
    optimizer = create("adamw", [("w", p) for p in params[:1]], 0.1, weight_decay=0.5, maximize=True, seed=3)
    group = optimizer.param_groups[0]
    assert [group[key] for key in ("lr", "weight_decay", "maximize", "seed", "param_names")] == [
        0.1,
        0.5,
        True,
        3,
        ["w"],
    ]
    with pytest.raises(
        TypeError, match="rule 'adamw' has no hyperparameter 'weight_dekay'; did you mean 'weight_decay'"
    ):
        create("adamw", params, lr=0.1, weight_dekay=0.1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AdamW", "name is 'AdamW': no rule 'AdamW'; did you mean 'adamw' or 'adam' or '"),
        ("rmsprob", "did you mean 'rmsprop'"),
        ("zzz", "no rule 'zzz'; sgd, momentum, nesterov, "),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create(name, parameters(), lr=0.1)


@pytest.mark.parametrize("name", [None, library.adamw, [torch.zeros(100, 100)]], ids=["None", "rule", "parameters"])
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(TypeError, match=r"^name is .{1,90}; pass one of names\(\); RuleOptimizer"):
        create(name, parameters(), lr=0.1)


@pytest.mark.parametrize("name", ["lion", " Lion"])
def test_a_name_is_no_rule(name: str) -> None:
    with pytest.raises(RuleError, match=r"unknown name '[lL]ion'[^#]*pass library\.lion, not its name"):
        RuleOptimizer(parameters(), name, lr=0.1)
    with pytest.raises(RuleError, match=r"pass library\.lion, not its name"):
        create("adamw", [{"params": parameters(), "rule": name}], lr=0.1)
    with pytest.raises(RuleError, match="unknown name 'lyon'") as caught:
        RuleOptimizer(parameters(), "lyon", lr=0.1)
    assert "library" not in str(caught.value)


def test_classes_that_rules_do_not_have() -> None:
    with pytest.raises(
        AttributeError, match=r"nos_ext\.optim has no 'AdamW'; make it by create\('adamw', params, lr\)"
    ):
        _ = optim.AdamW
    with pytest.raises(
        AttributeError, match=r"has no 'Adams'; it has AddSign, HostOptimizer, PowerSign, RuleOptimizer"
    ):
        _ = optim.Adams


def test_names_without_torch() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom nos_ext import optim\nassert 'adamw' in optim.names()\n"
    code += "try:\n    optim.create('adamw', [], 0.1)\nexcept ImportError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs torch; install it" in done.stdout


def test_the_package_has_its_modules_without_another_import() -> None:
    code = """
import sys, nos_ext
assert "nos_ext.optim" not in sys.modules
assert nos_ext.optim.names() and nos_ext.schedules.linear_decay(2)(1) == 0.5
assert "torch" not in sys.modules
nos_ext.nowhere
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'nos_ext' has no attribute 'nowhere'"
