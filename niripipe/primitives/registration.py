"""How frames are brought onto the sky of one of them: by what they show, by the telescope's word, or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import register
from niripipe.algorithms.register import Registration
from niripipe.astrodata import FAIL, AstroData, shifted, with_affine
from niripipe.errors import AlgorithmError
from niripipe.instruments import AstroDataNiri, pointing
from niripipe.logutils import get_logger
from niripipe.primitives.geometry import pixel_mapping, require_sky_mapping
from niripipe.primitives.params import Field, Params

__all__ = ["AdjustWCSToReferenceParams", "Verdict", "align_frames"]

log = get_logger(__name__)

_USED_COLUMNS = ("XWIN_IMAGE", "YWIN_IMAGE", "FLUX_AUTO", "FLUXERR_AUTO", "ERRWIN_IMAGE", "CLASS_STAR")
_TRUNCATED = 4 | 8 | 16
"""SExtractor's flags: saturated, truncated by the edge, aperture incomplete."""
_WORSE = 0.4
"""The first frame is the reference unless another one fixes positions with this much of its error."""
_CANDIDATES = 5
"""So many frames are tried as the reference before the best of them is taken."""
_BRIGHT = 12.0
"""A source of this S/N in one frame must be seen in another one of the same field."""
_VERIFIED = 0.2
"""Telescope offsets are believed when they are this good, pixels: what may be wrong with a shift."""
_UNEVEN = 0.15
"""Distance (pixels) of two kinds of centre of a bright star beyond which it is no evidence by itself."""
_EDGE = 12.0
"""A star nearer to the edge (pixels) may be cut in one of two frames."""
_TURNED = 0.1
"""Frames whose position angles differ by more (degrees) are not compared pixel by pixel."""

Map = Callable[[Callable[[AstroData], Any], list[AstroData]], list[Any]]


class AdjustWCSToReferenceParams(Params):
    """Parameters of `Align.adjustWCSToReference`."""

    suffix: str | None = Field("_wcsCorrected", description="suffix of the file name")
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
    """

    method: str
    n_matched: int = 0
    rms: float = 0.0
    error: float = float("nan")
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the frame is aligned."""
        return self.method != "set aside"

    @property
    def checked(self) -> bool:
        """Whether what the frame shows says so."""
        return self.method in ("reference", "sources", "correlation")


