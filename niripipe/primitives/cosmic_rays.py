"""Primitives that flag cosmic rays: in single frames, and by comparing aligned frames."""

from __future__ import annotations

import numpy as np

from niripipe.algorithms import cosmic, detect
from niripipe.algorithms.affine import corners_of
from niripipe.algorithms.combine import combine
from niripipe.algorithms.normalize import zero_offsets
from niripipe.astrodata import DQ, AstroData
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, not_needed, primitive
from niripipe.primitives.geometry import pixel_mapping
from niripipe.primitives.params import Field, SuffixParams
from niripipe.primitives.stacking import planes_of_all

__all__ = ["CosmicRays"]

log = get_logger(__name__)

_LARGEST_DISPLACEMENT = 0.5
"""Pixels by which frames may be displaced and still be compared pixel by pixel."""


class FlagCosmicRaysParams(SuffixParams, suffix="_CRMasked"):
    """Parameters of `CosmicRays.flagCosmicRays`."""

    sigclip: float = Field(4.5, gt=0, description="threshold, sigma")
    sigfrac: float = Field(0.3, gt=0, description="share of the threshold for pixels next to a hit")
    objlim: float = Field(5.0, ge=0, description="least contrast against the fine structure of the image")
    niter: int = Field(4, ge=1, description="rounds at most")
    least_fwhm: float = Field(
        2.0, ge=0, description="no source is sharper than this FWHM, pixels; 0: protect nothing"
    )
    clean: bool = Field(False, description="also replace the hits by the mean of good pixels around them")


class FlagCosmicRaysByStackingParams(SuffixParams, suffix="_CRMasked"):
    """Parameters of `CosmicRays.flagCosmicRaysByStacking`."""

    hsigma: float = Field(7.0, ge=0, description="threshold above the median of all frames, sigma")
    dilation: float = Field(1.0, ge=0, description="radius by which hits are grown, pixels")


class CosmicRays(PrimitivesBase):
    """Cosmic rays."""

    @primitive(stamp="FLAGCR", repeatable=True)
    def flagCosmicRays(self, frame: AstroData, params: FlagCosmicRaysParams) -> Outcome | None:
        """Flag (bit 8) what is sharper than any star: cosmic rays, found in the single frame.

        The method is L.A.Cosmic (van Dokkum 2001) with the frame's own variance. Pixels flagged before, but
        for non-linear ones, are left out. CRPIXNUM in the extension header is the number of pixels flagged.
        Data change with `clean` only, the variance never.
        """
        ext = frame[0]
        found = cosmic.flag_cosmic_rays(
            ext.read("data"),
            ext.read("variance"),
            ext.read("mask"),
            gain=float(ext.gain() or 1.0),
            read_noise=float(ext.read_noise() or 0.0),
            saturation=ext.saturation_level(),
            background=_subtracted_level(frame),
            **params.model_dump(exclude={"suffix"}),
        )
        if found.data is not None:
            ext.data = found.data
        objmask.add_to_mask(frame, DQ.cosmic_ray, found.hits)
        _count(frame, int(np.count_nonzero(found.hits)))
        return None

    @primitive(stamp="FLAGCRST")
    def flagCosmicRaysByStacking(self, frames: Frames, params: FlagCosmicRaysByStackingParams) -> Frames:
        """Flag (bit 8) what one frame shows and the median of all frames does not.

        The frames have one pixel grid (`resampleToCommonFrame`) and one flux scale; their levels may
        differ. Objects are found in the median, where there are no cosmic rays, so that a hit is never taken
        for an object and spared; in objects nothing is flagged, since seeing changes their cores. Of an even
        number of frames the lower median is taken: the mean of the two middle ones would hold half of a hit
        of two frames.

        Raises
        ------
        DataError
            The frames differ in shape, or their WCS show that they are not aligned.
        """
        if len(frames) < 2:
            return self.note_all(frames, not_needed("there is only one frame"))
        _require_aligned(frames)
        data, masks = [[frame[0].plane(name) for frame in frames] for name in ("data", "mask")]
        median = combine(
            data,
            planes_of_all(frames, "variance"),
            planes_of_all(frames, "mask"),
            operation="lmedian",
            reject="none",
            zero=zero_offsets(data, masks, method="reference"),
            threads=self.workers,
        )
        objects = detect.detect_sources(median.data, median.mask, measure=False).objmask
        for frame in frames:
            ext = frame[0]
            before = ext.read("mask")
            mask = cosmic.flag_by_reference(
                ext.read("data"),
                ext.read("variance"),
                median.data,
                median.variance,
                before,
                objects,
                hsigma=params.hsigma,
                dilation=params.dilation,
            )
            hit = mask & np.uint16(DQ.cosmic_ray)
            new = np.count_nonzero(hit if before is None else hit & ~before)
            ext.mask = mask
            _count(frame, int(new))
        return frames


def _count(frame: AstroData, number: int) -> None:
    frame[0].hdr.set("CRPIXNUM", number, "Pixels flagged as cosmic rays")
    log.fullinfo("%s: %d pixels flagged as cosmic rays", frame.filename, number)


def _subtracted_level(frame: AstroData) -> float:
    """Return the sky level that is missing from the frame, for its photon noise."""
    subtracted = {"SUBSKY", "SUBSKYBG"} & set(frame.phu)
    return float(frame[0].hdr.get("SKYLEVEL", 0.0)) if subtracted else 0.0


def _require_aligned(frames: Frames) -> None:
    first = frames[0]
    shape = first[0].shape
    for frame in frames[1:]:
        if frame[0].shape != shape:
            raise DataError(
                "Frames on different pixel grids cannot be compared",
                file=frame.filename,
                found=frame[0].shape,
                expected=f"{shape} as {first.filename}",
                remedy="Run resampleToCommonFrame first.",
            )
        if first[0].sky_mapping is None or frame[0].sky_mapping is None:
            continue
        mapping = pixel_mapping(first, frame)
        moved = corners_of(shape, mapping) - corners_of(shape)
        displacement = float(np.hypot(moved[:, 0], moved[:, 1]).max())
        if displacement > _LARGEST_DISPLACEMENT:
            raise DataError(
                "The frames are not aligned, so that every star would be a cosmic ray",
                file=frame.filename,
                found=f"{displacement:.1f} pixels from {first.filename}",
                expected=f"at most {_LARGEST_DISPLACEMENT}",
                remedy="Run resampleToCommonFrame first.",
            )
