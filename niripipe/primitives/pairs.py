"""How one frame is brought onto another one: by the sources of both, or by correlating the images."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Affine
from niripipe.algorithms.correlate import cross_correlation_shift
from niripipe.algorithms.match import match_sources
from niripipe.algorithms.register import Registration, Sources
from niripipe.astrodata import FAIL, AstroData, with_affine
from niripipe.errors import AlgorithmError
from niripipe.primitives.base import opened_name
from niripipe.primitives.geometry import exact_mapping, is_distorted, pixel_mapping
from niripipe.primitives.objcat import inside, sources, straight_sources, typical_ellipticity
from niripipe.primitives.offsets import MAX_ROTATION, doubted, seen, verified

if TYPE_CHECKING:
    from niripipe.primitives.registration import AdjustWCSToReferenceParams

__all__ = ["moved_wcs", "or_correlated", "registered", "trailed", "usable_sources"]

_FAR_SOURCES = 5
"""Matched sources that are needed in the large area of the last pass."""
_UNEVEN, _UNEVEN_FWHM, _USELESS_FWHM = 0.15, 0.05, 0.25
"""Distance of two kinds of centre of a bright star, in pixels or FWHM if that is larger, beyond which it is
doubtful evidence by itself; beyond the third number (FWHM) it is none."""
_TRAILED, _ROUND = 0.5, 0.3
"""Stars are trailed if their ellipticity is above the first number in one frame and below the second in the
other: a trail of twice the FWHM."""
_EDGE = 12.0
"""A star nearer to the edge (pixels) may be cut in one of two frames."""
_LEAST_OVERLAP = 64
"""Frames that share fewer rows or columns are not correlated."""
_MOVED = 3.0
"""Shift (pixels) from which the pattern of the detector is told from the sky."""


def moved_wcs(wcs: Any, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Any:
    """Return a WCS of pixels that a matrix and an offset in array order carry to those of ``wcs``."""
    return with_affine(wcs, matrix[::-1, ::-1], offset[::-1])


def registered(
    frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams
) -> Registration | None:
    """Return the displacement that a frame shows; None for the reference itself."""
    if frame is reference:
        return None
    problem = trailed(frame, reference) or trailed(reference, frame)
    if problem:
        return Registration(method="sources", centre=(0.0, 0.0), reason=problem)
    if params.method == "correlation":
        return _correlated(frame, reference, params)
    found = _matched(frame, reference, params, params.first_pass, params.min_sources)
    if found.accepted and found.n_matched == 1:
        found = _confirmed(found, frame, reference)
    if found.accepted and found.n_matched < params.min_sources:
        return _doubted(found, frame, reference)
    if found.accepted or params.last_pass is None or params.last_pass <= params.first_pass:
        return found
    # In a large area more agreement is needed, and a single pair says nothing.
    far = _matched(frame, reference, params, params.last_pass, max(params.min_sources, _FAR_SOURCES))
    return far if far.accepted and not far.doubt and far.n_matched >= _FAR_SOURCES else found


def trailed(frame: AstroData, reference: AstroData) -> str:
    """Return that the stars of a frame are trailed, and not those of another one; empty if it is not so."""
    own, other = typical_ellipticity(frame), typical_ellipticity(reference)
    if own > _TRAILED and other < _ROUND:
        return f"stars are trailed: ellipticity {own:.2f}, in {opened_name(reference)} {other:.2f}"
    return ""


def or_correlated(
    frame: AstroData, first: Registration | None, reference: AstroData, params: AdjustWCSToReferenceParams
) -> Registration | None:
    """Correlate a frame that sources did not align, or with few; keep both reasons if that does not help."""
    few = first is not None and first.doubt and first.n_matched < params.min_sources
    if first is None or (first.accepted and not few):
        return first
    if trailed(frame, reference) or trailed(reference, frame):
        return first
    second = _correlated(frame, reference, params)
    if second.accepted and not second.doubt and first.n_matched:
        # Within a FWHM the few sources show the same shift and have to agree; further away they do not.
        apart = math.hypot(second.dx - first.dx, second.dy - first.dy)
        if verified(frame, reference) / 2 < apart < np.fmin(sources(frame).fwhm, sources(reference).fwhm):
            doubt = f"the {first.n_matched} sources in common are {apart:.2f} pixel off"
            second = replace(second, doubt=doubt)
    if second.accepted and not (first.accepted and second.doubt):
        return second
    if first.accepted:
        return first
    return replace(first, reason=f"sources: {first.reason}; correlation: {second.reason}")


def _matched(
    frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams, reach: float, min_sources: int
) -> Registration:
    to_frame = pixel_mapping(reference, frame)
    here, there = usable_sources(frame, params), usable_sources(reference, params)
    y, x = to_frame(there.y, there.x)
    there = replace(there, x=x, y=y)
    scale = frame[0].pixel_scale()
    ny, nx = frame[0].shape
    match = partial(
        match_sources,
        search_radius=reach / scale,
        match_radius=params.match_radius / scale,
        min_sources=min_sources,
        rotate=params.rotate,
        scale=params.scale,
        centre=((nx - 1) / 2, (ny - 1) / 2),
    )
    found = match(here, there)
    if found.accepted and not found.doubt:
        return found
    # A star cut by the edge of one of the two may be what spoils a match of a few.
    back = to_frame.inverse()

    # Positions without distortion are a few pixels off at the edge, which does not matter here.
    def uncut(listed: Sources) -> Sources:
        y, x = back(listed.y, listed.x)
        in_both = inside(frame, listed.x, listed.y, _EDGE) & inside(reference, x, y, _EDGE)
        return listed.take(in_both & ~listed.suspect)

    clean = match(uncut(here), uncut(there))
    return clean if clean.accepted and not (found.accepted and clean.doubt) else found


def _confirmed(found: Registration, *frames: AstroData) -> Registration:
    """Doubt the shift of a single pair if one of the two may have been displaced by a bad pixel or a hit.

    The two ways of centring, weighted by a window and over the whole source, then differ.
    """
    for frame in frames:
        fwhm = sources(frame).fwhm
        table = frame[0].columns("OBJCAT")
        brightest = table[int(np.argmax(np.asarray(table["FLUX_AUTO"], float)))]
        dx = brightest["XWIN_IMAGE"] - brightest["X_IMAGE"]
        dy = brightest["YWIN_IMAGE"] - brightest["Y_IMAGE"]
        distance = float(np.hypot(dx, dy))
        words = f"the only pair, and one of it is uneven (by {distance:.2f} pixel)"
        if distance > np.fmax(_UNEVEN, _USELESS_FWHM * fwhm):
            return replace(found, accepted=False, doubt="", reason=f"not enough sources: {words}")
        if distance > np.fmax(_UNEVEN, _UNEVEN_FWHM * fwhm):
            # Either centre may be the right one.
            found = replace(found, doubt=words, error=float(np.hypot(found.error, distance / 2)))
    return found


def usable_sources(frame: AstroData, params: AdjustWCSToReferenceParams) -> Sources:
    """Return the sources of a frame that may be matched, without the distortion of its WCS."""
    listed = straight_sources(frame)
    if params.cull_sources and len(listed):
        return listed.take(np.asarray(frame[0].columns("OBJCAT")["CLASS_STAR"], float) > 0.5)
    return listed


def _correlated(frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams) -> Registration:
    """Compare the images of two frames where the headers let them overlap."""
    to_frame = _as_seen(reference, frame)
    turned = np.abs(np.asarray(to_frame.matrix) - np.eye(2)).max()
    centre = np.array([(size - 1) / 2 for size in reference[0].shape])
    refused = partial(Registration, method="correlation", centre=(float(centre[1]), float(centre[0])))
    if frame[0].shape != reference[0].shape or turned > np.deg2rad(MAX_ROTATION):
        return refused(reason="the frames differ in size or orientation")
    carried = np.array([float(v) for v in to_frame(*centre)])
    step = np.round(carried - centre).astype(int)
    # Where the pixel (y, x) of the reference lies at (y, x) + step in the frame, cut both to what they share.
    shape = np.array(reference[0].shape)
    low, high = np.maximum(0, -step), np.minimum(shape, shape - step)
    reach = min(params.first_pass / frame[0].pixel_scale(), int((high - low).min()) // 2 - 1)
    if reach < 1 or (high - low).min() < _LEAST_OVERLAP:
        return refused(reason="the frames hardly overlap")
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(slice(a, b) for a, b in zip(low + step, high + step, strict=True))
    moved = float(step[1]), float(step[0])
    try:
        found = cross_correlation_shift(
            frame[0].plane("data")[here],
            reference[0].plane("data")[there],
            _cut_mask(frame, here),
            _cut_mask(reference, there),
            max_shift=float(reach),
            fwhm=float(np.fmin(sources(frame).fwhm, sources(reference).fwhm)),
            # What stays with the detector lines up when the telescope's motion is undone.
            avoid=moved if max(map(abs, moved)) >= _MOVED else None,
        )
    except AlgorithmError as error:
        return refused(reason=str(error))
    rest = carried - centre - step
    found = replace(found, dx=found.dx + float(rest[1]), dy=found.dy + float(rest[0]))
    return _checked(found, frame, reference) if found.accepted else found


def _as_seen(reference: AstroData, frame: AstroData) -> Affine:
    """Return the mapping of the pixels of two frames; of distorted ones, the mean shift where they overlap.

    Images that are correlated are as the detector shows them.
    """
    straight = pixel_mapping(reference, frame)
    if not (is_distorted(reference) or is_distorted(frame)):
        return straight
    ny, nx = reference[0].shape
    y, x = np.meshgrid(np.linspace(0, ny - 1, 17), np.linspace(0, nx - 1, 17), indexing="ij")
    to_y, to_x = exact_mapping(reference, frame)(y, x)
    both = inside(frame, to_x, to_y, 0)
    if not both.any():
        return straight
    centre = np.array([(ny - 1) / 2, (nx - 1) / 2])
    moved = np.array([np.mean((to_y - y)[both]), np.mean((to_x - x)[both])])
    return Affine(straight.matrix, centre + moved - straight.matrix @ centre)


def _checked(found: Registration, frame: AstroData, reference: AstroData) -> Registration:
    """Refuse a correlation that the bright sources of the two frames contradict."""
    known = seen(frame, reference, moved_wcs(frame[0].sky_mapping, *found.matrix()))
    problem = ""
    if known.expected and not known.found:
        problem = f"none of {known.expected} bright sources is where it puts them"
    elif known.found and known.distance > verified(frame, reference) / 2 + 2 * known.error:
        problem = f"the {known.found} bright sources in common are {known.distance:.2f} pixel off"
    if not problem:
        return _doubted(found, frame, reference)
    return replace(found, accepted=False, doubt="", reason=f"{problem}: {found.reason}")


def _doubted(found: Registration, frame: AstroData, reference: AstroData) -> Registration:
    """Doubt a shift that rests on few sources if the others in both frames do not agree with it."""
    if found.doubt:
        return found
    return replace(found, doubt=doubted(frame, reference, moved_wcs(frame[0].sky_mapping, *found.matrix())))


def _cut_mask(frame: AstroData, cut: tuple[slice, ...]) -> NDArray[np.uint16] | None:
    mask = frame[0].plane("mask")
    return None if mask is None else np.asarray(mask[cut] & np.uint16(int(FAIL)))
