"""Where the telescope says a frame is, and whether what the frames show confirms it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.faint_sources import look_for
from niripipe.algorithms.register import Registration, Sources, pair_sources
from niripipe.algorithms.robust import good_pixels
from niripipe.astrodata import AstroData, distortion_of, shifted, undistorted, with_distortion
from niripipe.astrodata.wcs import terms_of
from niripipe.instruments import AstroDataNiri, pointing, position
from niripipe.primitives.geometry import require_sky_mapping
from niripipe.primitives.objcat import inside, sources

__all__ = [
    "MAX_ROTATION",
    "Offsets",
    "by_offsets",
    "doubted",
    "pointing_errors",
    "seen",
    "tolerated",
    "trust",
    "verified",
]

VERIFIED = 0.2
"""Telescope offsets are believed when they are this good, pixels: what may be wrong with a shift."""

VERIFIED_FWHM = 0.05
"""The same in FWHM of the sources; the larger of the two counts. It widens them by 1 %."""

_TOLERATED_FWHM = 0.2
"""A frame whose offsets are good to this (FWHM) is used, as doubtful: it widens its sources by 11 %, and the
stack's by that over the number of frames, less than its loss would cost."""

MAX_ROTATION = 0.1
"""Frames whose position angles differ by more (degrees) are not compared by a shift alone."""

_BRIGHT = 12.0
"""A source of this S/N in one frame must be seen in another one of the same field."""

_REACH_PIXELS, _REACH_ARCSEC = 4.0, 2.0
"""A bright source is looked for within the larger of these distances."""

_MANY_AGREE = 3
"""A shift that rests on few is doubted if one of so many bright sources is off."""

_FLUX_RATIOS = 0.5, 2.0
"""Ratios of the fluxes of a source in two frames: transparency and seeing may change."""


class Offsets(NamedTuple):
    """The WCS of a frame by telescope offsets or header, the method, how a text names it, and its error."""

    wcs: Any
    method: str
    words: str
    error: float = float("nan")


def by_offsets(frame: AstroData, reference: AstroData) -> Offsets:
    """Return the reference's WCS moved by the difference of the telescope offsets; else the header's own.

    The offsets become pixels through the CD matrix of the frame, see `niripipe.instruments.position`.
    """
    own, plane = terms_of(frame[0].sky_mapping), undistorted(require_sky_mapping(reference))
    other = terms_of(plane)
    here, there = (pointing.sky_motion(cast(AstroDataNiri, some)) for some in (frame, reference))
    header = Offsets(frame[0].sky_mapping, "header WCS", "the WCS in its header")
    distrusted = any(some.phu.get("PNTDIST") == "offsets" for some in (frame, reference))
    if distrusted or own is None or other is None or here is None or there is None:
        return header
    turned = (frame.position_angle() or 0.0) - (reference.position_angle() or 0.0)
    if max(abs(turned), _turn(own.cd, other.cd)) > MAX_ROTATION:
        return header
    dx, dy = pointing.pixel_shift(here[0] - there[0], here[1] - there[1], own.cd)
    wcs = shifted(plane, -dx, -dy)
    bent = distortion_of(frame[0].sky_mapping)
    if bent is not None:
        wcs = with_distortion(wcs, bent)
    return Offsets(wcs, "offsets", "telescope offsets")


def _turn(*matrices: position.Matrix) -> float:
    """Return the angle between the +y axes of two frames, degrees."""
    first, second = (position.orientation(cd) for cd in matrices)
    return abs((first - second + 180.0) % 360.0 - 180.0)


def pointing_errors(
    frames: Sequence[AstroData],
    reference: AstroData,
    found: Sequence[Registration | None],
    offsets: Sequence[Offsets],
) -> NDArray[np.float64]:
    """Return how far the offsets may be from the truth in the frames that were registered: (n, 2), pixels.

    The error of each registration is added in quadrature: what is not known to better confirms nothing.
    """
    errors = []
    for frame, result, offset in zip(frames, found, offsets, strict=True):
        if result is None or not result.accepted or frame is reference:
            continue
        ny, nx = frame[0].shape
        x, y = (nx - 1) / 2, (ny - 1) / 2
        sky = frame[0].sky_mapping.all_pix2world(x, y, 0)
        there = offset.wcs.all_world2pix(*sky, 0)
        off = np.array([float(there[0]) - x, float(there[1]) - y])
        errors.append(np.hypot(off, np.nan_to_num(result.error)))
    return np.array(errors, float).reshape(-1, 2)


def as_stated(frame: AstroData, reference: AstroData) -> Offsets:
    """Return where the headers put a frame: `by_offsets`, or the WCS where one of the two is a stack.

    A stack has the telescope's offsets of one of its frames, which say nothing about it.
    """
    if "NCOMBINE" in frame.phu or "NCOMBINE" in reference.phu:
        return Offsets(frame[0].sky_mapping, "header WCS", "the WCS of a stack")
    return by_offsets(frame, reference)


