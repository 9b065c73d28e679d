"""A reduced stack against the truth of the night that it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import DataError, InputError, ParameterError
from niripipe.simulate.nights import Night
from niripipe.simulate.psf import add_stars, star_stamp
from niripipe.simulate.scene import Scene
from niripipe.simulate.truth import Truth, read_truth

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["Score", "score"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Radius of apertures, of the ring for the local background (pixels at the tutorial's seeing of 4.7), half
#: the stamp.
_APERTURE, _RING = 11.0, (16.0, 22.0)
_HALF = 23
#: Points a pixel edge at which apertures and growth curves are integrated.
_FINE = 5
#: Charge (e-) from which a cosmic ray counts, and how far above the noise what is left of it must stand.
_CR_CHARGE, _CR_SIGMA = 1500.0, 5.0
#: Cosmic rays nearer than this to a star are not counted, pixels.
_CR_AWAY = 12.0
#: S/N from which stars count, and the number of bright ones that fix the shift.
_LEAST_SNR, _SHIFT_STARS = 40.0, 60
#: Side of the boxes in which the local level is measured, pixels.
_BOX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How near a stack comes to the truth; what a perfect one would have stands in brackets.

    Attributes
    ----------
    kind : str
        ``target`` or ``std``.
    shape : tuple of int
        (ny, nx) of the stack.
    n_stars, n_bright : int
        Stars measured with S/N > 40 and S/N > 100.
    completeness : float
        Of the stars that should have S/N > 20 in clean pixels, the fraction found at S/N > 5 within a factor
        2 in flux [1].
    flux_ratio, flux_ratio_snr100, flux_scatter : float
        Median of measured over true flux with S/N > 40 and > 100 [1], and its robust scatter (S/N > 40).
    shift : tuple of float
        Mean displacement (x, y) against the stack's world coordinates, pixels: the pointing error of its
        first frame.
    astrom_rms_pix : float
        Root of the median squared distance from truth after that shift [0].
    r50_ratio : float
        Median of half-light radius over that of the true profile [1].
    galaxy_ratio : float or None
        Slope of the galaxy against truth [1]; None without a galaxy.
    pull : float
        Robust scatter of (data - truth) / sqrt(variance) in blank pixels [1].
    cr_hits, cr_left : int, float
        Pixels hit in the stacked frames that could be checked, and the fraction of them standing out
        unflagged [0].
    flagged : float
        Fraction of flagged pixels in the inner part.

    Notes
    -----
    NaN where there was nothing to measure.
    """

    kind: str
    shape: tuple[int, int]
    n_stars: int
    n_bright: int
    completeness: float
    flux_ratio: float
    flux_ratio_snr100: float
    flux_scatter: float
    shift: tuple[float, float]
    astrom_rms_pix: float
    r50_ratio: float
    galaxy_ratio: float | None
    pull: float
    cr_hits: int
    cr_left: float
    flagged: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as a dictionary."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"flux {self.flux_ratio_snr100:.4f} ({self.n_bright} stars with S/N > 100), "
            f"positions {self.astrom_rms_pix:.4f} pixel, half-light radius {self.r50_ratio:.4f}, "
            f"noise {self.pull:.3f}, cosmic rays left {self.cr_left:.3f} of {self.cr_hits}"
        )


class _Stack(NamedTuple):
    """Planes in electrons, usable pixels, unflagged pixels, world coordinates, number of frames combined."""

    data: Float32
    variance: Float32
    usable: Flags
    clean: Flags
    wcs: WCS
    combined: int | None


class _Star(NamedTuple):
    """What was measured of a star; `r50_ratio` is NaN for faint ones, `offset` that from the model."""

    x: float
    y: float
    flux_ratio: float
    snr: float
    r50_ratio: float
    offset: tuple[float, float]


