"""skorch: an optimizer is a class and arguments with a prefix, which a grid search clones and changes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from nos_ext.optim import PowerSign, RuleOptimizer, library
from tests.frameworks.training import TEXT, assert_close, assert_learnt, assert_same, examples, network

skorch = pytest.importorskip("skorch")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]


class Module(torch.nn.Sequential):
    """skorch makes its modules itself."""

    def __init__(self) -> None:
        super().__init__(*network())


def net(**options: Any) -> Any:
    fixed = {"max_epochs": 15, "batch_size": 16, "train_split": None, "verbose": 0, "iterator_train__shuffle": False}
    return skorch.NeuralNetRegressor(Module, **{**fixed, **options})


POWERSIGN: dict[str, Any] = {"optimizer": PowerSign, "optimizer__base": 2.0, "lr": 0.05}
ADAMW: dict[str, Any] = {"optimizer": RuleOptimizer, "optimizer__rule": library.adamw, "lr": 0.02}


@pytest.mark.parametrize(
    "options", [POWERSIGN, ADAMW, {**ADAMW, "optimizer__rule": TEXT}], ids=["powersign", "adamw", "text"]
)
def test_fit(options: dict[str, Any]) -> None:
    made = net(**options).fit(*examples())
    assert type(made.optimizer_) is options["optimizer"]
    assert_learnt(made.module_)
    if options is ADAMW:
        theirs = net(optimizer=torch.optim.AdamW, lr=0.02, optimizer__weight_decay=0.0)
        ours = net(**options, optimizer__weight_decay=0.0)
        assert_close(ours.fit(*examples()).module_, theirs.fit(*examples()).module_)


def test_groups_of_parameters_by_name() -> None:
    made = net(**POWERSIGN, optimizer__param_groups=[("*.bias", {"lr": 0.0})]).fit(*examples())
    assert_same([made.module_[i].bias for i in (0, 2)], [network()[i].bias for i in (0, 2)])
    made.set_params(optimizer__beta=0.5)
    assert {group["beta"] for group in made.optimizer_.param_groups} == {0.5}


def test_copies_pickles_and_checkpoints(tmp_path: Path) -> None:
    made = net(**ADAMW).fit(*examples())
    made.save_params(f_params=tmp_path / "params.pt", f_optimizer=tmp_path / "optimizer.pt")
    loaded = net(**ADAMW).initialize()
    loaded.load_params(f_params=tmp_path / "params.pt", f_optimizer=tmp_path / "optimizer.pt")
    others = [loaded, copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    made.partial_fit(*examples())
    for other in others:
        other.partial_fit(*examples())
        assert_same(list(other.module_.parameters()), list(made.module_.parameters()))


def test_a_grid_search_and_a_schedule() -> None:
    from sklearn.model_selection import GridSearchCV
    from skorch.callbacks import LRScheduler

    cycle = LRScheduler(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.05, total_steps=100, step_every="batch")
    search = GridSearchCV(
        net(**POWERSIGN, callbacks=[cycle]), {"optimizer__base": [1.5, 3.0], "lr": [0.0001, 0.05]}, cv=2,
        scoring="neg_mean_squared_error",
    )  # fmt: skip
    x, y = examples()
    search.fit(x.numpy(), y.numpy())
    assert set(search.best_params_) == {"optimizer__base", "lr"}
    assert_learnt(search.best_estimator_.module_)
