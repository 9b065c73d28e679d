"""Finding and measuring sources.

The steps are SExtractor's (Bertin & Arnouts 1996, A&AS 117, 393), through the library `sep`, which shares
its algorithms; the catalogue has the columns of the OBJCAT tables of DRAGONS.

`sep` keeps Python's interpreter lock while it works and has process-wide limits for its buffers. Detection
may be called from several threads, but in `sep` they take turns, a good half of the time; the limits are
changed under a lock and put back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.bits import BAD, COSMIC_RAY, NO_DATA, SATURATED, UNILLUMINATED
from niripipe.algorithms.gaussian import SIGMA_TO_FWHM
from niripipe.algorithms.profile import measure_profiles, stamp_half_size
from niripipe.algorithms.repair import replace_bad_pixels
from niripipe.errors import AlgorithmError, ParameterError

if TYPE_CHECKING:
    from niripipe.algorithms.background import BackgroundMap

__all__ = ["CATALOGUE", "Detection", "add_world_columns", "detect_sources", "star_likeness"]

Floats = NDArray[np.floating[Any]]
Catalogue = NDArray[np.void]
PixelToWorld = Callable[[Floats, Floats], tuple[Floats, Floats]]

_MISSING = -999.0
_KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=np.float32)
# Bits whose pixels must not make or shape a source. Saturated pixels belong to stars and stay.
_NOT_SKY = BAD | COSMIC_RAY | NO_DATA | UNILLUMINATED
# Levels at which sources are looked at for being several: SExtractor's number, and one that finds all but a
# few of the blends in half of the time.
_LEVELS, _FEW_LEVELS = 32, 8
# What stands out at this multiple of the usual threshold has nearly all of the weight in an alignment.
_BRIGHT = 4.0
# Boxes of sources up to this many pixels away are looked at together: all but those of large galaxies.
_COMMON_EXTENT = 15

_WORLD = (
    ("X_WORLD", "f8"), ("Y_WORLD", "f8"),
    ("ERRX2_WORLD", "f8"), ("ERRY2_WORLD", "f8"), ("ERRXY_WORLD", "f8"),
)  # fmt: skip
_WORLD_SHAPE = (
    ("A_WORLD", "f4"), ("B_WORLD", "f4"), ("THETA_WORLD", "f4"),
    ("ERRA_WORLD", "f4"), ("ERRB_WORLD", "f4"), ("ERRTHETA_WORLD", "f4"),
)  # fmt: skip
CATALOGUE = np.dtype(
    [
        ("NUMBER", "i4"), ("X_IMAGE", "f4"), ("Y_IMAGE", "f4"),
        ("ERRX2_IMAGE", "f8"), ("ERRY2_IMAGE", "f8"), ("ERRXY_IMAGE", "f8"),
        *_WORLD,
        ("A_IMAGE", "f4"), ("B_IMAGE", "f4"), ("THETA_IMAGE", "f4"),
        ("ERRA_IMAGE", "f4"), ("ERRB_IMAGE", "f4"), ("ERRTHETA_IMAGE", "f4"),
        *_WORLD_SHAPE,
        ("FWHM_IMAGE", "f4"), ("FWHM_WORLD", "f4"), ("FLUX_RADIUS", "f4"), ("ELLIPTICITY", "f4"),
        ("FLUX_AUTO", "f4"), ("FLUXERR_AUTO", "f4"), ("MAG_AUTO", "f4"), ("MAGERR_AUTO", "f4"),
        ("FLUX_MAX", "f4"), ("CLASS_STAR", "f4"), ("ISOAREA_IMAGE", "i4"), ("FLAGS", "i2"),
        ("IMAFLAGS_ISO", "i4"), ("NIMAFLAGS_ISO", "i4"), ("BACKGROUND", "f4"),
        ("REF_NUMBER", "i4"), ("REF_MAG", "f4"), ("REF_MAG_ERR", "f4"),
        ("PROFILE_FWHM", "f4"), ("PROFILE_EE50", "f4"),
        ("XWIN_IMAGE", "f8"), ("YWIN_IMAGE", "f8"), ("ERRWIN_IMAGE", "f4"),
    ]
)  # fmt: skip
"""The 43 columns of DRAGONS, then windowed positions (1-based) and their error (rms per axis), pixels."""

_limits = threading.Lock()


def _unlocked() -> None:
    """Let a copy of the process have a lock of its own: the thread that held it is not in the copy."""
    global _limits
    _limits = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlocked)


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
        `star_likeness`).
    """

    catalogue: Catalogue
    objmask: NDArray[np.uint8]
    level: float
    rms: float
    fwhm: float


