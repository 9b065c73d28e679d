"""Draw the pictures of ``real_sky.md``, and put figures of stacks of the same real frames into it.

Usage::

    python docs/draw_real_sky.py NIRIPIPE.fits DRAGONS.fits [PLAIN.fits]

Two stacks with the extensions SCI and DQ; PLAIN is what ``benchmarks/plain_reduction.py --write`` makes. All
are measured in a window fixed to the brightest star, wherever it is in a stack.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import sep
from astropy.io import fits
from blocks import markdown_table, put_block
from matplotlib.colors import Normalize
from numpy.typing import NDArray
from scipy import ndimage

PAGE = Path(__file__).with_name("real_sky.md")
IMAGES = PAGE.parent / "images"

ACROSS, DOWN = (-180, 600), (-110, 690)
"""The window from the star, pixels: sky that all frames of both stacks see."""
BLANK_ABOVE = 250
"""Rows of the window without the star's halo, in which blank apertures lie."""
BOX = 32
STAR = 60
"""Sources nearer to the star are its halo, pixels."""
RADIUS, RING = 8.0, (30.0, 45.0)
"""Aperture of fluxes and ring of their background, pixels."""
SOURCES = 8
"""Sources whose fluxes are compared."""
SHRUNK = 2
"""Pixels of a stack to a pixel of a picture."""
UNUSABLE = 1 | 4 | 8 | 16
"""Bits of pixels that are not measured: bad, saturated, cosmic ray, no data."""

Plane = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Stack:
    """A stack, and where its brightest star is."""

    data: Plane
    bad: Flags
    frames: int
    star: tuple[int, int]

    def window(self) -> tuple[slice, slice]:
        """Return the window as slices."""
        y, x = self.star
        return slice(y + DOWN[0], y + DOWN[1]), slice(x + ACROSS[0], x + ACROSS[1])


def opened(path: Path) -> Stack:
    """Read a stack."""
    with fits.open(path) as hdus:
        data = np.array(hdus["SCI" if "SCI" in hdus else 0].data, float)
        bad = ~np.isfinite(data)
        if "DQ" in hdus:
            bad |= hdus["DQ"].data & UNUSABLE != 0
        frames = int(hdus[0].header.get("NCOMBINE", 0))
    data[bad] = 0
    smooth = ndimage.gaussian_filter(data, 4)
    edge = 60
    inner = smooth[edge:-edge, edge:-edge]
    y, x = np.unravel_index(inner.argmax(), inner.shape)
    return Stack(data, bad, frames, (int(y) + edge, int(x) + edge))


def scatter(values: Plane, centre: float = 0.0) -> float:
    """Return 1.4826 times the median deviation."""
    return float(1.4826 * np.median(np.abs(values - centre)))


def figures(stack: Stack) -> list[str]:
    """Return frames, scatter of blank apertures, flatness, sources and negatives, and FWHM, as text."""
    part = np.ascontiguousarray(stack.data[stack.window()])
    bad = np.ascontiguousarray(stack.bad[stack.window()])
    sky = sep.Background(part.astype(np.float32), mask=bad, bw=48, bh=48)
    flat = (part - sky.back()).astype(np.float32)
    smooth = ndimage.gaussian_filter(np.where(bad, 0, flat), 2.0)
    objects = ndimage.binary_opening(smooth > 3 * scatter(smooth))
    blank = ~ndimage.binary_dilation(objects, iterations=10) & ~bad
    # Medians of boxes that are blank in more than half.
    medians = []
    for y in range(0, part.shape[0] - BOX + 1, BOX):
        for x in range(0, part.shape[1] - BOX + 1, BOX):
            box = np.s_[y : y + BOX, x : x + BOX]
            if blank[box].mean() > 0.5:
                medians.append(np.median(part[box][blank[box]]))
    rng = np.random.default_rng(1)
    xs = rng.uniform(20, part.shape[1] - 20, 6000)
    ys = rng.uniform(BLANK_ABOVE, part.shape[0] - 20, 6000)
    free = sep.sum_circle((~blank).astype(np.float32), xs, ys, 6.0)[0] == 0
    sums = sep.sum_circle(flat, xs[free], ys[free], 5.0)[0]
    found, negative = (detected(sign * flat, bad, blank) for sign in (1, -1))
    bright = found[np.argsort(-found["flux"])[:8]]
    widths = 2 * np.sqrt(np.log(2) * (bright["a"] ** 2 + bright["b"] ** 2))
    return [
        str(stack.frames or "11"),
        f"{scatter(sums, float(np.median(sums))):.0f}",
        f"{np.std(medians):.2f}",
        f"{len(found)} / {len(negative)}",
        f"{np.percentile(widths, 20):.2f}",
    ]