class Trust(NamedTuple):
    """Why offsets are not believed, empty if they are; else how far, in words and pixels, and the doubt."""

    problem: str = ""
    words: str = ""
    error: float = float("nan")
    doubt: str = ""


def verified(*frames: AstroData) -> float:
    """Return the error of a shift that does no harm, pixels: 0.2, or 0.05 FWHM if that is larger."""
    return float(np.fmax(VERIFIED, VERIFIED_FWHM * _narrowest(frames)))


def tolerated(*frames: AstroData) -> float:
    """Return the error of a shift above which a frame is not used, pixels: 0.2, or 0.2 FWHM if larger."""
    return float(np.fmax(VERIFIED, _TOLERATED_FWHM * _narrowest(frames)))


def _narrowest(frames: Sequence[AstroData]) -> float:
    """Return the smallest FWHM of frames, pixels; NaN where none is known."""
    return float(np.fmin.reduce([sources(frame).fwhm for frame in frames]))


def trust(
    frame: AstroData,
    reference: AstroData,
    offsets: Offsets,
    errors: NDArray[np.float64],
    *,
    alone: bool = False,
) -> Trust:
    """Tell whether the offsets of a frame are believed, from it and from the errors in other frames.

    A frame that alone shows its part of a mosaic blurs no other one: it is kept, as doubtful, with whatever
    error the offsets have.
    """
    spread = float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")
    good = verified(frame, reference)
    most = tolerated(frame, reference)
    known = seen(frame, reference, offsets.wcs)
    if 2 * known.found < known.expected:
        known = _glimpsed(frame, reference, offsets.wcs, known)
    others = f"in the {len(errors)} frames aligned otherwise they are wrong by {spread:.2f} pixel"
    if len(errors) >= 2 and spread > most and not alone:
        return Trust(others)
    if known.expected and not known.found:
        return Trust(f"none of {known.expected} bright sources is where they put it")
    if known.expected > 1 and 2 * known.found < known.expected:
        return Trust(f"only {known.found} of {known.expected} bright sources are where they put them")
    common = (
        "the only source in common is" if known.found == 1 else f"the {known.found} sources in common are"
    )
    off = f"{common} {known.distance:.2f} pixel off"
    if known.found and known.distance + known.error > most:
        return Trust(off)
    if known.found and known.distance + known.error > good:
        return Trust(words="the telescope's word is kept", error=known.distance, doubt=off)
    if known.found:
        confirm = "one source confirms" if known.found == 1 else f"{known.found} sources confirm"
        words = f"which {confirm} to {known.distance:.2f} pixel"
        return Trust(words=words, error=float(np.hypot(known.distance, known.error)))
    if len(errors) >= 2:
        words = f"good to {spread:.2f} pixel in {len(errors)} other frames"
        return Trust(words=words, error=spread, doubt=others if spread > good else "")
    words = "unchecked: no frame shows enough to tell how good they are"
    return Trust(words=words)


@dataclass(frozen=True, slots=True)
class Seen:
    """Bright sources that two frames should share, and do share.

    Attributes
    ----------
    expected, found : int
        Number of sources that should be in both frames, and that are.
    distance, error : float
        Median distance of the pairs and its error, pixels; NaN without pairs.
    """

    expected: int
    found: int
    distance: float
    error: float


def seen(frame: AstroData, reference: AstroData, wcs: Any) -> Seen:
    """Compare the bright sources of two frames, if ``wcs`` is the frame's."""
    here, there = sources(frame), sources(reference)
    reach = max(_REACH_PIXELS, _REACH_ARCSEC / frame[0].pixel_scale())
    bright_here, bright_there = (
        ~some.suspect & (some.flux > _BRIGHT * some.flux_error) for some in (here, there)
    )
    if len(there):
        ra, dec = reference[0].sky_mapping.all_pix2world(there.x, there.y, 0)
        x, y = wcs.all_world2pix(ra, dec, 0)
        there = replace(there, x=np.asarray(x), y=np.asarray(y))
        bright_there &= inside(frame, there.x, there.y, reach)
    if len(here):
        # Only where the reference looked, too.
        ra, dec = wcs.all_pix2world(here.x, here.y, 0)
        x, y = reference[0].sky_mapping.all_world2pix(ra, dec, 0)
        bright_here &= inside(frame, here.x, here.y, reach) & inside(reference, x, y, reach)
    best = Seen(0, 0, float("nan"), float("nan"))
    for bright, other in ((here.take(bright_here), there), (there.take(bright_there), here)):
        best = replace(best, expected=max(best.expected, len(bright)))
        i, j = pair_sources(bright.x, bright.y, other.x, other.y, reach)
        ratio = bright.flux[i] / other.flux[j]
        like = (ratio > _FLUX_RATIOS[0]) & (ratio < _FLUX_RATIOS[1])
        i, j = i[like], j[like]
        if i.size > best.found:
            dx, dy = bright.x[i] - other.x[j], bright.y[i] - other.y[j]
            distance = float(np.hypot(np.median(dx), np.median(dy)))
            error = float(np.sqrt(2 * np.mean(bright.error[i] ** 2) / i.size))
            best = replace(best, found=i.size, distance=distance, error=error)
    return best


