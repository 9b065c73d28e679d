"""The numbers that define a WCS, read from a header, and what in them cannot be true."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.headers import header_value

__all__ = ["ctype_problem", "frame_of", "matrix_of", "matrix_problem", "number"]

# Pixel scales that are believed, arcsec/pixel.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-4, 60.0

# Ratio of the singular values of the CD matrix beyond which one axis has collapsed. Detectors have 1.
_LARGEST_CONDITION = 100.0
_CELESTIAL = re.compile(r"(RA--|DEC-|GLON|GLAT|ELON|ELAT)-([A-Z]{3})(-SIP)?")
_PAIRS = ({"RA--", "DEC-"}, {"GLON", "GLAT"}, {"ELON", "ELAT"})


def ctype_problem(ctypes: list[str]) -> str:
    """Return why a pair of CTYPE cannot be that of an image of the sky; empty if it can."""
    matches = [_CELESTIAL.fullmatch(ctype) for ctype in ctypes]
    if not all(matches):
        return f"CTYPE {ctypes[0]!r}, {ctypes[1]!r} are not celestial axes"
    if {ctype[:4] for ctype in ctypes} not in _PAIRS:
        return f"CTYPE {ctypes[0]!r}, {ctypes[1]!r} are not a longitude and a latitude"
    return ""


def matrix_of(header: Any) -> NDArray[np.float64] | None:
    """Return the CD matrix in deg/pixel, or None where an element is not a number."""
    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        elements = [number(header, f"CD{i}_{j}", 0.0) for i in (1, 2) for j in (1, 2)]
        return None if None in elements else np.array(elements, float).reshape(2, 2)
    cdelt = [number(header, f"CDELT{i}", 1.0) for i in (1, 2)]
    pc = [number(header, f"PC{i}_{j}", float(i == j)) for i in (1, 2) for j in (1, 2)]
    rotation = number(header, "CROTA2", 0.0)
    if None in cdelt or None in pc or rotation is None:
        return None
    scale = np.array(cdelt, float)
    matrix: NDArray[np.float64] = scale[:, None] * np.array(pc, float).reshape(2, 2)
    if rotation and not any(f"PC{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        # CD from CDELT and CROTA2: Calabretta & Greisen 2002, A&A 395, 1077, section 6.1
        c, s = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        matrix = np.array([[scale[0] * c, -scale[1] * s], [scale[0] * s, scale[1] * c]])
    return matrix


def matrix_problem(matrix: NDArray[np.float64] | None) -> str:
    """Return why a CD matrix cannot be true; empty if it can."""
    if matrix is None or not np.isfinite(matrix).all():
        return "the CD matrix has elements that are not finite numbers"
    large, small = np.linalg.svd(matrix, compute_uv=False)
    if not small > 0 or large / small > _LARGEST_CONDITION:
        return f"the CD matrix {matrix.ravel().tolist()} is singular"
    scale = 3600.0 * math.sqrt(large * small)
    if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:
        return f"a pixel scale of {scale:.4g} arcsec is outside {_SMALLEST_SCALE} to {_LARGEST_SCALE}"
    return ""


def frame_of(header: Any) -> dict[str, Any]:
    """Return `radesys` and `equinox`, with their defaults."""
    name = header_value(header, "RADESYS", header_value(header, "RADECSYS", ""))
    frame = str(name).strip().upper() or "FK5"
    if frame == "ICRS":
        return {"radesys": frame, "equinox": math.nan}
    equinox = number(header, "EQUINOX", 0.0) or 0.0
    default = 1950.0 if frame.startswith("FK4") else 2000.0
    return {"radesys": frame, "equinox": equinox if equinox > 0 else default}


def number(header: Any, key: str, default: float | None = None) -> float | None:
    """Return a value as a number, or None where it is none."""
    value = header_value(header, key, default)
    if isinstance(value, bool):
        return None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
