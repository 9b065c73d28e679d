"""Recipes for science and standard-star images."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from niripipe.primitives import NIRI

recipe_tags = frozenset({"NIRI", "IMAGE"})
blocked_tags = frozenset({"CAL"})


def reduce(p: NIRI) -> None:
    """Reduce dithered images, with or without offset sky frames, to a stacked image (``_image``)."""
    _correct(p)
    _subtract_sky(p)
    p.cleanReadout(clean="default")
    p.correctResidualSky()
    _align_and_stack(p)
    _calibrate_stack(p)
    p.storeProcessedScience(suffix="_image")


def makeStandard(p: NIRI) -> None:
    """Reduce frames of a standard star to a stack with its zero point (``_standard``).

    The star is measured in every frame, before frames are resampled.
    """
    _correct(p)
    _subtract_sky(p)
    p.cleanReadout(clean="default")
    p.correctResidualSky()
    p.detectSources(catalogue="positions", enough=60)
    p.measureStandard()
    p.adjustWCSToReference()
    p.resampleToCommonFrame(objmask=False)
    p.scaleCountsToReference()
    p.stackFrames()
    p.detectSources(suffix=None)
    p.determineZeroPoint(suffix=None)
    p.storeProcessedStandard()


def targetAndStars(p: NIRI) -> None:
    """Reduce images of a moving target to two stacks: on the target (``_target``), the stars (``_stars``)."""
    _correct(p)
    _subtract_sky(p)
    p.cleanReadout(clean="default")
    p.correctResidualSky()
    p.detectSources(catalogue="positions", enough=60)
    p.copyInputs(outstream="stars")
    p.adjustWCSToReference(align_on="target")
    p.resampleToCommonFrame(objmask=False)
    p.scaleCountsToReference()
    p.stackFrames()
    p.detectSources(suffix=None, faint=True)
    p.applyZeroPoint(suffix=None)
    p.storeProcessedScience(suffix="_target")
    p.adjustWCSToReference(align_on="stars", stream="stars")
    p.resampleToCommonFrame(objmask=False, stream="stars")
    p.scaleCountsToReference(stream="stars")
    p.stackFrames(stream="stars")
    p.detectSources(suffix=None, faint=True, stream="stars")
    p.applyZeroPoint(suffix=None, stream="stars")
    p.storeProcessedScience(suffix="_stars", stream="stars")
    p.appendStream(from_stream="stars")


def ultradeep(p: NIRI) -> None:
    """Reduce dithered images of one field in two passes (``_image``).

    The objects that only the stack of the first pass shows are masked in the sky of the second.
    """
    _correct(p)
    _first_pass(p)
    p.transferObjectMask(stream="flat_corrected", source="main")
    p.clearStream(stream="main")
    p.dilateObjectMask(instream="flat_corrected", outstream="main", dilation=2)
    p.clearStream(stream="flat_corrected")
    _second_pass(p)


def ultradeep_part1(p: NIRI) -> None:
    """Correct raw frames up to the flat field (``_flatCorrected``): the first part of ultradeep."""
    _correct(p)


def ultradeep_part2(p: NIRI) -> None:
    """Find the objects of the stack of corrected frames, and mask them in each (``_objmaskTransferred``)."""
    _first_pass(p)
    p.transferObjectMask(instream="flat_corrected", outstream="main", source="main")
    p.clearStream(stream="flat_corrected")


def ultradeep_part3(p: NIRI) -> None:
    """Subtract the sky with the masks of part 2, and stack (``_image``)."""
    p.dilateObjectMask(dilation=2)
    _second_pass(p)


def makeSkyFlat(p: NIRI) -> None:
    """Make a processed flat (``_flat``) of dithered frames of the sky, leaving out the objects in them."""
    _to_dark_corrected(p)
    p.stackFrames(operation="median", scale=True, outstream="fastsky")
    p.normalizeFlat(stream="fastsky")
    p.thresholdFlatfield(stream="fastsky")
    p.flatCorrect(flat=p.streams["fastsky"][0], outstream="flattened")
    p.clearStream(stream="fastsky")
    p.detectSources(stream="flattened", catalogue=False)
    p.dilateObjectMask(dilation=10, stream="flattened")
    p.transferAttribute(source="flattened", attribute="OBJMASK")
    p.clearStream(stream="flattened")
    p.stackSkyFlats(operation="mean", scale=True, reject_method="minmax", nlow=0, nhigh=1)
    p.normalizeFlat()
    p.thresholdFlatfield()
    p.storeProcessedFlat(force=True)


def alignAndStack(p: NIRI) -> None:
    """Align, scale and stack images that are already reduced (``_stack``)."""
    _align_and_stack(p)


def calibrate(p: NIRI) -> None:
    """Fit reduced images to a reference catalogue: coordinates and zero point (``_calibrated``).

    The catalogue is 2MASS, asked for over the network, unless ``addReferenceCatalog:source`` names another
    one or a file.
    """
    p.detectSources()
    p.addReferenceCatalog(source="2mass")
    p.determineAstrometricSolution()
    p.measureIQ()
    p.measureCC()
    p.applyZeroPoint()
    p.checkZeroPoint()
    p.storeProcessedScience(suffix="_calibrated")


def _to_dark_corrected(p: NIRI) -> None:
    """Raw frames to linear, dark-subtracted electrons."""
    with p.frame_by_frame():
        p.prepare()
        p.addDQ()
        p.removeFirstFrame()
        p.ADUToElectrons()
        p.addVAR(poisson_noise=True, read_noise=True)
        p.nonlinearityCorrect()
        p.darkCorrect()


def _correct(p: NIRI) -> None:
    """Raw frames to linear, dark-subtracted, flat-fielded electrons."""
    with p.frame_by_frame():
        _to_dark_corrected(p)
        p.flatCorrect()


def _subtract_sky(p: NIRI) -> None:
    """Find out which frames show the sky, and subtract it."""
    p.separateSky()
    _subtract_masked_sky(p)


def _subtract_masked_sky(p: NIRI) -> None:
    """Two passes: find the objects in quickly sky-subtracted sky frames, then subtract the masked sky."""
    p.associateSky(stream="sky")
    p.skyCorrect(
        instream="sky",
        mask_objects=False,
        propagate_variance=False,
        share=4,
        scale_sky=False,
        outstream="skysub",
    )
    p.detectSources(stream="skysub", catalogue=False)
    p.transferAttribute(stream="sky", source="skysub", attribute="OBJMASK")
    p.clearStream(stream="skysub")
    p.associateSky()
    p.skyCorrect(mask_objects=True, keep_skies=False)
    p.flagPersistence()


def _first_pass(p: NIRI) -> None:
    """Stack corrected frames, keeping them with the stack's coordinates in the stream ``flat_corrected``."""
    p.copyInputs(outstream="flat_corrected")
    p.separateSky()
    p.requireSameInputs(source="sky")
    _subtract_masked_sky(p)
    p.detectSources(catalogue="positions", enough=60)
    p.adjustWCSToReference()
    # Frames that could not be aligned are set aside here as well.
    p.keepCommonInputs(stream="flat_corrected", source="main")
    p.transferAttribute(stream="flat_corrected", source="main", attribute="wcs")
    p.flushPixels(stream="flat_corrected")
    # The stack gets an object mask of its own.
    p.resampleToCommonFrame(objmask=False)
    p.scaleCountsToReference()
    p.stackFrames()
    p.detectSources(suffix=None)
    p.writeOutputs()


