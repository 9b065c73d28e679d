"""Small NIRI frames with headers like those of real raw data, and a bench to run primitives on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from niripipe import astrodata
from niripipe.astrodata import AstroData
from niripipe.instruments.pointing import cd_matrix
from niripipe.primitives.base import Context
from niripipe.primitives.calibrations import CalibrationBook
from niripipe.primitives.niri import NIRI
from niripipe.reduction.progress import NO_PROGRESS, Progress
from niripipe.reduction.report import RunReport
from niripipe.reduction.runner import RecipeRunner

SHAPE = (64, 64)
GAIN = 12.3
READ_NOISE = 35.0
SCALE = 0.1171
RA, DEC = 30.0, 20.0

_COMMON: dict[str, Any] = {
    "INSTRUME": "NIRI",
    "TELESCOP": "Gemini-North",
    "OBSERVAT": "Gemini-North",
    "OBJECT": "target",
    "OBSTYPE": "OBJECT",
    "OBSCLASS": "science",
    "GEMPRGID": "GN-2016A-Q-1",
    "OBSID": "GN-2016A-Q-1-5",
    "DATALAB": "GN-2016A-Q-1-5-001",
    "DATE-OBS": "2016-01-02",
    "UT": "08:00:00.0",
    "RA": RA,
    "DEC": DEC,
    "PA": 0.0,
    "FRAME": "FK5",
    "TRKFRAME": "FK5",
    "RATRACK": 0.0,
    "DECTRACK": 0.0,
    "AIRMASS": 1.2,
    "CAMERA": "f6",
    "FILTER1": "open",
    "FILTER2": "H_G0203",
    "FILTER3": "Pupil38_G5207",
    "FPMASK": "f6-cam_G5208",
    "EXPTIME": 20.0,
    "COADDS": 1,
    "LNRS": 1,
    "NDAVGS": 16,
    "VDDUC": -3.4,
    "VDET": -2.8,
    "A_VDDUC": -3.4,
    "A_VDET": -2.8,
    "INPORT": 3,
    "AOFOLD": "park-pos.",
    "GCALLAMP": "No Value",
    "GCALSHUT": "CLOSED",
    "PWFS1_ST": "parked",
    "PWFS2_ST": "guiding",
    "OIWFS_ST": "parked",
    "POFFSET": 0.0,
    "QOFFSET": 0.0,
}
_FLAT = {
    "OBJECT": "GCALflat",
    "OBSTYPE": "FLAT",
    "OBSCLASS": "dayCal",
    "FRAME": "AZEL_TOPO",
    "GCALLAMP": "IRhigh",
    "EXPTIME": 42.0,
}
KINDS: dict[str, dict[str, Any]] = {
    "science": {},
    "dark": {"OBJECT": "Dark", "OBSTYPE": "DARK", "OBSCLASS": "dayCal", "FRAME": "AZEL_TOPO"}
    | {"FILTER2": "blank"},
    "lamp_on": {**_FLAT, "GCALSHUT": "OPEN"},
    "lamp_off": {**_FLAT, "GCALLAMP": "IRhigh", "GCALSHUT": "CLOSED"},
}


def hdus(
    data: Any = 100.0,
    *,
    kind: str = "science",
    shape: tuple[int, int] = SHAPE,
    dtype: Any = np.float32,
    ext: Mapping[str, Any] | None = None,
    **cards: Any,
) -> fits.HDUList:
    """Make a raw frame; ``_`` in a card's name means ``-``, a value of None leaves the card out."""
    pixels = np.broadcast_to(np.asarray(data, dtype), shape).copy()
    given = {name.replace("_OBS", "-OBS"): value for name, value in cards.items()}
    phu = _COMMON | KINDS[kind] | given
    primary = fits.PrimaryHDU(header=_header(phu))
    ny, nx = shape
    window = {"LOWROW": (1024 - ny) // 2, "LOWCOL": (1024 - nx) // 2}
    window |= {"HIROW": window["LOWROW"] + ny - 1, "HICOL": window["LOWCOL"] + nx - 1}
    image = fits.ImageHDU(pixels, _header(window | wcs_cards(phu, shape) | dict(ext or {})))
    return fits.HDUList([primary, image])


def wcs_cards(phu: Mapping[str, Any], shape: tuple[int, int]) -> dict[str, Any]:
    """Return the WCS of a frame that points where its header says (PA 0): offsets move the field centre."""
    angle, east, north = (_number(phu[key]) for key in ("PA", "POFFSET", "QOFFSET"))
    a, b, c, d = cd_matrix(SCALE, angle, mirrored=phu["INPORT"] == 1)
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRPIX1": (shape[1] + 1) / 2,
        "CRPIX2": (shape[0] + 1) / 2,
        "CRVAL1": RA + east / 3600 / np.cos(np.deg2rad(DEC)),
        "CRVAL2": DEC + north / 3600,
        "CD1_1": a,
        "CD1_2": b,
        "CD2_1": c,
        "CD2_2": d,
    }


