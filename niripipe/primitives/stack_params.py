"""Parameters of everything that combines frames."""

from __future__ import annotations

from typing import Literal

from niripipe.primitives.params import Field, Section, SuffixParams

__all__ = ["AlignedCombineParams", "CombineParams", "Rejection", "ScaledCombineParams"]

Rejection = Literal["none", "minmax", "sigclip", "varclip", "noiseclip"]


class CombineParams(SuffixParams, suffix="_stack"):
    """Parameters of everything that combines frames without scaling them."""

    apply_dq: bool = Field(True, description="leave out flagged pixels where better ones exist")
    statsec: Section = Field(None, description="section for scale and zero, x1:x2,y1:y2")
    operation: Literal["mean", "wtmean", "median", "lmedian"] = Field("mean", description="how to combine")
    reject_method: Rejection = Field(
        "sigclip",
        description="minmax: drop the nlow lowest and nhigh highest; sigclip: clip at the scatter of the "
        "inputs; varclip: clip at each input's own variance; noiseclip: clip at the variance expected at the "
        "median level",
    )
    hsigma: float | None = Field(
        None, ge=0, description="upper clipping limit, sigma; None: 4 for noiseclip, else 3"
    )
    lsigma: float | None = Field(
        None, ge=0, description="lower clipping limit, sigma; None: 4 for noiseclip, else 3"
    )
    mclip: bool = Field(True, description="clip about the median instead of the mean")
    max_iters: int | None = Field(None, ge=1, description="clipping iterations; None: until nothing changes")
    nlow: int = Field(0, ge=0, description="number of lowest inputs that minmax drops")
    nhigh: int = Field(0, ge=0, description="number of highest inputs that minmax drops")
    memory: float | None = Field(
        1.0, ge=0.01, description="accepted for old scripts; inputs are combined in small blocks of rows"
    )
    save_rejection_map: bool = Field(False, description="attach REJMAP, the number of inputs not used")


class ScaledCombineParams(CombineParams):
    """Parameters of everything that combines frames and may scale them."""

    scale: bool = Field(False, description="scale the inputs to the first")
    zero: bool = Field(False, description="add offsets that bring the inputs to the first")
    separate_ext: bool = Field(True, description="scale extensions separately; NIRI has one")


class AlignedCombineParams(ScaledCombineParams):
    """Parameters of everything that combines aligned frames of a field."""

    level: bool = Field(
        True,
        description="of aligned frames: bring them to a common level, and let the rejection allow for "
        "the flux and seeing of each",
    )
    scale_flux: bool = Field(
        False, description="of aligned frames: scale each to the mean flux of all, as measured on stars"
    )
    weighting: Literal["none", "blurred", "all"] = Field(
        "blurred",
        description="of aligned frames: weigh by (typical FWHM / FWHM)**2 those that are trailed or whose "
        "shift is doubtful (blurred), weigh all by (flux / FWHM)**2 / variance (all), or none",
    )
