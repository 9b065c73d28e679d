"""Names for the types of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bool", "Float32", "Float64", "Floats", "Indices", "Integers", "Mask"]

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]
Integers = NDArray[np.integer[Any]] | NDArray[np.bool_]
Mask = NDArray[np.uint16]
"""Data quality."""
