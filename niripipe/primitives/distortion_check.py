"""What the dithers say about the distortion: whether the one in the WCS is true, and which one there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Float64, Floats
from niripipe.algorithms.distortion_fit import (
    DistortionFit,
    Observations,
    fit_distortion,
    polynomial_basis,
    radial_basis,
)
from niripipe.algorithms.pairfit import CENTRING
from niripipe.algorithms.register import Registration, pair_sources
from niripipe.astrodata import AstroData, Distortion, distortion_of, undistorted, with_distortion
from niripipe.instruments import AstroDataNiri
from niripipe.instruments.optics import array_centre, half_diagonal
from niripipe.logutils import get_logger
from niripipe.primitives.base import Frames
from niripipe.primitives.distortion import on_detector, put_distortion, record
from niripipe.primitives.geometry import pixel_mapping
from niripipe.primitives.objcat import sources, straight_sources

__all__ = ["Choice", "prepare_distortion", "settle_distortion"]

log = get_logger(__name__)

Choice = Literal["auto", "published", "fit", "none"]

_SIGMA, _REFUSED = 5.0, 3.5
"""A fitted distortion is believed when so many standard errors say so. The one of the WCS is likely to be
true: it is not believed when so many speak against it."""
_STARS, _FRAMES, _EACH = 10, 4, 4
"""A distortion is fitted to at least so many stars in so many frames, seen so many times each on average."""
_CHECK_STARS, _CHECK_FRAMES = 3, 3
"""That of the WCS is checked with at least so many."""
_VISIBLE, _VISIBLE_FWHM = 0.02, 0.005
"""A fitted one is used from this displacement of the pairs on (rms per axis): pixels and FWHM, the larger."""
_MANY_STARS, _MANY = 30, 150
"""Stars and observations from which a polynomial is tried besides r**2."""
_ORDER = 3
_KNOWN = 0.3
"""A polynomial must be known to this everywhere within its reach, pixels."""
_LARGEST = 40.0
"""A displacement larger than this at the farthest source is no distortion of a camera, pixels."""
_NEAR_FWHM, _NEAR = 2.0, 4.0
"""Pairs are as near to each other as this after alignment: FWHM and pixels, the larger."""
_FLUX_RATIO = 1.7
"""Flux ratios of pairs are within this factor of their median in a frame."""


def prepare_distortion(frames: Frames, choice: Choice) -> None:
    """Give frames the distortion that alignment begins with.

    Parameters
    ----------
    frames : list of AstroData
        With ``fit`` and ``none`` their WCS loses the distortion it has; with ``auto`` and ``published`` they
        get the published one, and with the latter those that have none are named in a warning.
    choice : {"auto", "published", "fit", "none"}
    """
    for frame in frames:
        present = distortion_of(frame[0].sky_mapping)
        if choice in ("fit", "none") and present is not None:
            _remove(frame)
            if choice == "none":
                log.warning("%s: its distortion is not used, as was asked for", frame.filename)
        elif choice == "auto" and "DISTMETH" not in frame.phu:
            # Frames that other software prepared have none yet.
            put_distortion(frame)
        elif choice == "published" and present is None and on_detector(frame):
            frame.phu.remove("DISTMETH", ignore_missing=True)
            if not put_distortion(frame):
                log.warning("%s: no distortion is published for its camera and light path", frame.filename)


def settle_distortion(
    frames: Frames,
    reference: AstroData,
    found: Sequence[Registration | None],
    choice: Choice,
    match_radius: float,
) -> str:
    """Compare the distortion of frames with what their dithers show, and change it where they prove it.

    Parameters
    ----------
    frames : list of AstroData
        With the WCS of their headers; that of all may change.
    reference : AstroData
        The frame that the others were registered with.
    found : sequence of Registration or None
        Their displacements; None for the reference.
    choice : {"auto", "published", "fit", "none"}
        ``auto``: a distortion of the WCS is taken away if the dithers say, by 3.5 standard errors, that none
        is nearer to the truth; without one, the one that they show is used if it is significant. ``fit``: as
        without one. Else nothing is done.
    match_radius : float
        Largest distance of a pair, pixels.

    Returns
    -------
    str
        What was changed, for the report; empty if nothing. Frames have to be registered again then.
    """
    if choice not in ("auto", "fit") or not all(on_detector(frame) for frame in frames):
        return ""
    centre = array_centre(cast(AstroDataNiri, reference))
    if centre is None or any(array_centre(cast(AstroDataNiri, frame)) != centre for frame in frames):
        return ""
    bent = [distortion_of(frame[0].sky_mapping) for frame in frames]
    first = bent[0]
    if any((b is None) != (first is None) for b in bent):
        return ""
    seen = _observations(frames, reference, found, centre, match_radius)
    refused = ""
    if first is not None:
        refused = "" if seen is None else _checked(frames, first, seen, centre)
        if not refused:
            return ""
    fitted = None if seen is None else _fitted(seen, sources(reference).fwhm)
    if fitted is None:
        if choice == "fit":
            log.warning("no distortion was fitted: the dithers show none that is significant")
        return refused
    return "; ".join(part for part in (refused, _given(frames, fitted, centre)) if part)


class _Fitted(NamedTuple):
    """A fit and the distortion it stands for, about (0, 0)."""

    fit: DistortionFit
    distortion: Distortion
    words: str


def _given(frames: Frames, fitted: _Fitted, centre: tuple[float, float]) -> str:
    """Put a fitted distortion into the WCS of all frames."""
    fit, made, words = fitted
    rests = f"{fit.observations} positions of {fit.stars} stars in {fit.frames} frames"
    text = (
        f"a distortion was fitted to the dithers: {words}, {made.largest():.2f} pixels at the edge ({rests})"
    )
    moved = made.moved(-centre[0], -centre[1])
    for frame in frames:
        frame[0].sky_mapping = with_distortion(frame[0].sky_mapping, moved)
        record(frame, "fitted", moved)
        if made.radial:
            frame.phu.set("DISTERR", float(fit.errors[0]), "Error of DISTCOEF")
    log.warning("%s", text)
    return text


def _checked(frames: Frames, bent: Distortion, seen: Observations, centre: tuple[float, float]) -> str:
    """Take the distortion away if the dithers prove that it makes things worse."""

    def basis(u: Floats, v: Floats) -> Float64:
        x, y = bent.undistort(u + centre[0], v + centre[1])
        return np.stack([np.stack([x - u - centre[0], y - v - centre[1]])])

    fit = fit_distortion(seen, basis)
    if fit is None or fit.stars < _CHECK_STARS or fit.frames < _CHECK_FRAMES:
        return ""
    share, error = float(fit.values[0]), float(fit.errors[0])
    words = f"the dithers show {share:.2f} +- {error:.2f} of the distortion in the WCS"
    # The sum of squares without it is smaller than with it by (1 - 2 share) / error**2.
    if (1 - 2 * share) <= _REFUSED**2 * error**2:
        log.debug("%s", words)
        return ""
    for frame in frames:
        _remove(frame, "refused")
    log.warning("%s: it is not used", words)
    return f"{words}: it is not used"


def _fitted(seen: Observations, fwhm: float) -> _Fitted | None:
    """Return the distortion that the dithers show, if they show one."""
    radial = fit_distortion(seen, radial_basis)
    if radial is None or not _enough(radial):
        return None
    best: _Fitted | None = None
    k, error = float(radial.values[0]), float(radial.errors[0])
    shape = Distortion((0.0, 0.0), half_diagonal(), k)
    farthest = float(np.hypot(seen.u, seen.v).max())
    if abs(k) > _SIGMA * error and abs(k) * farthest**2 < _LARGEST:
        best = _Fitted(radial, shape, f"r' = r + ({k:.3g} +- {error:.2g}) r^2")
    if radial.stars >= _MANY_STARS and radial.observations >= _MANY:
        best = _polynomial(seen, radial) or best
    if best is None or best.fit.visible < np.fmax(_VISIBLE, _VISIBLE_FWHM * fwhm):
        return None
    return best


def _enough(fit: DistortionFit) -> bool:
    return fit.stars >= _STARS and fit.frames >= _FRAMES and fit.observations >= _EACH * fit.stars


def _polynomial(seen: Observations, radial: DistortionFit) -> _Fitted | None:
    """Return a polynomial if it is better than r**2 by more than its number of terms can explain."""
    scale = half_diagonal()
    basis, terms = polynomial_basis(_ORDER, scale)
    fit = fit_distortion(seen, basis)
    if fit is None or not _enough(fit):
        return None
    explained = len(terms) + _SIGMA * np.sqrt(2 * len(terms))
    freedom = 2 * (seen.star.size - seen.stars - seen.frames)
    gain = freedom * ((radial.scatter / fit.scatter) ** 2 - 1)
    if gain < explained or fit.improvement < explained:
        return None
    reach = float(np.hypot(seen.u, seen.v).max())
    tables: list[dict[tuple[int, int], float]] = [{}, {}]
    for (axis, p, q), value in zip(terms, fit.values.tolist(), strict=True):
        tables[axis][p, q] = value / scale ** (p + q)
    made = Distortion((0.0, 0.0), reach, 0.0, tables[0], tables[1])
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    shapes = basis(reach * np.cos(angle), reach * np.sin(angle))
    error = np.sqrt(np.einsum("kan,kl,lan->an", shapes, fit.covariance, shapes)).max()
    if error > _KNOWN or made.largest() > _LARGEST:
        return None
    return _Fitted(fit, made, f"a polynomial of order {_ORDER}, known to {error:.2f} pixel")


def _observations(
    frames: Frames,
    reference: AstroData,
    found: Sequence[Registration | None],
    centre: tuple[float, float],
    match_radius: float,
) -> Observations | None:
    """Return the sources of the reference that registered frames show too, on the pixels of the detector."""
    there, seen_there = straight_sources(reference), sources(reference)
    parts: list[tuple[NDArray[Any], ...]] = []
    for number, (frame, result) in enumerate(zip(frames, found, strict=True)):
        if frame is reference:
            usable = np.flatnonzero(~there.suspect & np.isfinite(there.error))
            x, y, error = seen_there.x[usable], seen_there.y[usable], there.error[usable]
            parts.append((usable.astype(float), np.full(usable.size, number), x, y, error))
            continue
        if result is None or not result.accepted or result.method != "sources":
            continue
        here, seen_here = straight_sources(frame), sources(frame)
        y, x = pixel_mapping(reference, frame)(there.y, there.x)
        matrix, offset = result.matrix()
        own_y, own_x = matrix @ np.stack([here.y, here.x]) + offset[:, None]
        reach = min(match_radius, float(np.fmax(_NEAR, _NEAR_FWHM * np.fmin(here.fwhm, there.fwhm))))
        i, j = pair_sources(own_x, own_y, x, y, reach)
        good = ~(here.suspect[i] | there.suspect[j]) & np.isfinite(here.error[i] + there.error[j])
        i, j = i[good], j[good]
        if i.size < 2:
            continue
        ratio = here.flux[i] / there.flux[j]
        typical = np.median(ratio)
        like = (ratio < _FLUX_RATIO * typical) & (ratio * _FLUX_RATIO > typical)
        i, j = i[like], j[like]
        error = np.hypot(here.error[i], CENTRING * np.nan_to_num(here.fwhm))
        parts.append((j.astype(float), np.full(i.size, number), seen_here.x[i], seen_here.y[i], error))
    if len(parts) < 2:
        return None
    star, index, x, y, error = (np.concatenate(columns, dtype=float) for columns in zip(*parts, strict=True))
    every = Observations(star.astype(int), index.astype(int), x - centre[0], y - centre[1], error)
    seen = every.take(np.ones(star.size, bool))
    return seen if seen.star.size else None


def _remove(frame: AstroData, why: Literal["none", "refused"] = "none") -> None:
    frame[0].sky_mapping = undistorted(frame[0].sky_mapping)
    record(frame, why, None)
    frame.phu.remove("DISTERR", ignore_missing=True)
