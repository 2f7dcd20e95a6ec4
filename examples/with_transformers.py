"""Hugging Face transformers.Trainer with PowerSign: a tiny model made from a config, nothing is downloaded.

python examples/with_transformers.py [--steps 60]
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from nos_ext.optim import PowerSign


class Counting(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Sequences that count upwards modulo 16 from a random start."""

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = (index + torch.arange(12)) % 16
        return {"input_ids": ids, "labels": ids}


def main() -> tuple[float, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    middle = max(1, options.steps // 2)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=12, n_embd=32, n_layer=1, n_head=2))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=options.steps, per_device_train_batch_size=32, learning_rate=0.2,
            weight_decay=0.001, lr_scheduler_type="cosine", warmup_steps=5, logging_steps=max(1, options.steps // 6),
            report_to=[], use_cpu=True, save_steps=middle, disable_tqdm=True,
        )  # fmt: skip
        # The class and its arguments: the Trainer makes the groups with and without weight decay.
        choice: Any = (PowerSign, {"lr": 0.2})
        trainer = Trainer(model, arguments, train_dataset=Counting(), optimizer_cls_and_kwargs=choice)
        trainer.train()
        resumed = Trainer(model, arguments, train_dataset=Counting(), optimizer_cls_and_kwargs=choice)
        resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-{middle}")
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return losses[0], losses[-1]


if __name__ == "__main__":
    main()
