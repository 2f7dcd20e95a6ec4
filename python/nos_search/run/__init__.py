"""A search runs here from beginning to end: its configuration, the loop, and what the loop needs of executor, gates and
store."""

from .config import RunConfig, versions
from .search import Listener, Search

__all__ = ["Listener", "RunConfig", "Search", "versions"]
