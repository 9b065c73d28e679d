"""Finding and measuring sources.

The steps are SExtractor's (Bertin & Arnouts 1996, A&AS 117, 393), through the library `sep`, which shares
its algorithms.

`sep` keeps Python's interpreter lock while it works, so that detection on several threads takes turns for a
good half of the time. The limits of its buffers belong to the whole process; they are changed under a lock
and put back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.arrays import Bool, Float32, Floats, Mask
from niripipe.algorithms.background import BackgroundMap, background_map, can_be_halved
from niripipe.algorithms.bits import BAD, COSMIC_RAY, NO_DATA, UNILLUMINATED
from niripipe.algorithms.blank_apertures import BlankApertures, measure_apertures
from niripipe.algorithms.morphology import dilate
from niripipe.algorithms.photometry import (
    PixelNoise,
    add_isophotal_fluxes,
    add_kron_fluxes,
    add_widths,
    add_windowed_positions,
)
from niripipe.algorithms.profile import stamp_half_size
from niripipe.algorithms.repair import replace_bad_pixels
from niripipe.algorithms.source_catalogue import (
    CATALOGUE,
    Catalogue,
    PixelToWorld,
    add_world_columns,
    new_catalogue,
    star_likeness,
)
from niripipe.aperture_noise import ApertureNoise
from niripipe.errors import AlgorithmError

__all__ = ["Detection", "detect_sources"]


_KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)
# Bits whose pixels must not make or shape a source. Saturated pixels belong to stars and stay.
_NOT_SKY = BAD | COSMIC_RAY | NO_DATA | UNILLUMINATED
# A source covers so many pixels above the threshold, as in DRAGONS, unless fewer are asked for.
_LEAST_AREA = 20
# Faint sources have so many pixels above so many deviations. In simulated stacks nine of ten stars of S/N 10
# (in 3 pixels) are found so, and no noise; with 40 pixels above 1.5 the catalogue begins at S/N 20.
_FAINT_AREA, _FAINT_THRESH = 12, 1.0
# Number of levels at which blends are looked for: SExtractor's, and one that finds all but a few of them in
# half of the time.
_LEVELS, _FEW_LEVELS = 32, 8
# Sources above this multiple of the usual threshold have nearly all of the weight in an alignment.
_BRIGHT = 4.0
# Apertures without sources keep away from the mask of sources by so many pixels: wings go on below the
# threshold.
_WINGS = 4.0
# Values of bad pixels are replaced up to this distance from the nearest good pixel; further inside they would
# be invented.
_REACH = 2

_limits = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """Sources of a frame.

    Attributes
    ----------
    catalogue : structured ndarray of `CATALOGUE`, shape (n,)
        One row a source; n may be 0.
    objmask : ndarray of uint8, shape (ny, nx)
        1 on the pixels of the sources in the catalogue.
    level : float
        Mean of the background that was subtracted for detection.
    rms : float
        Standard deviation of the background, the unit of the thresholds.
    fwhm : float
        Width of the stars, pixels; NaN when there was no clear sequence of equal widths (see
        `~niripipe.algorithms.source_catalogue.star_likeness`).
    apertures : BlankApertures or None
        Scatter of apertures without sources; None where it was not measured.
    """

    catalogue: Catalogue
    objmask: NDArray[np.uint8]
    level: float
    rms: float
    fwhm: float
    apertures: BlankApertures | None = None


def detect_sources(
    data: Floats,
    mask: Mask | None = None,
    *,
    detect_minarea: int = 40,
    detect_thresh: float = 1.5,
    analysis_thresh: float = 1.5,
    deblend_mincont: float = 0.005,
    phot_min_radius: float = 3.5,
    back_size: int = 32,
    back_filtersize: int = 3,
    bad_bits: int = _NOT_SKY,
    gain: float = 1.0,
    pixel_scale: float | None = None,
    pix2world: PixelToWorld | None = None,
    measure: bool | Literal["positions"] = True,
    enough: int = 0,
    variance: Float32 | None = None,
    correlation: float = 1.0,
    depth: NDArray[Any] | None = None,
    faint: bool = False,
) -> Detection:
    """Detect and measure the sources of a frame.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame, electrons; with or without its sky. Not modified.
    mask : ndarray of uint16 of the same shape, optional
        Data quality.
    detect_minarea : int
        Least number of connected pixels above the threshold.
    detect_thresh, analysis_thresh : float
        Threshold for detection, and for the extent (ISOAREA_IMAGE), in background deviations. `sep`
        measures extents at the detection threshold; a higher analysis threshold counts the pixels of the
        source anew.
    deblend_mincont : float
        Least share of the flux for a component to be a separate source, looked for at 32 levels.
    phot_min_radius : float
        Least size of the Kron aperture, in units of the source's axes.
    back_size, back_filtersize : int
        Background mesh in pixels, and median filter over the meshes.
    bad_bits : int
        Bits of the mask whose pixels are replaced from their neighbours or, deeper inside bad areas, left
        out. They neither make sources nor split them.
    gain : float
        Electrons per unit of data, for the photon noise of sources.
    pixel_scale : float, optional
        Arcseconds per pixel, for the size of the stamps on which profiles are measured.
    pix2world : callable, optional
        Takes 0-based arrays x and y, returns longitude and latitude in degrees, for the WORLD columns.
        Without it they are NaN.
    measure : bool or "positions"
        Whether the sources are measured. Without it there is the object mask only, and the catalogue is
        empty. "positions" is quicker and does for aligning frames: fluxes are isophotal ones, corrected for
        what lies below the threshold, and FLUX_RADIUS is NaN, except where FWHM_IMAGE has to be made of
        it. Both look for blends at 8 levels and, where the sides of the frame are multiples of 4, for the
        background at one pixel in four, and for sources among squares of 2 x 2 pixels, so that the mask is
        made of these, and reaches about a pixel further out.
    enough : int
        With ``measure="positions"``: if so many sources stand out at four times the threshold, only
        these are measured, and the mask only holds their pixels above it. The positions of faint sources
        weigh little, and take most of the time. 0 looks for all.
    variance : ndarray of float32 of the same shape, optional
        Variance of each pixel. With it, and ``measure=True``, the scatter of apertures without sources is
        measured, and errors of fluxes are those of `niripipe.aperture_noise.ApertureNoise`.
    correlation : float
        Variance of a large aperture over the sum of its variances.
    depth : ndarray of int of the same shape, optional
        Number of frames in each pixel. Where there are fewer, the threshold is higher.
    faint : bool
        With ``measure=True``: add fainter sources, of 12 pixels above 1 deviation, that touch no other.

    Returns
    -------
    Detection
        Rows are removed when ISOAREA_IMAGE < 20 (or the area asked for, if less), B_IMAGE < 1.1,
        A_IMAGE > 50 B_IMAGE or more than 95 % of the pixels are flagged; the object mask holds the
        surviving ones.

    Raises
    ------
    AlgorithmError
        When no pixel is usable, or the frame holds more blended sources than can be separated.
    """
    plane, hidden = _repaired(data, mask, bad_bits)
    side = 2 if measure is not True and can_be_halved(plane.shape, back_size) else 1
    background = background_map(plane, hidden, box=back_size, filter_size=back_filtersize, halved=side == 2)
    rms = background.rms
    empty = Detection(
        np.zeros(0, CATALOGUE), np.zeros(data.shape, np.uint8), background.mean, rms, float("nan")
    )
    if not rms > 0:
        return empty
    field = _searched(plane, hidden, mask, background, side)
    spread = None if depth is None or side != 1 else _spread(depth)

    def extract(thresh: float) -> tuple[Any, NDArray[np.int32]]:
        levels = _LEVELS if measure is True else _FEW_LEVELS
        return field.extract(thresh, detect_minarea, deblend_mincont, levels, gain, spread)

    found = extract(_BRIGHT * detect_thresh) if measure == "positions" and enough > 0 else None
    if found is not None and len(found[0]) >= enough:
        detect_thresh *= _BRIGHT
    else:
        found = extract(detect_thresh)
    objects, segments = found
    if analysis_thresh > detect_thresh:
        bright = field.plane > analysis_thresh * rms
        objects["tnpix"] = side**2 * np.bincount(segments[bright], minlength=len(objects) + 1)[1:]
    least = min(_LEAST_AREA, detect_minarea)
    if faint and measure is True:
        least = min(least, _FAINT_AREA)
        more = field.extract(_FAINT_THRESH, _FAINT_AREA, deblend_mincont, _LEVELS, gain, spread)
        objects, segments = _joined((objects, segments), more)
    objects, segments, flagged, union = field.without_artefacts(objects, segments, least)
    objmask = (segments != 0).view(np.uint8).repeat(side, axis=1).repeat(side, axis=0)
    noise, apertures = None, None
    if measure is True and variance is not None:
        noise, apertures = _noise(plane, variance, mask, hidden, objmask, correlation, depth)
    if len(objects) == 0 or not measure:
        return replace(empty, objmask=objmask, apertures=apertures)

    catalogue = new_catalogue(objects, flagged, union)
    catalogue["BACKGROUND"] = field.at(background.level, objects)
    if measure == "positions":
        add_isophotal_fluxes(catalogue, objects, thresh=detect_thresh, rms=rms, gain=gain)
    else:
        add_kron_fluxes(
            catalogue,
            objects,
            plane,
            segments,
            hidden,
            rms=rms,
            gain=gain,
            least=phot_min_radius,
            noise=noise,
        )
    add_widths(catalogue, objects, plane, stamp_half_size(pixel_scale), half_light=measure is True)
    catalogue["CLASS_STAR"], width = star_likeness(catalogue)
    add_windowed_positions(catalogue, objects, plane, hidden, rms=rms, gain=gain, width=width)
    if pix2world is not None:
        catalogue = add_world_columns(catalogue, pix2world)
    return Detection(catalogue, objmask, background.mean, rms, width, apertures)


def _joined(
    found: tuple[Any, NDArray[np.int32]], faint: tuple[Any, NDArray[np.int32]]
) -> tuple[Any, NDArray[np.int32]]:
    """Add the objects that touch none of those that were found before."""
    objects, segments = found
    more, below = faint
    new = np.ones(len(more) + 1, bool)
    new[below[segments != 0]] = False
    new[0] = False
    number = np.zeros(len(more) + 1, np.int32)
    number[new] = len(objects) + np.arange(1, new.sum() + 1)
    return np.concatenate([objects, more[new[1:]]]), np.where(segments != 0, segments, number[below])


def _spread(depth: NDArray[Any]) -> Float32:
    """Return the noise of each pixel over that where most frames are, from their number."""
    frames = np.maximum(depth, 1).astype(np.float32)
    middle = np.float32(np.median(frames))
    return np.asarray(np.sqrt(middle / np.minimum(frames, middle)), np.float32)


def _noise(
    plane: Float32,
    variance: Float32,
    mask: Mask | None,
    hidden: Bool | None,
    objmask: NDArray[np.uint8],
    correlation: float,
    depth: NDArray[Any] | None,
) -> tuple[PixelNoise, BlankApertures | None]:
    """Return the noise of the pixels, with the residual sky that apertures without sources show."""
    known = np.isfinite(variance)
    blank = known & (variance > 0) & ~dilate(objmask != 0, _WINGS)
    for flags in (mask, hidden):
        if flags is not None:
            blank &= flags == 0
    variance = np.where(known, variance, np.float32(0))
    apertures = measure_apertures(plane, variance, blank, correlation=correlation, depth=depth)
    noise = ApertureNoise(correlation) if apertures is None else apertures.noise
    return PixelNoise(variance, noise, depth), apertures


def _repaired(data: Floats, mask: Mask | None, bits: int) -> tuple[Float32, Bool | None]:
    """Return a copy with bad pixels near good ones replaced, and where there is no usable value at all."""
    plane = np.array(data, dtype=np.float32, order="C")
    bad = ~np.isfinite(plane)
    if mask is not None:
        bad |= (mask & np.uint16(bits)) != 0
    if not bad.any():
        return plane, None
    if bad.all():
        raise AlgorithmError("There is no usable pixel to detect sources in", found=0, expected="> 0 pixels")
    hidden = _shrunk(bad, _REACH)
    replace_bad_pixels([plane], bad, reach=_REACH)
    return plane, hidden if hidden.any() else None


def _shrunk(bad: Bool, reach: int) -> Bool:
    """Return the pixels whose whole neighbourhood is bad; beyond the frame everything counts as bad."""
    for axis in (0, 1):
        shrunk = bad.copy()
        before, after = np.moveaxis(bad, axis, 0), np.moveaxis(shrunk, axis, 0)
        for step in range(1, reach + 1):
            after[step:] &= before[:-step]
            after[:-step] &= before[step:]
        bad = shrunk
    return bad


@dataclass(frozen=True, slots=True)
class _Field:
    """The elements in which sources are looked for: pixels, or the means of squares of 2 x 2 pixels.

    Of squares there are a fourth as many. The threshold in surface brightness is the same; the filter, which
    then is twice as wide, suits faint light better and sharp cores less, and of these there is enough.

    Attributes
    ----------
    plane : ndarray of float32
        Without background, 0 where hidden.
    hidden : ndarray of bool or None
        Elements without a usable value.
    flags : ndarray of uint16 or None
        Data quality.
    rms : float
        Standard deviation of the background of a pixel.
    side : int
        Pixels along a side of an element.
    """

    plane: Float32
    hidden: Bool | None
    flags: Mask | None
    rms: float
    side: int

    def extract(
        self, thresh: float, minarea: int, mincont: float, levels: int, gain: float, spread: Float32 | None
    ) -> tuple[Any, NDArray[np.int32]]:
        """Return objects, measured in pixels, and for each element the number of its object (from 1) or 0."""
        side, area = self.side, self.side**2
        objects, segments = _extract(
            self.plane,
            # The mean of a square has as many times less noise as it has pixels along a side.
            side * thresh,
            err=self.rms / side if spread is None else np.float32(self.rms) * spread,
            gain=area * gain,
            mask=self.hidden,
            minarea=max(minarea // area, 1),
            deblend_nthresh=levels,
            deblend_cont=mincont,
        )
        for name in ("x", "y"):
            objects[name] = side * objects[name] + (side - 1) / 2
        for name in ("a", "b"):
            objects[name] *= side
        for name in ("npix", "tnpix", "flux", "cflux", "errx2", "erry2", "errxy"):
            objects[name] *= area
        return objects, segments

    def without_artefacts(
        self, objects: Any, segments: NDArray[np.int32], least: int
    ) -> tuple[Any, NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Drop what is too small, thin or flagged; return objects, segments, number of flags, all flags."""
        count, union = (np.zeros(len(objects) + 1, np.int32) for _ in range(2))
        if self.flags is not None:
            some = (segments != 0) & (self.flags != 0)
            count += np.bincount(segments[some], minlength=count.size).astype(np.int32)
            np.bitwise_or.at(union, segments[some], self.flags[some].astype(np.int32))
        flagged, union = self.side**2 * count[1:], union[1:]
        with np.errstate(invalid="ignore"):
            keep = (
                (objects["tnpix"] >= least)
                & (objects["b"] >= 1.1)
                & (objects["a"] <= 50 * objects["b"])
                & (flagged <= 0.95 * objects["tnpix"])
            )
        number = np.zeros(len(objects) + 1, np.int32)
        number[1:][keep] = np.arange(1, keep.sum() + 1)
        return objects[keep], number[segments], flagged[keep], union[keep]

    def at(self, plane: Float32, objects: Any) -> Float32:
        """Return the values of a plane of elements at the objects."""
        row, column = (
            np.clip(np.rint((objects[name] - (self.side - 1) / 2) / self.side).astype(int), 0, size - 1)
            for name, size in zip("yx", plane.shape, strict=True)
        )
        return np.asarray(plane[row, column])


