"""How frames are brought onto the sky of one of them: by sources, by correlation, or by telescope offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.affine import Affine
from niripipe.algorithms.correlate import cross_correlation_shift
from niripipe.algorithms.match import match_sources
from niripipe.algorithms.register import Registration, Sources
from niripipe.astrodata import FAIL, AstroData, distortion_of, undistorted, with_affine, with_distortion
from niripipe.errors import AlgorithmError
from niripipe.primitives.base import Frames, opened_name
from niripipe.primitives.distortion_check import Choice, prepare_distortion, settle_distortion
from niripipe.primitives.geometry import exact_mapping, is_distorted, pixel_mapping, require_sky_mapping
from niripipe.primitives.objcat import inside, sources, straight_sources, typical_ellipticity, update_world
from niripipe.primitives.offsets import (
    MAX_ROTATION,
    Offsets,
    by_offsets,
    pointing_errors,
    seen,
    trust,
    verified,
)
from niripipe.primitives.params import Field, SuffixParams
from niripipe.primitives.pointing_doubt import settle_pointing

__all__ = ["AdjustWCSToReferenceParams", "Verdict", "align_frames"]

_WORSE = 0.4
"""The first frame is the reference unless another one fixes positions with this much of its error."""
_CANDIDATES = 5
"""So many frames are tried as the reference before the best of them is taken."""
_FLOOR = 0.01
"""Floor of a position's error when frames are compared, pixels."""
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

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]
"""Applies a function to items, possibly on several threads, and returns the results in order."""