def align_frames(frames: list[AstroData], params: AdjustWCSToReferenceParams, run: Map) -> list[Verdict]:
    """Correct the WCS of frames relative to the first of them.

    Parameters
    ----------
    frames : list of AstroData
        At least two, with WCS; OBJCAT where there are sources. WCS and the world positions in OBJCAT change,
        and ALGNMETH, ALGNNUM, ALGNRMS, ALGNERR and ALGNREF in the primary header say how.
    params : AdjustWCSToReferenceParams
    run : callable
        Applies a function to frames, which it does not change, possibly in other processes.

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
    first_wcs = frames[0][0].sky_mapping
    if params.method == "offsets":
        reference = frames[0]
        found: list[Registration | None] = [None] * len(frames)
    else:
        reference, found = _chosen(frames, params, run)
    offset_wcs = {id(frame): _by_offsets(frame, reference) for frame in frames}
    for frame, result in zip(frames, found, strict=True):
        if result is not None and result.accepted:
            matrix, offset = result.matrix()
            # The registration speaks in array order, a WCS in (x, y).
            frame[0].sky_mapping = with_affine(frame[0].sky_mapping, matrix[::-1, ::-1], offset[::-1])
    errors = _pointing_errors(frames, reference, found, offset_wcs)
    verdicts = [
        _verdict(frame, reference, result, offset_wcs[id(frame)], errors, params)
        for frame, result in zip(frames, found, strict=True)
    ]
    if reference is not frames[0] and verdicts[0].kept:
        _anchor([f for f, v in zip(frames, verdicts, strict=True) if v.kept], first_wcs)
    for frame, verdict in zip(frames, verdicts, strict=True):
        _update_world(frame)
        _note(frame, verdict, reference)
    return verdicts


# ---- the reference


def _chosen(
    frames: list[AstroData], params: AdjustWCSToReferenceParams, run: Map
) -> tuple[AstroData, list[Registration | None]]:
    """Choose the reference, and register the other frames with it; None stands for the reference itself."""
    best: tuple[AstroData, list[Registration | None]] | None = None
    most = -1
    for candidate in _candidates(frames, params):
        results = run(partial(_registered, reference=candidate, params=params), frames)
        matched = sum(result is not None and result.accepted for result in results)
        if matched > most:
            best, most = (candidate, results), matched
        if matched == len(frames) - 1:
            break
    assert best is not None
    reference, results = best
    if params.method == "sources" and params.fallback is not None:
        again = [f for f, r in zip(frames, results, strict=True) if r is not None and not r.accepted]
        second = dict(
            zip(map(id, again), run(lambda frame: _correlated(frame, reference, params), again), strict=True)
        )
        results = [_better(result, second.get(id(f))) for f, result in zip(frames, results, strict=True)]
    return reference, results


def _candidates(frames: list[AstroData], params: AdjustWCSToReferenceParams) -> list[AstroData]:
    """Return frames in the order in which they are tried as the reference."""
    if params.reference == "first" or (params.method == "correlation" and params.reference == "auto"):
        return frames[:1]
    weight = [_information(_sources(frame, params.cull_sources)) for frame in frames]
    order = sorted(range(len(frames)), key=lambda k: -weight[k])
    if params.reference == "auto" and weight[0] >= _WORSE**2 * weight[order[0]]:
        order = [0, *(k for k in order if k)]
    tried = order[: 1 if params.reference == "best" else _CANDIDATES]
    return [frames[k] for k in tried]


def _information(sources: register.Sources) -> float:
    """How well the sources of a frame fix its position: the inverse of the variance of their mean."""
    if len(sources) == 0 or sources.error is None:
        return 0.0
    error = np.hypot(sources.error, 0.01)
    good = np.isfinite(error) & ~(np.zeros(error.size, bool) if sources.suspect is None else sources.suspect)
    return float(np.sum(1 / error[good] ** 2))


def _anchor(frames: list[AstroData], first_wcs: Any) -> None:
    """Give the first frame its WCS back, and let the others follow."""
    moved = frames[0].copy()
    for frame in frames[1:]:
        mapping = pixel_mapping(frame, moved)
        matrix, offset = np.asarray(mapping.matrix), np.asarray(mapping.offset)
        frame[0].sky_mapping = with_affine(first_wcs, matrix[::-1, ::-1], offset[::-1])
    frames[0][0].sky_mapping = first_wcs


# ---- one frame


def _registered(
    frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams
) -> Registration | None:
    """Return the displacement that a frame shows; None for the reference itself."""
    if frame is reference:
        return None
    if params.method == "correlation":
        return _correlated(frame, reference, params)
    found = _matched(frame, reference, params, params.first_pass, params.min_sources)
    if found.accepted and found.n_matched == 1:
        return _confirmed(found, frame, reference)
    if found.accepted or params.last_pass is None or params.last_pass <= params.first_pass:
        return found
    # In a large area more agreement is needed, and a lonely pair says nothing.
    far = _matched(frame, reference, params, params.last_pass, max(params.min_sources, 5))
    if not far.accepted or far.n_matched < 5:
        return found
    return far


def _matched(
    frame: AstroData,
    reference: AstroData,
    params: AdjustWCSToReferenceParams,
    reach: float,
    min_sources: int,
) -> Registration:
    to_frame = pixel_mapping(reference, frame)
    here, there = _sources(frame, params.cull_sources), _sources(reference, params.cull_sources)
    y, x = to_frame(there.y, there.x)
    there = replace(there, x=x, y=y)
    scale = frame[0].pixel_scale()
    ny, nx = frame[0].shape

    def match(own: register.Sources, other: register.Sources) -> Registration:
        return register.match_sources(
            own,
            other,
            search_radius=reach / scale,
            match_radius=params.match_radius / scale,
            min_sources=min_sources,
            rotate=params.rotate,
            scale=params.scale,
            centre=((nx - 1) / 2, (ny - 1) / 2),
        )

    found = match(here, there)
    if found.accepted:
        return found
    # A star cut by the edge of one of the two may be what spoils a match of a few.
    back = to_frame.inverse()
    y_there, x_there = back(here.y, here.x)
    inside_both = _inside(here.x, here.y, frame) & _inside(x_there, y_there, reference)
    y_own, x_own = back(there.y, there.x)
    both = _inside(there.x, there.y, frame) & _inside(x_own, y_own, reference)
    clean = match(_clean(here, inside_both), _clean(there, both))
    return clean if clean.accepted else found


def _inside(x: NDArray[Any], y: NDArray[Any], frame: AstroData) -> NDArray[np.bool_]:
    ny, nx = frame[0].shape
    inside: NDArray[np.bool_] = (x > _EDGE) & (x < nx - 1 - _EDGE) & (y > _EDGE) & (y < ny - 1 - _EDGE)
    return inside


def _clean(sources: register.Sources, which: NDArray[np.bool_]) -> register.Sources:
    return sources.take(which if sources.suspect is None else which & ~sources.suspect)


def _correlated(
    frame: AstroData, reference: AstroData, params: AdjustWCSToReferenceParams
) -> Registration | None:
    """Compare the images of two frames where the headers let them overlap."""
    if frame is reference:
        return None
    to_frame = pixel_mapping(reference, frame)
    turned = np.abs(np.asarray(to_frame.matrix) - np.eye(2)).max()
    centre = np.array([(size - 1) / 2 for size in reference[0].shape])
    if frame[0].shape != reference[0].shape or turned > np.deg2rad(_TURNED):
        return _no_correlation(centre, "the frames differ in size or orientation")
    carried = np.array([float(v) for v in to_frame(*centre)])
    step = np.round(carried - centre).astype(int)
    # Where the pixel (y, x) of the reference lies at (y, x) + step in the frame, cut both to what they share.
    shape = np.array(reference[0].shape)
    low, high = np.maximum(0, -step), np.minimum(shape, shape - step)
    reach = min(params.first_pass / frame[0].pixel_scale(), int((high - low).min()) // 2 - 1)
    if reach < 1 or (high - low).min() < 64:
        return _no_correlation(centre, "the frames hardly overlap")
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(slice(a, b) for a, b in zip(low + step, high + step, strict=True))
    moved = tuple(float(v) for v in step[::-1])
    try:
        found = register.cross_correlation_shift(
            frame[0].read("data")[here],
            reference[0].read("data")[there],
            _cut_mask(frame, here),
            _cut_mask(reference, there),
            max_shift=float(reach),
            # What stays with the detector lines up when the telescope's motion is undone.
            avoid=(moved[0], moved[1]) if max(map(abs, moved)) >= 3 else None,
        )
    except AlgorithmError as error:
        return _no_correlation(centre, str(error))
    rest = carried - centre - step
    found = replace(found, dx=found.dx + float(rest[1]), dy=found.dy + float(rest[0]))
    return _checked(found, frame, reference) if found.accepted else found


def _checked(found: Registration, frame: AstroData, reference: AstroData) -> Registration:
    """Refuse a correlation that the bright sources of the two frames contradict."""
    matrix, offset = found.matrix()
    seen = _seen(frame, reference, with_affine(frame[0].sky_mapping, matrix[::-1, ::-1], offset[::-1]))
    problem = ""
    if seen.expected and not seen.found:
        problem = f"none of {seen.expected} bright sources is where it puts them"
    elif seen.found and seen.distance > _VERIFIED / 2 + 2 * seen.error:
        problem = f"the {seen.found} bright sources in common are {seen.distance:.2f} pixel off"
    return replace(found, accepted=False, reason=f"{problem}: {found.reason}") if problem else found


def _cut_mask(frame: AstroData, cut: tuple[slice, ...]) -> NDArray[Any] | None:
    mask = frame[0].read("mask")
    return None if mask is None else mask[cut] & np.uint16(int(FAIL))


def _no_correlation(centre: NDArray[np.float64], reason: str) -> Registration:
    nan = float("nan")
    middle = (float(centre[1]), float(centre[0]))
    return Registration(0.0, 0.0, 0.0, 1.0, middle, 0, nan, nan, 0.0, "correlation", False, reason)


def _better(first: Registration | None, second: Registration | None) -> Registration | None:
    """Take the second way where the first did not lead anywhere; keep both reasons where neither did."""
    if first is None or second is None or first.accepted:
        return first
    if second.accepted:
        return second
    return replace(first, reason=f"sources: {first.reason}; correlation: {second.reason}")


def _confirmed(found: Registration, *frames: AstroData) -> Registration:
    """Refuse the shift of a lonely pair if one of the two may have been displaced by a bad pixel or a hit.

    The two ways of centring, weighted by a window and over the whole source, then differ.
    """
    for frame in frames:
        table = frame[0].columns("OBJCAT")
        k = int(np.argmax(np.asarray(table["FLUX_AUTO"], float)))
        apart = float(
            np.hypot(
                table["XWIN_IMAGE"][k] - table["X_IMAGE"][k], table["YWIN_IMAGE"][k] - table["Y_IMAGE"][k]
            )
        )
        if apart > _UNEVEN:
            reason = f"not enough sources: the only pair, and one of it is uneven (by {apart:.2f} pixel)"
            return replace(found, accepted=False, reason=reason)
    return found


def _sources(frame: AstroData, cull: bool) -> register.Sources:
    """Return the sources of a frame: 0-based windowed positions, their errors, and fluxes."""
    ext = frame[0]
    if "OBJCAT" not in ext.exposed:
        return register.Sources(np.zeros(0), np.zeros(0))
    table = ext.columns("OBJCAT")
    columns = {name: np.asarray(table[name], float) for name in _USED_COLUMNS}
    sources = register.Sources(
        columns["XWIN_IMAGE"] - 1,
        columns["YWIN_IMAGE"] - 1,
        flux=columns["FLUX_AUTO"],
        flux_error=columns["FLUXERR_AUTO"],
        error=columns["ERRWIN_IMAGE"],
        suspect=_suspect(table),
    )
    return sources.take(columns["CLASS_STAR"] > 0.5) if cull else sources


def _suspect(table: Any) -> NDArray[np.bool_]:
    """Return which sources may have a wrong position: saturated, truncated, or with unusable pixels."""
    flags, bits = np.asarray(table["FLAGS"], int), np.asarray(table["IMAFLAGS_ISO"], int)
    suspect: NDArray[np.bool_] = (flags & _TRUNCATED != 0) | (bits & int(FAIL) != 0)
    return suspect


# ---- the telescope's word


@dataclass(frozen=True, slots=True)
class _Offsets:
    """Where the telescope says a frame is."""

    wcs: Any
    method: str
    words: str


def _by_offsets(frame: AstroData, reference: AstroData) -> _Offsets:
    """Return the reference's WCS moved by the difference of the telescope offsets; else the header's own."""
    here, there = _moved_by(frame), _moved_by(reference)
    turned = (frame.position_angle() or 0.0) - (reference.position_angle() or 0.0)
    if here is None or there is None or abs(turned) > _TURNED:
        return _Offsets(frame[0].sky_mapping, "header WCS", "the WCS in its header")
    wcs = shifted(require_sky_mapping(reference), there[0] - here[0], there[1] - here[1])
    return _Offsets(wcs, "offsets", "telescope offsets")


def _moved_by(frame: AstroData) -> tuple[float, float] | None:
    """By how much the telescope's offset moved the sources of a frame, (x, y) in pixels."""
    niri = cast(AstroDataNiri, frame)
    offset, scale = pointing.sky_offset(niri), frame[0].pixel_scale()
    if offset is None or scale is None:
        return None
    p, q = offset
    mirrored = pointing.is_mirrored(niri.port(), niri.is_ao())
    return (-p if mirrored else p) / scale, -q / scale