def _second_pass(p: NIRI) -> None:
    """Subtract the sky of frames that carry the objects of a deep stack, align and stack them."""
    p.separateSky()
    p.associateSky()
    p.skyCorrect(mask_objects=True, keep_skies=False)
    p.flagPersistence()
    p.cleanReadout(clean="default")
    p.correctResidualSky()
    _align_and_stack(p)
    _calibrate_stack(p)
    p.storeProcessedScience(suffix="_image")


def _align_and_stack(p: NIRI) -> None:
    p.detectSources(catalogue="positions", enough=60)
    p.adjustWCSToReference()
    # The stack gets an object mask of its own.
    p.resampleToCommonFrame(objmask=False)
    p.scaleCountsToReference()
    p.stackFrames()
    # The stack's own catalogue and object mask; it keeps the name of a stack.
    p.detectSources(suffix=None, faint=True)


def _calibrate_stack(p: NIRI) -> None:
    """Give a stack its zero point, and compare it and the coordinates with a catalogue where one is named."""
    # A server that does not answer must not cost the reduction.
    p.addReferenceCatalog(suffix=None, required=False)
    p.determineAstrometricSolution(suffix=None)
    p.applyZeroPoint(suffix=None)
    p.checkZeroPoint(suffix=None)


recipes = {
    "sq": (
        reduce,
        makeStandard,
        ultradeep,
        ultradeep_part1,
        ultradeep_part2,
        ultradeep_part3,
        makeSkyFlat,
        alignAndStack,
        targetAndStars,
        calibrate,
    ),
    "ql": (reduce, makeStandard, makeSkyFlat, alignAndStack, calibrate),
}
