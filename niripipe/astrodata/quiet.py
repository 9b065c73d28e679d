"""Warning filters, which belong to the whole process, changed by one thread at a time.

`warnings.catch_warnings` is not safe with threads before Python 3.14: of two blocks that overlap the one
that ends last puts back what the other one had set, for good. astropy uses it inside of its tables, units and
files, so calls of these from a reduction come under the same lock.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["filters_kept", "without_warnings"]

_filters = threading.RLock()


@contextmanager
def filters_kept() -> Iterator[None]:
    """Let no other thread of niripipe change warning filters while this block calls what may do so."""
    with _filters:
        yield


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore all warnings in a block; the filters are afterwards what they were."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
