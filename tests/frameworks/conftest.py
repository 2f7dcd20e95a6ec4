"""Makes torchvision importable where it was built for another torch than the one that is there, as PyPI's is beside a
torch without CUDA. timm imports it, and torchmetrics; neither calls its operators here."""

from __future__ import annotations

import importlib.util

import torch

if importlib.util.find_spec("torchvision") is not None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):  # those without which it cannot be imported
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
