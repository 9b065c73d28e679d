"""The noise of darks and flats that a frame and its sky have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.shared_noise import Calibrations, inputs_per_variance, remove_shared
from niripipe.algorithms.sky import subtracted
from niripipe.astrodata import AstroData
from niripipe.errors import DataError
from niripipe.primitives.calibrations import CalibrationBook, clipped
from niripipe.primitives.shared_skies import SKY_PART

if TYPE_CHECKING:
    from niripipe.primitives.sky import SubtractSkyParams
    from niripipe.primitives.skybuild import BuiltSky

__all__ = ["SharedNoise", "subtract_planes"]

_KINDS = {"dark": ("DARKIM", "processed_dark"), "flat": ("FLATIM", "processed_flat")}


class SharedNoise:
    """Takes out of variances what dark and flat add to frame and sky though it cancels between them.

    Parameters
    ----------
    book : CalibrationBook
        Where the darks and flats that were applied are found. Where they are not known any more, as of frames
        that were corrected elsewhere, variances stay as they are.
    skies : mapping of str to AstroData
        The frames that skies are made of, by name.
    """

    def __init__(self, book: CalibrationBook, skies: Mapping[str, AstroData]) -> None:
        self._book = book
        self._names = {name: _applied(sky) for name, sky in skies.items()}

    def remove(
        self,
        frame: AstroData,
        sky: BuiltSky,
        variance: NDArray[np.float32],
        factor: float,
        share: float,
    ) -> None:
        """Correct the variance of ``frame - factor sky``, in place; VARSHARE says for what.

        `share` is the variance of the sky over that of one of its frames.

        The frame still has its pixels from before the subtraction.
        """
        found = {
            kind: self._book.applied(frame, caltype, name)
            for kind, (keyword, caltype) in _KINDS.items()
            if (name := str(frame.phu.get(keyword, "")))
            and all(self._names.get(other, {}).get(kind) == name for other in sky.names)
        }
        try:
            planes = {kind: clipped(frame, one)[0] for kind, one in found.items() if one is not None}
        except DataError:
            return
        known = [kind for kind, ext in planes.items() if ext.plane("variance") is not None]
        if not known or sky.variance is None:
            return
        dark, flat = (planes[kind] if kind in known else None for kind in _KINDS)
        if flat is None and "flat" in found:
            return  # the dark was divided by a flat that is not at hand
        ext = frame[0]
        remove_shared(
            variance,
            ext.read("data"),
            sky.data,
            Calibrations(
                None if dark is None else dark.read("variance"),
                None if flat is None else flat.read("data"),
                None if flat is None else flat.read("variance"),
            ),
            factor=factor,
            share=min(share, 1.0),
            scale=float(np.mean(list(sky.scales.values()))),
            offset=float(np.mean(list(sky.offsets.values()))),
        )
        ext.hdr.set("VARSHARE", ", ".join(known), "Noise common to frame and sky, not in VAR")


def _applied(frame: AstroData) -> dict[str, str]:
    """Return the names of the dark and the flat that were applied to a frame."""
    return {kind: str(frame.phu[keyword]) for kind, (keyword, _) in _KINDS.items() if keyword in frame.phu}


def subtract_planes(
    frame: AstroData,
    sky: BuiltSky,
    factor: float,
    constant: float,
    params: SubtractSkyParams,
    shared: SharedNoise | None,
) -> None:
    """Subtract ``factor sky + constant``; the variance of the sky counts ``factor^2``, flags are joined."""
    ext = frame[0]
    data = subtracted(ext.read("data"), sky.data, factor=factor, constant=constant)
    variance = ext.read("variance") if params.propagate_variance else None
    if variance is not None and sky.variance is not None:
        share = inputs_per_variance(variance, sky.variance, ext.read("mask"), sky.mask)
        variance = variance + np.float32(factor**2) * sky.variance
        if shared is not None:
            shared.remove(frame, sky, variance, factor, share)
        part = factor**2 * share / (1 + factor**2 * share)
        ext.hdr.set(SKY_PART, round(part, 5), "Part of VAR that is the noise of the sky")
    mask = ext.read("mask")
    if sky.mask is not None:
        mask = sky.mask.copy() if mask is None else mask | sky.mask
    ext.reset(data, mask=mask, variance=variance)
