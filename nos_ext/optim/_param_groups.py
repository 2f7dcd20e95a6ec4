"""Owns groups, which divides the parameters of a model between a rule for matrices and a rule for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ._values import RuleSource

_EMBEDDINGS = (torch.nn.Embedding, torch.nn.EmbeddingBag)


def groups(
    model: torch.nn.Module,
    matrices: RuleSource | Mapping[str, Any],
    rest: RuleSource | Mapping[str, Any],
    *,
    head: torch.nn.Module | None = None,
) -> list[dict[str, Any]]:
    """Divides the parameters of a model into two param groups for `RuleOptimizer`, as Muon needs it.

        >>> parts = groups(model, {"rule": library.muon, "lr": 0.02}, {"rule": library.adamw, "lr": 3e-4})
        >>> optimizer = RuleOptimizer(parts, library.adamw, lr=3e-4)

    The weights of hidden layers go to `matrices`: parameters of two dimensions or more, those of convolutions
    included. To `rest` go vectors and scalars, embeddings, and the output layer with whatever shares a weight with it.

    Args:
        model: the model. Parameters that need no gradient are left out.
        matrices, rest: a rule, or a dict with "rule" and what else a param group may have.
        head: the output layer. By default it is the module that comes last, in the order in which the model has its
            modules, of those that have a matrix; name it where that is another one.

    Returns:
        Two param groups with names, of which one that would be empty is left out.

    Raises:
        TypeError: `model` is no module, or a dict has no "rule".
        ValueError: a dict has params of its own, or `head` is no part of the model.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; pass a torch.nn.Module, whose layers tell what is where")
    chosen = {"matrices": _group("matrices", matrices), "rest": _group("rest", rest)}
    kept = {id(p) for module in model.modules() if isinstance(module, _EMBEDDINGS) for p in module.parameters()}
    if head is None:
        owners = [m for m in model.modules() if any(p.ndim >= 2 for p in m.parameters(recurse=False))]
        head = owners[-1] if owners else model
    elif all(module is not head for module in model.modules()):
        raise ValueError(f"head is a {type(head).__name__} that is no module of the model; pass one of model.modules()")
    kept.update(id(p) for p in head.parameters())
    members: dict[str, list[tuple[str, Any]]] = {"matrices": [], "rest": []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            members["rest" if p.ndim < 2 or id(p) in kept else "matrices"].append((name, p))
    return [{**chosen[part], "params": params} for part, params in members.items() if params]


def _group(name: str, given: RuleSource | Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        return {"rule": given}
    if "rule" not in given:
        raise TypeError(f"{name} is a dict without 'rule'; it has the keys {sorted(map(str, given))}")
    if "params" in given:
        raise ValueError(f"{name} has 'params', which groups() finds itself; leave them out")
    return dict(given)
