"""A moving target: where the frames show it, beside where the telescope says, and what becomes of stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata import AstroData
from niripipe.primitives.objcat import sources
from niripipe.primitives.offsets import Offsets, verified
from niripipe.primitives.pairs import moved_wcs
from niripipe.primitives.stack_params import CombineParams

__all__ = ["on_the_target", "stars_beside_target"]

_REACH = 1.0
"""The target is looked for within this of where the telescope puts it (arcsec); guided dithers are better."""

_FLUX_RATIOS = 0.5, 2.0
"""Ratios of its fluxes in two frames; transparency changes, and asteroids turn."""

_CHANCE = 1e-3
"""Stars that are near by chance are the target less often than this."""

_FEWEST = 3
"""It is seen in so many frames at least, and in half of them."""

_USUAL_FWHM = 0.7
"""Median seeing of Maunakea in K (arcsec), for frames whose stars were not measured."""


@dataclass(frozen=True, slots=True)
class _Track:
    """A source of the reference in the other frames: index of the frame to displacement and error, pixels."""

    found: dict[int, tuple[float, float, float]]

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean([dx**2 + dy**2 for dx, dy, _ in self.found.values()])))


def on_the_target(
    frames: Sequence[AstroData], reference: AstroData, offsets: Sequence[Offsets]
) -> list[Offsets]:
    """Correct telescope offsets by the target itself, where it is seen.

    Parameters
    ----------
    frames : sequence of AstroData
        With OBJCAT where there are sources.
    reference : AstroData
        One of them; what is not in it is not looked for.
    offsets : sequence of Offsets
        Where the telescope puts each frame.

    Returns
    -------
    list of Offsets
        With the method ``target`` and the error of the shift where the target was seen well enough.

    Notes
    -----
    The target is the source that stays at one place by the telescope's offsets, while the WCS of the frames,
    which follow it over the sky, move it. Stars drift, so that of several sources the one that moves least
    is taken. Where stars drift by less than half a pixel in all, it may be a star, which does no harm then.
    """
    others = [k for k, frame in enumerate(frames) if frame is not reference]
    tracks = _tracks(frames, reference, offsets, others)
    corrected = list(offsets)
    if not tracks:
        return corrected
    best = min(tracks, key=lambda track: (-len(track.found), track.rms))
    for k, (dx, dy, error) in best.found.items():
        if error > verified(frames[k], reference):
            continue
        wcs = moved_wcs(offsets[k].wcs, np.eye(2), np.array([dy, dx]))
        words = f"the target, {np.hypot(dx, dy):.2f} pixel from where {offsets[k].words} put it"
        corrected[k] = Offsets(wcs, "target", words, error)
    return corrected


def _tracks(
    frames: Sequence[AstroData], reference: AstroData, offsets: Sequence[Offsets], others: Sequence[int]
) -> list[_Track]:
    """Return the sources of the reference that may be the target."""
    there = sources(reference)
    sky = reference[0].sky_mapping.all_pix2world(there.x, there.y, 0) if len(there) else None
    if sky is None:
        return []
    found: list[dict[int, tuple[float, float, float]]] = [{} for _ in range(len(there))]
    accidents = 0.0
    for k in others:
        here = sources(frames[k])
        if not len(here):
            continue
        reach = _REACH / float(frames[k].pixel_scale())
        by_offsets = _displacements(sky, offsets[k].wcs, here)
        by_header = _displacements(sky, frames[k][0].sky_mapping, here)
        ratio = here.flux[None, :] / there.flux[:, None]
        away = np.hypot(*by_offsets)
        near = (away < reach) & (ratio > _FLUX_RATIOS[0]) & (ratio < _FLUX_RATIOS[1])
        # A star is nearer to where the WCS puts it, unless that says the same.
        near &= away <= np.hypot(*by_header) + 0.5
        ny, nx = frames[k][0].shape
        accidents += float(np.log10(min(1.0, len(here) * np.pi * reach**2 / (nx * ny))))
        for i in np.flatnonzero(near.any(axis=1)).tolist():
            j = int(np.argmin(np.where(near[i], away[i], np.inf)))
            error = float(np.hypot(here.error[j], there.error[i]))
            found[i][k] = float(by_offsets[0][i, j]), float(by_offsets[1][i, j]), error
    least = max(_FEWEST - 1, (len(others) + 1) // 2)
    # The chance that a frame shows some source there, to the power of the frames, for any source.
    chance = [accidents / max(len(others), 1) * len(one) + np.log10(len(there)) for one in found]
    return [
        _Track(one)
        for one, how_likely in zip(found, chance, strict=True)
        if len(one) >= least and how_likely < np.log10(_CHANCE)
    ]


def _displacements(sky: Any, wcs: Any, here: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by how much each source of the reference lies off each source of a frame, (n, m), pixels."""
    x, y = wcs.all_world2pix(sky[0], sky[1], 0)
    return np.asarray(x)[:, None] - here.x[None, :], np.asarray(y)[:, None] - here.y[None, :]


def stars_beside_target(
    frames: Sequence[AstroData], params: CombineParams, *, hsigma: float, fwhm: float
) -> Literal["clipped", "trailed"]:
    """Tell what becomes of bright stars in a stack that is aligned on a moving target.

    Parameters
    ----------
    frames : sequence of AstroData
        Aligned on the target. ALGNDX and ALGNDY are where it lies relative to where the WCS, which followed
        it over the sky, puts it: stars move by as much from frame to frame.
    params : CombineParams
        How they are combined.
    hsigma : float
        The upper limit of clipping.
    fwhm : float
        FWHM of stars in pixels; NaN where they were not measured.

    Returns
    -------
    {'clipped', 'trailed'}
        Clipped if the share of frames that show a star within one FWHM is rejected: less than half for a
        median and for clipping at the known noise, up to `nhigh` frames for minmax, and for clipping at the
        scatter of the inputs a share f with ``f (1 - f) < 1 / hsigma**2``, since n equal outliers among N
        inputs lie ``1 / sqrt(f (1 - f))`` standard deviations above the others, f = n / N.
    """
    number = len(frames)
    shared = _frames_that_share_a_star(frames, fwhm)
    share = shared / number
    minority = 2 * shared < number
    if params.operation == "median":
        clipped = minority
    elif params.reject_method == "minmax":
        clipped = shared <= params.nhigh
    elif params.reject_method == "sigclip":
        clipped = minority and share * (1 - share) * hsigma**2 < 1
    else:
        clipped = minority and params.reject_method != "none"
    return "clipped" if clipped else "trailed"


def _frames_that_share_a_star(frames: Sequence[AstroData], fwhm: float) -> int:
    """Return the largest number of frames that have a star within one FWHM of where one of them has it."""
    at = np.array([[float(frame.phu.get(key, 0.0)) for key in ("ALGNDX", "ALGNDY")] for frame in frames])
    if not np.isfinite(fwhm):
        fwhm = _USUAL_FWHM / float(frames[0].pixel_scale() or 1.0)
    distance = np.hypot(*(at[:, None] - at[None, :]).T)
    return int(np.max(np.sum(distance < fwhm, axis=0)))
