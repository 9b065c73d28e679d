"""Recipes for images in quality assessment, where frames arrive one at a time and lists gather them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from niripipe.primitives import NIRI

recipe_tags = frozenset({"NIRI", "IMAGE"})
blocked_tags = frozenset({"CAL"})


def reduce(p: NIRI) -> None:
    """Measure a frame, and stack it with those of its observation that came before (``_stack``)."""
    _to_dark_corrected(p)
    p.flatCorrect()
    p.detectSources()
    p.measureIQ(display=True)
    p.measureBG()
    p.addReferenceCatalog()
    p.determineAstrometricSolution()
    p.measureCC()
    p.addToList(purpose="forSky")
    p.getList(purpose="forSky")
    p.separateSky()
    p.associateSky()
    # The masks are there, from the detection above; with the one or two skies that there are at first, stars
    # left in them would be holes beside the stars of the frame.
    p.skyCorrect(mask_objects=True)
    p.clearStream(stream="sky")
    _measure(p)
    p.adjustWCSToReference()
    p.resampleToCommonFrame()
    p.scaleCountsToReference()
    p.stackFrames()
    _measure(p, suffix=None)
    p.writeOutputs()


def makeSkyFlat(p: NIRI) -> None:
    """Make a flat (``_qa_flat``) of dithered frames of the sky, leaving out the objects in them."""
    _to_dark_corrected(p)
    p.addToList(purpose="forSkyFlat")
    p.getList(purpose="forSkyFlat")
    p.scaleByIntensity(outstream="fastsky")
    p.stackFrames(operation="median", stream="fastsky")
    p.normalizeFlat(stream="fastsky")
    p.thresholdFlatfield(stream="fastsky")
    p.flatCorrect(flat=p.streams["fastsky"][0], outstream="flattened")
    p.clearStream(stream="fastsky")
    p.detectSources(stream="flattened", detect_minarea=20, catalogue=False)
    p.dilateObjectMask(dilation=10, stream="flattened")
    p.transferAttribute(source="flattened", attribute="OBJMASK")
    p.clearStream(stream="flattened")
    p.scaleByIntensity()
    p.stackSkyFlats(operation="mean", scale=False, reject_method="minmax", nlow=0, nhigh=1)
    p.normalizeFlat()
    p.thresholdFlatfield()
    p.storeProcessedFlat(force=True)


def _to_dark_corrected(p: NIRI) -> None:
    """Raw frames to linear, dark-subtracted electrons; the first frame stays, it may be all there is yet."""
    p.prepare()
    p.addDQ()
    p.ADUToElectrons()
    p.addVAR(poisson_noise=True, read_noise=True)
    p.nonlinearityCorrect()
    p.darkCorrect()


def _measure(p: NIRI, **names: Any) -> None:
    """Catalogue, image size, coordinates and zero point of what is in the stream."""
    p.detectSources(**names)
    p.measureIQ(display=True, **names)
    p.determineAstrometricSolution(**names)
    p.measureCC(**names)


recipes = {"qa": (reduce, makeSkyFlat)}