class AdjustWCSToReferenceParams(SuffixParams, suffix="_wcsCorrected"):
    """Parameters of `Align.adjustWCSToReference`."""

    method: Literal["sources", "correlation", "offsets"] = Field(
        "sources", description="what to align by first"
    )
    fallback: Literal["offsets", "correlation"] | None = Field(
        "offsets",
        description="what to align by when that does not suffice; offsets: correlation, then the telescope's "
        "offsets where they can be believed; None: leave the frame out",
    )
    reference: Literal["auto", "first", "best"] = Field(
        "auto",
        description="frame that the others are compared with: the first, the one with the best positions, or "
        "the first unless it is much worse or matches fewer frames. The first keeps its WCS in any case",
    )
    first_pass: float = Field(5.0, gt=0, description="largest error of the pointing, arcsec")
    last_pass: float | None = Field(
        60.0, gt=0, description="largest error looked for where the first pass finds nothing, arcsec"
    )
    match_radius: float = Field(0.5, gt=0, description="largest distance of a matched pair, arcsec")
    min_sources: int = Field(3, ge=1, description="matched sources that are needed")
    cull_sources: bool = Field(False, description="use good stars only")
    rotate: bool = Field(False, description="allow a rotation")
    scale: bool = Field(False, description="allow a change of scale")
    distortion: Choice = Field(
        "auto",
        description="optical distortion. auto: that of the WCS (published, or of the header) unless the "
        "dithers disprove it; without one, one fitted to the dithers if it is significant. published: "
        "without asking the dithers; fit: fitted or none; none",
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a frame.

    Attributes
    ----------
    method : str
        ``reference``, ``sources``, ``correlation``, ``offsets``, ``header WCS`` or ``set aside``.
    n_matched : int
        Sources used.
    rms : float
        Their scatter, pixels; 0 where there is none.
    error : float
        Standard error of the shift, pixels; not finite where unknown.
    reason : str
        In words, with numbers.
    doubt : str
        Why the shift is doubtful, with numbers; empty if it is not.
    angle, scale : float
        Rotation (degrees, counter-clockwise) and magnification of the sources relative to what the header
        says.
    """

    method: str
    n_matched: int = 0
    rms: float = 0.0
    error: float = float("nan")
    reason: str = ""
    doubt: str = ""
    angle: float = 0.0
    scale: float = 1.0

    @property
    def kept(self) -> bool:
        """Whether the frame is aligned."""
        return self.method != "set aside"

    @property
    def checked(self) -> bool:
        """Whether what the frame shows says so."""
        return self.method in ("reference", "sources", "correlation")


def align_frames(frames: Frames, params: AdjustWCSToReferenceParams, map_items: Map) -> list[Verdict]:
    """Correct the WCS of frames relative to the first of them.

    Parameters
    ----------
    frames : list of AstroData
        At least two, with WCS; OBJCAT where there are sources. WCS and the world positions in OBJCAT change,
        and ALGNMETH, ALGNNUM, ALGNRMS, ALGNERR, ALGNFLAG, ALGNDX, ALGNDY, ALGNROT, ALGNSCL and ALGNREF in
        the primary header say how.
    params : AdjustWCSToReferenceParams
    map_items : callable
        Applies a function to frames, which it does not change.

    Returns
    -------
    list of Verdict
        One a frame.

    Raises
    ------
    DataError
        A frame has no WCS.
    """
    for frame in frames:
        require_sky_mapping(frame)
    settle_pointing(frames)
    prepare_distortion(frames, params.distortion)
    headers, settled = [frame[0].sky_mapping for frame in frames], ""
    if params.method == "offsets":
        reference = frames[0]
        found: list[Registration | None] = [None] * len(frames)
    else:
        reference, found = _chosen(frames, params, map_items)
        pixels = params.match_radius / float(reference[0].pixel_scale())
        settled = settle_distortion(frames, reference, found, params.distortion, pixels)
        if settled:
            headers = [frame[0].sky_mapping for frame in frames]
            reference, found = _chosen(frames, params, map_items)
    offsets = [by_offsets(frame, reference) for frame in frames]
    for frame, result in zip(frames, found, strict=True):
        if result is not None and result.accepted:
            frame[0].sky_mapping = _moved(frame[0].sky_mapping, *result.matrix())
    errors = pointing_errors(frames, reference, found, offsets)
    verdicts = [
        _verdict(frame, reference, result, offset, errors, params)
        for frame, result, offset in zip(frames, found, offsets, strict=True)
    ]
    for frame, verdict, header in zip(frames, verdicts, headers, strict=True):
        _note(frame, verdict, reference, header)
    if reference is not frames[0] and verdicts[0].kept:
        _anchor([f for f, v in zip(frames, verdicts, strict=True) if v.kept], headers[0])
    for frame in frames:
        update_world(frame)
    return [replace(v, reason=f"{v.reason}; {settled}") for v in verdicts] if settled else verdicts


def _moved(wcs: Any, matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> Any:
    """Return a WCS of pixels that a matrix and an offset in array order carry to those of ``wcs``."""
    return with_affine(wcs, matrix[::-1, ::-1], offset[::-1])


def _anchor(frames: Frames, first_wcs: Any) -> None:
    """Give the first frame its WCS back, and let the others follow."""
    moved = frames[0].copy()
    for frame in frames[1:]:
        mapping = pixel_mapping(frame, moved)
        plane = _moved(undistorted(first_wcs), np.asarray(mapping.matrix), np.asarray(mapping.offset))
        bent = distortion_of(frame[0].sky_mapping)
        frame[0].sky_mapping = plane if bent is None else with_distortion(plane, bent)
    frames[0][0].sky_mapping = first_wcs


def _verdict(
    frame: AstroData,
    reference: AstroData,
    result: Registration | None,
    offsets: Offsets,
    errors: NDArray[np.float64],
    params: AdjustWCSToReferenceParams,
) -> Verdict:
    """Decide about a frame; one that the telescope's offsets align gets its WCS here."""
    if frame is reference:
        return Verdict("reference", error=0.0, reason="the others are aligned to this frame")
    if result is not None and result.accepted:
        rms = result.rms if np.isfinite(result.rms) else 0.0
        turned = {"angle": 0.0 - result.angle, "scale": 1 / result.scale}
        reason = f"{result.reason}; doubtful: {result.doubt}" if result.doubt else result.reason
        return Verdict(
            result.method, result.n_matched, rms, result.error, reason, doubt=result.doubt, **turned
        )
    if params.method == "offsets":
        frame[0].sky_mapping = offsets.wcs
        return Verdict(offsets.method, reason=f"{offsets.words}, as was asked for")
    reason = "" if result is None else result.reason
    if params.fallback != "offsets" or _trailed(frame, reference):
        return Verdict("set aside", reason=f"it could not be aligned: {reason}")
    problem, words, error, doubt = trust(frame, reference, offsets, errors)
    if problem:
        return Verdict(
            "set aside",
            reason=f"it could not be aligned ({reason}), and {offsets.words} cannot help: {problem}",
        )
    frame[0].sky_mapping = offsets.wcs
    words = f"{words}; doubtful: {doubt}" if doubt else words
    return Verdict(offsets.method, error=error, reason=f"{offsets.words}, {words} ({reason})", doubt=doubt)


def _note(frame: AstroData, verdict: Verdict, reference: AstroData, header: Any) -> None:
    """Write how a frame was aligned; ``header`` is the WCS that it came with."""
    phu = frame.phu
    ny, nx = frame[0].shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    said = header.all_world2pix(*frame[0].sky_mapping.all_pix2world(x, y, 0), 0)
    phu.set("ALGNMETH", verdict.method, "How the frame was aligned")
    phu.set("ALGNNUM", int(verdict.n_matched), "Sources used for the alignment")
    phu.set("ALGNRMS", round(float(verdict.rms), 4), "Rms of the alignment (pixels)")
    if np.isfinite(verdict.error):
        phu.set("ALGNERR", round(float(verdict.error), 4), "Error of the shift per axis (pixels)")
    else:
        phu.remove("ALGNERR", ignore_missing=True)
    # Where nothing says how good a shift is, it is doubtful, too.
    unknown = not np.isfinite(verdict.error)
    phu.set("ALGNFLAG", bool(verdict.doubt) or unknown, "The shift is doubtful, see HISTORY")
    phu.set("ALGNDX", round(x - float(said[0]), 4), "Sources lie off the header's place by, in x (pixels)")
    phu.set("ALGNDY", round(y - float(said[1]), 4), "The same in y, at the centre (pixels)")
    phu.set("ALGNROT", round(float(verdict.angle), 6), "Sources are turned from header's place by (deg)")
    phu.set("ALGNSCL", round(float(verdict.scale), 8), "Sources are enlarged about the centre by")
    phu.set("ALGNREF", opened_name(reference), "Frame that it was aligned to")


# ---- the reference


def _chosen(
    frames: Frames, params: AdjustWCSToReferenceParams, map_items: Map
) -> tuple[AstroData, list[Registration | None]]:
    """Choose the reference, and register the other frames with it; None stands for the reference itself."""
    reference, results, most = frames[0], [], (-1, -1)
    for candidate in _candidates(frames, params):
        found = map_items(partial(_registered, reference=candidate, params=params), frames)
        accepted = [result for result in found if result is not None and result.accepted]
        matched = len(accepted), sum(not result.doubt for result in accepted)
        if matched > most:
            reference, results, most = candidate, found, matched
        if matched[0] == len(frames) - 1:
            break
    if params.method == "sources" and params.fallback is not None:
        results = map_items(
            lambda pair: _or_correlated(pair[0], pair[1], reference, params),
            zip(frames, results, strict=True),
        )
    return reference, results


def _candidates(frames: Frames, params: AdjustWCSToReferenceParams) -> Frames:
    """Return frames in the order in which they are tried as the reference."""
    if params.reference == "first" or (params.method == "correlation" and params.reference == "auto"):
        return frames[:1]
    weight = [_information(_sources(frame, params)) for frame in frames]
    order = sorted(range(len(frames)), key=lambda k: -weight[k])
    if params.reference == "auto" and weight[0] >= _WORSE**2 * weight[order[0]]:
        order = [0, *(k for k in order if k)]
    tried = order[: 1 if params.reference == "best" else _CANDIDATES]
    return [frames[k] for k in tried]


def _information(listed: Sources) -> float:
    """How well the sources of a frame fix its position: the inverse of the variance of their mean."""
    error = np.hypot(listed.error, _FLOOR)
    return float(np.sum(1 / error[np.isfinite(error) & ~listed.suspect] ** 2))


# ---- one frame


def _registered(
    frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams
) -> Registration | None:
    """Return the displacement that a frame shows; None for the reference itself."""
    if frame is reference:
        return None
    trailed = _trailed(frame, reference) or _trailed(reference, frame)
    if trailed:
        return Registration(method="sources", centre=(0.0, 0.0), reason=trailed)
    if params.method == "correlation":
        return _correlated(frame, reference, params)
    found = _matched(frame, reference, params, params.first_pass, params.min_sources)
    if found.accepted and found.n_matched == 1:
        return _confirmed(found, frame, reference)
    if found.accepted or params.last_pass is None or params.last_pass <= params.first_pass:
        return found
    # In a large area more agreement is needed, and a single pair says nothing.
    far = _matched(frame, reference, params, params.last_pass, max(params.min_sources, _FAR_SOURCES))
    return far if far.accepted and not far.doubt and far.n_matched >= _FAR_SOURCES else found


def _trailed(frame: AstroData, reference: AstroData) -> str:
    """Return that the stars of a frame are trailed, and not those of another one; empty if it is not so."""
    own, other = typical_ellipticity(frame), typical_ellipticity(reference)
    if own > _TRAILED and other < _ROUND:
        return f"stars are trailed: ellipticity {own:.2f}, in {opened_name(reference)} {other:.2f}"
    return ""


def _or_correlated(
    frame: AstroData, first: Registration | None, reference: AstroData, params: AdjustWCSToReferenceParams
) -> Registration | None:
    """Correlate a frame that sources did not align, or with few; keep both reasons if that does not help."""
    few = first is not None and first.doubt and first.n_matched < params.min_sources
    if first is None or (first.accepted and not few):
        return first
    if _trailed(frame, reference) or _trailed(reference, frame):
        return first
    second = _correlated(frame, reference, params)
    if second.accepted and not (first.accepted and second.doubt):
        return second
    if first.accepted:
        return first
    return replace(first, reason=f"sources: {first.reason}; correlation: {second.reason}")


def _matched(
    frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams, reach: float, min_sources: int
) -> Registration:
    to_frame = pixel_mapping(reference, frame)
    here, there = _sources(frame, params), _sources(reference, params)
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


def _sources(frame: AstroData, params: AdjustWCSToReferenceParams) -> Sources:
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
    known = seen(frame, reference, _moved(frame[0].sky_mapping, *found.matrix()))
    problem = ""
    if known.expected and not known.found:
        problem = f"none of {known.expected} bright sources is where it puts them"
    elif known.found and known.distance > verified(frame, reference) / 2 + 2 * known.error:
        problem = f"the {known.found} bright sources in common are {known.distance:.2f} pixel off"
    if not problem:
        return found
    return replace(found, accepted=False, doubt="", reason=f"{problem}: {found.reason}")


def _cut_mask(frame: AstroData, cut: tuple[slice, ...]) -> NDArray[np.uint16] | None:
    mask = frame[0].plane("mask")
    return None if mask is None else np.asarray(mask[cut] & np.uint16(int(FAIL)))