def _pointing_errors(
    frames: Sequence[AstroData],
    reference: AstroData,
    found: Sequence[Registration | None],
    offsets: dict[int, _Offsets],
) -> NDArray[np.float64]:
    """How far the telescope's word is from the truth in the frames that were registered: (n, 2), pixels."""
    errors = []
    for frame, result in zip(frames, found, strict=True):
        if result is None or not result.accepted or frame is reference:
            continue
        ny, nx = frame[0].shape
        x, y = (nx - 1) / 2, (ny - 1) / 2
        sky = frame[0].sky_mapping.all_pix2world(x, y, 0)
        there = offsets[id(frame)].wcs.all_world2pix(*sky, 0)
        errors.append([float(there[0]) - x, float(there[1]) - y])
    return np.array(errors, float).reshape(-1, 2)


def _verdict(
    frame: AstroData,
    reference: AstroData,
    result: Registration | None,
    offsets: _Offsets,
    errors: NDArray[np.float64],
    params: AdjustWCSToReferenceParams,
) -> Verdict:
    """Decide about a frame; one that the telescope's offsets align gets its WCS here."""
    if frame is reference:
        return Verdict("reference", error=0.0, reason="the others are aligned to this frame")
    if result is not None and result.accepted:
        rms = result.rms if np.isfinite(result.rms) else 0.0
        return Verdict(result.method, result.n_matched, rms, result.error, result.reason)
    if params.method == "offsets":
        frame[0].sky_mapping = offsets.wcs
        return Verdict(offsets.method, reason=f"{offsets.words}, as was asked for")
    reason = "" if result is None else result.reason
    if params.fallback != "offsets":
        return Verdict("set aside", reason=f"it could not be aligned: {reason}")
    problem, trust, error = _trust(frame, reference, offsets, errors)
    if problem:
        return Verdict(
            "set aside",
            reason=f"it could not be aligned ({reason}), and {offsets.words} cannot help: {problem}",
        )
    frame[0].sky_mapping = offsets.wcs
    return Verdict(offsets.method, error=error, reason=f"{offsets.words}, {trust} ({reason})")