def detect_sources(
    data: Floats,
    mask: NDArray[np.uint16] | None = None,
    variance: Floats | None = None,
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
    seeing: float | None = None,
    pix2world: PixelToWorld | None = None,
    measure: bool | Literal["positions"] = True,
    enough: int = 0,
) -> Detection:
    """Detect and measure the sources of a frame.

    Parameters
    ----------
    data : ndarray, shape (ny, nx)
        The frame, electrons; with or without its sky. Not modified.
    mask : ndarray of uint16 of the same shape, optional
        Data quality.
    variance : ndarray of the same shape, optional
        Variance. It gives the errors of flux and position and, where it changes over the frame (fewer
        exposures at the edges of a stack), the shape of the threshold; the height of the threshold always
        comes from the background's own deviation.
    detect_minarea : int
        Least number of connected pixels above the threshold.
    detect_thresh, analysis_thresh : float
        Threshold for detection, and for the extent (ISOAREA_IMAGE), in background deviations. `sep`
        measures extents at the detection threshold; a higher analysis threshold counts the pixels of the
        source anew.
    deblend_mincont : float
        Least share of the flux for a component to be a source of its own, looked for at 32 levels.
    phot_min_radius : float
        Least size of the Kron aperture, in units of the source's axes.
    back_size, back_filtersize : int
        Background mesh in pixels, and median filter over the meshes.
    bad_bits : int
        Bits of the mask whose pixels are replaced from their neighbours or, deeper inside bad areas, left
        out. They neither make sources nor split them.
    gain : float
        Electrons per unit of data, for the photon noise of sources when there is no variance.
    pixel_scale, seeing : float, optional
        Arcseconds per pixel, and seeing in arcseconds; only for the size of the stamps on which profiles
        are measured.
    pix2world : callable, optional
        Takes 0-based arrays x and y, returns longitude and latitude in degrees, for the WORLD columns.
        Without it they are NaN.
    measure : bool or "positions"
        Whether the sources are measured. Without it there is the object mask only, and the catalogue is
        empty. "positions" is quicker and does for aligning frames: fluxes are isophotal ones, corrected for
        what lies below the threshold, and FLUX_RADIUS is NaN, except where FWHM_IMAGE has to be made of
        it. Both look for blends at 8 levels, and for the background at one pixel in four; where the
        sides of the frame are multiples of 4, and no variance is given, they find sources among squares of
        2 x 2 pixels, so that the mask is made of these, and reaches about a pixel further out.
    enough : int
        With ``measure="positions"``: if so many sources stand out at four times the threshold, only
        these are measured, and the mask only holds their pixels above it. The positions of faint sources
        weigh little, and take most of the time. 0 looks for all.

    Returns
    -------
    Detection
        Rows are removed when ISOAREA_IMAGE < 20, B_IMAGE < 1.1, A_IMAGE > 50 B_IMAGE or more than 95 % of
        the pixels are flagged; the object mask holds the surviving ones.

    Raises
    ------
    ParameterError
        For parameters outside their range.
    AlgorithmError
        When no pixel is usable, or the frame holds more blended sources than can be taken apart.
    """
    _check_parameters(
        detect_minarea, detect_thresh, analysis_thresh, deblend_mincont, back_size, back_filtersize
    )
    from niripipe.algorithms.background import background_map, can_be_halved

    plane, hidden = _repaired(data, mask, bad_bits)
    coarse = measure is not True and variance is None and can_be_halved(plane.shape, back_size)
    quick: bool | Literal["halved"] = "halved" if coarse else measure is not True
    background = background_map(plane, hidden, box=back_size, filter_size=back_filtersize, quick=quick)
    empty = Detection(
        np.zeros(0, CATALOGUE), np.zeros(data.shape, np.uint8), background.mean, background.rms, float("nan")
    )
    if not background.rms > 0:
        return empty
    if coarse:
        seen = _Field.of_squares(plane, hidden, mask, background, measured=bool(measure))
    else:
        seen = _Field.of_pixels(plane, hidden, mask, background, variance)
    levels = _LEVELS if measure is True else _FEW_LEVELS

    def found_above(threshold: float) -> tuple[Any, NDArray[np.int32]]:
        return seen.extracted(threshold, detect_minarea, deblend_mincont, levels, gain)

    found = None
    if measure == "positions" and enough > 0:
        found = found_above(_BRIGHT * detect_thresh)
    if found is not None and len(found[0]) >= enough:
        detect_thresh *= _BRIGHT
    else:
        found = found_above(detect_thresh)
    objects, segments = found
    if len(objects) == 0:
        return empty
    if analysis_thresh > detect_thresh:
        bright = seen.plane > analysis_thresh * seen.noise
        objects["tnpix"] = seen.area * np.bincount(segments[bright], minlength=len(objects) + 1)[1:]
    covered = segments != 0
    places = np.flatnonzero(covered)
    labels = segments.ravel()[places]
    flagged, union = _flagged(places, labels, seen.flags, len(objects))
    flagged *= seen.area
    keep = _acceptable(objects, flagged)
    if not keep.all():
        renumber = np.zeros(len(objects) + 1, dtype=np.int32)
        renumber[1:][keep] = np.arange(1, keep.sum() + 1)
        labels = renumber[labels]
        segments.ravel()[places], covered.ravel()[places] = labels, labels != 0
        objects = objects[keep]
    if len(objects) == 0:
        return empty
    objmask = covered.view(np.uint8)
    if coarse:
        objmask = objmask.repeat(2, axis=0).repeat(2, axis=1)
    if not measure:
        return replace(empty, objmask=objmask)

    catalogue = _catalogue(objects, flagged[keep], union[keep])
    catalogue["BACKGROUND"] = seen.at(background.level, objects)
    if measure == "positions":
        _isophotal(catalogue, objects, detect_thresh, background.rms, gain)
    else:
        _photometry(
            catalogue, objects, plane, segments, hidden, variance, background.rms, gain, phot_min_radius
        )
    _widths(catalogue, objects, plane, stamp_half_size(pixel_scale, seeing), half_light=measure is True)
    catalogue["CLASS_STAR"], width = star_likeness(catalogue)
    _windowed(catalogue, objects, plane, hidden, background.rms, gain, width)
    if pix2world is not None:
        catalogue = add_world_columns(catalogue, pix2world)
    return Detection(catalogue, objmask, background.mean, background.rms, width)


