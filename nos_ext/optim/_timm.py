"""Owns register_with_timm, by which timm makes the optimizers of this package by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from ..rule import MatrixProgram
from . import create, library
from ._betas import beta_names
from .addsign import AddSign
from .powersign import PowerSign
from .rule_optimizer import RuleOptimizer

_PREFIX: Final = "nos-"
_CLASSES: Final = {"powersign": PowerSign, "addsign": AddSign}  # these have a learning rate of their own


def register_with_timm() -> tuple[str, ...]:
    """Adds the rules of the library to the optimizers that timm makes by name.

        >>> nos_ext.optim.register_with_timm()
        >>> optimizer = timm.optim.create_optimizer_v2(model, opt="powersign", lr=0.1, weight_decay=0.01)

    Each rule has the name "nos-" and its own one, as "nos-adamw". Where timm has no optimizer of the rule's own name,
    that name means the rule, too. timm gives underscores in names a meaning, so they are left out:
    "nos-schedulefreeadamw". Rules with orthogonalize are not there, as timm does not divide the parameters for them.

    Returns:
        The names by which timm makes optimizers of this package. A second call changes nothing.
    """
    from timm.optim._optim_factory import OptimInfo, default_registry

    known = {name: default_registry.get_optimizer_info(name) for name in default_registry.list_optimizers()}
    ours: list[str] = []
    for rule_name, entry in library.ENTRIES.items():
        rule = library.get(rule_name)
        if isinstance(rule.compile(), MatrixProgram):
            continue
        plain = rule_name.replace("_", "")
        betas = beta_names(rule.hyperparameters)
        for name in (_PREFIX + plain, plain):
            if name not in known:
                info = OptimInfo(
                    name=name,
                    opt_class=_CLASSES.get(rule_name, partial(_make, rule_name)),
                    description=entry.doc,
                    has_eps="eps" in rule.hyperparameters,
                    has_momentum="momentum" in rule.hyperparameters,
                    has_betas=bool(betas),
                    num_betas=len(betas),
                )
                default_registry.register(info)
                ours.append(name)
            elif known[name].description == entry.doc:  # by an earlier call
                ours.append(name)
    return tuple(ours)


def _make(
    name: str, params: Iterable[Any], lr: float | None = None, weight_decay: float = 0.0, **options: Any
) -> RuleOptimizer:
    """Makes the optimizer as timm asks for it: always with a weight_decay, and without lr where the user gave none."""
    if lr is None:
        raise ValueError(f"lr is None, and rule '{name}' has no learning rate of its own; pass lr")
    if "weight_decay" in library.get(name).hyperparameters:
        return create(name, params, lr, weight_decay=weight_decay, **options)
    params = list(params)
    decays = [weight_decay, *[group.get("weight_decay", 0.0) for group in params if isinstance(group, dict)]]
    if any(decays):
        raise ValueError(f"weight_decay is {max(decays)}, but rule '{name}' has none; pass weight_decay=0")
    return create(name, params, lr, **options)