class _Model(NamedTuple):
    """Truth on the pixels of the stack: stars, galaxy (e-), positions, fluxes (e-) and FWHM of stars."""

    stars: Float32
    galaxy: Float32 | None
    x: Float64
    y: Float64
    flux: Float64
    widths: tuple[float, ...]

    def star(self, i: int, x: float, y: float, columns: slice, rows: slice) -> Float64:
        """Draw one star at a position of a window."""
        stamps = [star_stamp(x, y, width, columns, rows) for width in self.widths]
        drawn: Float64 = self.flux[i] * sum(stamps) / len(stamps)
        return drawn


def score(
    truth: Night | Truth | str | PathLike[str], stack: Any, *, kind: Literal["target", "std"] = "target"
) -> Score:
    """Measure a reduced stack against the truth.

    Parameters
    ----------
    truth : Night, Truth or path-like
        The night, its truth, or where ``truth.json`` is.
    stack : AstroData or path-like
        The stack: a data set whose first extension has ``data``, ``variance``, ``mask`` and ``wcs``, or a
        FITS file with SCI, VAR and DQ extensions. Electrons or ADU, the mean of its frames.
    kind : {"target", "std"}
        What was stacked.

    Returns
    -------
    Score

    Raises
    ------
    ParameterError
        If the night has no frames of this kind.
    DataError
        If the stack lacks a plane or world coordinates.
    InputError
        If a file is not there.

    Notes
    -----
    Truth includes neighbours and the galaxy, so that crowding does not spoil the figures: each star is
    measured after all other known light has been subtracted. Apertures of 11 pixels, background in a ring
    from 16 to 22, true fluxes integrated in the same way over the true profile.
    """
    known = (
        truth.truth if isinstance(truth, Night) else truth if isinstance(truth, Truth) else read_truth(truth)
    )
    names = known.names(kind)
    if not names:
        raise ParameterError("The night has no such frames", item="kind", found=kind)
    planes = _load(stack, known.gain)
    if planes.combined is not None and 0 < planes.combined < len(names):
        # What is left out is the first frame, which the recipes drop.
        names = names[-planes.combined :]
    model, shift = _fit_shift(planes, known, names, kind)
    rest = planes.data - model.stars
    if model.galaxy is not None:
        rest -= model.galaxy
    inner = _inner(planes, known, names)
    stars = list(_measure(planes, model, rest))
    noise = _blank_noise(planes, model, rest, inner)
    hits, left = _cosmic_rays(planes, known, names, kind, model, rest, shift, inner)
    return Score(
        kind=kind,
        shape=(planes.data.shape[0], planes.data.shape[1]),
        **_summary(stars),
        completeness=_completeness(planes, model, rest, inner),
        shift=(round(shift[0], 4), round(shift[1], 4)),
        galaxy_ratio=_galaxy_ratio(planes, model, inner),
        pull=noise,
        cr_hits=hits,
        cr_left=left,
        flagged=float(1 - planes.clean[inner].mean()) if inner.any() else math.nan,
    )


def _summary(stars: list[_Star]) -> dict[str, Any]:
    good = [s for s in stars if s.snr > _LEAST_SNR]
    bright = [s for s in stars if s.snr > 100]
    ratio = np.array([s.flux_ratio for s in good])
    offset = np.array([s.offset for s in good]).reshape(-1, 2)
    return {
        "n_stars": len(good),
        "n_bright": len(bright),
        "flux_ratio": _median(ratio),
        "flux_ratio_snr100": _median(np.array([s.flux_ratio for s in bright])),
        "flux_scatter": _scatter(ratio),
        "astrom_rms_pix": math.sqrt(_median((offset**2).sum(axis=1))) if good else math.nan,
        "r50_ratio": _median(np.array([s.r50_ratio for s in good])),
    }