def star_likeness(catalogue: Catalogue) -> tuple[NDArray[np.float32], float]:
    """Tell how much each source looks like a star, by its size.

    Parameters
    ----------
    catalogue : structured ndarray
        With the columns FWHM_IMAGE, FLUX_RADIUS, ELLIPTICITY, FLUX_AUTO, FLUXERR_AUTO, FLAGS and
        IMAFLAGS_ISO.

    Returns
    -------
    likeness : ndarray of float32, shape (n,)
        1 for a source as wide as the stars, falling to 0.5 where its width differs by 25 % plus its noise,
        towards 0 for galaxies, cosmic rays and blends. Of faint sources, whose width says little, it is
        near 0.5.
    fwhm : float
        The width of the stars, pixels: the densest place in the distribution of widths of round, unblended
        sources with S/N > 25; NaN with fewer than three of them, or when they do not agree.

    Notes
    -----
    It stands in for SExtractor's neural network. Where no width of stars can be found the
    concentration decides: twice the half-light radius is 1.0 to 1.35 core widths for a star (normal to
    Moffat profile) and more for an exponential disc.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(catalogue["FLUXERR_AUTO"] > 0, catalogue["FLUX_AUTO"] / catalogue["FLUXERR_AUTO"], 0.0)
    width = catalogue["FWHM_IMAGE"].astype(np.float64)
    good = (
        (snr > 25)
        & (width > 1)
        & (catalogue["ELLIPTICITY"] < 0.5)
        & ((catalogue["FLAGS"] & ~1) == 0)
        & ((catalogue["IMAFLAGS_ISO"] & SATURATED) == 0)
    )
    locus = _locus(width[good])
    noise = 1.0 / np.maximum(snr, 1.0)
    if np.isfinite(locus):
        deviation = np.log(np.maximum(width, 0.1) / locus)
    else:
        deviation = np.log(np.maximum(2 * catalogue["FLUX_RADIUS"] / np.maximum(width, 0.1), 0.1) / 1.2)
        # What was not measured speaks against nothing.
        deviation = np.nan_to_num(deviation, nan=0.0)
    scale = np.hypot(0.19, 2 * noise)
    likeness = np.exp(-0.5 * (deviation / scale) ** 2)
    # Between what the width says and not knowing, by signal to noise.
    trust = 1 / (1 + (5 * noise) ** 2)
    likeness = trust * likeness + (1 - trust) * 0.5
    likeness[width <= 0] = 0.0
    return likeness.astype(np.float32), locus


def add_world_columns(catalogue: Catalogue, pix2world: PixelToWorld) -> Catalogue:
    """Fill the WORLD columns of a catalogue.

    Parameters
    ----------
    catalogue : structured ndarray of `CATALOGUE`
        Not modified.
    pix2world : callable
        Takes 0-based arrays x and y, returns longitude and latitude in degrees.

    Returns
    -------
    structured ndarray
        A copy. Positions and variances in degrees; axes in degrees; angles in degrees counter-clockwise
        from increasing longitude.
    """
    out = catalogue.copy()
    x, y = out["X_IMAGE"].astype(np.float64) - 1, out["Y_IMAGE"].astype(np.float64) - 1
    lon, lat = pix2world(x, y)
    out["X_WORLD"], out["Y_WORLD"] = lon, lat
    # Local linear map of pixels to degrees on the sky, by central differences over two pixels.
    jacobian = np.empty((len(out), 2, 2))
    for axis, (dx, dy) in enumerate(((1.0, 0.0), (0.0, 1.0))):
        (lon1, lat1), (lon0, lat0) = pix2world(x + dx, y + dy), pix2world(x - dx, y - dy)
        turn = (np.asarray(lon1) - np.asarray(lon0) + 180.0) % 360.0 - 180.0
        jacobian[:, 0, axis] = turn * np.cos(np.deg2rad(lat)) / 2
        jacobian[:, 1, axis] = (np.asarray(lat1) - np.asarray(lat0)) / 2
    scale = np.sqrt(np.abs(np.linalg.det(jacobian)))
    error = _moved(jacobian, out["ERRX2_IMAGE"], out["ERRY2_IMAGE"], out["ERRXY_IMAGE"])
    out["ERRX2_WORLD"], out["ERRY2_WORLD"], out["ERRXY_WORLD"] = error
    out["ERRA_WORLD"], out["ERRB_WORLD"], out["ERRTHETA_WORLD"] = _axes(*error)
    angle = np.deg2rad(out["THETA_IMAGE"].astype(np.float64))
    a2, b2 = out["A_IMAGE"].astype(np.float64) ** 2, out["B_IMAGE"].astype(np.float64) ** 2
    cos, sin = np.cos(angle), np.sin(angle)
    shape = _moved(jacobian, a2 * cos**2 + b2 * sin**2, a2 * sin**2 + b2 * cos**2, (a2 - b2) * cos * sin)
    out["A_WORLD"], out["B_WORLD"], out["THETA_WORLD"] = _axes(*shape)
    out["FWHM_WORLD"] = np.where(out["FWHM_IMAGE"] > 0, out["FWHM_IMAGE"] * scale, _MISSING)
    return out


def _check_parameters(
    minarea: int, thresh: float, analysis: float, cont: float, box: int, filter_size: int
) -> None:
    for name, value, least in (
        ("detect_minarea", minarea, 1),
        ("detect_thresh", thresh, 0.1),
        ("analysis_thresh", analysis, 0.1),
        ("deblend_mincont", cont, 0),
        ("back_size", box, 1),
        ("back_filtersize", filter_size, 1),
    ):
        if not value >= least:
            raise ParameterError("Parameter out of range", item=name, found=value, expected=f">= {least}")


def _repaired(
    data: Floats, mask: NDArray[np.uint16] | None, bits: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Make a copy without the values of bad pixels, and tell which pixels have nothing to say at all."""
    plane = np.array(data, dtype=np.float32, order="C")
    bad = ~np.isfinite(plane)
    if mask is not None:
        bad |= (mask & np.uint16(bits)) != 0
    number = int(np.count_nonzero(bad))
    if number == 0:
        return plane, None
    if number == bad.size:
        raise AlgorithmError("There is no usable pixel to detect sources in", found=0, expected="> 0 pixels")
    # Further than this from the nearest good pixel a value would be invented.
    reach = 2
    near = _shrunk(bad, reach)
    replace_bad_pixels([plane], bad, reach=reach)
    return plane, near if near.any() else None