def _trust(
    frame: AstroData, reference: AstroData, offsets: _Offsets, errors: NDArray[np.float64]
) -> tuple[str, str, float]:
    """Tell why the telescope's word is not taken; else how far it can be trusted, also in pixels."""
    spread = float(np.sqrt(np.mean(errors**2))) if len(errors) else float("nan")
    if len(errors) >= 2 and spread > _VERIFIED:
        return (
            f"in the {len(errors)} frames aligned otherwise they are wrong by {spread:.2f} pixel",
            "",
            spread,
        )
    seen = _seen(frame, reference, offsets.wcs)
    if seen.expected and not seen.found:
        return f"none of {seen.expected} bright sources is where they put it", "", float("nan")
    if seen.expected > 1 and 2 * seen.found < seen.expected:
        return (
            f"only {seen.found} of {seen.expected} bright sources are where they put them",
            "",
            float("nan"),
        )
    if seen.found and seen.distance + seen.error > _VERIFIED:
        return f"the {seen.found} sources in common are {seen.distance:.2f} pixel off", "", float("nan")
    if seen.found:
        return "", f"which {seen.found} sources confirm to {seen.distance:.2f} pixel", seen.distance
    if len(errors) >= 2:
        return "", f"good to {spread:.2f} pixel in {len(errors)} other frames", spread
    return "", "unchecked: no frame shows enough to tell how good they are", float("nan")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Bright sources that two frames should share and do share, how far these are apart, and its error."""

    expected: int
    found: int
    distance: float
    error: float


def _seen(frame: AstroData, reference: AstroData, wcs: Any) -> _Seen:
    here, there = _sources(frame, False), _sources(reference, False)
    if there.flux is not None and len(there):
        ra, dec = reference[0].sky_mapping.all_pix2world(there.x, there.y, 0)
        x, y = wcs.all_world2pix(ra, dec, 0)
        there = replace(there, x=np.asarray(x), y=np.asarray(y))
    reach = max(4.0, 2.0 / frame[0].pixel_scale())
    expected = 0
    distances: list[float] = []
    errors: list[float] = []
    for one, other in ((here, there), (there, here)):
        if one.flux is None or one.flux_error is None or len(one) == 0:
            continue
        ny, nx = frame[0].shape
        inside = (one.x > reach) & (one.x < nx - 1 - reach) & (one.y > reach) & (one.y < ny - 1 - reach)
        if one is here:
            # Only where the reference looked, too.
            ra, dec = wcs.all_pix2world(one.x, one.y, 0)
            rx, ry = reference[0].sky_mapping.all_world2pix(ra, dec, 0)
            ny, nx = reference[0].shape
            inside &= (rx > reach) & (rx < nx - 1 - reach) & (ry > reach) & (ry < ny - 1 - reach)
        bright = inside & (one.flux > _BRIGHT * one.flux_error)
        if one.suspect is not None:
            bright &= ~one.suspect
        expected = max(expected, int(bright.sum()))
        i, j = register.pair_sources(one.x[bright], one.y[bright], other.x, other.y, reach)
        if other.flux is not None and i.size:
            ratio = one.flux[bright][i] / other.flux[j]
            like = (ratio > 0.5) & (ratio < 2)
            i, j = i[like], j[like]
        if i.size > len(distances):
            dx, dy = one.x[bright][i] - other.x[j], one.y[bright][i] - other.y[j]
            distances = [float(np.hypot(np.median(dx), np.median(dy)))] * i.size
            own = np.full(one.x.size, 0.1) if one.error is None else one.error
            errors = [float(np.sqrt(2 * np.mean(own[bright][i] ** 2) / i.size))] * i.size
    if not distances:
        return _Seen(expected, 0, float("nan"), float("nan"))
    return _Seen(expected, len(distances), distances[0], errors[0])


# ---- headers


def _update_world(frame: AstroData) -> None:
    ext = frame[0]
    if "OBJCAT" in ext.exposed and len(ext.columns("OBJCAT")):
        catalogue = ext.columns("OBJCAT")
        ra, dec = ext.sky_mapping.all_pix2world(catalogue["X_IMAGE"], catalogue["Y_IMAGE"], 1)
        ext.set_columns("OBJCAT", {"X_WORLD": ra, "Y_WORLD": dec})


def _note(frame: AstroData, verdict: Verdict, reference: AstroData) -> None:
    phu = frame.phu
    phu.set("ALGNMETH", verdict.method, "How the frame was aligned")
    phu.set("ALGNNUM", int(verdict.n_matched), "Sources used for the alignment")
    phu.set("ALGNRMS", round(float(verdict.rms), 4), "Rms of the alignment (pixels)")
    if np.isfinite(verdict.error):
        phu.set("ALGNERR", round(float(verdict.error), 4), "Error of the shift per axis (pixels)")
    else:
        phu.remove("ALGNERR", ignore_missing=True)
    phu.set("ALGNREF", str(reference.orig_filename or reference.filename), "Frame that it was aligned to")
