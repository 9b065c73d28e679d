"""Reduce dithered frames in the plainest careful way, as a check of fluxes; shares no code with niripipe.

Usage::

    python benchmarks/plain_reduction.py FOLDER [STACK.fits ...] [--write PLAIN.fits] [--number 12]

FOLDER holds raw frames: darks of the science exposure time, lamp-on and lamp-off flats, and dithered science
frames of a field in which one star outshines the others. Printed are the aperture fluxes of the brightest
sources in the plain stack, with their errors by blank apertures, and those of other stacks of the same frames
(electrons; the first extension named SCI, mask DQ) over the plain ones.

What is done: electrons by the gain, the published linearity polynomial, mean dark, flat (lamp on less lamp
off, over its median), bad pixels by dark and flat; the sky of a frame is the median of its neighbours in
time, each scaled to the level of the frame, with the sources of the previous stack masked generously; one
constant is subtracted so that the rest of the frame has the median 0; frames are shifted by whole and part
pixels to the brightest star's centroid (cubic spline), and averaged, with hits left out. No other background
is fitted or subtracted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy import ndimage

GAIN = 12.3
"""Electrons per count (Gemini's page on NIRI's detector)."""
LINEARITY = {
    16: (1.2662732, 6.006310407e-07, 1.282732019e-12),
    1: (0.09442515, 2.787629143e-07, 3.178236e-12),
}
"""Dead time (s) and coefficients (1/e-, 1/e-^2) by LNRS; full frame, shallow well: Gemini's script nirlin."""
NEIGHBOURS = 5
"""Frames before and after one that make its sky."""
RADII = (5.0, 8.0, 15.0, 25.0)
ANNULUS = (30.0, 45.0)
ROUNDS = 3
WIDEST = 10.0
"""Masks of sources grow by their own radius, but by no more pixels than this: dithers have to leave sky."""


def read(path: Path) -> tuple[fits.Header, np.ndarray]:
    """Read header and counts of a raw frame."""
    with fits.open(path) as hdus:
        header = hdus[0].header
        data = np.asarray(hdus[1 if len(hdus) > 1 else 0].data, float)
        header.extend((c for c in hdus[-1].header.cards if c.keyword.startswith("CD")), update=True)
        return header, data


def electrons(header: fits.Header, data: np.ndarray) -> np.ndarray:
    """Turn counts of all coadds into electrons on a linear scale."""
    coadds = header["COADDS"]
    one = data * GAIN / coadds
    dead, gamma, eta = LINEARITY[header["LNRS"]]
    time = header["EXPTIME"]
    return coadds * one * (1 + one * (gamma + one * eta)) * time / (time + dead)


def load(folder: Path) -> tuple[list[fits.Header], np.ndarray, np.ndarray]:
    """Return headers and frames of the science exposures, dark and flat applied, and the bad pixels."""
    files = [(path, *read(path)) for path in sorted(folder.glob("*.fits"))]
    science = [(h, electrons(h, d)) for _, h, d in files if h["OBSTYPE"] == "OBJECT"][1:]
    time = science[0][0]["EXPTIME"]
    darks = [electrons(h, d) for _, h, d in files if h["OBSTYPE"] == "DARK" and h["EXPTIME"] == time]
    lamp = {"OPEN": [], "CLOSED": []}
    for _, h, d in files:
        if h["OBSTYPE"] == "FLAT":
            lamp[h["GCALSHUT"]].append(electrons(h, d))
    dark = np.mean(darks, axis=0)
    flat = np.mean(lamp["OPEN"], axis=0) - np.mean(lamp["CLOSED"], axis=0)
    flat /= np.median(flat)
    uneven = dark - ndimage.median_filter(dark, 9)
    bad = np.abs(uneven) > 15 * 1.4826 * np.median(np.abs(uneven)) + 30
    bad |= np.abs(flat / ndimage.median_filter(flat, 9) - 1) > 0.2
    bad |= (flat < 0.5) | (flat > 1.5)
    frames = np.array([(d - dark) / np.where(bad, 1, flat) for _, d in science])
    return [h for h, _ in science], frames, bad


def median(planes: np.ndarray) -> np.ndarray:
    """Median along the first axis without NaN; NaN where nothing is known."""
    planes = np.sort(planes, axis=0)
    count = np.isfinite(planes).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(planes) - 1)
    pick = [np.take_along_axis(planes, k[None], axis=0)[0] for k in (low, high)]
    return np.where(count > 0, (pick[0] + pick[1]) / 2, np.nan)


