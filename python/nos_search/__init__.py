"""Neural Optimizer Search: a strategy proposes update rules, and each is scored by training a child network with it.

    >>> import nos_search
    >>> run = nos_search.search("digits", trials=200, out="runs/first")
    >>> run.best(1)

The command is `nos-search`. docs/howto/search_from_python.md says how to search on data of your own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nos_ext import __version__

    from .api import Listener, Run, Task, load, search

__all__ = ["Listener", "Run", "Task", "__version__", "load", "search"]


def __getattr__(name: str) -> Any:
    """Returns a public name when it is asked for: until then nothing slow is imported, so that __main__.py comes
    first."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "nos_ext" if name == "__version__" else f"{__name__}.api"
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
