"""Random fields whose alignment is measured against positions that only their maker knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS

from . import frames as make

STARS = (0, 1, 2, 3, 5, 20, 300)
POINTING = (0.0, 0.3, 5.0, 30.0)
FAR_POINTING = 5.0
ROTATION = (0.0, 0.0, 0.1, 0.5)
DITHER = (0.03, 0.1, 0.25, 0.5)
"""Largest offset along an axis over the side of the frame; a half is 60 arcsec at f/6."""
SEEING = (3.0, 25.0)
NOISE = 10.0
GOOD_SNR, GOOD_STARS, FAR_STARS = 30.0, 3, 6
"""A frame can be aligned if it shares so many stars of this S/N with the reference, 2 FWHM inside both; the
last if its pointing is wrong by 5 arcsec or more, where three of many stars would agree by chance."""


@dataclass(frozen=True)
class Outcome:
    """What became of a frame; pixels.

    `wrong` is the mean displacement of the stars that it and the reference show whole, a FWHM from the
    edges, weighted by their S/N squared (up to 100): where a few stars cannot show a rotation, a shift can
    only be right for them. NaN without stars.
    """

    stars: int
    pointing: float
    rotation: float
    method: str
    kept: bool
    flagged: bool
    good: bool
    wrong: float
    limit: float
    reason: str

    @property
    def failed(self) -> bool:
        """Whether the shift was accepted without a flag, and is wrong."""
        return self.kept and not self.flagged and self.wrong > self.limit

    @property
    def lost(self) -> bool:
        """Whether a frame that could be aligned was not used."""
        return self.good and not self.kept


def align_random_field(seed: int, *, size: int = 384, number: int = 4, **fixed: float) -> list[Outcome]:
    """Make frames of a random field, align them, and compare each with the reference."""
    rng = np.random.default_rng(seed)
    n_stars = int(fixed.get("stars", rng.choice(STARS)))
    pointing = float(fixed.get("pointing", rng.choice(POINTING)))
    rotation = float(fixed.get("rotation", rng.choice(ROTATION)))
    reach = float(rng.choice(DITHER)) * size * make.SCALE
    fwhm = float(fixed.get("fwhm", np.exp(rng.uniform(*np.log(SEEING)))))
    # Stars in an area that dithered frames fill: as many in a frame as the setting says.
    half = (0.5 * size + reach / make.SCALE) * make.SCALE / 3600
    many = round(n_stars * (1 + 2 * reach / make.SCALE / size) ** 2)
    east, north = rng.uniform(-half, half, (2, many))
    # Peaks do not depend on the seeing, so that a wide star is as well seen as a narrow one.
    flux = 10 ** rng.uniform(1.7, 4.0, many) * fwhm**2
    ra, dec = make.RA + east / np.cos(np.deg2rad(make.DEC)), make.DEC + north
    frames, places = [], []
    for k in range(number):
        p, q = (0.0, 0.0) if k == 0 else rng.uniform(-reach, reach, 2)
        wcs = WCS(make.hdus(0.0, shape=(size, size), POFFSET=p, QOFFSET=q)[1].header)
        direction, angle = rng.uniform(0, 2 * np.pi), np.deg2rad(rng.uniform(0, rotation))
        away = 0.0 if k == 0 else pointing / make.SCALE
        x, y = np.array(wcs.all_world2pix(ra, dec, 0)) - (size - 1) / 2
        cos, sin = np.cos(angle), np.sin(angle)
        x, y = (
            cos * x - sin * y + (size - 1) / 2 + away * np.cos(direction),
            sin * x + cos * y + (size - 1) / 2 + away * np.sin(direction),
        )
        places.append((x, y))
        seeing = fwhm * rng.uniform(0.85, 1.15)
        shown = draw_stars(size, x, y, flux, seeing / 2.3548)
        pixels = shown + rng.normal(0, NOISE, (size, size)).astype(np.float32)
        raw = make.frame(pixels, number=k + 1, shape=(size, size), POFFSET=float(p), QOFFSET=float(q))
        frames.append(make.electrons(raw, NOISE**2, 0))
    bench = make.bench(frames, droppable=True)
    bench.p.detectSources()
    bench.p.adjustWCSToReference()
    setting = (n_stars, pointing, rotation)
    return _compared(frames, places, flux, fwhm, setting, {d.name: d.reason for d in bench.report.dropped})


def draw_stars(size, x, y, flux, sigma):
    """Draw each star where it is: Gaussians cut at five sigma."""
    image = np.zeros((size, size), np.float32)
    reach = int(5 * sigma) + 1
    for x0, y0, f in zip(x, y, flux, strict=True):
        a, b = round(float(x0)), round(float(y0))
        left, right, low, high = (
            max(a - reach, 0),
            min(a + reach + 1, size),
            max(b - reach, 0),
            min(b + reach + 1, size),
        )
        if left < right and low < high:
            u = np.exp(-((np.arange(left, right) - x0) ** 2) / 2 / sigma**2)
            v = np.exp(-((np.arange(low, high) - y0) ** 2) / 2 / sigma**2)
            image[low:high, left:right] += (f / (2 * np.pi * sigma**2) * v[:, None] * u).astype(np.float32)
    return image


def _compared(frames, places, flux, fwhm, setting, dropped):
    size = frames[0][0].shape[0]
    name = next((ad.phu["ALGNREF"] for ad in frames), "")
    to = next((k for k, ad in enumerate(frames) if ad.orig_filename == name), 0)
    # S/N within 1.2 FWHM of a Gaussian in white noise.
    snr = flux * 0.98 / (NOISE * np.sqrt(np.pi) * 1.2 * fwhm)

    def within(place, margin):
        x, y = place
        return (x > margin) & (x < size - 1 - margin) & (y > margin) & (y < size - 1 - margin)

    outcomes = []
    for k, ad in enumerate(frames):
        if k == to:
            continue
        both = within(places[k], fwhm) & within(places[to], fwhm)
        seen = within(places[k], 2 * fwhm) & within(places[to], 2 * fwhm) & (snr > GOOD_SNR)
        wrong = np.nan
        if both.any():
            sky = frames[to][0].wcs.all_pix2world(*(v[both] for v in places[to]), 0)
            there = np.array(ad[0].wcs.all_world2pix(*sky, 0))
            off = there - np.array([v[both] for v in places[k]])
            weight = np.minimum(snr[both], 100.0) ** 2
            wrong = float(np.hypot(*(off * weight).sum(axis=1)) / weight.sum())
        kept = ad.orig_filename not in dropped
        outcomes.append(
            Outcome(
                *setting,
                str(ad.phu["ALGNMETH"]),
                kept,
                bool(ad.phu["ALGNFLAG"]),
                int(seen.sum()) >= (GOOD_STARS if setting[1] < FAR_POINTING else FAR_STARS),
                wrong,
                max(0.2, 0.05 * fwhm),
                dropped.get(ad.orig_filename, ""),
            )
        )
    return outcomes