def detected(flat: NDArray[np.float32], bad: Flags, blank: Flags) -> NDArray[np.void]:
    """Return sources at 5 sigma away from the star."""
    smooth = ndimage.gaussian_filter(np.where(bad, 0, flat), 1.5).astype(np.float32)
    found = sep.extract(smooth, 5 * scatter(ndimage.gaussian_filter(flat, 1.5)[blank]), minarea=9)
    away = np.hypot(found["x"] + ACROSS[0], found["y"] + DOWN[0]) > STAR
    return np.asarray(found[away])


def fluxes(stack: Stack, places: Plane) -> tuple[Plane, Plane]:
    """Return fluxes at places relative to the star (m, 2: x and y), centred anew, and those centres."""
    y, x = stack.star
    own_x, own_y, _ = sep.winpos(stack.data, places[:, 0] + x, places[:, 1] + y, 3.0, mask=stack.bad)
    flux, _, _ = sep.sum_circle(stack.data, own_x, own_y, RADIUS, mask=stack.bad, bkgann=RING)
    return np.asarray(flux, float), np.stack([own_x - x, own_y - y], axis=1)


def brightest(stack: Stack) -> Plane:
    """Return where the brightest sources are, and the star, relative to it (m, 2: x and y)."""
    part = np.ascontiguousarray(stack.data[stack.window()])
    bad = np.ascontiguousarray(stack.bad[stack.window()])
    sky = sep.Background(part.astype(np.float32), mask=bad, bw=48, bh=48)
    found = detected((part - sky.back()).astype(np.float32), bad, ~bad)
    inner = 50
    inside = (found["x"] > inner) & (found["x"] < part.shape[1] - inner)
    inside &= (found["y"] > inner) & (found["y"] < part.shape[0] - inner)
    found = found[inside]
    places = np.stack([found["x"] + ACROSS[0], found["y"] + DOWN[0]], axis=1)
    flux, centres = fluxes(stack, np.vstack([[0.0, 0.0], places]))
    return np.asarray(centres[np.argsort(-flux)[: SOURCES + 1]], float)


def compare(stacks: dict[str, Stack]) -> str:
    """Return the table of fluxes: the first stack's, and its ratio to each of the others."""
    first, *others = stacks.values()
    flux, places = fluxes(first, brightest(first))
    ratios = [flux / fluxes(other, places)[0] for other in others]
    names = list(stacks)
    rows = [
        [f"{x:+.0f}, {y:+.0f}", f"{own:.0f}", *(f"{ratio[k]:.3f}" for ratio in ratios)]
        for k, (own, (x, y)) in enumerate(zip(flux, places, strict=True))
    ]
    titles = ["from the star, x and y", f"{names[0]}, electrons", *(f"over {name}" for name in names[1:])]
    return markdown_table(titles, rows)


def picture(stack: Stack, width: float, path: Path) -> None:
    """Write the window, asinh stretched; `width` is where the stretch turns from linear, electrons."""
    part = stack.data[stack.window()]
    part = part - np.median(part[part != 0])
    ny, nx = (size // SHRUNK * SHRUNK for size in part.shape)
    small = part[:ny, :nx].reshape(ny // SHRUNK, SHRUNK, nx // SHRUNK, SHRUNK).mean(axis=(1, 3))
    shown = Normalize(-1.8, 4.0, clip=True)(np.arcsinh(small / width))
    # Sixteen greys are enough to see, and small.
    plt.imsave(path, np.round(np.asarray(shown) * 15) / 15, cmap="gray", vmin=0, vmax=1, origin="lower")


def main() -> None:
    """Measure, draw, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("niripipe", "dragons"):
        parser.add_argument(name, type=Path)
    parser.add_argument("plain", type=Path, nargs="?")
    given = parser.parse_args()
    stacks = {"niripipe": opened(given.niripipe), "DRAGONS": opened(given.dragons)}
    if given.plain:
        stacks["a plain reduction"] = opened(given.plain)
    second = stacks["DRAGONS"]
    blank = ndimage.uniform_filter(second.data[second.window()], SHRUNK)
    width = scatter(blank, float(np.median(blank)))
    IMAGES.mkdir(exist_ok=True)
    for name in ("niripipe", "DRAGONS"):
        picture(stacks[name], width, IMAGES / f"real_sky_{name.lower()}.png")
    kinds = [
        "frames in the stack",
        "scatter of blank apertures of 5 pixels, electrons",
        f"flatness: std of the medians of boxes of {BOX} pixels, electrons",
        "sources at 5 sigma / in the negative image",
        "FWHM of the sharpest bright sources, pixels",
    ]
    columns = [figures(stack) for stack in stacks.values()]
    page = PAGE.read_text()
    table = markdown_table(["", *stacks], zip(kinds, *columns, strict=True))
    page = put_block(page, "figures", table)
    page = put_block(page, "fluxes", compare(stacks))
    PAGE.write_text(page)
    print(table, compare(stacks), sep="\n\n")


if __name__ == "__main__":
    main()