def write(path: Path, data: Any = 100.0, **options: Any) -> Path:
    """Write a raw frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus(data, **options).writeto(path, overwrite=True)
    return path


def name(number: int) -> str:
    """Return a raw file name."""
    return f"N20160102S{number:04d}.fits"


def sequence(folder: Path, levels: Sequence[Any], *, first: int = 1, **options: Any) -> list[Path]:
    """Write frames with these levels, a minute apart."""
    paths = []
    for i, level in enumerate(levels):
        cards = {"UT": f"08:{(first + i) % 60:02d}:00.0", "DATALAB": f"GN-2016A-Q-1-5-{first + i:03d}"}
        paths.append(write(folder / name(first + i), level, **(cards | options)))
    return paths


def frame(data: Any = 100.0, *, number: int = 1, filename: str | None = None, **options: Any) -> AstroData:
    """Return a raw frame in memory, named like a file."""
    ad = astrodata.open(hdus(data, **options))
    ad.path = filename or name(number)
    ad.phu.set("ORIGNAME", ad.filename)
    return ad


def noise(
    seed: int, sigma: float, level: float = 0.0, shape: tuple[int, int] = SHAPE
) -> np.ndarray[Any, Any]:
    """Return Gaussian noise, float32."""
    return np.random.default_rng(seed).normal(level, sigma, shape).astype(np.float32)


def gaussians(
    shape: tuple[int, int], stars: Sequence[tuple[float, float, float]], sigma: float = 2.0
) -> np.ndarray[Any, Any]:
    """Return an image of stars ``(x, y, flux)``, 0-based; each pixel holds its integral nearly exactly."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.zeros(shape)
    for x0, y0, flux in stars:
        image += flux * np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / 2 / sigma**2) / (2 * np.pi * sigma**2)
    return image.astype(np.float32)


@dataclass
class Bench:
    """A primitives object with its runner and report; the attributes of `p` are the primitives."""

    p: NIRI
    runner: RecipeRunner
    report: RunReport

    @property
    def main(self) -> list[AstroData]:
        return self.p.streams["main"]


def bench(
    frames: Sequence[AstroData],
    *,
    folder: Path | None = None,
    mode: str = "sq",
    parameters: Mapping[str, Any] | None = None,
    service: Any = None,
    user: Mapping[str, Any] | None = None,
    threads: int = 1,
    droppable: bool = False,
    overwrite: bool = True,
    progress: Progress = NO_PROGRESS,
    primitives: Callable[..., NIRI] = NIRI,
) -> Bench:
    """Return what is needed to call primitives on frames by hand."""
    report = RunReport("by hand", mode, "niripipe test", [str(f.filename) for f in frames])
    runner = RecipeRunner(report, threads=threads, droppable=droppable, progress=progress)
    context = Context(
        mode=mode,
        parameters=parameters or {},
        calibrations=CalibrationBook(service, user, mode),
        output_dir=Path.cwd() if folder is None else folder,
        overwrite=overwrite,
        threads=threads,
        software="niripipe test",
    )
    return Bench(primitives({"main": list(frames)}, context, runner), runner, report)


def prepared(frames: Sequence[AstroData], **options: Any) -> Bench:
    """Return a bench whose frames went through ``prepare``."""
    made = bench(frames, **options)
    made.p.prepare()
    return made


def electrons(ad: AstroData, variance: Any = None, mask: Any = None) -> AstroData:
    """Turn a frame into a prepared one in electrons, with planes as given."""
    bench([ad]).p.prepare()
    ext = ad[0]
    ext.hdr.set("BUNIT", "electron")
    ext.hdr.set("GAIN", 1.0)
    ext.variance = None if variance is None else np.broadcast_to(np.float32(variance), ext.shape).copy()
    ext.mask = None if mask is None else np.broadcast_to(np.asarray(mask, np.uint16), ext.shape).copy()
    return ad


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _header(cards: Mapping[str, Any]) -> fits.Header:
    made = fits.Header()
    for keyword, value in cards.items():
        if value is not None:
            made[keyword] = value
    return made


def centroid(image: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """Flux-weighted mean in a window that follows the star; exact for a symmetric profile."""
    rows, columns = np.indices(image.shape)
    for _ in range(30):
        weight = image * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 2.5**2))
        dx = 2 * (weight * (columns - x)).sum() / weight.sum()
        dy = 2 * (weight * (rows - y)).sum() / weight.sum()
        x, y = x + dx, y + dy
    return x, y
