"""A moving target that the frames show: where it really is, beside where the telescope says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata import AstroData
from niripipe.primitives.objcat import sources
from niripipe.primitives.offsets import Offsets, verified
from niripipe.primitives.pairs import moved_wcs

__all__ = ["on_the_target"]

_REACH = 1.0
"""The target is looked for within this of where the telescope puts it (arcsec); guided dithers are better."""

_FLUX_RATIOS = 0.5, 2.0
"""Ratios of its fluxes in two frames; transparency changes, and asteroids turn."""

_CHANCE = 1e-3
"""Stars that are near by chance are the target less often than this."""

_FEWEST = 3
"""It is seen in so many frames at least, and in half of them."""


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
