"""Neural Optimizer Search: a strategy proposes update rules, each is scored by training a child network with it.

The command is `nos-search`. From Python: `space.Space`, `strategy.create`, `task.load`, `train.child.score`,
`loop.Search`.
"""

from nos_ext import __version__

__all__ = ["__version__"]
