"""Neural Optimizer Search: a strategy proposes update rules, and each is scored by training a child network with it.

The command is `nos-search`. A Python program begins at `space.Space`, `strategy.create`, `task.load`,
`train.child.score` and `run.Search`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nos_ext import __version__

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """Returns the version when it is asked for: until then nothing slow is imported, so that __main__.py comes
    first."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nos_ext import __version__

    return __version__
