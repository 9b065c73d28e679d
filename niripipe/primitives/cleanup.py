"""Primitives that remove what the readout leaves in the image."""

from __future__ import annotations

from typing import Literal

from niripipe.algorithms import pattern
from niripipe.astrodata import AstroData
from niripipe.logutils import get_logger
from niripipe.primitives.base import Outcome, PrimitivesBase, not_needed, primitive, skipped
from niripipe.primitives.params import Field, SuffixParams

__all__ = ["Cleanup"]

log = get_logger(__name__)


class CleanReadoutParams(SuffixParams, suffix="_readoutCleaned"):
    """Parameters of `Cleanup.cleanReadout`."""

    clean: Literal["skip", "default", "force"] = Field(
        "skip", description="default: clean quadrants with a strong pattern; force: all; skip: none"
    )
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
        """Remove the pattern that the readout repeats along the rows of a quadrant.

        The pattern is measured outside the sources, and removed where that lowers the noise. Variance and
        mask are not changed. Off by default.
        """
        if params.clean == "skip":
            return skipped("clean is skip")
        ext = frame[0]
        result = pattern.clean_readout(
            ext.read("data"),
            ext.read("mask"),
            ext.read("OBJMASK"),
            force=params.clean == "force",
            subtract_background=params.debug_subtract_background,
            canny_sigma=params.debug_canny_sigma,
            **params.model_dump(
                exclude={"suffix", "clean", "debug_subtract_background", "debug_canny_sigma"}
            ),
        )
        return _take(frame, result)

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
