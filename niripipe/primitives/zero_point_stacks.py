"""Zero points of images that are scaled, and of stacks of images that have one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from niripipe.algorithms.arrays import Float64
from niripipe.astrodata import AstroData
from niripipe.primitives.zero_point_header import KEYWORDS

__all__ = ["combine_zero_points", "rescale_zero_point"]

_ERRORS = ("ZPERR", "ZPSYSERR", "ZPMAGERR")


def rescale_zero_point(frame: AstroData, factor: float, exposure_time: float) -> None:
    """Change the zero point of an image whose pixels were multiplied; nothing without one.

    Parameters
    ----------
    frame : AstroData
        With its exposure time before.
    factor : float
        By which the pixels were multiplied.
    exposure_time : float
        The new exposure time, s.
    """
    if "ZPIMAGE" in frame.phu:
        longer = exposure_time / float(frame.exposure_time())
        frame.phu["ZPIMAGE"] += 2.5 * math.log10(factor)
        frame.phu["ZP"] += 2.5 * math.log10(factor / longer)


def combine_zero_points(frames: Sequence[AstroData], result: AstroData, weights: Float64) -> str:
    """Give a stack the zero point of the mean of its images; return a warning, or nothing.

    An electron of the stack is ``2.5 log10(sum(w 10**(0.4 ZPIMAGE)) / sum(w))``: fluxes are averaged, not
    magnitudes. The errors are the largest, since images of a night share theirs. Where not all images have a
    zero point of one system, the stack has none.

    Parameters
    ----------
    frames : sequence of AstroData
        What was combined.
    result : AstroData
        The stack, with the header of the first.
    weights : ndarray of float64, shape (n,)
        Of the images.
    """
    phus = [frame.phu for frame in frames]
    have = [phu for phu in phus if "ZPIMAGE" in phu]
    if not have or len(frames) == 1:
        return ""
    phu, systems = result.phu, {str(one.get("ZPSYSTEM")) for one in have}
    if len(have) < len(frames) or len(systems) > 1:
        for key in KEYWORDS:
            phu.remove(key, ignore_missing=True)
        lacking = len(frames) - len(have)
        why = f"{lacking} of the {len(frames)} images combined have no zero point"
        if not lacking:
            why = f"the images combined have zero points of different systems ({', '.join(sorted(systems))})"
        phu.set("ZPWHYNOT", why, "Why there is no zero point")
        return f"the stack has no zero point: {why}"
    fluxes = 10 ** (0.4 * np.array([float(one["ZPIMAGE"]) for one in phus]))
    of_image = 2.5 * math.log10(float(np.sum(weights * fluxes) / np.sum(weights)))
    extinction = float(phu["ZPEXT"]) * ((result.airmass() or 1.0) - 1)
    phu["ZPIMAGE"] = round(of_image, 5)
    phu["ZP"] = round(of_image - 2.5 * math.log10(float(result.exposure_time())) + extinction, 5)
    for key in _ERRORS:
        phu[key] = max(float(one[key]) for one in phus)
    phu["ZPSTD"] = ", ".join(dict.fromkeys(str(one["ZPSTD"]) for one in phus))
    phu["ZPWHY"] = f"mean of {len(frames)} images with zero points"
    return ""
