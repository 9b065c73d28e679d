"""Primitives that remove what the readout leaves in the image."""

from __future__ import annotations

from typing import Literal

from niripipe.algorithms import pattern
from niripipe.astrodata import AstroData
from niripipe.logutils import get_logger
from niripipe.primitives.base import Outcome, PrimitivesBase, done, not_needed, primitive, skipped
from niripipe.primitives.geometry import quadrant_centre
from niripipe.primitives.params import Field, SuffixParams

__all__ = ["Cleanup"]

log = get_logger(__name__)


class CleanReadoutParams(SuffixParams, suffix="_readoutCleaned"):
    """Parameters of `Cleanup.cleanReadout`."""

    clean: Literal["skip", "default", "force"] = Field(
        "skip",
        description="default: remove what lowers the noise; force: also weak patterns; skip: nothing",
    )
    offsets: bool = Field(True, description="also remove offsets of rows, columns and quadrants")
    pattern_x_size: int = Field(16, ge=2, description="width of the repeating box, a power of 2")
    pattern_y_size: int = Field(4, ge=1, description="height of the repeating box, a power of 2")
    hsigma: float = Field(3.0, ge=0, description="upper clipping limit when boxes are combined, sigma")
    lsigma: float = Field(3.0, ge=0, description="lower clipping limit when boxes are combined, sigma")
    pat_strength_thres: float = Field(15.0, ge=0, description="smallest rms of a pattern worth removing")
    simple_thres: float = Field(0.6, ge=0, description="smallest range of the pattern's strength over rows")
    level_bias_offset: bool = Field(True, description="level the quadrants afterwards")
    smoothing_extent: int = Field(5, ge=1, description="rows and columns compared at quadrant borders")
    intraquad_smooth: int = Field(50, ge=1, description="rows compared at an edge within a quadrant")
    debug_subtract_background: bool = Field(True, description="remove the mean of each box first")
    debug_canny_sigma: float = Field(3.0, ge=1, description="smoothing of the edge finder, rows")


class CleanFFTReadoutParams(SuffixParams, suffix="_readoutFFTCleaned"):
    """Parameters of `Cleanup.cleanFFTReadout`."""

    clean: Literal["skip", "default", "force"] = Field(
        "skip", description="default: clean rows with a strong pattern; force: all; skip: none"
    )
    win_size: int = Field(9, ge=3, description="frequencies compared with that of the pattern, an odd number")
    periodicity: float = Field(8.0, ge=2, description="period of the pattern, columns")
    sigma_fact: float = Field(4.0, ge=0, description="least amplitude above the neighbours, sigma")
    pat_thres: float = Field(-0.3, lt=1, description="least standardised strength of affected rows")
    lquad: bool = Field(True, description="level the quadrants afterwards")
    l2clean: bool = Field(True, description="clean single rows that stand out from the others")
    l2thres: float = Field(4.0, ge=0, description="how far these rows must stand out, sigma")
    smoothing_extent: int = Field(5, ge=1, description="rows and columns compared at quadrant borders")
    pad_rows: int = Field(0, ge=0, description="rows that are missing at the top of a subarray")


class Cleanup(PrimitivesBase):
    """Cosmetics of the readout."""

    @primitive(stamp="CLNRDOUT")
    def cleanReadout(self, frame: AstroData, params: CleanReadoutParams) -> Outcome | None:
        """Remove what the readout adds to rows, columns and quadrants, where that lowers the noise.

        First the pattern that repeats along the rows of a quadrant, where it is strong. Then offsets of
        every eighth row and column, of rows, of columns, and of quadrants (`offsets`): each is measured
        twice, on stripes of the frame that take turns; what both agree on is subtracted, in the share in
        which it is certain, and nothing where noise could have made it. Sources are left out, and light that
        is wider than 32 pixels is no offset, so that a galaxy which fills the field stays.

        RDPATT in the extension header is the rms of the offsets found, RDPATTL what is expected to be left
        of it, both 0 where none was found. Quadrants meet in the middle of the detector, by the detector
        section. Variance and mask are not changed. Off unless asked for; the science recipes do.
        """
        if params.clean == "skip":
            return skipped("clean is skip")
        ext = frame[0]
        centre = quadrant_centre(frame)
        result = pattern.clean_readout(
            ext.read("data"),
            ext.read("mask"),
            ext.read("OBJMASK"),
            force=params.clean == "force",
            subtract_background=params.debug_subtract_background,
            canny_sigma=params.debug_canny_sigma,
            centre=centre,
            **params.model_dump(
                exclude={"suffix", "clean", "offsets", "debug_subtract_background", "debug_canny_sigma"}
            ),
        )
        details = []
        cleaned = [quadrant for quadrant in result.quadrants if quadrant.cleaned]
        if cleaned:
            details.append(f"the repeated pattern was removed from {len(cleaned)} quadrants")
        if params.offsets:
            found = pattern.remove_offsets(result.data, ext.read("mask"), ext.read("OBJMASK"), centre=centre)
            ext.hdr.set("RDPATT", round(found.before, 3), "Rms of the offsets by the readout, found")
            ext.hdr.set("RDPATTL", round(found.after, 3), "Rms of those expected to be left")
            if found.parts:
                change = f"offsets of {found.before:.2g} rms lowered to {found.after:.2g}"
                details.append(f"{change} (noise {found.noise:.3g}): {', '.join(found.parts)}")
        if not details:
            return not_needed("no quadrant has a pattern or offsets whose removal lowers the noise")
        ext.data = result.data
        log.fullinfo("%s: readout: %s", frame.filename, "; ".join(details))
        return done("; ".join(details))

    @primitive(stamp="CLNFFTRD")
    def cleanFFTReadout(self, frame: AstroData, params: CleanFFTReadoutParams) -> Outcome | None:
        """Remove the frequencies of the readout pattern from each row that carries it.

        It follows a pattern whose phase drifts, which `cleanReadout` does not. Sources and flagged pixels are
        left out; variance and mask are not changed. Off by default.

        Raises
        ------
        DataError
            The quadrants are too narrow for the period.
        """
        if params.clean == "skip":
            return skipped("clean is skip")
        ext = frame[0]
        result = pattern.clean_fft_readout(
            ext.read("data"),
            ext.read("mask"),
            ext.read("OBJMASK"),
            force=params.clean == "force",
            centre=None if params.pad_rows else quadrant_centre(frame),
            **params.model_dump(exclude={"suffix", "clean"}),
        )
        return _take(frame, result)


def _take(frame: AstroData, result: pattern.Cleaned) -> Outcome | None:
    """Give a frame its cleaned data, if anything was cleaned."""
    cleaned = [quadrant for quadrant in result.quadrants if quadrant.cleaned]
    if not cleaned:
        return not_needed("no quadrant has a pattern worth removing")
    frame[0].data = result.data
    log.fullinfo("%s: the readout pattern was removed from %d quadrants", frame.filename, len(cleaned))
    return None
