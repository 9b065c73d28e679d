"""Recipes for science and standard-star images."""

from __future__ import annotations

from typing import Any

recipe_tags = frozenset({"NIRI", "IMAGE"})
blocked_tags = frozenset({"CAL"})


def reduce(p: Any) -> None:
    """Reduce dithered images, with or without offset sky frames, to a stacked image (``_image``)."""
    _correct(p)
    _subtract_sky(p)
    p.cleanReadout()
    _align_and_stack(p)
    p.storeProcessedScience(suffix="_image")


def alignAndStack(p: Any) -> None:
    """Align, scale and stack images that are already reduced (``_stack``)."""
    _align_and_stack(p)


def _correct(p: Any) -> None:
    """Raw frames to linear, dark-subtracted, flat-fielded electrons."""
    p.prepare()
    p.addDQ()
    p.removeFirstFrame()
    p.ADUToElectrons()
    p.addVAR(poisson_noise=True, read_noise=True)
    p.nonlinearityCorrect()
    p.darkCorrect()
    p.flatCorrect()


def _subtract_sky(p: Any) -> None:
    """Two passes: find the objects in quickly sky-subtracted sky frames, then subtract the masked sky."""
    p.separateSky()
    p.associateSky(stream="sky")
    p.skyCorrect(instream="sky", mask_objects=False, outstream="skysub")
    p.detectSources(stream="skysub")
    p.transferAttribute(stream="sky", source="skysub", attribute="OBJMASK")
    p.clearStream(stream="skysub")
    p.associateSky()
    p.skyCorrect(mask_objects=True)
    p.clearStream(stream="sky")


def _align_and_stack(p: Any) -> None:
    p.detectSources()
    p.adjustWCSToReference()
    p.resampleToCommonFrame()
    p.scaleCountsToReference()
    p.stackFrames()
    # The stack's own catalogue and object mask; it keeps the name of a stack.
    p.detectSources(suffix=None)


recipes = {"sq": (reduce, alignAndStack), "ql": (reduce, alignAndStack)}
