"""Primitives that remove what the readout leaves in the image."""

from __future__ import annotations

from typing import Literal

from niripipe.algorithms import pattern
from niripipe.astrodata import AstroData
from niripipe.logutils import get_logger
from niripipe.primitives.base import Outcome, PrimitivesBase, not_needed, primitive, skipped
from niripipe.primitives.params import Field, Params

__all__ = ["Cleanup"]

log = get_logger(__name__)


class CleanReadoutParams(Params):
    """Parameters of `Cleanup.cleanReadout`."""

    suffix: str | None = Field("_readoutCleaned", description="suffix of the file name")
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
            clean=params.clean,
            pattern_x_size=params.pattern_x_size,
            pattern_y_size=params.pattern_y_size,
            hsigma=params.hsigma,
            lsigma=params.lsigma,
            pat_strength_thres=params.pat_strength_thres,
            simple_thres=params.simple_thres,
            level_bias_offset=params.level_bias_offset,
            smoothing_extent=params.smoothing_extent,
            intraquad_smooth=params.intraquad_smooth,
            subtract_background=params.debug_subtract_background,
            canny_sigma=params.debug_canny_sigma,
        )
        cleaned = [quadrant for quadrant in result.quadrants if quadrant.cleaned]
        if not cleaned:
            return not_needed("no quadrant has a pattern worth removing")
        ext.data = result.data
        log.fullinfo("%s: the readout pattern was removed from %d quadrants", frame.filename, len(cleaned))
        return None