def _load(stack: Any, gain: float) -> _Stack:
    if isinstance(stack, str | PathLike):
        data, variance, mask, wcs, unit, combined = _from_file(fspath(stack))
    else:
        first = stack[0]
        data, variance, mask, wcs = first.data, first.variance, first.mask, first.wcs
        unit, combined = first.hdr.get("BUNIT"), stack.phu.get("NCOMBINE", first.hdr.get("NCOMBINE"))
    for name, plane in (("data", data), ("variance", variance), ("wcs", wcs)):
        if plane is None:
            raise DataError("A stack without this cannot be scored", item=name)
    flags = np.zeros(data.shape, np.uint16) if mask is None else mask
    factor = np.float32(gain if str(unit or "electron").strip().lower() == "adu" else 1.0)
    usable = np.isfinite(data) & (variance > 0) & ((flags & (1 | 16)) == 0)
    return _Stack(
        data=np.where(usable, data, 0).astype(np.float32) * factor,
        variance=np.where(usable, variance, 1).astype(np.float32) * factor**2,
        usable=usable,
        clean=usable & (flags == 0),
        wcs=wcs,
        combined=None if combined is None else int(combined),
    )


def _from_file(path: str) -> tuple[Any, ...]:
    from astropy.io import fits
    from astropy.wcs import WCS

    try:
        with fits.open(path, memmap=False) as hdus:
            image = hdus["SCI"]
            mask = hdus["DQ"].data if "DQ" in hdus else None
            combined = hdus[0].header.get("NCOMBINE", image.header.get("NCOMBINE"))
            return image.data, hdus["VAR"].data, mask, WCS(image.header), image.header.get("BUNIT"), combined
    except FileNotFoundError as error:
        raise InputError("There is no such stack", file=path) from error
    except (KeyError, OSError) as error:
        raise DataError(
            "This is not a stack", file=path, found=str(error), expected="SCI and VAR extensions"
        ) from error


def _build_model(
    planes: _Stack, truth: Truth, names: list[str], kind: str, shift: tuple[float, float]
) -> _Model:
    """Draw the truth, displaced by a shift, as the mean of the frames."""
    scene = truth.fields[kind]
    frames = [truth.frames[name] for name in names]
    seconds = float(np.mean([f.seconds * f.transparency for f in frames]))
    fwhms = np.array([f.fwhm_pix for f in frames])
    # Two profiles with the mean and the spread of all stand for the profile of the stack.
    widths = (float(fwhms.mean() - fwhms.std()), float(fwhms.mean() + fwhms.std()))
    table = scene.table
    x, y = (
        planes.wcs.all_world2pix(*scene.wcs.to_sky(table[:, 0], table[:, 1]), 0) if len(table) else ([], [])
    )
    x, y = np.asarray(x, float) + shift[0], np.asarray(y, float) + shift[1]
    flux = table[:, 2] * seconds
    stars = np.zeros(planes.data.shape, np.float32)
    for width in widths:
        add_stars(stars, x, y, flux / len(widths), width, faintest=0.05)
    return _Model(stars, _draw_galaxy(planes, scene, seconds, shift), x, y, flux, widths)


def _draw_galaxy(planes: _Stack, scene: Scene, seconds: float, shift: tuple[float, float]) -> Float32 | None:
    if scene.galaxy is None:
        return None
    ny, nx = planes.data.shape
    # The map from the stack to the base pointing is linear to 1e-4 pixel; three points give it.
    corner_x, corner_y = np.array([0.0, nx - 1.0, 0.0]), np.array([0.0, 0.0, ny - 1.0])
    sky = planes.wcs.all_pix2world(corner_x - shift[0], corner_y - shift[1], 0)
    u, v = scene.wcs.to_pixel(*sky)
    x, y = np.arange(nx)[None, :] / (nx - 1), np.arange(ny)[:, None] / (ny - 1)
    column = u[0] + (u[1] - u[0]) * x + (u[2] - u[0]) * y
    row = v[0] + (v[1] - v[0]) * x + (v[2] - v[0]) * y
    light: Float32 = scene.galaxy.brightness(column, row) * np.float32(seconds)
    return light