def _shrunk(bad: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Keep the pixels whose whole neighbourhood is bad; beyond the frame everything counts as bad."""
    for axis in (0, 1):
        shrunk = bad.copy()
        before, after = np.moveaxis(bad, axis, 0), np.moveaxis(shrunk, axis, 0)
        for step in range(1, reach + 1):
            after[step:] &= before[:-step]
            after[:-step] &= before[step:]
        bad = shrunk
    return bad


def _noise_map(
    variance: Floats | None, hidden: NDArray[np.bool_] | None, rms: float
) -> float | NDArray[np.float32]:
    """Return the deviation that a threshold counts in: one number unless the depth changes."""
    if variance is None:
        return rms
    thin = variance[4::8, 4::8]
    usable = np.isfinite(thin) & (thin > 0)
    if hidden is not None:
        usable &= ~hidden[4::8, 4::8]
    if usable.sum() < 100:
        return rms
    low, middle, high = np.quantile(thin[usable], [0.05, 0.5, 0.95])
    # Photon noise of the sources themselves changes the upper end by less.
    if high < 1.5 * middle and low > 0.67 * middle:
        return rms
    from niripipe.algorithms.background import background_map

    unusable = ~(np.isfinite(variance) & (variance > 0))
    if hidden is not None:
        unusable |= hidden
    smooth = background_map(variance, unusable, box=32, filter_size=3).level
    return np.asarray(rms * np.sqrt(np.maximum(smooth, 0.25 * low) / middle), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Field:
    """What sources are looked for in: the pixels, or the means of squares of 2 x 2 of them.

    Of squares there are a fourth as many. The threshold in surface brightness is the same; the filter, which
    then is twice as wide, suits faint light better and sharp cores less, and of these there is enough.

    Attributes
    ----------
    plane : ndarray of float32
        Without background, 0 where hidden.
    hidden : ndarray of bool or None
        What has nothing to say.
    flags : ndarray of uint16 or None
        Data quality.
    noise : float or ndarray of float32
        Deviation that a threshold counts in, of a pixel.
    side : int
        Pixels along a side of an element.
    """

    plane: NDArray[np.float32]
    hidden: NDArray[np.bool_] | None
    flags: NDArray[np.uint16] | None
    noise: float | NDArray[np.float32]
    side: int

    @classmethod
    def of_pixels(
        cls,
        plane: NDArray[np.float32],
        hidden: NDArray[np.bool_] | None,
        mask: NDArray[np.uint16] | None,
        background: BackgroundMap,
        variance: Floats | None,
    ) -> _Field:
        """Look at pixels; the background of the plane itself is subtracted."""
        plane -= background.level
        if hidden is not None:
            plane[hidden] = 0
        return cls(plane, hidden, mask, _noise_map(variance, hidden, background.rms), 1)

    @classmethod
    def of_squares(
        cls,
        plane: NDArray[np.float32],
        hidden: NDArray[np.bool_] | None,
        mask: NDArray[np.uint16] | None,
        background: BackgroundMap,
        *,
        measured: bool,
    ) -> _Field:
        """Look at squares; the background of the plane itself is subtracted if it will be measured."""
        squares = _over_squares(np.add, plane)
        squares *= np.float32(0.25)
        squares -= background.level
        unknown = None if hidden is None else _over_squares(np.logical_or, hidden)
        if unknown is not None:
            squares[unknown] = 0
        if measured:
            height, width = background.level.shape
            corners = plane.reshape(height, 2, width, 2)
            corners -= background.level[:, None, :, None]
            if hidden is not None:
                plane[hidden] = 0
        flags = None if mask is None else _over_squares(np.bitwise_or, mask)
        return cls(squares, unknown, flags, background.rms, 2)

    @property
    def area(self) -> int:
        """Pixels of an element."""
        return self.side**2

    def extracted(
        self, thresh: float, minarea: int, mincont: float, levels: int, gain: float
    ) -> tuple[Any, NDArray[np.int32]]:
        """Return objects, measured in pixels, and the number of its object for each element."""
        # The mean of a square has as many times less noise as it has pixels along a side.
        noise = self.noise / self.side if isinstance(self.noise, float) else self.noise
        objects, segments = _extract(
            self.plane, self.side * thresh, noise, self.hidden,
            max(minarea // self.area, 1), mincont, levels, self.area * gain,
        )  # fmt: skip
        if self.side > 1:
            for name in ("x", "y"):
                objects[name] = self.side * objects[name] + (self.side - 1) / 2
            for name in ("a", "b"):
                objects[name] *= self.side
            for name in ("npix", "tnpix", "flux", "cflux", "errx2", "erry2", "errxy"):
                objects[name] *= self.area
        return objects, segments

    def at(self, plane: NDArray[np.float32], objects: Any) -> NDArray[np.float32]:
        """Return the values of a plane of elements at the objects."""
        row, column = (
            np.clip(np.rint((objects[name] - (self.side - 1) / 2) / self.side).astype(int), 0, size - 1)
            for name, size in zip("yx", plane.shape, strict=True)
        )
        return np.asarray(plane[row, column])


def _over_squares(function: np.ufunc, plane: NDArray[Any]) -> NDArray[Any]:
    """Combine the values in squares of 2 x 2 pixels."""
    pairs = function(plane[::2], plane[1::2])
    return np.asarray(function(pairs[:, ::2], pairs[:, 1::2]))


def _extract(
    plane: NDArray[np.float32],
    thresh: float,
    noise: float | NDArray[np.float32],
    hidden: NDArray[np.bool_] | None,
    minarea: int,
    mincont: float,
    levels: int,
    gain: float,
) -> tuple[Any, NDArray[np.int32]]:
    import sep

    with _limits:
        stack, children = sep.get_extract_pixstack(), sep.get_sub_object_limit()
        try:
            for _ in range(6):
                try:
                    objects, segments = sep.extract(
                        plane,
                        thresh,
                        err=noise,
                        gain=gain,
                        mask=hidden,
                        minarea=minarea,
                        filter_kernel=_KERNEL,
                        filter_type="conv",
                        deblend_nthresh=levels,
                        deblend_cont=mincont,
                        clean=True,
                        clean_param=1.0,
                        segmentation_map=True,
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
                "The frame holds more connected bright pixels or blended sources than can be taken apart",
                found=f"{sep.get_extract_pixstack()} pixels, {sep.get_sub_object_limit()} components",
                remedy="Raise detect_thresh or deblend_mincont, and check that the sky was subtracted.",
            )
        finally:
            sep.set_extract_pixstack(stack)
            sep.set_sub_object_limit(children)


def _flagged(
    places: NDArray[np.intp], labels: NDArray[np.int32], mask: NDArray[np.uint16] | None, number: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Count the flagged pixels of each source, and unite their flags."""
    count, union = np.zeros(number + 1, np.int32), np.zeros(number + 1, np.int32)
    if mask is not None:
        flags = mask.ravel()[places]
        some = flags != 0
        count = np.bincount(labels[some], minlength=number + 1).astype(np.int32)
        np.bitwise_or.at(union, labels[some], flags[some].astype(np.int32))
    return count[1:], union[1:]


def _acceptable(objects: Any, flagged: NDArray[np.int32]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (objects["tnpix"] >= 20)
            & (objects["b"] >= 1.1)
            & (objects["a"] <= 50 * objects["b"])
            & (flagged <= 0.95 * objects["tnpix"])
        )


def _catalogue(objects: Any, flagged: NDArray[np.int32], union: NDArray[np.int32]) -> Catalogue:
    out = np.zeros(len(objects), CATALOGUE)
    for name, _ in (*_WORLD, *_WORLD_SHAPE, ("FWHM_WORLD", "")):
        out[name] = np.nan
    for name in ("REF_NUMBER", "REF_MAG", "REF_MAG_ERR"):
        out[name] = _MISSING
    out["NUMBER"] = np.arange(1, len(objects) + 1)
    out["X_IMAGE"], out["Y_IMAGE"] = objects["x"] + 1, objects["y"] + 1
    for column, field in (("ERRX2_IMAGE", "errx2"), ("ERRY2_IMAGE", "erry2"), ("ERRXY_IMAGE", "errxy")):
        out[column] = objects[field]
    out["A_IMAGE"], out["B_IMAGE"] = objects["a"], objects["b"]
    out["THETA_IMAGE"] = np.rad2deg(objects["theta"])
    out["ERRA_IMAGE"], out["ERRB_IMAGE"], out["ERRTHETA_IMAGE"] = _axes(
        objects["errx2"], objects["erry2"], objects["errxy"]
    )
    out["ELLIPTICITY"] = 1 - objects["b"] / objects["a"]
    out["FLUX_MAX"] = objects["peak"]
    out["ISOAREA_IMAGE"] = objects["tnpix"]
    out["IMAFLAGS_ISO"], out["NIMAFLAGS_ISO"] = union, flagged
    # sep: 1 merged, 2 truncated, 4 deblending overflow. SExtractor: 2 blended, 4 saturated, 8 truncated, 64
    # overflow.
    flag = objects["flag"].astype(np.int16)
    out["FLAGS"] = (
        np.where(flag & 1, 2, 0)
        | np.where(flag & 2, 8, 0)
        | np.where(flag & 4, 64, 0)
        | np.where(union & SATURATED, 4, 0)
        | np.where(flagged > 0.1 * objects["tnpix"], 1, 0)
    )
    return out


def _photometry(
    catalogue: Catalogue,
    objects: Any,
    plane: NDArray[np.float32],
    segments: NDArray[np.int32],
    hidden: NDArray[np.bool_] | None,
    variance: Floats | None,
    rms: float,
    gain: float,
    least: float,
) -> None:
    """Measure in 2.5 Kron radii, at least ``least`` axes; neighbours are replaced by the pixel opposite."""
    import sep

    x, y, a, b, theta = shape = _ellipses(objects)
    kron, _ = sep.kron_radius(
        plane, *shape, 6.0, mask=hidden, segmap=segments, seg_id=np.arange(1, x.size + 1)
    )
    radius = np.fmax(2.5 * kron, least)
    if variance is None:
        noise: dict[str, Any] = {"err": rms, "gain": gain}
    else:
        noise = {"var": np.ascontiguousarray(np.nan_to_num(variance, posinf=0.0), dtype=np.float32)}
    flux, error, flag = sep.sum_ellipse(plane, *shape, radius, **noise)
    extent = np.ceil(a * radius).astype(np.intp) + 1
    crowded = _crowded(segments, x, y, extent)
    for k in crowded.tolist():
        stamp, x0, y0 = _without_neighbours(plane, segments, k + 1, x[k], y[k], int(extent[k]))
        one = slice(k, k + 1)
        total = sep.sum_ellipse(stamp, x[one] - x0, y[one] - y0, a[one], b[one], theta[one], radius[one])
        flux[one] = total[0]
    catalogue["FLAGS"][crowded] |= 1
    catalogue["FLAGS"] |= np.where(flag & 0x10, 16, 0).astype(np.int16)
    _set_flux(catalogue, flux, error)


def _isophotal(catalogue: Catalogue, objects: Any, thresh: float, rms: float, gain: float) -> None:
    """Take the flux above the threshold, and add what a normal profile has below it.

    Of area A and threshold t per flux F the share above is 1 - 0.1961 A t / F - 0.7512 (A t / F)^2
    (SExtractor's correction; Maddox et al. 1990, MNRAS 246, 433).
    """
    flux, area = objects["flux"].astype(np.float64), objects["npix"].astype(np.float64)
    faintness = area * thresh * rms / np.maximum(flux, 1e-6)
    # Noise and odd shapes must not do more than double a flux.
    share = np.maximum(1 - 0.1961 * faintness - 0.7512 * faintness**2, 0.5)
    error = np.sqrt(area * rms**2 + np.maximum(flux, 0) / gain)
    _set_flux(catalogue, flux / share, error / share)


def _set_flux(catalogue: Catalogue, flux: Floats, error: Floats) -> None:
    """Write fluxes, and the magnitudes of those that are positive."""
    catalogue["FLUX_AUTO"], catalogue["FLUXERR_AUTO"] = flux, error
    positive = flux > 0
    ratio = np.where(positive, flux, 1.0)
    catalogue["MAG_AUTO"] = np.where(positive, -2.5 * np.log10(ratio), 99.0)
    catalogue["MAGERR_AUTO"] = np.where(positive, 2.5 / np.log(10) * error / ratio, 99.0)


def _ellipses(objects: Any) -> list[NDArray[np.float64]]:
    """Return centres, axes and angle (radians) as `sep` wants them."""
    x, y, a, b, theta = (objects[name].astype(np.float64) for name in ("x", "y", "a", "b", "theta"))
    return [x, y, a, b, np.clip(theta, -np.pi / 2, np.pi / 2)]


def _crowded(segments: NDArray[np.int32], x: Floats, y: Floats, extent: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return which sources may have others within the given distance along the axes."""
    ny, nx = segments.shape
    crowded = np.zeros(x.size, dtype=bool)
    small = extent <= _COMMON_EXTENT
    for group in (np.flatnonzero(small), *np.flatnonzero(~small)[:, None]):
        reach = extent[group, None]
        box = np.arange(-reach.max(initial=0), reach.max(initial=0) + 1)
        # At the edges of the frame the outermost pixels are seen more than once.
        row = np.clip(np.rint(y[group, None]).astype(np.intp) + box, 0, ny - 1)
        column = np.clip(np.rint(x[group, None]).astype(np.intp) + box, 0, nx - 1)
        near = np.abs(box) <= reach
        labels = segments[row[:, :, None], column[:, None, :]]
        others = (labels != 0) & (labels != group[:, None, None] + 1)
        crowded[group] = (others & near[:, :, None] & near[:, None, :]).any(axis=(1, 2))
    return np.flatnonzero(crowded)


def _without_neighbours(
    plane: NDArray[np.float32], segments: NDArray[np.int32], label: int, x: float, y: float, extent: int
) -> tuple[NDArray[np.float32], int, int]:
    """Cut out a source with the pixels of others replaced, and tell where its corner is (x, y)."""
    ny, nx = plane.shape
    ix, iy = round(x), round(y)
    x0, x1 = max(ix - extent, 0), min(ix + extent + 1, nx)
    y0, y1 = max(iy - extent, 0), min(iy + extent + 1, ny)
    labels = segments[y0:y1, x0:x1]
    foreign = (labels != 0) & (labels != label)
    stamp = plane[y0:y1, x0:x1].copy()
    row, column = np.nonzero(foreign)
    mirror_row, mirror_column = 2 * iy - (row + y0) - y0, 2 * ix - (column + x0) - x0
    inside = (mirror_row >= 0) & (mirror_row < y1 - y0) & (mirror_column >= 0) & (mirror_column < x1 - x0)
    value = np.zeros(row.size, dtype=np.float32)
    r, c = mirror_row[inside], mirror_column[inside]
    value[inside] = np.where(foreign[r, c], 0, stamp[r, c])
    stamp[row, column] = value
    return stamp, x0, y0


def _widths(
    catalogue: Catalogue, objects: Any, plane: NDArray[np.float32], half_size: int, *, half_light: bool
) -> None:
    """Measure profiles and, unless ``half_light`` is False, half-light radii of all sources."""
    result = measure_profiles(
        plane,
        objects["x"],
        objects["y"],
        0.0,
        catalogue["FLUX_AUTO"],
        catalogue["FLUX_MAX"],
        half_size=half_size,
    )
    catalogue["PROFILE_FWHM"], catalogue["PROFILE_EE50"] = result.fwhm, result.ee50
    catalogue["FLUX_MAX"] = result.peak
    # Near the edges, where no stamp fits, the half-light radius has to do.
    measured = result.core > 0
    radius = _half_light_radius(objects, plane, catalogue["FLUX_AUTO"], ~measured | half_light)
    catalogue["FLUX_RADIUS"] = radius
    catalogue["FWHM_IMAGE"] = np.where(measured, result.core, np.where(radius > 0, 2 * radius, _MISSING))


def _half_light_radius(
    objects: Any, plane: NDArray[np.float32], flux: NDArray[np.float32], which: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Radius of the circle with half of the flux of some sources, at most 6 axes; NaN for the others."""
    import sep

    x, y, a, _, _ = _ellipses(objects)
    normal = np.maximum(flux.astype(np.float64), 1e-6)
    radius = np.full(x.size, np.nan)
    # The cost goes with the square of the reach: half of the light lies within two axes of nearly all
    # sources, and well within three of the largest.
    for large, subpixels, reaches in ((a <= 10, 3, (2.0, 6.0)), (a > 10, 1, (2.0, 3.0))):
        todo = np.flatnonzero(which & large)
        for reach in reaches:
            if todo.size:
                limit = reach * a[todo]
                radius[todo] = sep.flux_radius(
                    plane, x[todo], y[todo], limit, 0.5, normflux=normal[todo], subpix=subpixels
                )[0]
                todo = todo[radius[todo] >= 0.999 * limit]
    return radius


def _windowed(
    catalogue: Catalogue,
    objects: Any,
    plane: NDArray[np.float32],
    hidden: NDArray[np.bool_] | None,
    rms: float,
    gain: float,
    width: float,
) -> None:
    """Centroids in a window as wide as the source, and their errors.

    With a normal source of deviation s and flux F, a window of deviation w and background noise r the
    centroid's variance per axis is 2 pi r^2 (w^2 + s^2)^2 / F^2 + 4 t^4 (w^2 + s^2)^2 / (gain F s^2 w^4)
    with 1/t^2 = 1/s^2 + 2/w^2, from propagating each pixel's variance through x + 2 sum(g f dx) / sum(g f).
    """
    import sep

    sigma = np.clip(catalogue["FWHM_IMAGE"].astype(np.float64), 1.0, 15.0) / SIGMA_TO_FWHM
    if np.isfinite(width):
        # Widths of faint stars are noisy; the stars' common one serves every source that may be a star.
        alike = np.abs(np.log(sigma * SIGMA_TO_FWHM / width)) < 0.5
        sigma = np.where(alike, width / SIGMA_TO_FWHM, sigma)
    x0, y0 = objects["x"].astype(np.float64), objects["y"].astype(np.float64)
    # The weight is 3e-4 at the edge of the window: how finely pixels there are divided moves the centroid by
    # a thousandth of its error.
    x, y, _ = sep.winpos(plane, x0, y0, sigma, mask=hidden, subpix=1)
    # An iteration that ran away to a neighbour ends far from the barycentre.
    sane = np.hypot(x - x0, y - y0) < np.maximum(2.0, objects["a"])
    flux = np.maximum(catalogue["FLUX_AUTO"].astype(np.float64), 1e-30)
    noise, photons = 2 * np.pi * rms**2 * (2 * sigma**2) ** 2 / flux**2, 16 / 9 * sigma**2 / (gain * flux)
    isophotal = np.sqrt(0.5 * (catalogue["ERRX2_IMAGE"] + catalogue["ERRY2_IMAGE"]))
    catalogue["XWIN_IMAGE"] = np.where(sane, x, x0) + 1
    catalogue["YWIN_IMAGE"] = np.where(sane, y, y0) + 1
    catalogue["ERRWIN_IMAGE"] = np.minimum(np.where(sane, np.sqrt(noise + photons), isophotal), 1e6)


def _locus(width: Floats) -> float:
    """Return the densest place of a set of widths: the middle of the narrowest interval with half of them."""
    if width.size < 3:
        return float("nan")
    ordered = np.sort(np.log(width))
    half = (ordered.size + 1) // 2
    if half < 2:
        half = 2
    spans = ordered[half - 1 :] - ordered[: ordered.size - half + 1]
    start = int(np.argmin(spans))
    if spans[start] > 0.35:
        return float("nan")
    return float(np.exp(np.median(ordered[start : start + half])))


def _moved(jacobian: Floats, xx: Floats, yy: Floats, xy: Floats) -> tuple[Floats, Floats, Floats]:
    """Second moments after a linear map."""
    a, b, c, d = jacobian[:, 0, 0], jacobian[:, 0, 1], jacobian[:, 1, 0], jacobian[:, 1, 1]
    return (
        a * a * xx + 2 * a * b * xy + b * b * yy,
        c * c * xx + 2 * c * d * xy + d * d * yy,
        a * c * xx + (a * d + b * c) * xy + b * d * yy,
    )


def _axes(xx: Floats, yy: Floats, xy: Floats) -> tuple[Floats, Floats, Floats]:
    """Axes and angle (degrees, from the first axis) of second moments."""
    mean, half = 0.5 * (xx + yy), 0.5 * (xx - yy)
    root = np.hypot(half, xy)
    angle = np.rad2deg(0.5 * np.arctan2(2 * xy, xx - yy))
    return np.sqrt(np.maximum(mean + root, 0)), np.sqrt(np.maximum(mean - root, 0)), angle
