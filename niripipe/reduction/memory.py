"""Giving memory back."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["return_freed_memory"]


def return_freed_memory() -> bool:
    """Return memory that has been freed to the operating system.

    The C library of Linux keeps freed image planes for later use, in pieces that the next reduction,
    whose planes have another size, often cannot use: a process that runs one reduction after the other
    grows. Elsewhere nothing is done.

    Returns
    -------
    bool
        Whether anything was given back.
    """
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        # Another C library, such as musl, which gives large blocks back at once.
        return False
    return bool(trim(0))