def _fit_shift(
    planes: _Stack, truth: Truth, names: list[str], kind: str
) -> tuple[_Model, tuple[float, float]]:
    """Find the displacement of the stack as a whole, from its stars, in two rounds."""
    shift = (0.0, 0.0)
    model = _build_model(planes, truth, names, kind, shift)
    for _ in range(2):
        rest = planes.data - model.stars - (0 if model.galaxy is None else model.galaxy)
        brightest = islice(_measure(planes, model, rest), _SHIFT_STARS)
        offsets = [star.offset for star in brightest if star.snr > _LEAST_SNR]
        if not offsets:
            break
        x, y = np.median(np.array(offsets), axis=0)
        shift = (shift[0] + float(x), shift[1] + float(y))
        model = _build_model(planes, truth, names, kind, shift)
    return model, shift


def _measure(planes: _Stack, model: _Model, rest: Float32) -> Iterator[_Star]:
    """Measure the stars whose aperture is clean, from the brightest."""
    for i in np.argsort(-model.flux).tolist():
        window = _window(planes, model.x[i], model.y[i])
        if window is None:
            continue
        rows, columns = window
        own = model.star(i, model.x[i], model.y[i], columns, rows)
        stamp = rest[rows, columns] + own
        local = (model.x[i] - columns.start, model.y[i] - rows.start)
        if not _is_clean(planes.clean[rows, columns], local):
            continue
        level = _ring_level(stamp, planes.usable[rows, columns], local)
        x, y = _centroid(stamp - level, local, sum(model.widths) / len(model.widths))
        if not math.hypot(x - local[0], y - local[1]) < 3:
            continue
        # The true profile where the star was found, measured in the same way.
        true = model.star(i, x, y, slice(0, stamp.shape[1]), slice(0, stamp.shape[0]))
        true = true - _ring_level(true, planes.usable[rows, columns], (x, y))
        weight = _aperture(stamp.shape, (x, y))
        flux, expected = float((weight * (stamp - level)).sum()), float((weight * true).sum())
        noise = math.sqrt(float((weight**2 * planes.variance[rows, columns]).sum()))
        r50 = math.nan
        if flux > _LEAST_SNR * noise:
            r50 = _half_light_ratio(stamp - level, true, (x, y))
        yield _Star(model.x[i], model.y[i], flux / expected, flux / noise, r50, (x - local[0], y - local[1]))


def _window(planes: _Stack, x: float, y: float) -> tuple[slice, slice] | None:
    column, row = round(x), round(y)
    ny, nx = planes.data.shape
    if not (_HALF <= column < nx - _HALF and _HALF <= row < ny - _HALF):
        return None
    return slice(row - _HALF, row + _HALF + 1), slice(column - _HALF, column + _HALF + 1)


def _distance(shape: tuple[int, ...], centre: tuple[float, float]) -> Float64:
    distance: Float64 = np.hypot(
        np.arange(shape[0])[:, None] - centre[1], np.arange(shape[1])[None, :] - centre[0]
    )
    return distance


def _is_clean(clean: Flags, centre: tuple[float, float]) -> bool:
    """No flag in the core, and nearly none in the aperture."""
    distance = _distance(clean.shape, centre)
    return bool(clean[distance < 6].all() and clean[distance < _APERTURE + 1].mean() > 0.995)


def _ring_level(stamp: NDArray[np.floating[Any]], usable: Flags, centre: tuple[float, float]) -> float:
    distance = _distance(stamp.shape, centre)
    ring = stamp[usable & (distance >= _RING[0]) & (distance <= _RING[1])]
    if ring.size == 0:
        return 0.0
    middle = float(np.median(ring))
    kept = ring[np.abs(ring - middle) <= 4 * max(_scatter(ring), 1e-12)]
    return float(kept.mean()) if kept.size else middle