def _searched(
    plane: Float32, hidden: Bool | None, mask: Mask | None, background: BackgroundMap, side: int
) -> _Field:
    """Subtract the background from the plane, in place, and return the elements to find sources among."""
    level = background.level
    field = _Field(plane, hidden, mask, background.rms, side)
    if side == 2:
        squares = _over_squares(np.add, plane)
        squares *= np.float32(0.25)
        squares -= level
        unknown = None if hidden is None else _over_squares(np.logical_or, hidden)
        if unknown is not None:
            squares[unknown] = 0
        flags = None if mask is None else _over_squares(np.bitwise_or, mask)
        field = replace(field, plane=squares, hidden=unknown, flags=flags)
    height, width = level.shape
    rows = plane.reshape(height, side, side * width)
    rows -= level.repeat(side, axis=1)[:, None]
    if hidden is not None:
        plane[hidden] = 0
    return field


def _over_squares(function: np.ufunc, plane: NDArray[Any]) -> NDArray[Any]:
    """Combine the values in squares of 2 x 2 pixels."""
    pairs = function(plane[::2], plane[1::2])
    return np.asarray(function(pairs[:, ::2], pairs[:, 1::2]))


def _extract(plane: Float32, thresh: float, **settings: Any) -> tuple[Any, NDArray[np.int32]]:
    """Call ``sep.extract`` with buffers that grow until they suffice."""
    import sep

    with _limits:
        stack, children = sep.get_extract_pixstack(), sep.get_sub_object_limit()
        try:
            for _ in range(6):
                try:
                    objects, segments = sep.extract(
                        plane,
                        thresh,
                        filter_kernel=_KERNEL,
                        filter_type="conv",
                        segmentation_map=True,
                        **settings,
                    )
                    return objects, segments
                except Exception as error:  # sep raises bare Exceptions; the text is all there is
                    text = str(error)
                    if "pixel buffer" in text:
                        sep.set_extract_pixstack(4 * sep.get_extract_pixstack())
                    elif "deblending" in text:
                        sep.set_sub_object_limit(4 * sep.get_sub_object_limit())
                    else:
                        raise AlgorithmError("Source detection failed", found=text) from error
            raise AlgorithmError(
                "The frame holds more connected bright pixels or blended sources than can be separated",
                found=f"{sep.get_extract_pixstack()} pixels, {sep.get_sub_object_limit()} components",
                remedy="Raise detect_thresh or deblend_mincont, and check that the sky was subtracted.",
            )
        finally:
            sep.set_extract_pixstack(stack)
            sep.set_sub_object_limit(children)
