"""Has optimizers for torch, and the library of named rules.

`library` works without torch. The classes need it and are imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import library

if TYPE_CHECKING:
    from .addsign import AddSign
    from .powersign import PowerSign
    from .rule_optimizer import RuleOptimizer

__all__ = ["AddSign", "PowerSign", "RuleOptimizer", "library"]

_CLASSES: Final = {"AddSign": "addsign", "PowerSign": "powersign", "RuleOptimizer": "rule_optimizer"}


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError(f"nos_ext.optim has no '{name}'; it has {', '.join(__all__)}")
    try:
        module = import_module(f".{_CLASSES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"nos_ext.optim.{name} needs torch; install it, or `pip install nos-ext[torch]`") from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
