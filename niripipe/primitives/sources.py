"""Primitives that find sources and handle the masks of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import numpy as np

from niripipe.algorithms import detect, morphology, resample
from niripipe.algorithms.affine import Affine
from niripipe.algorithms.blank_apertures import BlankApertures
from niripipe.algorithms.kernels import Kernel
from niripipe.astrodata import DQ, AstroData
from niripipe.errors import ParameterError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, not_needed, primitive, skipped
from niripipe.primitives.geometry import exact_mapping, is_distorted, pixel_mapping
from niripipe.primitives.objcat import column_units
from niripipe.primitives.params import Field, OfDragons, SuffixParams
from niripipe.primitives.stacking import MEASURED, remove_keywords

__all__ = ["Sources"]

log = get_logger(__name__)

_MISFIT = 0.25
"""The noise of small apertures differs by so much from what VAR says where VAR is wrong or sources crowd."""


class DetectSourcesParams(SuffixParams, suffix="_sourcesDetected"):
    """Parameters of `Sources.detectSources`."""

    # Saturated pixels are known by the mask; FLAGS has bit 4 for their sources whatever is asked for.
    of_dragons = MappingProxyType({"set_saturation": OfDragons((True, False, None), "Leave it out.")})

    mask: bool = Field(True, description="leave unusable pixels out of detection and background")
    replace_flags: int = Field(249, ge=0, description="bits that make a pixel unusable")
    detect_minarea: int = Field(8, ge=1, description="pixels that a source must have above the threshold")
    detect_thresh: float = Field(2.0, ge=0.1, description="detection threshold, sigma of the background")
    analysis_thresh: float = Field(2.0, ge=0.1, description="threshold of the measured area, sigma")
    deblend_mincont: float = Field(0.005, ge=0, description="contrast that separates blended sources")
    phot_min_radius: float = Field(3.5, ge=1, description="smallest scaled radius of the Kron aperture")
    back_size: int = Field(32, ge=1, description="mesh of the background, pixels")
    back_filtersize: int = Field(8, ge=1, description="median filter of the background, meshes")
    catalogue: bool | Literal["positions"] = Field(
        True,
        description="measure the sources; without it there is only their mask. positions: quicker, what "
        "alignment needs",
    )
    enough: int = Field(
        0,
        ge=0,
        description="with positions: if so many sources are four times brighter than they have to be, only "
        "those are looked at; 0: all",
    )
    faint: bool = Field(
        False,
        description="with a full catalogue: add sources of 12 pixels above 1 sigma that touch no other",
    )


class DilateObjectMaskParams(SuffixParams, suffix="_objmaskDilated"):
    """Parameters of `Sources.dilateObjectMask`."""

    dilation: float = Field(1.0, ge=0, description="radius of the disc, pixels")
    repeat: bool = Field(False, description="dilate a mask that was dilated before")


class AddObjectMaskToDQParams(SuffixParams, suffix="_objectMaskAdded"):
    """Parameters of `Sources.addObjectMaskToDQ`."""


class TransferObjectMaskParams(SuffixParams, suffix="_objmaskTransferred"):
    """Parameters of `Sources.transferObjectMask`."""

    source: str | None = Field(None, description="stream of one frame whose object mask is taken")
    interpolant: Kernel = Field("poly3", description="interpolation kernel")
    dq_threshold: float = Field(0.01, ge=0, lt=1, description="part of a masked pixel that masks a new one")
    dilation: float = Field(1.5, ge=0, description="radius by which the mask is grown afterwards, pixels")


class Sources(PrimitivesBase):
    """Source detection and object masks."""

    @primitive(stamp="DETECSRC", repeatable=True)
    def detectSources(self, frame: AstroData, params: DetectSourcesParams) -> None:
        """Find the sources of a frame and measure them: OBJCAT (table) and OBJMASK (1 in a source).

        Thresholds refer to one background rms of the whole frame. Positions in OBJCAT are 1-based;
        X_IMAGE, Y_IMAGE are barycentres, XWIN_IMAGE, YWIN_IMAGE the more precise windowed positions.
        Data, variance and mask are not changed. With ``catalogue=False`` an older OBJCAT, which would not
        belong to the new mask, is removed. With ``catalogue="positions"`` FLUX_AUTO is the isophotal
        flux, corrected for what lies below the threshold, and FLUX_RADIUS is missing (NaN). Both find the
        background and blends in a coarser way, and sources among squares of 2 x 2 pixels where the sides of
        the frame are multiples of 4, so that the mask reaches about a pixel further out; and with `enough`
        it leaves out the faint ones.

        A full catalogue of a frame with variances comes with the noise of apertures. The scatter of apertures
        without sources is measured at radii from 1.5 to 13 pixels, on the frame without its background.
        What it has beyond the variances and their correlation (NOISCORR) is residual sky. In the
        extension header NOISSKY is its rms in a pixel, NOISLEN the length over which it is correlated
        (pixels), NOISRAD the largest radius measured; `AstroData.aperture_variance` and the errors of the
        fluxes use them. Where too little of the frame is blank there is a warning, and none of the
        keywords.

        Raises
        ------
        AlgorithmError
            The frame has no usable pixel, or more sources than can be separated.
        """
        ext = frame[0]
        remove_keywords(frame, MEASURED["noise"])
        mask = ext.plane("mask") if params.mask else None
        measured = params.catalogue is True
        sky = ext.sky_mapping if params.catalogue else None
        found = detect.detect_sources(
            ext.plane("data")[:],
            None if mask is None else mask[:],
            **params.model_dump(exclude={"suffix", "mask", "replace_flags", "catalogue"}),
            bad_bits=params.replace_flags,
            gain=float(ext.gain()),
            pix2world=None if sky is None else lambda x, y: sky.all_pix2world(x, y, 0),
            pixel_scale=ext.pixel_scale(),
            measure=params.catalogue,
            variance=ext.read("variance") if measured else None,
            correlation=float(ext.hdr.get("NOISCORR", 1.0)),
            depth=ext.read("COVERAGE") if measured else None,
        )
        if measured and ext.plane("variance") is not None:
            _record_noise(frame, found.apertures)
        ext.OBJMASK = found.objmask
        if params.catalogue:
            frame.extensions[0].set_extra("OBJCAT", found.catalogue, units=column_units(frame))
        elif "OBJCAT" in ext.tables:
            del ext.OBJCAT
        frame.phu.remove("DLOBJMSK", ignore_missing=True)

    @primitive
    def dilateObjectMask(self, frame: AstroData, params: DilateObjectMaskParams) -> Outcome | None:
        """Grow the object mask by a disc; a mask that was grown before is left unless `repeat`."""
        if params.dilation < 1:
            return not_needed("a radius below one pixel grows nothing")
        if "DLOBJMSK" in frame.phu and not params.repeat:
            return skipped("the mask was dilated before")
        if not objmask.dilate(frame, params.dilation):
            return skipped("the frame has no object mask")
        frame.phu.set("DLOBJMSK", params.dilation, "Object mask dilated by this radius (pixels)")
        return None

    @primitive
    def addObjectMaskToDQ(self, frame: AstroData, params: AddObjectMaskToDQParams) -> Outcome | None:
        """Set bit 1 of the data-quality plane where the frame has an object."""
        if not objmask.add_to_mask(frame, DQ.bad_pixel):
            return skipped("the frame has no object mask")
        return None

    @primitive
    def transferObjectMask(self, frames: Frames, params: TransferObjectMaskParams) -> Frames:
        """Project the object mask of the one frame of another stream onto these frames.

        Raises
        ------
        ParameterError
            The source stream does not hold exactly one frame with an object mask.
        """
        source = self.streams.get(params.source or "", [])
        objects = source[0][0].read("OBJMASK") if len(source) == 1 else None
        if objects is None:
            raise ParameterError(
                "The source stream must hold one frame with an object mask",
                item="transferObjectMask:source",
                found=f"{params.source!r} with {len(source)} frames",
            )
        plane = objects.astype(np.float32)

        def transfer(frame: AstroData) -> None:
            bent = is_distorted(frame) or is_distorted(source[0])
            mapping = Affine.shift(0, 0) if bent else pixel_mapping(frame, source[0])
            projected = resample.resample(
                plane,
                matrix=mapping.matrix,
                offset=mapping.offset,
                shape=frame[0].shape,
                kernel=params.interpolant,
                clean=False,
                distort=exact_mapping(frame, source[0]) if bent else None,
            )
            covered = np.abs(projected.data) > params.dq_threshold
            frame[0].OBJMASK = morphology.dilate(covered, params.dilation).view(np.uint8)

        self.map(transfer, frames)
        return frames


def _record_noise(frame: AstroData, found: BlankApertures | None) -> None:
    """Write what apertures without sources said about the noise."""
    if found is None:
        log.warning(
            "%s: too little of it is blank to measure the noise of apertures: errors of fluxes hold "
            "VAR and NOISCORR alone",
            frame.filename,
        )
        return
    hdr, noise = frame[0].hdr, found.noise
    hdr.set("NOISSKY", round(noise.rms, 5), "Rms of residual sky in a pixel, from apertures")
    hdr.set("NOISLEN", round(noise.length, 3), "Length of its correlation (pixels)")
    hdr.set("NOISRAD", float(found.radius[-1]), "Largest aperture measured for it (radius, pixels)")
    ratios = ", ".join(f"{r:g}: {v:.2f}" for r, v in zip(found.radius, found.ratio, strict=True))
    log.fullinfo("%s: scatter of apertures over VAR and NOISCORR, by radius: %s", frame.filename, ratios)
    smallest = float(found.ratio[0])
    if abs(smallest - 1) > _MISFIT:
        log.warning(
            "%s: apertures of %g pixels scatter %.2f times as much as VAR says",
            frame.filename,
            found.radius[0],
            smallest,
        )
