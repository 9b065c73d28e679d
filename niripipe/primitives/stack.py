"""Primitives that combine frames: science frames, darks, flats, skies, and flats made of skies."""

from __future__ import annotations

import numpy as np

from niripipe.astrodata import DQ, AstroData
from niripipe.errors import DataError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import Frames, PrimitivesBase, done, primitive, skipped
from niripipe.primitives.moving import stars_beside_target
from niripipe.primitives.params import Field
from niripipe.primitives.stack_levels import unlike_the_others
from niripipe.primitives.stacking import (
    AlignedCombineParams,
    CombineParams,
    ScaledCombineParams,
    combination_settings,
    stack,
)

__all__ = ["SkyCombineParams", "Stack"]

log = get_logger(__name__)

_EXPOSURE_TOLERANCE = 0.01
"""Darks whose exposure times differ by no more (s) are of one set-up; the archive's rule."""


class StackFramesParams(AlignedCombineParams, reject_method="noiseclip"):
    """Parameters of `Stack.stackFrames`."""


class StackDarksParams(CombineParams, reject_method="varclip"):
    """Parameters of `Stack.stackDarks`."""


class StackFlatsParams(ScaledCombineParams, reject_method="minmax", nlow=1, nhigh=1):
    """Parameters of `Stack.stackFlats`."""


class SkyCombineParams(ScaledCombineParams, operation="median", reject_method="minmax", nlow=1, nhigh=1):
    """Parameters of everything that combines sky frames."""

    scale: bool = Field(True, description="scale the skies to the first")
    mask_objects: bool = Field(True, description="leave out the objects of the skies")
    dilation: float = Field(2.0, ge=0, description="how far the objects' masks are grown, pixels")


class StackSkyFramesParams(SkyCombineParams, suffix="_skyStacked"):
    """Parameters of `Stack.stackSkyFrames`."""


class StackSkyFlatsParams(ScaledCombineParams, reject_method="minmax", nhigh=1):
    """Parameters of `SkyFlat.stackSkyFlats`."""

    scale: bool = Field(True, description="scale the frames to the level of the first")
    mask_objects: bool = Field(True, description="leave out the objects of the frames (OBJMASK)")


