"""Owns the choice of the device on which children train."""

from __future__ import annotations

import torch

import nos_ext

from ..errors import UsageError, choose

DEVICES = ("cpu", "cuda")


def check_name(device: str) -> str:
    if device not in DEVICES:
        raise choose("--device", device, DEVICES)
    return device


def check_device(device: str) -> str:
    """Raises UsageError for a device on which children cannot train in this process."""
    if check_name(device) == "cuda":
        cuda = nos_ext.build_info()["cuda"]
        if not cuda["enabled"]:
            raise UsageError(f"--device cuda: {cuda['status']}; use --device cpu")
        if not torch.cuda.is_available():
            raise UsageError("--device cuda: torch sees no GPU here; use --device cpu")
    return device
