"""The primitive that makes a flat of the sky itself."""

from __future__ import annotations

from typing import Literal

import numpy as np

from niripipe.astrodata import DQ, AstroData
from niripipe.logutils import get_logger
from niripipe.primitives.base import PrimitivesBase, primitive
from niripipe.primitives.objmask import OBJECT_BIT
from niripipe.primitives.params import Field
from niripipe.primitives.stacking import REJECTION_HELP, Rejection, ScaledCombineParams, stack

__all__ = ["SkyFlat"]

log = get_logger(__name__)


class StackSkyFlatsParams(ScaledCombineParams):
    """Parameters of `SkyFlat.stackSkyFlats`."""

    operation: Literal["mean", "wtmean", "median", "lmedian"] = Field("mean", description="how to combine")
    reject_method: Rejection = Field("minmax", description=REJECTION_HELP)
    nlow: int = Field(0, ge=0, description="number of lowest inputs that minmax drops")
    nhigh: int = Field(1, ge=0, description="number of highest inputs that minmax drops")
    scale: bool = Field(True, description="scale the frames to the level of the first")
    mask_objects: bool = Field(True, description="leave out the objects of the frames (OBJMASK)")


class SkyFlat(PrimitivesBase):
    """Flats made of frames of the sky."""

    @primitive(stamp="STACKFRM")
    def stackSkyFlats(self, frames: list[AstroData], params: StackSkyFlatsParams) -> list[AstroData]:
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
            hidden = mask & OBJECT_BIT != 0
            mask &= ~OBJECT_BIT
            mask[hidden] |= np.uint16(DQ.no_data)
            ext.mask = mask
            number = int(np.count_nonzero(hidden))
            ext.hdr.set("SKYFLATN", number, "Pixels that no frame shows free of objects")
            if number:
                log.warning("%d pixels show an object in every frame and have no flat", number)
        result.phu.set("SKYFLAT", params.mask_objects, "Flat of the sky; T: objects left out")
        return [result]


def _with_objects(frame: AstroData) -> AstroData:
    """Return a copy of a frame whose mask shows its objects in the private bit."""
    copy = frame.copy()
    ext = copy[0]
    objects, mask = ext.read("OBJMASK"), ext.read("mask")
    joined = np.zeros(ext.shape, np.uint16) if mask is None else mask.copy()
    if objects is not None:
        joined[objects != 0] |= OBJECT_BIT
    ext.mask = joined
    return copy