def without_sky(frames: np.ndarray, bad: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
    """Subtract the running median of the neighbours; `sources` (n, ny, nx) are masked."""
    if sources is None:
        sources = np.zeros(frames.shape, bool)
    blank = np.where(sources | bad, np.nan, frames)
    levels = np.nanmedian(blank.reshape(len(frames), -1), axis=1)
    left = np.empty_like(frames)
    for k in range(len(frames)):
        others = [j for j in range(len(frames)) if 0 < abs(j - k) <= NEIGHBOURS]
        sky = median(np.array([blank[j] / levels[j] for j in others]))
        # Under the outskirts of a bright star in all neighbours: their lowest value.
        unknown = np.isnan(sky)
        sky[unknown] = np.min([frames[j][unknown] / levels[j] for j in others], axis=0)
        left[k] = frames[k] - sky * levels[k]
        left[k] -= np.nanmedian(left[k][~sources[k] & ~bad])
    return left


def centroid(image: np.ndarray, y: float, x: float, reach: int = 12) -> tuple[float, float]:
    """Centre by iterated Gaussian weights (sigma 5 pixels)."""
    for _ in range(30):
        y0, x0 = round(y), round(x)
        rows, columns = np.mgrid[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1]
        part = np.nan_to_num(image[rows, columns])
        weight = part * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50)
        # A Gaussian weight halves the offset of a profile of its own width; iterated it converges.
        y, x = np.sum(weight * rows) / weight.sum(), np.sum(weight * columns) / weight.sum()
    return float(y), float(x)


def star(image: np.ndarray, bad: np.ndarray) -> tuple[float, float]:
    """Find the brightest star of a frame."""
    smooth = ndimage.gaussian_filter(np.where(bad | ~np.isfinite(image), 0, image), 4)
    smooth[:30] = smooth[-30:] = 0
    smooth[:, :30] = smooth[:, -30:] = 0
    return centroid(image, *np.unravel_index(smooth.argmax(), smooth.shape))


