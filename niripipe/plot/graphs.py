"""Graphs of what was measured: alignment, sky, curve of growth, noise of apertures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms.blank_apertures import measure_apertures
from niripipe.algorithms.quality import good_stars
from niripipe.astrodata import DQ, AstroData
from niripipe.astrodata.apertures import aperture_noise
from niripipe.errors import InputError
from niripipe.plot.canvas import axes_of
from niripipe.plot.frames import Frame, extension_of, opened

__all__ = ["alignment", "growth", "noise", "sky"]

_GROWTH = np.linspace(0.25, 4.0, 31)
"""Radii of the curve of growth, FWHM."""
_RING = (4.0, 6.0)
"""Ring in which the sky beside a star is measured, FWHM."""
_MESH = 64
"""Squares in which the background below blank apertures is measured, pixels."""
_STARS = 40
"""Brightest good stars of a curve of growth."""
_NAMED = 20
"""More frames than this are numbered instead of named."""


def alignment(product: Frame, *, ax: Any = None) -> Any:
    """Draw how well each frame of a stack was aligned.

    Parameters
    ----------
    product : AstroData or path
        With the table ALIGNMENT. Points are the scatter of the sources of a frame about those it was compared
        with (RMS), bars the error of its shift (ERROR), crosses the rms by which several comparisons differ
        (RESIDUAL); doubtful frames are red.
    ax : matplotlib axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        There is no table ALIGNMENT.
    """
    ad = opened(product)
    table = _table(ad, "ALIGNMENT", "align the frames and stack them first")
    figure, (axes,) = axes_of(ax, size=(6.5, 3.8))
    number = np.arange(1, len(table) + 1)
    rms, error, residual = (_column(table, name) for name in ("RMS", "ERROR", "RESIDUAL"))
    doubtful = np.nan_to_num(_column(table, "DOUBTFUL")) != 0
    for which, colour, label in (
        (~doubtful, "tab:blue", "scatter of sources"),
        (doubtful, "tab:red", "doubtful"),
    ):
        if which.any():
            axes.errorbar(
                number[which], rms[which], yerr=np.nan_to_num(error[which]), fmt="o", color=colour,
                capsize=3, label=label,
            )  # fmt: skip
    if np.isfinite(residual).any():
        axes.plot(number, residual, "x", color="tab:orange", label="between comparisons")
    _name_frames(axes, [str(name) for name in table["IMAGE"]])
    axes.set(ylabel="pixels", title="alignment")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def sky(product: Frame, *, ax: Any = None) -> Any:
    """Draw the level of the sky in each frame of a stack against time, and its drift.

    Parameters
    ----------
    product : AstroData or path
        With the table STACKING.
    ax : matplotlib axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        There is no table STACKING, or it does not say the level of the sky.
    """
    ad = opened(product)
    table = _table(ad, "STACKING", "stack aligned frames first")
    level, days = _column(table, "SKY"), _column(table, "MJD")
    if not np.isfinite(level).any():
        raise InputError("The product does not say the level of the sky", file=ad.filename, item="STACKING")
    figure, (axes,) = axes_of(ax, size=(6.5, 3.8))
    minutes = (days - np.nanmin(days)) * 1440 if np.isfinite(days).any() else np.arange(len(level)) * 1.0
    axes.plot(minutes, level, "o-", color="tab:blue", lw=1)
    known = np.isfinite(minutes) & np.isfinite(level)
    title = "sky"
    if np.count_nonzero(known) > 1 and np.ptp(minutes[known]) > 0:
        slope, start = np.polyfit(minutes[known], level[known], 1)
        axes.plot(minutes[known], start + slope * minutes[known], "--", color="tab:orange", lw=1)
        title = f"sky: {slope * 60:+.0f} electrons an hour"
    axes.set(xlabel="minutes since the first frame", ylabel="electrons in a pixel", title=title)
    return figure


def growth(frame: Frame, *, ax: Any = None) -> Any:
    """Draw the curve of growth of the good stars of a catalogue: the light within a radius.

    Parameters
    ----------
    frame : AstroData or path
        With OBJCAT. Good stars are those that `measureIQ` takes, at most the 40 brightest; the sky is the
        mean of a ring of 4 to 6 FWHM. All curves are 1 at 4 FWHM.
    ax : matplotlib axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        There is no OBJCAT, or no good star in it.
    """
    import sep

    ad = opened(frame)
    ext = extension_of(ad)
    if "OBJCAT" not in ext.exposed:
        raise InputError("The frame has no OBJCAT", file=ad.filename, remedy="Run detectSources first.")
    stars = good_stars(ext.OBJCAT, adaptive_optics=bool(ad.is_ao()))
    rows = ext.OBJCAT[stars]
    if not len(rows):
        raise InputError("The catalogue has no good star", file=ad.filename, item="OBJCAT")
    rows = rows[np.argsort(-np.asarray(rows["FLUX_AUTO"], float))[:_STARS]]
    x, y = (np.asarray(rows[name], float) - 1 for name in ("X_IMAGE", "Y_IMAGE"))
    fwhm = float(np.mean(np.asarray(rows["PROFILE_FWHM"], float)))
    data, bad = _plane_and_bad(ext)
    sums = np.array(
        [
            sep.sum_circle(data, x, y, radius * fwhm, mask=bad, bkgann=[r * fwhm for r in _RING])[0]
            for radius in _GROWTH
        ]
    )
    curves = sums / sums[-1]
    figure, (axes,) = axes_of(ax, size=(6.0, 3.8))
    radii = _GROWTH * fwhm * float(ad.pixel_scale() or 1.0)
    axes.plot(radii, curves, color="0.75", lw=0.7)
    axes.plot(radii, np.median(curves, axis=1), color="tab:blue", lw=2, label=f"median of {len(x)} stars")
    axes.axvline(radii[-1] / 4, color="tab:orange", ls="--", lw=1, label="FWHM")
    unit = "arcsec" if ad.pixel_scale() else "pixels"
    axes.set(xlabel=f"radius ({unit})", ylabel="share of the light", ylim=(0, 1.15), title="curve of growth")
    axes.legend(fontsize=8, loc="lower right")
    return figure


def noise(frame: Frame, *, ax: Any = None) -> Any:
    """Draw the noise of blank apertures against their radius, and what the product says about it.

    Parameters
    ----------
    frame : AstroData or path
        With variances. Blank is where OBJMASK and the mask show nothing.
    ax : matplotlib axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        There are no variances, or too little of the image is blank.
    """
    import sep

    ad = opened(frame)
    ext = extension_of(ad)
    variance = ext.read("variance")
    if variance is None:
        raise InputError("The frame has no variances", file=ad.filename, item="VAR")
    data, bad = _plane_and_bad(ext)
    objects = ext.read("OBJMASK")
    blank = ~bad if objects is None else ~bad & (objects == 0)
    header = aperture_noise(ext.hdr)
    sky = sep.Background(data, mask=~blank, bw=_MESH, bh=_MESH).back()
    measured = measure_apertures(
        data - sky,
        np.where(bad, 0, variance).astype(np.float32),
        blank,
        correlation=header.correlation,
        depth=ext.read("COVERAGE"),
    )
    if measured is None:
        raise InputError("Too little of the image is blank", file=ad.filename, item="OBJMASK")
    pixel = float(np.median(variance[blank]))
    area = math.pi * measured.radius**2
    white = np.sqrt(area * pixel)
    correlated = np.sqrt(header.factor(area) * area * pixel)
    stated = np.sqrt(header.factor(area) * area * pixel + header.residual(area))
    figure, (axes,) = axes_of(ax, size=(6.0, 4.0))
    axes.errorbar(
        measured.radius, measured.ratio * correlated, yerr=measured.error * correlated, fmt="o",
        color="tab:blue", capsize=3, label="scatter of blank apertures",
    )  # fmt: skip
    axes.plot(measured.radius, white, ":", color="0.5", label="sum of VAR")
    axes.plot(measured.radius, stated, "-", color="tab:orange", label="aperture_variance")
    axes.set(xscale="log", yscale="log", xlabel="radius (pixels)", ylabel=f"noise ({_unit(ext)})",
             title="noise of apertures")  # fmt: skip
    axes.legend(fontsize=8)
    return figure


def _unit(ext: Any) -> str:
    return str(ext.hdr.get("BUNIT", "counts"))


def _plane_and_bad(ext: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the pixels, 0 where unusable, and which are unusable."""
    data, mask = ext.read("data"), ext.read("mask")
    bad = ~np.isfinite(data)
    if mask is not None:
        bad |= mask & int(DQ.fail) != 0
    return np.ascontiguousarray(np.where(bad, 0, data), np.float32), bad


def _table(ad: AstroData, name: str, remedy: str) -> Any:
    if name not in ad.tables:
        raise InputError("The product has no such table", file=ad.filename, item=name, remedy=remedy)
    return ad.columns(name)


def _column(table: Any, name: str) -> NDArray[np.float64]:
    """Return a column, NaN where an older product has none."""
    return np.asarray(table[name], float) if name in table.dtype.names else np.full(len(table), np.nan)


def _name_frames(axes: Any, names: list[str]) -> None:
    """Put the names of frames on the x axis, or numbers where there are many."""
    if len(names) <= _NAMED:
        short = [name.split(".fits")[0].replace("$", r"\$") for name in names]
        axes.set_xticks(range(1, len(names) + 1), short, rotation=45, ha="right", fontsize=8)
    else:
        axes.set_xlabel("frame")
