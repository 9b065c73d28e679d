"""Primitives that bring frames onto one pixel grid and one flux scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import fluxscale, register
from niripipe.algorithms.affine import Grid, output_grid
from niripipe.astrodata import AstroData, shifted, undistorted
from niripipe.logutils import get_logger
from niripipe.primitives import resample_to
from niripipe.primitives.base import Frames, PrimitivesBase, done, not_needed, primitive
from niripipe.primitives.geometry import outline, pixel_mapping, require_sky_mapping
from niripipe.primitives.params import Field, FrameOrPath, OfDragons, SuffixParams
from niripipe.primitives.registration import AdjustWCSToReferenceParams, Verdict, align_frames
from niripipe.primitives.zero_point_stacks import rescale_zero_point

__all__ = ["Align"]

log = get_logger(__name__)


class ResampleToCommonFrameParams(resample_to.InterpolationParams, resample_to.TargetParams, suffix="_align"):
    """Parameters of `Align.resampleToCommonFrame`."""

    of_dragons = MappingProxyType(
        {"force_affine": OfDragons((True,), "Pass target_wcs=: positions are then mapped through the sky.")}
    )

    trim_data: bool = Field(False, description="keep the reference's own field instead of the whole one")
    conserve: bool = Field(True, description="conserve flux where the pixel scale changes")
    reference: FrameOrPath = Field(None, description="frame whose grid is used; the first by default")
    objmask: bool = Field(True, description="resample object masks too; without it they are removed")


class ScaleCountsToReferenceParams(SuffixParams, suffix="_countsScaled"):
    """Parameters of `Align.scaleCountsToReference`."""

    tolerance: float = Field(
        0.0, ge=0, le=1, description="0: scale by exposure time; above: accept a flux ratio that far from it"
    )
    use_common: bool = Field(True, description="use only sources that all frames have")
    radius: float = Field(0.5, ge=0.1, description="largest distance of a matched pair, arcsec")


class ScaleByExposureTimeParams(SuffixParams, suffix="_exposureTimeScaled"):
    """Parameters of `Align.scaleByExposureTime`."""

    time: float | None = Field(None, ge=0.1, description="exposure time to scale to, s; the first frame's")


class Align(PrimitivesBase):
    """Registration, resampling, count scaling."""

    @primitive(stamp="CORRWCS")
    def adjustWCSToReference(self, frames: Frames, params: AdjustWCSToReferenceParams) -> Frames:
        """Correct the WCS of each frame relative to the first frame's.

        The sources of each frame are matched with those of a reference within `first_pass` of where the
        two WCS put them, if need be within `last_pass`, and the shift (with a rotation where ten pairs ask
        for it, or five without a good shift, on request with scale) is the mean over the matched pairs,
        weighted by their errors and a common scatter. A frame whose
        sources do not give a trustworthy answer is aligned by correlating the images, and one that shows
        nothing by the telescope's offsets. A single bright star near its place is enough.

        Limits of errors are in FWHM of the sources: a shift that is wrong by 0.1 FWHM widens a frame's
        sources by 3 %, and is no reason to lose it. A shift with a standard error above 0.016 FWHM (0.06
        pixel at least), or from one or two faint sources, is doubtful: the frame is kept with a warning and
        ALGNFLAG is T. The telescope's offsets are taken if they were good to 0.2 FWHM in the frames
        aligned otherwise, above 0.05 FWHM (0.2 pixel at least) as doubtful, or if there are no such frames
        and nothing in the images speaks against them. A frame is left out where its sources show that it
        is of another field, far from where it should be or trailed, or where its shift may be wrong by more.

        Where `standardizeWCS` distrusted a WCS or offsets (PNTDIST) and the bright sources are where that
        statement puts them, and not where the frame was put, it is taken back first; PNTWITN is ``images``.

        The reference is the first frame, or another one if the first is much worse (bad seeing, cloud) or
        shows another field; the first frame keeps its WCS as long as it can be aligned at all, so that the
        product has its grid and name.

        Tiles of a mosaic that share too little with the reference are tied to it through other frames. All
        pairs of frames that share 4 % of their area or more are compared, and the positions are the
        least-squares solution, without the pairs that contradict the others. A tile without sources that
        alone shows its part of the sky is kept where the telescope's offsets put it, as doubtful. Where all
        frames have a good shift relative to the reference, that is the result.

        Log, report and header say what was done to each frame: ALGNMETH, ALGNNUM (pairs), ALGNRMS (scatter of
        the pairs, pixels), ALGNERR (error of the shift per axis, pixels, where known; with the disagreement
        of the pairs, and 0.01 FWHM for one pair), ALGNFLAG (doubtful), ALGNDX, ALGNDY, ALGNROT, ALGNSCL
        (shift in pixels at the centre, rotation in degrees and scale of the sources relative to where the
        header puts them), ALGNREF, ALGNTIES (frames that it was compared with), ALGNRES (rms by which these
        comparisons differ from the result, pixels, where there are several). Pixels are not touched.

        The header of a stack has the telescope's offsets of one of its frames, which are not used: the WCS
        of a stack says where it is.

        Positions are compared without the distortion in the WCS (`standardizeWCS`). With
        ``distortion="auto"`` the dithers check it: each star is seen at several places of the detector, which
        shows all of a distortion but its linear part. One that is contradicted by 3.5 standard errors is
        taken away. Where there is none, r' = r + k r^2 (with many stars a polynomial of third order, if it is
        better) is fitted, and used if it is significant at 5 standard errors, displaces the pairs by 0.02
        pixel and 0.005 FWHM rms or more, and rests on 10 stars in 4 frames at least. DISTMETH (published,
        header, fitted, refused or none), DISTCOEF (k) and DISTERR say so, with a warning for what was fitted
        or refused.

        Frames of a moving target (NON_SIDEREAL) are aligned on it, by the telescope's offsets: the telescope
        follows the target, so that P and Q say where it is. Where the frames show a source that stays there
        within an arcsec, while the stars move, it corrects the offsets. Stars move in the stack
        (MOVSTARS). ALGNON says ``target`` or ``stars``; ``align_on`` chooses. The WCS of the
        product is that of the sky at the time of the reference frame.

        Raises
        ------
        DataError
            A frame has no WCS.
        """
        if len(frames) < 2:
            return self.note_all(frames, not_needed("there is only one frame"))
        verdicts = align_frames(frames, params, self.map)
        if frames[0].phu.get("ALGNON") == "target":
            self.remark(_seen_target(verdicts))
        kept = []
        for frame, verdict in zip(frames, verdicts, strict=True):
            if not verdict.kept:
                self.drop(frame, verdict.reason)
                continue
            if verdict.doubt:
                words = f"{verdict.method}, {verdict.doubt}"
                log.warning("%s: kept, but its shift is doubtful: %s", frame.filename, words)
            elif not verdict.checked:
                log.warning("%s: aligned by %s", frame.filename, verdict.reason)
            self.note(frame, done(f"{verdict.method}: {verdict.reason}"))
            kept.append(frame)
        return kept

    @primitive(stamp="ALIGN")
    def resampleToCommonFrame(self, frames: Frames, params: ResampleToCommonFrameParams) -> Frames:
        """Put all frames on the pixel grid of the first, enlarged to hold every frame's field.

        Data and OBJMASK are interpolated, the variance is propagated with the squares of the
        interpolation's weights, so that it is the variance of each new pixel; NOISCORR in the extension
        header is the factor by which the variance of a large aperture exceeds the sum of the variances
        in it. Flags spread to pixels that mostly depend on flagged ones; bit 16 marks where a frame has
        no data. All frames get the WCS of the reference, or with `target_wcs` that of the target, in any
        projection, orientation and scale.

        A distortion in the WCS (`standardizeWCS`, `adjustWCSToReference`) is taken out in the same
        interpolation: the new grid is undistorted, its header has no SIP, and DISTGONE says so. The areas
        of single pixels are not applied. A flat holds them already, so that a frame divided by it has the
        surface brightness of the sky, in the light of its median pixel; the area of that one (1.016 at f/32
        with Altair) is in JFACTOR, so that a source has its own flux wherever it lies. A single frame is not
        resampled and keeps its distortion in the header.

        Raises
        ------
        DataError
            A frame has no WCS.
        """
        if not params.objmask:
            for frame in frames:
                if "OBJMASK" in frame[0].exposed:
                    del frame[0].OBJMASK
        options = {**params.options, "conserve": params.conserve}
        if params.target_wcs is not None and frames:
            return resample_to.onto_target(frames, params.target_wcs, options, self.map)
        given = params.reference
        if given is None and len(frames) < 2:
            return self.note_all(frames, not_needed("there is only one frame"))
        reference = frames[0] if given is None else self.context.calibrations.opened(given)
        to_frames = [pixel_mapping(reference, frame) for frame in frames]
        if params.trim_data or given is not None:
            grid = Grid((0, 0), reference[0].shape)
        else:
            grid = output_grid(
                np.stack(mapping.inverse()(*outline(frame).T), axis=1)
                for frame, mapping in zip(frames, to_frames, strict=True)
            )
        wcs = shifted(undistorted(require_sky_mapping(reference)), grid.origin[1], grid.origin[0])
        jobs = list(zip(frames, to_frames, strict=True))
        self.map(lambda job: resample_to.put_on_grid(*job, grid, wcs, options), jobs)
        return frames

    @primitive(stamp="SCALEOBJ")
    def scaleCountsToReference(self, frames: Frames, params: ScaleCountsToReferenceParams) -> Frames:
        """Scale the counts of each frame to those of the first.

        With ``tolerance=0`` by the ratio of exposure times; else by the flux ratio of common sources
        where that is within the tolerance of it. EXPTIME becomes the reference's; ORIGTEXP keeps the old.
        """
        for frame in frames[:1]:
            self.note(frame, not_needed("this is the reference"))
        measured: list[float | None] = [None] * len(frames[1:])
        if params.tolerance > 0 and frames:
            measured = _flux_ratios(frames, params)
        for frame, flux_ratio in zip(frames[1:], measured, strict=True):
            factor = float(frames[0].exposure_time() / frame.exposure_time())
            if flux_ratio is not None and fluxscale.within_tolerance(flux_ratio, factor, params.tolerance):
                factor = flux_ratio
            elif params.tolerance > 0:
                log.warning("%s: scaled by exposure time, the flux ratio is %s", frame.filename, flux_ratio)
            if factor == 1.0:
                self.note(frame, not_needed("the counts are on the reference's scale"))
                continue
            _scale(frame, factor, frames[0].exposure_time())
        return frames

    @primitive(stamp="EXPSCALE")
    def scaleByExposureTime(self, frames: Frames, params: ScaleByExposureTimeParams) -> Frames:
        """Scale the counts of each frame to one exposure time."""
        if not frames:
            return frames
        target = float(params.time or frames[0].exposure_time())
        for frame in frames:
            factor = target / float(frame.exposure_time())
            # One part in a thousand is the step in which exposure times are recorded.
            if abs(factor - 1) <= 1e-3:
                self.note(frame, not_needed("the exposure time is the wanted one"))
                continue
            _scale(frame, factor, target)
        return frames


def _seen_target(verdicts: Sequence[Verdict]) -> str:
    """Return in words how frames were aligned on a moving target."""
    number = sum(verdict.method == "target" for verdict in verdicts)
    seen = f"it was seen in {number + 1} of {len(verdicts)} frames"
    if not number:
        seen = "it was not recognised, and the telescope's offsets are believed"
    return f"aligned on the moving target: {seen}"


def _scale(frame: AstroData, factor: float, exposure_time: float) -> None:
    rescale_zero_point(frame, factor, exposure_time)
    frame.multiply(np.float32(factor))
    if "ORIGTEXP" not in frame.phu:
        frame.phu.set("ORIGTEXP", frame.exposure_time(), "Exposure time before scaling (s)")
    frame.phu["EXPTIME"] = exposure_time


def _flux_ratios(frames: Frames, params: ScaleCountsToReferenceParams) -> list[float | None]:
    """Return for each frame but the first the factor that brings its sources to the first one's fluxes."""
    reference, *others = [_fluxes(frame) for frame in frames]
    matches = [_matched(reference, own, params.radius) for own in others]
    if params.use_common and len(matches) > 1:
        common = reduce(np.intersect1d, [there for there, _ in matches])
        kept = [np.isin(there, common) for there, _ in matches]
        matches = [(there[keep], here[keep]) for (there, here), keep in zip(matches, kept, strict=True)]
    ratios: list[float | None] = []
    for own, (there, here) in zip(others, matches, strict=True):
        (_, _, flux, error), (_, _, first, first_error) = own[here].T, reference[there].T
        ratios.append(fluxscale.flux_scale(flux, error, first, first_error) if len(there) else None)
    return ratios


def _fluxes(frame: AstroData) -> NDArray[np.float64]:
    """Return ra, dec, flux and its error of a frame's sources, shape (n, 4)."""
    if "OBJCAT" not in frame[0].exposed:
        return np.zeros((0, 4))
    table = frame[0].columns("OBJCAT")
    return np.column_stack(
        [np.asarray(table[name], float) for name in ("X_WORLD", "Y_WORLD", "FLUX_AUTO", "FLUXERR_AUTO")]
    )


def _matched(
    reference: NDArray[np.float64], own: NDArray[np.float64], radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair sources on the sky within a radius in arcsec."""
    if len(reference) == 0 or len(own) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    # On the scale of a frame the sky is flat enough for degrees along both axes.
    stretch = np.array([np.cos(np.deg2rad(reference[0, 1])), 1.0]) * 3600
    a, b = reference[:, :2] * stretch, own[:, :2] * stretch
    return register.pair_sources(a[:, 0], a[:, 1], b[:, 0], b[:, 1], radius)
