"""Images: a frame, a stack with its coverage, two frames side by side, flats and bad pixel masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from niripipe.astrodata import DQ, AstroData
from niripipe.errors import InputError
from niripipe.plot.canvas import axes_of, compass, directions, scale_bar
from niripipe.plot.frames import Frame, extension_of, opened
from niripipe.plot.stretch import Stretch, norm_of
from niripipe.printable import printable

__all__ = ["bpm", "compare", "draw", "flat", "show", "stack"]

_KINDS = (
    (DQ.bad_pixel, "bad", "#d62728"),
    (DQ.non_linear, "non-linear", "#ff9f40"),
    (DQ.saturated, "saturated", "#ffd92f"),
    (DQ.cosmic_ray, "cosmic ray", "#2ca02c"),
    (DQ.no_data, "no data", "#1f77b4"),
)
"""Bits of the mask that are drawn, with names and colours; the last that a pixel has counts."""
_UNIT = {"electron": "e⁻", "adu": "ADU"}


def show(
    frame: Frame,
    *,
    ax: Any = None,
    stretch: Stretch = "asinh",
    limits: tuple[float, float] | None = None,
    cmap: str = "gray",
    mask: bool = False,
    objects: bool = False,
    colorbar: bool = True,
    title: str | None = None,
) -> Any:
    """Draw an image with axes on the sky, North and East, and a scale bar.

    Parameters
    ----------
    frame : AstroData or path
        Its first extension is drawn. It is not changed.
    ax : matplotlib axes, optional
        Where to draw; a new figure by default, with axes of `astropy.visualization.wcsaxes` where the frame
        has a WCS. Axes without WCS show pixels.
    stretch, limits
        Which grey a value gets, see `niripipe.plot.stretch.norm_of`.
    cmap : str
        Colour map of matplotlib.
    mask : bool
        Draw flagged pixels in colours, by kind.
    objects : bool
        Draw the outlines of the sources (OBJMASK).
    colorbar : bool
        Draw the scale of the values.
    title : str, optional
        By default the file name, target and filter.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        There is no image, mask or OBJMASK to draw.
    ParameterError
        See `niripipe.plot.stretch.norm_of`.
    """
    ad = opened(frame)
    ext = extension_of(ad)
    figure, (axes,) = axes_of(ax, wcs=[ext.wcs])
    image = draw(axes, ext, stretch=stretch, limits=limits, cmap=cmap)
    axes.set_title(_title(ad) if title is None else title, fontsize=10)
    if mask:
        _overlay_mask(axes, ext)
    if objects:
        _overlay_objects(axes, ext)
    if colorbar:
        unit = str(ext.hdr.get("BUNIT", ""))
        figure.colorbar(image, ax=axes, shrink=0.85, label=_UNIT.get(unit.lower(), unit))
    return figure


def draw(
    axes: Any,
    ext: Any,
    data: NDArray[Any] | None = None,
    *,
    stretch: Stretch = "asinh",
    limits: tuple[float, float] | None = None,
    cmap: str = "gray",
    marks: bool = True,
) -> Any:
    """Draw an image, or another plane of its extension, with compass and scale bar; return the artist."""
    pixels = ext.read("data") if data is None else data
    flags = ext.read("mask")
    bad = None if flags is None or data is not None else flags & int(DQ.fail) != 0
    norm = norm_of(pixels, bad, stretch, limits)
    image = axes.imshow(pixels, origin="lower", cmap=cmap, norm=norm)
    axes.set_autoscale_on(False)
    system = ext.wcs
    if hasattr(axes, "coords"):
        _label_sky(axes)
    elif system is not None:
        axes.set_xlabel("x (pixels)")
        axes.set_ylabel("y (pixels)")
    found = None if system is None or not marks else directions(system, pixels.shape)
    if found is not None:
        north, east, scale = found
        compass(axes, north, east, pixels.shape)
        scale_bar(axes, scale, pixels.shape)
    return image


def stack(product: Frame, *, ax: Any = None, stretch: Stretch = "asinh") -> Any:
    """Draw a stack beside its coverage: the number of frames used in each pixel.

    Parameters
    ----------
    product : AstroData or path
        With COVERAGE.
    ax : pair of matplotlib axes, optional
        Where to draw; a new figure by default.
    stretch
        As for `show`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        There is no COVERAGE.
    """
    ad = opened(product)
    ext = extension_of(ad)
    coverage = _plane(ad, ext, "COVERAGE")
    figure, axes = axes_of(ax, 2, wcs=[ext.wcs, ext.wcs])
    show(ad, ax=axes[0], stretch=stretch)
    most = max(int(coverage.max(initial=1)), 1)
    image = draw(axes[1], ext, coverage, stretch="linear", limits=(0, most), cmap="viridis", marks=False)
    axes[1].set_title("frames used", fontsize=10)
    figure.colorbar(image, ax=axes[1], shrink=0.85, label="frames", ticks=MaxNLocator(integer=True))
    return figure


def compare(
    before: Frame,
    after: Frame,
    *,
    ax: Any = None,
    stretch: Stretch = "asinh",
    titles: tuple[str, str] | None = None,
    same_scale: bool = False,
) -> Any:
    """Draw two frames side by side: before and after a reduction, for example.

    Parameters
    ----------
    before, after : AstroData or path
    ax : pair of matplotlib axes, optional
        Where to draw; a new figure by default.
    stretch
        As for `show`.
    titles : pair of str, optional
        By default those of `show`.
    same_scale : bool
        Give both the limits of the first.

    Returns
    -------
    matplotlib.figure.Figure
    """
    frames = [opened(before), opened(after)]
    figure, axes = axes_of(ax, 2, wcs=[extension_of(ad).wcs for ad in frames])
    limits = None
    for k, ad in enumerate(frames):
        show(ad, ax=axes[k], stretch=stretch, limits=limits, title=titles[k] if titles else None)
        if same_scale:
            norm = axes[0].images[0].norm
            limits = (norm.vmin, norm.vmax)
    return figure


def flat(product: Frame, *, ax: Any = None) -> Any:
    """Draw a flat beside the distribution of its values.

    Parameters
    ----------
    product : AstroData or path
    ax : pair of matplotlib axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    ad = opened(product)
    ext = extension_of(ad)
    figure, axes = axes_of(ax, 2)
    image = draw(axes[0], ext, stretch="linear", marks=False)
    axes[0].set_title(_title(ad), fontsize=10)
    figure.colorbar(image, ax=axes[0], shrink=0.85, label="response")
    data, flags = ext.read("data"), ext.read("mask")
    good = np.isfinite(data) if flags is None else np.isfinite(data) & (flags & int(DQ.fail) == 0)
    values = data[good]
    axes[1].hist(values, bins=120, range=(0, 2), color="0.4")
    axes[1].set(xlabel="response", ylabel="pixels", yscale="log")
    if values.size:
        axes[1].axvline(float(np.median(values)), color="tab:red", lw=1)
        axes[1].set_title(f"median {np.median(values):.4f}, scatter {np.std(values):.4f}", fontsize=10)
    return figure


