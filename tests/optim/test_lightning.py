"""Lightning's own precision plugins and clipping over the optimizers, as they are."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from nos_ext.optim import PowerSign, RuleOptimizer, library

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::"),
    pytest.mark.skipif(find_spec("lightning") is None, reason="lightning is not installed"),
]


class Module:
    """What `lightning_module` makes a LightningModule of: lightning is imported, which takes seconds, where it is used."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.make = torch.nn.Linear(4, 2), make
        self.norms: list[float] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        (x,) = batch
        return 100 * self.net(x).float().square().mean()

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters())

    def on_before_zero_grad(self, optimizer: Any) -> None:
        """After the step: gradients are unscaled and clipped."""
        grads = [p.grad for p in self.parameters() if p.grad is not None]
        if grads:
            self.norms.append(torch.nn.utils.get_total_norm(grads).item())


@functools.cache
def lightning_module() -> type[Any]:
    import lightning

    return type("LightningModule", (Module, lightning.LightningModule), {})


def train(make: Any, scaler: Any) -> Any:
    import lightning
    from lightning.pytorch.plugins import MixedPrecision

    precision = "16-mixed" if scaler is not None else "bf16-mixed"
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=8)
    module = lightning_module()(make)
    trainer = lightning.Trainer(
        max_steps=6, max_epochs=-1, accelerator="cpu", gradient_clip_val=0.5, logger=False,
        plugins=[MixedPrecision(precision, "cpu", scaler)], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    return module


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize(
    "make",
    [lambda p: PowerSign(p, lr=0.01), lambda p: RuleOptimizer(p, library.adamw, lr=0.01)],
    ids=["powersign", "adamw"],
)
def test_mixed_precision_with_clipping(make: Any, precision: str) -> None:
    """The norm after each step is the clipped one, as with torch's own AdamW; the trained numbers are finite."""
    for kind in (make, lambda p: torch.optim.AdamW(p, lr=0.01)):
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if precision == "16-mixed" else None
        module = train(kind, scaler)
        assert len(module.norms) >= 5
        assert max(module.norms) == pytest.approx(0.5, rel=1e-3)
        assert all(p.isfinite().all() for p in module.parameters())


def test_fused_is_refused_as_torch_s_is() -> None:
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    for make in (lambda p: PowerSign(p, fused=True), lambda p: torch.optim.AdamW(p, fused=True)):
        with pytest.raises((RuntimeError, MisconfigurationException), match="gradient clipping"):
            train(make, torch.amp.GradScaler("cpu", init_scale=1024.0))
