"""transformers.Trainer: optimizers that are given, and classes with their arguments, from which it makes some itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nos_ext.optim import PowerSign, RuleOptimizer, create, library
from nos_ext.schedules import LinearCosineDecay
from tests.frameworks.training import (
    MAKERS,
    TEXT,
    assert_close,
    assert_learnt,
    assert_same,
    examples,
    network,
    torch_adamw,
)

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::")]


class Model(torch.nn.Module):
    """A Model is the network with a loss, as the Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.net(x)
        return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}


class Data(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return len(examples()[0])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x, y = examples()
        return {"x": x[index], "labels": y[index]}


def trainer(model: Model, folder: Path, options: dict[str, Any] | None = None, **keywords: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 60, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 2, "report_to": [],
            "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", "seed": 1,
            **(options or {}),
        },
    )  # fmt: skip
    return transformers.Trainer(model, arguments, train_dataset=Data(), eval_dataset=Data(), **keywords)


def given(make: Callable[[Any], torch.optim.Optimizer], folder: Path, steps: int, **options: Any) -> torch.nn.Module:
    """Trains with an optimizer and a schedule that the Trainer is given."""
    model = Model()
    optimizer = make(model.parameters())
    schedule = LinearCosineDecay(optimizer, decay_steps=steps)
    trainer(model, folder, {"max_steps": steps, **options}, optimizers=(optimizer, schedule)).train()
    assert schedule.last_epoch == steps
    assert_learnt(model.net)
    return model.net


@pytest.mark.parametrize("name", MAKERS)
def test_optimizer_and_schedule_are_given(tmp_path: Path, name: str) -> None:
    net = given(MAKERS[name], tmp_path, 60)
    if name == "adamw":
        assert_close(net, given(torch_adamw, tmp_path, 60))


def test_bfloat16(tmp_path: Path) -> None:
    given(MAKERS["powersign"], tmp_path, 25, bf16=True)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (PowerSign, {"lr": 0.05}),
        (RuleOptimizer, {"rule": library.adamw, "lr": 0.02, "betas": (0.9, 0.99)}),
        (RuleOptimizer, {"rule": TEXT, "lr": 0.05}),
    ],
    ids=["powersign", "adamw", "text"],
)
def test_class_and_arguments(tmp_path: Path, kind: Any, arguments: dict[str, Any]) -> None:
    """The Trainer makes the groups, and a run that goes on from its checkpoint is the run that was not interrupted."""
    options = {"weight_decay": 0.1, "save_strategy": "steps", "save_steps": 30, "lr_scheduler_type": "cosine"}
    if isinstance(arguments.get("rule"), str):
        options["weight_decay"] = 0.0
    model = Model()
    whole = trainer(model, tmp_path, options, optimizer_cls_and_kwargs=(kind, arguments))
    whole.train()
    assert_learnt(model.net)
    optimizer = whole.optimizer.optimizer
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [options["weight_decay"], 0.0]

    other = Model()
    resumed = trainer(other, tmp_path, options, optimizer_cls_and_kwargs=(kind, arguments))
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-30"))
    assert_same(list(other.parameters()), list(model.parameters()))


def test_weights_for_evaluation_are_those_of_a_schedule_free_rule(tmp_path: Path) -> None:
    """The Trainer calls train() and eval() of an optimizer that has them."""
    model = Model()
    optimizer = create("schedule_free_adamw", model.parameters(), lr=0.02, warmup_steps=5)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    run = trainer(model, tmp_path, {"eval_strategy": "steps", "eval_steps": 20}, optimizers=(optimizer, constant))
    run.train()
    last = [row["eval_loss"] for row in run.state.log_history if "eval_loss" in row][-1]
    optimizer.eval()
    x, y = examples()
    assert torch.nn.functional.mse_loss(model.net(x), y).item() == pytest.approx(last, rel=1e-4)
    assert_learnt(model.net)
