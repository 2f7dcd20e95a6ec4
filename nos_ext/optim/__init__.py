"""Has optimizers for torch, and the library of named rules.

`library` and `names` work without torch. All else needs it, and is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .._numbers import shown
from . import library
from .library import names

if TYPE_CHECKING:
    import torch
    from torch.optim.optimizer import ParamsT

    from ._param_groups import groups
    from ._timm import register_with_timm
    from .addsign import AddSign
    from .host_optimizer import HostOptimizer
    from .powersign import PowerSign
    from .rule_optimizer import RuleOptimizer

__all__ = [
    "AddSign",
    "HostOptimizer",
    "PowerSign",
    "RuleOptimizer",
    "create",
    "groups",
    "library",
    "names",
    "register_with_timm",
]

_PLACES: Final = {
    "AddSign": "addsign", "HostOptimizer": "host_optimizer", "PowerSign": "powersign",
    "RuleOptimizer": "rule_optimizer", "groups": "_param_groups", "register_with_timm": "_timm",
}  # fmt: skip


def create(name: str, params: ParamsT, lr: float | torch.Tensor, **options: Any) -> RuleOptimizer:
    """Makes an optimizer with the rule of the library that has this name.

        >>> optimizer = nos_ext.optim.create("adamw", model.parameters(), lr=1e-3, betas=(0.9, 0.95))

    Args:
        name: one of `names()`.
        params: parameters, named parameters, or dicts that define param groups.
        lr: learning rate.
        **options: hyperparameters of the rule, and the other arguments of `RuleOptimizer`.

    Raises:
        TypeError: `name` is no text.
        ValueError: there is no rule of that name; the message has the nearest ones.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"name is {shown(name)}; pass one of names(); RuleOptimizer(params, rule, lr) takes a rule itself"
        )
    try:
        rule = library.get(name)
    except KeyError as error:
        raise ValueError(f"name is {shown(name)}: {error.args[0]}") from None
    optimizer: RuleOptimizer = __getattr__("RuleOptimizer")(params, rule, lr, **options)
    return optimizer


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        rule = name.lower()  # somebody may look for nos_ext.optim.AdamW
        way = f"make it by create({rule!r}, params, lr)" if rule in library.ENTRIES else f"it has {', '.join(__all__)}"
        raise AttributeError(f"nos_ext.optim has no '{name}'; {way}")
    try:
        module = import_module(f".{_PLACES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"nos_ext.optim.{name} needs torch; install it, or `pip install nos-ext[torch]`") from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