def _glimpsed(frame: AstroData, reference: AstroData, wcs: Any, known: Seen) -> Seen:
    """Look for bright sources of one frame in the pixels of the other: it may just not have detected them."""
    here, there = sources(frame), sources(reference)
    fwhm = float(np.fmax.reduce([here.fwhm, there.fwhm]))
    if not np.isfinite(fwhm):
        return known
    reach = max(_REACH_PIXELS, _REACH_ARCSEC / frame[0].pixel_scale())
    best = known
    for some, own, other, to_other in (
        (here, frame, reference, (wcs, reference[0].sky_mapping)),
        (there, reference, frame, (reference[0].sky_mapping, wcs)),
    ):
        bright = some.take(~some.suspect & (some.flux > _BRIGHT * some.flux_error))
        found = _in_pixels(bright, own, other, to_other, fwhm=fwhm, reach=reach)
        best = found if found.found > best.found else best
    return best


def _in_pixels(
    bright: Sources, own: AstroData, other: AstroData, wcs: tuple[Any, Any], *, fwhm: float, reach: float
) -> Seen:
    """Compare the pixels at sources of one frame with those of another one, by the WCS of both."""
    x, y = wcs[1].all_world2pix(*wcs[0].all_pix2world(bright.x, bright.y, 0), 0)
    x, y = np.asarray(x), np.asarray(y)
    planes = [
        (ext.read("data"), good_pixels(ext.read("data"), ext.read("mask"))) for ext in (own[0], other[0])
    ]
    expected, offs, errors = 0, [], []
    for k in np.flatnonzero(inside(other, x, y, reach)):
        pattern = look_for(*planes[0], bright.x[k], bright.y[k], fwhm=fwhm, reach=_REACH_PIXELS)
        if pattern is None:
            continue
        expected += 1
        found = look_for(*planes[1], x[k], y[k], fwhm=fwhm, reach=reach)
        if found is not None and _FLUX_RATIOS[0] < found.flux / pattern.flux < _FLUX_RATIOS[1]:
            offs.append((found.x - x[k] - pattern.x + bright.x[k], found.y - y[k] - pattern.y + bright.y[k]))
            errors.append(float(np.hypot(found.error, pattern.error)))
    if not offs:
        return Seen(expected, 0, float("nan"), float("nan"))
    distance = float(np.hypot(*np.median(offs, axis=0)))
    return Seen(expected, len(offs), distance, float(np.sqrt(2 * np.mean(np.square(errors)) / len(offs))))


def doubted(frame: AstroData, reference: AstroData, wcs: Any) -> str:
    """Tell what bright sources, those at the edges among them, have against a shift that rests on few.

    Parameters
    ----------
    frame, reference : AstroData
    wcs : astropy.wcs.WCS
        That of the frame, if the shift is right.

    Returns
    -------
    str
        Empty if both frames show the same source at the same place, as far as they show one: a rotation moves
        some sources off it, and a source that the edge cuts moves a shift.
    """
    here, there = sources(frame), sources(reference)
    if not len(here) or not len(there):
        return ""
    ra, dec = wcs.all_pix2world(here.x, here.y, 0)
    x, y = reference[0].sky_mapping.all_world2pix(ra, dec, 0)
    x, y = np.asarray(x), np.asarray(y)
    bright = (here.flux > _BRIGHT * here.flux_error) & inside(reference, x, y, 0)
    reach = max(_REACH_PIXELS, _REACH_ARCSEC / frame[0].pixel_scale())
    i, j = pair_sources(np.where(bright, x, np.nan), y, there.x, there.y, reach)
    ratio = here.flux[i] / there.flux[j]
    like = (ratio > _FLUX_RATIOS[0]) & (ratio < _FLUX_RATIOS[1])
    i, j = i[like], j[like]
    distance = np.hypot(x[i] - there.x[j], y[i] - there.y[j])
    error = np.nan_to_num(np.hypot(here.error[i], there.error[j]))
    off = distance > verified(frame, reference) + 2 * error
    # One off among many that agree is a blend, or cut by an edge.
    if off.any() and _MANY_AGREE * off.sum() >= off.size:
        number, worst = f"{int(off.sum())} of {off.size}", float(distance[off].max())
        return f"{number} bright sources in common are up to {worst:.2f} pixel off"
    cut = [
        ~(inside(some, at_x, at_y, 2 * some_fwhm))
        for some, at_x, at_y, some_fwhm in (
            (frame, here.x[i], here.y[i], here.fwhm),
            (reference, there.x[j], there.y[j], there.fwhm),
        )
    ]
    if i.size and np.any(cut, axis=0).all():
        return "the edge of a frame may cut all bright sources in common"
    return ""
