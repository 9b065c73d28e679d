"""How frames are brought onto the sky of one of them: by sources, by correlation, or by telescope offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.register import Registration, Sources
from niripipe.astrodata import AstroData, distortion_of, undistorted, with_distortion
from niripipe.primitives.base import Frames, opened_name
from niripipe.primitives.distortion_check import Choice, prepare_distortion, settle_distortion
from niripipe.primitives.geometry import pixel_mapping, require_sky_mapping
from niripipe.primitives.mosaic import alone_in_their_part, tied_through_others
from niripipe.primitives.moving import on_the_target
from niripipe.primitives.objcat import update_world
from niripipe.primitives.offsets import Offsets, as_stated, pointing_errors, trust
from niripipe.primitives.pairs import moved_wcs, or_correlated, registered, trailed, usable_sources
from niripipe.primitives.params import Field, SuffixParams
from niripipe.primitives.pointing_doubt import settle_pointing
from niripipe.primitives.targets import AlignOn, chosen_target

__all__ = ["AdjustWCSToReferenceParams", "Verdict", "align_frames"]

_WORSE = 0.4
"""The first frame is the reference unless another one fixes positions with this much of its error."""
_CANDIDATES = 5
"""So many frames are tried as the reference before the best of them is taken."""
_FLOOR = 0.01
"""Floor of a position's error when frames are compared, pixels."""

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
    align_on: AlignOn = Field(
        "auto", description="auto: a moving target if all frames are NON_SIDEREAL, else the stars"
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
    rotate: bool | None = Field(
        None, description="allow a rotation; None: where ten pairs ask for it, or five without a good shift"
    )
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
        ``reference``, ``sources``, ``correlation``, ``target``, ``offsets``, ``header WCS`` or ``set aside``.
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
    ties : int
        Frames that it was compared with successfully.
    residual : float
        What these comparisons differ from the result by, rms per axis, pixels; NaN with fewer than two.
    """

    method: str
    n_matched: int = 0
    rms: float = 0.0
    error: float = float("nan")
    reason: str = ""
    doubt: str = ""
    angle: float = 0.0
    scale: float = 1.0
    ties: int = 0
    residual: float = float("nan")

    @property
    def kept(self) -> bool:
        """Whether the frame is aligned."""
        return self.method != "set aside"

    @property
    def checked(self) -> bool:
        """Whether what the frame shows says so."""
        return self.method in ("reference", "sources", "correlation", "target")


def align_frames(frames: Frames, params: AdjustWCSToReferenceParams, map_items: Map) -> list[Verdict]:
    """Correct the WCS of frames relative to the first of them.

    Parameters
    ----------
    frames : list of AstroData
        At least two, with WCS; OBJCAT where there are sources. WCS and the world positions in OBJCAT change,
        and ALGNMETH, ALGNNUM, ALGNRMS, ALGNERR, ALGNFLAG, ALGNDX, ALGNDY, ALGNROT, ALGNSCL, ALGNTIES,
        ALGNRES and ALGNREF in the primary header say how.
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
    on_target = chosen_target(frames, params.align_on)
    if on_target:
        # Stars would pull the target out of its place; the telescope followed it.
        params = params.model_copy(update={"method": "offsets"})
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
    offsets = [as_stated(frame, reference) for frame in frames]
    if on_target:
        offsets = on_the_target(frames, reference, offsets)
    for frame, result in zip(frames, found, strict=True):
        if result is not None and result.accepted:
            frame[0].sky_mapping = moved_wcs(frame[0].sky_mapping, *result.matrix())
    errors = pointing_errors(frames, reference, found, offsets)
    alone = alone_in_their_part(frames, reference, found, params.min_sources)
    verdicts = [
        _verdict(frame, reference, result, offset, errors, params, alone=lonely)
        for frame, result, offset, lonely in zip(frames, found, offsets, alone, strict=True)
    ]
    for frame, verdict, header in zip(frames, verdicts, headers, strict=True):
        _note(frame, verdict, reference, header)
    if reference is not frames[0] and verdicts[0].kept:
        _anchor([f for f, v in zip(frames, verdicts, strict=True) if v.kept], headers[0])
    for frame in frames:
        update_world(frame)
    return [replace(v, reason=f"{v.reason}; {settled}") for v in verdicts] if settled else verdicts


def _anchor(frames: Frames, first_wcs: Any) -> None:
    """Give the first frame its WCS back, and let the others follow."""
    moved = frames[0].copy()
    for frame in frames[1:]:
        mapping = pixel_mapping(frame, moved)
        plane = moved_wcs(undistorted(first_wcs), np.asarray(mapping.matrix), np.asarray(mapping.offset))
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
    *,
    alone: bool,
) -> Verdict:
    """Decide about a frame; one that the telescope's offsets align gets its WCS here."""
    if frame is reference:
        return Verdict("reference", error=0.0, reason="the others are aligned to this frame")
    if result is not None and result.accepted:
        rms = result.rms if np.isfinite(result.rms) else 0.0
        turned: dict[str, Any] = {"angle": 0.0 - result.angle, "scale": 1 / result.scale}
        turned |= {"ties": result.ties, "residual": result.residual}
        reason = f"{result.reason}; doubtful: {result.doubt}" if result.doubt else result.reason
        return Verdict(
            result.method, result.n_matched, rms, result.error, reason, doubt=result.doubt, **turned
        )
    if params.method == "offsets":
        frame[0].sky_mapping = offsets.wcs
        why = "the target moves" if frame.phu.get("ALGNON") == "target" else "as was asked for"
        return Verdict(offsets.method, error=offsets.error, reason=f"{offsets.words}, {why}")
    reason = "" if result is None else result.reason
    if params.fallback != "offsets" or trailed(frame, reference):
        return Verdict("set aside", reason=f"it could not be aligned: {reason}")
    problem, words, error, doubt = trust(frame, reference, offsets, errors, alone=alone)
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
    phu.set("ALGNTIES", int(verdict.ties), "Frames that it was compared with")
    if np.isfinite(verdict.residual):
        phu.set("ALGNRES", round(float(verdict.residual), 4), "Rms of these ties about the shift (pixels)")
    else:
        phu.remove("ALGNRES", ignore_missing=True)
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
        found = map_items(partial(registered, reference=candidate, params=params), frames)
        accepted = [result for result in found if result is not None and result.accepted]
        matched = len(accepted), sum(not result.doubt for result in accepted)
        if matched > most:
            reference, results, most = candidate, found, matched
        if matched[0] == len(frames) - 1:
            break
    if params.method == "sources" and params.fallback is not None:
        results = map_items(
            lambda pair: or_correlated(pair[0], pair[1], reference, params),
            zip(frames, results, strict=True),
        )
    return reference, tied_through_others(frames, reference, results, params, map_items)


def _candidates(frames: Frames, params: AdjustWCSToReferenceParams) -> Frames:
    """Return frames in the order in which they are tried as the reference."""
    if params.reference == "first" or (params.method == "correlation" and params.reference == "auto"):
        return frames[:1]
    weight = [_information(usable_sources(frame, params)) for frame in frames]
    order = sorted(range(len(frames)), key=lambda k: -weight[k])
    if params.reference == "auto" and weight[0] >= _WORSE**2 * weight[order[0]]:
        order = [0, *(k for k in order if k)]
    tried = order[: 1 if params.reference == "best" else _CANDIDATES]
    return [frames[k] for k in tried]


def _information(listed: Sources) -> float:
    """How well the sources of a frame fix its position: the inverse of the variance of their mean."""
    error = np.hypot(listed.error, _FLOOR)
    return float(np.sum(1 / error[np.isfinite(error) & ~listed.suspect] ** 2))
