"""SIP keywords of a header: read as a `Distortion`, written from one."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from niripipe.astrodata.distortion import Distortion, Terms, from_sip, to_sip
from niripipe.astrodata.headers import header_value

if TYPE_CHECKING:
    from astropy.wcs import Sip

__all__ = ["RADIAL", "SIP_KEYWORD", "cards", "of_astropy", "read", "to_astropy"]

SIP_KEYWORD = re.compile(r"(A|B|AP|BP)_(ORDER|DMAX|\d_\d)|DISTRAD|DISTRCH")
"""Keywords of SIP, and the two that go with them here."""
RADIAL = "DISTRAD"
"""Keyword with k of a radial distortion that the SIP keywords stand for."""
_LARGEST_ORDER = 9
# Terms that displace by less than this at the edge (pixels) are not written.
_NOTHING = 1e-12
# Distance from the centre (pixels) at which that counts where the size of the image is not known.
_LARGE = 4096.0


def read(header: Any, crpix: tuple[float, float]) -> Distortion | str:
    """Return the distortion of a header with CTYPE -SIP, or why it cannot be understood.

    Parameters
    ----------
    header : astropy.io.fits.Header or the like
    crpix : tuple of float
        The reference pixel, 1-based: the centre of SIP.
    """
    terms: list[Terms] = []
    for name in ("A", "B"):
        order = header_value(header, f"{name}_ORDER")
        if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= _LARGEST_ORDER:
            return f"{name}_ORDER is {order!r}, not a whole number from 0 to {_LARGEST_ORDER}"
        found: dict[tuple[int, int], float] = {}
        for p in range(order + 1):
            for q in range(order + 1 - p):
                value = header_value(header, f"{name}_{p}_{q}", 0.0)
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    return f"{name}_{p}_{q} is {value!r}, not a finite number"
                if value:
                    found[p, q] = float(value)
        terms.append(found)
    radial = header_value(header, RADIAL, 0.0)
    known = isinstance(radial, int | float) and not isinstance(radial, bool) and math.isfinite(radial)
    reach = header_value(header, "DISTRCH", 0.0)
    if not isinstance(reach, int | float) or isinstance(reach, bool) or not reach > 0:
        reach = _reach(header, crpix)
    return from_sip(
        terms[0], terms[1], (crpix[0] - 1, crpix[1] - 1), float(reach), float(radial) if known else 0.0
    )


def cards(distortion: Distortion) -> list[tuple[str, Any, str]]:
    """Return the header cards of a distortion as (keyword, value, comment); the centre is CRPIX."""
    made: list[tuple[str, Any, str]] = []
    for name, terms in zip(("A", "B", "AP", "BP"), to_sip(distortion), strict=True):
        reach = distortion.reach if math.isfinite(distortion.reach) else _LARGE
        kept = {pq: c for pq, c in sorted(terms.items()) if abs(c) * reach ** sum(pq) > _NOTHING}
        made.append(
            (f"{name}_ORDER", max((p + q for p, q in kept), default=0), "SIP: order of the polynomial")
        )
        made += [(f"{name}_{p}_{q}", value, "SIP coefficient") for (p, q), value in kept.items()]
    if math.isfinite(distortion.reach):
        made.append(("DISTRCH", distortion.reach, "[pixel] Distortion is known up to this radius"))
    if distortion.radial:
        made.append((RADIAL, distortion.radial, "SIP stands for r' = r + this * r**2 (pixels)"))
    return made


def to_astropy(distortion: Distortion) -> Sip:
    """Return the distortion as astropy's object."""
    from astropy.wcs import Sip

    matrices = []
    for terms in to_sip(distortion):
        order = max((p + q for p, q in terms), default=1)
        matrix = np.zeros((order + 1, order + 1))
        for (p, q), value in terms.items():
            matrix[p, q] = value
        matrices.append(matrix)
    return Sip(*matrices, np.array(distortion.centre) + 1)


def of_astropy(sip: Sip, reach: float = math.inf) -> Distortion:
    """Return astropy's object as a distortion."""
    terms = [
        {(int(p), int(q)): float(m[p, q]) for p, q in np.argwhere(m)}
        for m in (np.asarray(part) for part in (sip.a, sip.b))
    ]
    x, y = np.asarray(sip.crpix, float).tolist()
    return from_sip(terms[0], terms[1], (x - 1, y - 1), reach)


def _reach(header: Any, crpix: tuple[float, float]) -> float:
    """Return how far the farthest pixel is from the reference pixel; infinite where the size is unknown."""
    size = [header_value(header, f"NAXIS{i}", 0) for i in (1, 2)]
    if not all(isinstance(n, int) and n > 0 for n in size):
        return math.inf
    return math.hypot(*(max(c - 0.5, n + 0.5 - c) for c, n in zip(crpix, size, strict=True)))