def _aperture(shape: tuple[int, ...], centre: tuple[float, float]) -> Float64:
    """Fraction of each pixel inside the aperture."""
    inside = _squared_distance(shape, centre) <= _APERTURE**2
    share: Float64 = inside.reshape(shape[0], _FINE, shape[1], _FINE).mean(axis=(1, 3))
    return share


def _half_light_ratio(
    stamp: NDArray[np.floating[Any]], true: NDArray[np.floating[Any]], centre: tuple[float, float]
) -> float:
    """Ratio of the radii that hold half of the flux in the aperture."""
    squared = _squared_distance(stamp.shape, centre)
    inside = np.flatnonzero(squared <= _APERTURE**2)
    order = inside[np.argsort(squared.flat[inside], kind="stable")]
    # Every point of a pixel carries the same share of its flux.
    rows, columns = np.divmod(order, squared.shape[1])
    pixel = (rows // _FINE, columns // _FINE)
    half = []
    for image in (stamp, true):
        growth = np.cumsum(image[pixel], dtype=float)
        half.append(float(squared.flat[order[np.searchsorted(growth, growth[-1] / 2)]]))
    return math.sqrt(half[0] / half[1])


def _squared_distance(shape: tuple[int, ...], centre: tuple[float, float]) -> Float64:
    """Squared distance from a position, at a fine grid of points."""
    y = (np.arange(shape[0] * _FINE) + 0.5) / _FINE - 0.5 - centre[1]
    x = (np.arange(shape[1] * _FINE) + 0.5) / _FINE - 0.5 - centre[0]
    squared: Float64 = (y**2)[:, None] + (x**2)[None, :]
    return squared


def _centroid(
    stamp: NDArray[np.floating[Any]], start: tuple[float, float], fwhm: float
) -> tuple[float, float]:
    """Windowed centroid: the fixed point of the mean position under a Gaussian as wide as the star."""
    sigma = 1.2 * fwhm / 2.3548
    x, y = start
    rows, columns = np.arange(stamp.shape[0])[:, None], np.arange(stamp.shape[1])[None, :]
    for _ in range(12):
        squared = (columns - x) ** 2 + (rows - y) ** 2
        weight = np.where(squared < (4 * sigma) ** 2, np.exp(-squared / (2 * sigma**2)), 0) * stamp
        total = weight.sum()
        if not total > 0:
            return math.nan, math.nan
        # Twice the step, because the window pulls the mean towards its own centre.
        step_x, step_y = 2 * (weight * (columns - x)).sum() / total, 2 * (weight * (rows - y)).sum() / total
        x, y = float(x + step_x), float(y + step_y)
        if math.hypot(step_x, step_y) < 1e-4:
            break
    return x, y


def _inner(planes: _Stack, truth: Truth, names: list[str]) -> Flags:
    """Tell which pixels see all frames, with some room."""
    reach = max(max(abs(truth.frames[name].dx), abs(truth.frames[name].dy)) for name in names)
    ny, nx = planes.data.shape
    margin = min(math.ceil(2 * reach) + 16, min(ny, nx) // 3)
    inner = np.zeros(planes.data.shape, bool)
    inner[margin : ny - margin, margin : nx - margin] = True
    return inner


def _level_map(planes: _Stack, rest: Float32, blank: Flags) -> Float32:
    """Measure the local level of the residual as medians of boxes."""
    level = np.zeros(rest.shape, np.float32)
    for row in range(0, rest.shape[0], _BOX):
        for column in range(0, rest.shape[1], _BOX):
            box = (slice(row, row + _BOX), slice(column, column + _BOX))
            values = rest[box][blank[box]]
            values = values if values.size else rest[box][planes.usable[box]]
            level[box] = np.median(values) if values.size else 0
    return level


def _blank(planes: _Stack, model: _Model) -> Flags:
    """Clean pixels in which stars are below a tenth of the noise."""
    blank: Flags = planes.clean & (model.stars < 0.1 * np.sqrt(planes.variance))
    return blank


def _blank_noise(planes: _Stack, model: _Model, rest: Float32, inner: Flags) -> float:
    blank = _blank(planes, model)
    chosen = blank & inner
    pull = (rest - _level_map(planes, rest, blank))[chosen] / np.sqrt(planes.variance[chosen])
    return _scatter(pull)


def _galaxy_ratio(planes: _Stack, model: _Model, inner: Flags) -> float | None:
    """Slope of a weighted straight line through data against galaxy in pixels without stars."""
    if model.galaxy is None:
        return None
    chosen = _blank(planes, model) & inner
    if np.count_nonzero(chosen) < 100:
        return math.nan
    weight = 1 / planes.variance[chosen].astype(float)
    x = model.galaxy[chosen].astype(float)
    y = (planes.data[chosen] - model.stars[chosen]).astype(float)
    x = x - np.average(x, weights=weight)
    return float((weight * x * y).sum() / (weight * x * x).sum())


def _completeness(planes: _Stack, model: _Model, rest: Float32, inner: Flags) -> float:
    found = expected = 0
    for i in range(model.flux.size):
        window = _window(planes, model.x[i], model.y[i])
        if window is None or not inner[round(model.y[i]), round(model.x[i])]:
            continue
        rows, columns = window
        own = model.star(i, model.x[i], model.y[i], columns, rows)
        local = (model.x[i] - columns.start, model.y[i] - rows.start)
        if not _is_clean(planes.clean[rows, columns], local):
            continue
        weight = _aperture(own.shape, local)
        noise = math.sqrt(float((weight**2 * planes.variance[rows, columns]).sum()))
        true = float((weight * own).sum())
        if true < 20 * noise:
            continue
        stamp = rest[rows, columns] + own
        level = _ring_level(stamp, planes.usable[rows, columns], local)
        flux = float((weight * (stamp - level)).sum())
        expected += 1
        found += flux > 5 * noise and 0.5 < flux / true < 2
    return found / expected if expected else math.nan


def _cosmic_rays(
    planes: _Stack,
    truth: Truth,
    names: list[str],
    kind: str,
    model: _Model,
    rest: Float32,
    shift: tuple[float, float],
    inner: Flags,
) -> tuple[int, float]:
    """Count the pixels hit in the frames, and those where something is left that nobody flagged."""
    blank = _blank(planes, model)
    residual = np.where(planes.clean, rest - _level_map(planes, rest, blank), 0)
    residual /= np.sqrt(planes.variance)
    base = truth.fields[kind].wcs
    total = left = 0
    for name in names:
        hits = truth.cosmic_rays[name]
        hits = hits[hits[:, 2] > _CR_CHARGE]
        if not len(hits):
            continue
        x, y = truth.frames[name].motion(truth.size).invert(hits[:, 1], hits[:, 0])
        x, y = planes.wcs.all_world2pix(*base.to_sky(x, y), 0)
        column, row = np.rint(x + shift[0]).astype(int), np.rint(y + shift[1]).astype(int)
        ny, nx = rest.shape
        inside = (column > 0) & (row > 0) & (column < nx - 1) & (row < ny - 1)
        for c, r in zip(column[inside].tolist(), row[inside].tolist(), strict=True):
            if not inner[r, c] or (model.x.size and np.hypot(model.x - c, model.y - r).min() < _CR_AWAY):
                continue
            total += 1
            left += bool(residual[r - 1 : r + 2, c - 1 : c + 2].max() > _CR_SIGMA)
    return total, left / total if total else math.nan


def _median(values: NDArray[np.floating[Any]]) -> float:
    return float(np.median(values)) if values.size else math.nan


def _scatter(values: NDArray[np.floating[Any]]) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    return 1.4826 * _median(np.abs(values - _median(values))) if values.size else math.nan