def patched(image: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Fill bad pixels from their good neighbours, so that the spline does not ring."""
    good = np.where(bad, 0.0, image)
    weight = ndimage.gaussian_filter((~bad).astype(float), 1.0)
    return np.where(bad, ndimage.gaussian_filter(good, 1.0) / np.maximum(weight, 1e-6), image)


def stack(frames: np.ndarray, bad: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average frames on the grid of the first, larger by the dithers; also return its origin (y, x).

    NaN where no more than half of the frames see the sky.
    """
    shifts = places[0] - places
    low, high = np.floor(shifts.min(axis=0)).astype(int), np.ceil(shifts.max(axis=0)).astype(int)
    shape = np.array(bad.shape) + high - low
    planes = np.full((len(frames), *shape), np.nan, np.float32)
    for k, frame in enumerate(frames):
        whole = np.floor(shifts[k]).astype(int)
        part = shifts[k] - whole
        unknown = bad | ~np.isfinite(frame)
        moved = ndimage.shift(patched(frame, unknown), part, order=3, mode="nearest")
        lost = ndimage.shift(unknown.astype(float), part, order=1, mode="constant", cval=1.0) > 0.05
        y, x = whole - low
        planes[k, y : y + bad.shape[0], x : x + bad.shape[1]] = np.where(lost, np.nan, moved)
    with np.errstate(all="ignore"):
        middle = median(planes)
        noise = 1.4826 * np.nanmedian(np.abs(planes - middle)[:, ::3, ::3])
        # Hits only: far above the median, also in stars whose seeing varies.
        planes[planes > middle + 8 * noise + 0.7 * np.abs(middle)] = np.nan
        number = np.isfinite(planes).sum(axis=0)
        enough = number > len(frames) // 2
        return np.nansum(planes, axis=0, dtype=float) / np.where(enough, number, np.nan), -low


def find(image: np.ndarray, sigma: float, grow: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mask of sources, each grown by its own radius beside `grow`, and their labels."""
    seen = np.isfinite(image)
    # Only for finding: without what is wider than stars, seen in squares of 8 pixels.
    ny, nx = (size // 8 * 8 for size in image.shape)
    squares = np.nan_to_num(image[:ny, :nx]).reshape(ny // 8, 8, nx // 8, 8)
    wide = ndimage.zoom(ndimage.median_filter(np.median(squares, axis=(1, 3)), 13), 8, order=1)
    flat = np.nan_to_num(image)
    flat[:ny, :nx] -= wide
    flat[~seen] = 0
    smooth = ndimage.gaussian_filter(flat, 2.0)
    noise = 1.4826 * np.median(np.abs(smooth[seen]))
    label, number = ndimage.label(ndimage.binary_opening(smooth > sigma * noise, iterations=2))
    area = np.bincount(label.ravel(), minlength=number + 1)
    away, nearest = ndimage.distance_transform_edt(label == 0, return_indices=True)
    radius = np.minimum(np.sqrt(area / np.pi), WIDEST)
    return away <= grow + radius[label[tuple(nearest)]], label


def aperture(image: np.ndarray, y: float, x: float, radius: float) -> float:
    """Sum within a circle with soft edges, less the median of the ring around it."""
    reach = int(ANNULUS[1]) + 2
    y0, x0 = round(y), round(x)
    part = image[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1]
    if part.shape != (2 * reach + 1,) * 2:
        return float("nan")
    away = np.hypot(
        *np.ogrid[-reach - (y - y0) : reach + 0.5 - (y - y0), -reach - (x - x0) : reach + 0.5 - (x - x0)]
    )
    ring = part[(away > ANNULUS[0]) & (away < ANNULUS[1])]
    if not np.isfinite(part[away < radius + 1]).all() or np.isfinite(ring).mean() < 0.8:
        return float("nan")
    weight = np.clip(radius + 0.5 - away, 0, 1)
    centre = np.nanmedian(ring)
    spread = 1.4826 * np.nanmedian(np.abs(ring - centre))
    centre = np.nanmean(ring[np.abs(ring - centre) < 2.5 * spread])
    return float(np.sum(np.where(weight > 0, weight * (part - centre), 0)))


def reduce(folder: Path) -> np.ndarray:
    """Reduce a folder to the plain stack, electrons of one frame; NaN where nothing is known."""
    headers, frames, bad = load(folder)
    sources, image = None, np.empty(0)
    places = np.array([star(frame, bad) for frame in without_sky(frames, bad, None)])
    for _ in range(ROUNDS):
        left = without_sky(frames, bad, sources)
        places = np.array([centroid(frame, *at) for frame, at in zip(left, places, strict=True)])
        image, origin = stack(left, bad, places)
        mask, _ = find(image, 3.0, 8.0)
        sources = np.zeros(frames.shape, bool)
        for k in range(len(frames)):
            y, x = np.round(places[0] - places[k]).astype(int) + origin
            sources[k] = mask[y : y + bad.shape[0], x : x + bad.shape[1]]
    for header, place in zip(headers, places, strict=True):
        print(f"{header.get('FILENAME', ''):22s} star at x = {place[1]:.2f}, y = {place[0]:.2f}")
    return image


def opened(path: Path) -> np.ndarray:
    """Read a stack, NaN where it is bad."""
    with fits.open(path) as hdus:
        data = np.array(hdus["SCI"].data, float)
        data[(hdus["DQ"].data & 29) > 0] = np.nan
        return data


def blank_error(image: np.ndarray, mask: np.ndarray, radius: float) -> float:
    """Scatter of apertures on blank sky."""
    rng = np.random.default_rng(1)
    depth = ndimage.distance_transform_edt(~mask & np.isfinite(image))
    y, x = np.nonzero(depth > radius + 1)
    chosen = rng.integers(0, len(y), 400)
    sums = np.array([aperture(image, *at, radius) for at in zip(y[chosen], x[chosen], strict=True)])
    sums = sums[np.isfinite(sums)]
    return float(1.4826 * np.median(np.abs(sums - np.median(sums))))


def is_clear(at: tuple[int, int], centre: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a source is well inside, and no part of the brightest star's halo."""
    inside = all(50 < one < size - 50 for one, size in zip(at, shape, strict=True))
    away = float(np.hypot(*(np.array(at) - centre)))
    return inside and (away < 5 or away > 60)


def main() -> None:
    """Reduce, and print fluxes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("stacks", type=Path, nargs="*")
    parser.add_argument("--number", type=int, default=12, help="how many sources")
    parser.add_argument("--write", type=Path, help="write the plain stack")
    given = parser.parse_args()
    plain = reduce(given.folder)
    if given.write:
        fits.PrimaryHDU(plain.astype(np.float32)).writeto(given.write, overwrite=True)
    mask, label = find(plain, 5.0, 8.0)
    centre = np.array(star(plain, ~np.isfinite(plain)))
    numbers = np.arange(1, label.max() + 1)
    peaks = ndimage.maximum_position(ndimage.gaussian_filter(np.nan_to_num(plain), 2.0), label, numbers)
    places = [centroid(plain, *peak) for peak in peaks if is_clear(peak, centre, plain.shape)]
    fluxes = [aperture(plain, *at, 8.0) for at in places]
    order = [k for k in np.argsort([-f for f in fluxes]) if fluxes[k] > 0][: given.number]
    errors = [blank_error(plain, mask, radius) for radius in RADII]
    print(
        "scatter of blank apertures, e-:", *(f"r={r:g} {e:.0f}" for r, e in zip(RADII, errors, strict=True))
    )
    others = [(path, opened(path)) for path in given.stacks]
    origins = [np.array(star(image, ~np.isfinite(image))) for _, image in others]
    for k in order:
        y, x = places[k]
        own = [aperture(plain, y, x, radius) for radius in RADII]
        print(f"x = {x:6.1f}, y = {y:6.1f}:", *(f"r={r:g} {f:9.0f}" for r, f in zip(RADII, own, strict=True)))
        for (path, image), origin in zip(others, origins, strict=True):
            at = centroid(image, *(np.array([y, x]) - centre + origin))
            ratio = [aperture(image, *at, r) / f for r, f in zip(RADII, own, strict=True)]
            print(f"    {path.name:40s}", *(f"r={r:g} {f:9.4f}" for r, f in zip(RADII, ratio, strict=True)))


if __name__ == "__main__":
    main()
