"""Owns the memory allocator's habits while children train.

glibc gives large freed blocks back to the system, and every step of a child fetches them again, page by page: a tenth
of the step of a ConvNet on 28x28 images. Here it is told to keep them.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_BYTES = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Changes the allocator of the whole process, once. Returns False where the C library is not glibc; nothing happens
    then."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BYTES)) and bool(mallopt(_TRIM_THRESHOLD, _BYTES))