def bpm(product: Frame, *, ax: Any = None) -> Any:
    """Draw the bad pixels of a mask, or of the mask plane of a frame.

    Parameters
    ----------
    product : AstroData or path
        A bad pixel mask; of other frames the flags are drawn, by kind.
    ax : matplotlib axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        The frame has no mask.
    """
    ad = opened(product)
    ext = extension_of(ad)
    figure, (axes,) = axes_of(ax)
    if "BPM" in ad.tags:
        bad = ext.read("data") != 0
        axes.imshow(bad, origin="lower", cmap=ListedColormap(["white", "#d62728"]), vmin=0, vmax=1)
    else:
        bad = _plane(ad, ext, "mask") != 0
        axes.imshow(np.zeros(ext.shape), origin="lower", cmap=ListedColormap(["white"]))
        _overlay_mask(axes, ext, alpha=1.0)
    axes.set_title(f"{_title(ad)}: {bad.sum()} pixels flagged ({100 * bad.mean():.2f} %)", fontsize=10)
    axes.set(xlabel="x (pixels)", ylabel="y (pixels)")
    return figure


def _plane(ad: AstroData, ext: Any, name: str) -> NDArray[Any]:
    plane = ext.read(name)
    if plane is None:
        raise InputError("The frame has no such plane", file=ad.filename, item=name)
    return np.asarray(plane)


def _title(ad: AstroData) -> str:
    # A dollar sign would begin a formula.
    parts = [
        printable(ad.filename or "in memory"),
        printable(ad.phu.get("OBJECT") or ""),
        printable(ad.filter_name(pretty=True) or ""),
    ]
    return "  ".join(part.replace("$", r"\$") for part in parts if part)


def _label_sky(axes: Any) -> None:
    axes.coords[0].set_axislabel("right ascension")
    axes.coords[1].set_axislabel("declination")
    for coordinate in axes.coords:
        coordinate.set_ticklabel(size=8, exclude_overlapping=True)


def _overlay_mask(axes: Any, ext: Any, alpha: float = 0.6) -> None:
    mask = ext.read("mask")
    if mask is None:
        raise InputError("The frame has no mask", item="mask")
    kinds = np.zeros(mask.shape, np.uint8)
    present = []
    for number, (bit, name, colour) in enumerate(_KINDS, 1):
        pixels = mask & int(bit) != 0
        kinds[pixels] = number
        if pixels.any():
            present.append(Patch(color=colour, label=f"{name} ({np.count_nonzero(pixels)})"))
    colours = ListedColormap([colour for _, _, colour in _KINDS])
    shown = np.ma.masked_equal(kinds, 0)
    axes.imshow(
        shown, origin="lower", cmap=colours, vmin=0.5, vmax=len(_KINDS) + 0.5, alpha=alpha,
        interpolation="nearest",
    )  # fmt: skip
    if present:
        axes.legend(handles=present, fontsize=8, loc="lower right", framealpha=0.8)


def _overlay_objects(axes: Any, ext: Any) -> None:
    objects = ext.read("OBJMASK")
    if objects is None:
        raise InputError("The frame has no OBJMASK", item="objects", remedy="Run detectSources first.")
    if np.any(objects):
        axes.contour(objects != 0, levels=[0.5], colors="#39d0ff", linewidths=0.7)