class Stack(PrimitivesBase):
    """Combination of frames into one."""

    @primitive(stamp="STACKFRM")
    def stackFrames(self, frames: Frames, params: StackFramesParams) -> Frames:
        """Combine frames into one, leaving out outliers.

        The default rejection compares each pixel with the noise expected at the median level of all
        frames, which finds a cosmic-ray hit also among few frames; frames without variances are clipped
        at their own scatter. The result has headers and WCS of the first frame; NCOMBINE and IMCMBnnn
        say what went in. A single frame is described the same way, and recorded as SKIPPED.

        Aligned frames show the same scene. Before anything is rejected, each is brought to the mean level of
        all, its flux and FWHM are measured on stars, and the rejection allows for them: it judges
        the frames at one flux, and the cores of stars as far as the seeing differs. The stack has the mean
        flux of its inputs, also where a pixel lacks some. Frames taken through clouds are not scaled: they
        have no less noise from the sky, and scaling would raise it and make the stack noisier. `scale_flux`
        does it.

        A trailed frame, and one whose shift is doubtful (ALGNFLAG), has the weight ``(F / FWHM)**2``: F is
        the FWHM of the median frame, and the error of the shift adds to the frame's FWHM in squares.
        VAR is that of the weighted mean, and fluxes are right for any weights. Frames whose skies were made
        of the same exposures, and that are not dithered, have noise in common; VAR holds it, and VARCOV in
        the extension header is the factor by which it is larger where all frames contribute. Bad seeing alone
        does not change weights; ``weighting="all"`` weighs all frames by the signal to noise of a point
        source.

        The table STACKING has level, flux, FWHM, elongation, share of rejected pixels and weight of each
        frame. Warnings name frames with wide or trailed stars and frames with less weight, fluxes that
        differ by more than 5 %, frames that lose more than 2 % of their pixels, and star cores that lose
        1 % of their inputs (CORECOV in the header).

        Of frames aligned on a moving target MOVSTARS and the report say what becomes of bright stars:
        ``clipped`` where so few frames show them at one position that they are rejected, or ``trailed``.

        Raises
        ------
        DataError
            The shapes differ.
        """
        if not frames:
            return []
        result = stack(frames, params, threads=self.workers)
        if len(frames) == 1:
            self.note(result, skipped("there is only one frame"))
            if params.suffix:
                result.update_filename(suffix=params.suffix, strip=True)
        elif params.weighting != "all" and (unlike := unlike_the_others(result)):
            self.note(result, done(unlike))
        if len(frames) > 1 and result.phu.get("ALGNON") == "target":
            self.remark(_say_what_stars_do(frames, result, params))
        return [result]

    @primitive(stamp="STACKFRM")
    def stackDarks(self, frames: Frames, params: StackDarksParams) -> Frames:
        """Combine darks of one exposure time, without scaling.

        Raises
        ------
        DataError
            A frame is not a dark, or the exposure times differ.
        """
        for frame in frames:
            if "DARK" not in frame.tags:
                raise DataError(
                    "This frame is not a dark", file=frame.filename, found=", ".join(sorted(frame.tags))
                )
            if (
                abs(frame.exposure_time() - frames[0].exposure_time()) > _EXPOSURE_TOLERANCE
                or frame.coadds() != frames[0].coadds()
            ):
                raise DataError(
                    "Darks of different exposures cannot be combined",
                    file=frame.filename,
                    found=_exposure(frame),
                    expected=f"{_exposure(frames[0])} as {frames[0].filename}",
                )
        return [stack(frames, params, threads=self.workers)] if frames else []

    @primitive(stamp="STACKFRM")
    def stackFlats(self, frames: Frames, params: StackFlatsParams) -> Frames:
        """Combine flats, without offsets."""
        return [stack(frames, params, threads=self.workers)] if frames else []

    @primitive(stamp="STACKFRM")
    def stackSkyFrames(self, frames: Frames, params: StackSkyFramesParams) -> Frames:
        """Combine sky frames, leaving out the objects in them."""
        if not frames:
            return []
        skies = [frame.copy() for frame in frames]
        if params.mask_objects:
            for sky in skies:
                objmask.dilate(sky, params.dilation)
                objmask.add_to_mask(sky, DQ.bad_pixel)
        return [stack(skies, params, threads=self.workers)]

    @primitive(stamp="STACKFRM")
    def stackSkyFlats(self, frames: Frames, params: StackSkyFlatsParams) -> Frames:
        """Combine dithered frames into one, leaving out the objects in each.

        Bad pixels and objects are not mixed up: the inputs' masks are not changed, a detector defect keeps
        bit 1 in the product, and a pixel on which every frame shows an object gets bit 16 (no data), because
        its response was not seen. SKYFLAT in the PHU says how the product was made, SKYFLATN in the extension
        header how many pixels no frame shows free of objects. (DRAGONS marks objects as bad pixels in the
        frames; they cannot be told from defects afterwards.)

        Raises
        ------
        DataError
            The shapes differ.
        """
        if not frames:
            return []
        inputs = [_with_objects(frame) for frame in frames] if params.mask_objects else frames
        result = stack(inputs, params, threads=self.workers)
        ext = result[0]
        mask = ext.mask
        if mask is not None:
            hidden = mask & objmask.OBJECT_BIT != 0
            mask &= ~objmask.OBJECT_BIT
            mask[hidden] |= np.uint16(DQ.no_data)
            ext.mask = mask
            number = int(np.count_nonzero(hidden))
            ext.hdr.set("SKYFLATN", number, "Pixels that no frame shows free of objects")
            if number:
                log.warning("%d pixels show an object in every frame and have no flat", number)
        result.phu.set("SKYFLAT", params.mask_objects, "Flat of the sky; T: objects left out")
        return [result]


def _say_what_stars_do(frames: Frames, result: AstroData, params: StackFramesParams) -> str:
    """Record whether stars beside a moving target are clipped or trailed; return it in words."""
    measured = result.columns("STACKING")["FWHM"] if "STACKING" in result.tables else np.zeros(0)
    known = measured[np.isfinite(measured)]
    hsigma = float(combination_settings(params, params.reject_method)["hsigma"])
    fwhm = float(np.median(known)) if known.size else float("nan")
    what = stars_beside_target(frames, params, hsigma=hsigma, fwhm=fwhm)
    result.phu.set("MOVSTARS", what, "Bright stars beside the moving target")
    if what == "clipped":
        return "stack on the moving target: bright stars are clipped; faint ones leave faint trails"
    return "stack on the moving target: stars are trailed"


def _exposure(frame: AstroData) -> str:
    return f"{frame.exposure_time():g} s in {frame.coadds()} coadds"


def _with_objects(frame: AstroData) -> AstroData:
    """Return a copy of a frame whose mask shows its objects in the private bit."""
    copy = frame.copy()
    objects = frame[0].read("OBJMASK")
    objmask.add_to_mask(
        copy, objmask.OBJECT_BIT, np.zeros(frame[0].shape, bool) if objects is None else objects != 0
    )
    return copy
