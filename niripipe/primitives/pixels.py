"""Primitives that replace pixels, and that bring frames to one mean level."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from niripipe.algorithms import fill, flat
from niripipe.algorithms.bits import NOT_SIGNAL
from niripipe.astrodata import AstroData
from niripipe.errors import AlgorithmError, InputError, ParameterError
from niripipe.logutils import get_logger
from niripipe.paths import usable_path
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, not_needed, primitive, skipped
from niripipe.primitives.params import Field, Section, SuffixParams, path_as_text
from niripipe.primitives.stacking import section_slices

__all__ = ["Pixels"]

log = get_logger(__name__)


def _statistic_or_number(value: Any) -> Any:
    if isinstance(value, str) and value not in ("median", "mean"):
        try:
            return float(value)
        except ValueError:
            raise ValueError("median, mean or a number") from None
    return value


class ApplyDQPlaneParams(SuffixParams, suffix="_dqPlaneApplied"):
    """Parameters of `Pixels.applyDQPlane`."""

    replace_flags: int = Field(NOT_SIGNAL, ge=0, le=65535, description="bits whose pixels are replaced")
    replace_value: Annotated[Literal["median", "mean"] | float, BeforeValidator(_statistic_or_number)] = (
        Field("median", description="statistic of unflagged pixels, or a number")
    )
    inner: float | None = Field(None, ge=0, description="inner radius of the ring around a pixel, pixels")
    outer: float | None = Field(
        None, ge=1, description="outer radius of the ring, pixels; None: the whole frame"
    )
    max_iters: int = Field(1, ge=1, description="rounds; pixels filled in one serve in the next")


class FixPixelsParams(SuffixParams, suffix="_pixelsFixed"):
    """Parameters of `Pixels.fixPixels`."""

    regions: str | None = Field(
        None, description="what to interpolate across: 'x1:x2,y1:y2; ...', 1-based, inclusive"
    )
    regions_file: Annotated[str | None, BeforeValidator(path_as_text)] = Field(
        None, description="text file with further regions, one a line"
    )
    axis: Literal[1, 2] | None = Field(None, description="1: along x; 2: along y; None: the narrower side")
    use_local_median: bool = Field(False, description="single pixels: the median of a ring of 3 to 5 pixels")


class ScaleByIntensityParams(SuffixParams, suffix="_scaled"):
    """Parameters of `Pixels.scaleByIntensity`."""

    section: Section = Field(None, description="section measured, x1:x2,y1:y2; None: the whole frame")
    scaling: Literal["mean", "median"] = Field("mean", description="statistic that becomes equal")
    separate_ext: bool = Field(False, description="scale extensions separately; NIRI has one")


class Pixels(PrimitivesBase):
    """Replacement and scaling of pixels."""

    @primitive(stamp="APLDQPLN", repeatable=True)
    def applyDQPlane(self, frame: AstroData, params: ApplyDQPlaneParams) -> Outcome | None:
        """Replace flagged pixels by a number or by a statistic of pixels that are not flagged.

        Without radii the statistic is that of the whole frame, with `outer` that of a ring around each
        pixel. Variance and mask do not change: the pixels stay flagged.

        Raises
        ------
        AlgorithmError
            No pixel is left to take the statistic of.
        ParameterError
            The radii contradict each other.
        """
        ext = frame[0]
        mask = ext.read("mask")
        if mask is None:
            return skipped("the frame has no data-quality plane")
        result = fill.replace_flagged(
            ext.read("data"),
            mask,
            flags=params.replace_flags,
            value=params.replace_value,
            **params.model_dump(include={"inner", "outer", "max_iters"}),
        )
        if result.replaced == 0 and result.left == 0:
            return not_needed("no pixel carries these flags")
        ext.data = result.data
        log.fullinfo("%s: %d pixels replaced", frame.filename, result.replaced)
        if result.left:
            log.warning(
                "%s: %d flagged pixels have no usable pixel in their ring and stay as they are",
                frame.filename,
                result.left,
            )
        return None

    @primitive
    def fixPixels(self, frame: AstroData, params: FixPixelsParams) -> Outcome | None:
        """Replace rectangles of pixels by straight lines between the good pixels beside them.

        The variance becomes that of the interpolation, and the pixels get the flag for no data (16).

        Raises
        ------
        ParameterError
            A region cannot be read or lies outside the frame.
        InputError
            The file of regions cannot be read.
        AlgorithmError
            A region has no usable pixel beside it.
        """
        ext = frame[0]
        regions = [region for text in _region_texts(params) for region in fill.parse_regions(text, ext.shape)]
        for region in regions:
            if region.extension not in (None, 1):
                raise ParameterError(
                    "A NIRI frame has one extension", item="fixPixels:regions", found=region.extension
                )
        if not regions:
            return skipped("no regions were given")
        result = fill.interpolate_regions(
            ext.read("data"),
            regions,
            variance=ext.read("variance"),
            mask=ext.read("mask"),
            axis=params.axis,
            use_local_median=params.use_local_median,
        )
        ext.reset(result.data, mask=result.mask, variance=result.variance)
        log.fullinfo("%s: %d pixels in %d regions fixed", frame.filename, result.replaced, len(regions))
        return None

    @primitive(stamp="SCALEINT")
    def scaleByIntensity(self, frames: Frames, params: ScaleByIntensityParams) -> Frames:
        """Multiply each frame so that its mean (or median) becomes that of the first.

        Flagged pixels do not count, nor those of objects where a frame has an object mask: a bright star
        that the dither moves in or out of the field is no change of the sky. Variances are multiplied by
        the square. Exposure times are not changed.

        Raises
        ------
        ParameterError
            The section reaches beyond the frame.
        AlgorithmError
            A frame has no usable pixel there, or its level is not positive.
        """
        if len(frames) < 2:
            return self.note_all(frames, not_needed("there is only one frame"))
        levels = self.map(lambda frame: _intensity(frame, params), frames)
        self.note(frames[0], not_needed("this is the reference"))
        for frame, level in zip(frames[1:], levels[1:], strict=True):
            factor = levels[0] / level
            frame.multiply(np.float32(factor))
            log.fullinfo("%s: multiplied by %.5f", frame.filename, factor)
        return frames


def _region_texts(params: FixPixelsParams) -> list[str]:
    texts = [] if params.regions is None else [params.regions]
    if params.regions_file is not None:
        try:
            texts.append(usable_path(params.regions_file).read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                "The file of regions cannot be read",
                file=params.regions_file,
                item="fixPixels:regions_file",
                found=str(error),
            ) from None
    return texts


def _intensity(frame: AstroData, params: ScaleByIntensityParams) -> float:
    ext = frame[0]
    where = section_slices(params.section, ext.shape)
    try:
        return flat.level(ext.read("data")[where], _not_sky(frame, where), statistic=params.scaling)
    except AlgorithmError as error:
        raise AlgorithmError(
            "The frame cannot be scaled by its intensity",
            file=frame.filename,
            item=params.scaling,
            found=error.found,
            expected="unflagged pixels with a positive level",
        ) from None


def _not_sky(frame: AstroData, where: tuple[slice, slice]) -> NDArray[np.uint16] | None:
    mask, objects = frame[0].read("mask"), frame[0].read("OBJMASK")
    if objects is None:
        return None if mask is None else mask[where]
    hidden: NDArray[np.uint16] = (objects[where] != 0).astype(np.uint16)
    if mask is not None:
        hidden |= mask[where]
    return hidden
