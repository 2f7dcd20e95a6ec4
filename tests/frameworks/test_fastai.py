"""fastai's Learner: fit_one_cycle, discriminative learning rates, and what it calls momentum and weight decay."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from nos_ext.optim import PowerSign, RuleOptimizer, create, library
from tests.frameworks.training import TEXT, assert_close, assert_learnt, assert_same, examples, network

fastai_learner = pytest.importorskip("fastai.learner")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]
CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "powersign": (PowerSign, {}),
    "adamw": (RuleOptimizer, {"rule": library.adamw}),
    "text": (RuleOptimizer, {"rule": TEXT}),
    "momentum": (partial(create, "momentum"), {}),
}


def learner(kind: Any, arguments: dict[str, Any], folder: Path, **options: Any) -> Any:
    from fastai.callback import schedule  # noqa: F401  # it adds fit_one_cycle
    from fastai.data.core import DataLoaders
    from fastai.optimizer import OptimWrapper

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*examples()), batch_size=16)
    learn = fastai_learner.Learner(
        DataLoaders(loader, loader, device=torch.device("cpu")), network(), loss_func=torch.nn.functional.mse_loss,
        opt_func=partial(OptimWrapper, opt=partial(kind, **arguments)), path=folder, train_bn=False, **options,
    )  # fmt: skip
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn


@pytest.mark.parametrize("name", CLASSES)
def test_fit_one_cycle(name: str, tmp_path: Path) -> None:
    kind, arguments = CLASSES[name]
    learn = learner(kind, arguments, tmp_path)
    decays = {} if name in ("text", "momentum") else {"wd": 0.01}  # what the rule lacks is a KeyError of fastai's
    learn.fit_one_cycle(15, lr_max=0.05, **decays)
    assert_learnt(learn.model)
    hypers = learn.opt.hypers[0]
    assert hypers["lr"] < 0.01
    assert hypers["mom"] == pytest.approx(0.95, abs=1e-3)
    assert hypers.get("wd") == decays.get("wd", hypers.get("wd"))


def test_adamw_is_torch_s(tmp_path: Path) -> None:
    nets = []
    for kind, arguments in (CLASSES["adamw"], (torch.optim.AdamW, {})):
        learn = learner(kind, arguments, tmp_path)
        learn.fit_one_cycle(5, lr_max=0.05, wd=0.1)
        nets.append(learn.model)
    assert_close(*nets)


def test_groups_freezing_and_a_checkpoint(tmp_path: Path) -> None:
    def halves(model: torch.nn.Module) -> list[Any]:
        first, _, last = model.children()
        return [list(first.parameters()), list(last.parameters())]

    learn = learner(*CLASSES["powersign"], tmp_path, splitter=halves)
    learn.freeze()
    learn.fit(1, lr=0.05)
    assert_same(halves(learn.model)[0], halves(network())[0])
    learn.unfreeze()
    learn.fit_one_cycle(3, lr_max=slice(1e-3, 1e-2))
    assert learn.opt.hypers[0]["lr"] < learn.opt.hypers[1]["lr"]
    learn.save("half", with_opt=True)
    learn.fit(1, lr=0.01)
    whole = [p.detach().clone() for p in learn.model.parameters()]
    other = learner(*CLASSES["powersign"], tmp_path, splitter=halves).load("half", with_opt=True)
    other.fit(1, lr=0.01)
    assert_same(list(other.model.parameters()), whole)
