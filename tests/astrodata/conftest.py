"""Small frames for the container's tests, made in memory and in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.astrodata import AstroData, factory

SHAPE = (12, 10)

WCS_CARDS = {
    "CTYPE1": "RA---TAN",
    "CRPIX1": 5.5,
    "CRVAL1": 150.0,
    "CTYPE2": "DEC--TAN",
    "CRPIX2": 6.5,
    "CRVAL2": 2.0,
    "CD1_1": -3.25e-5,
    "CD1_2": 1e-7,
    "CD2_1": 1e-7,
    "CD2_2": 3.25e-5,
}


@pytest.fixture(autouse=True)
def _no_instruments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container is tested by itself: classes registered by instruments take no part."""
    monkeypatch.setattr(factory, "PROVIDERS", [])
    monkeypatch.setattr(factory, "_classes", [])


def image(dtype: Any = np.float32, shape: tuple[int, int] = SHAPE) -> np.ndarray[Any, Any]:
    return (np.arange(shape[0] * shape[1]).reshape(shape) % 97).astype(dtype)


def raw_hdus(dtype: Any = np.float32) -> fits.HDUList:
    """A frame laid out like raw NIRI data: one unnamed image extension numbered -1."""
    phu = fits.PrimaryHDU()
    phu.header["INSTRUME"] = "NIRI"
    phu.header["OBJECT"] = "target"
    phu.header.append(("FRAME", "APPT", "frame of the target"), end=True)
    phu.header.append(("FRAME", "FK5", "frame of the WCS"), end=True)
    phu.header.update(WCS_CARDS)
    ext = fits.ImageHDU(image(dtype))
    ext.header.update(WCS_CARDS)
    ext.header["EXTVER"] = -1
    return fits.HDUList([phu, ext])


def product_hdus() -> fits.HDUList:
    """A product laid out as DRAGONS writes it."""
    data = image()
    hdus = [fits.PrimaryHDU()]
    hdus[0].header["OBJECT"] = "stack"
    planes = (("SCI", data), ("VAR", data + 1), ("DQ", image(np.uint16)), ("OBJMASK", image(np.uint8) % 2))
    for name, array in planes:
        hdu = fits.ImageHDU(array, name=name, ver=1)
        hdu.header.update(WCS_CARDS)
        hdu.header["BUNIT"] = "electron"
        hdus.append(hdu)
    model = fits.TableHDU.from_columns(
        [fits.Column("gWCS", "A20", array=["!<tag:stsci.edu>"])], name="WCS", ver=1
    )
    catalogue = fits.BinTableHDU.from_columns(
        [
            fits.Column("X_IMAGE", "E", unit="pix", array=[1.5, 2.5]),
            fits.Column("NAME", "4A", array=["a", "b"]),
        ],
        name="OBJCAT",
        ver=1,
    )
    history = fits.BinTableHDU.from_columns(
        [
            fits.Column("timestamp_start", "28A", array=["2020-01-01T00:00:00"]),
            fits.Column("primitive", "128A", array=["prepare"]),
            fits.Column("args", "20A", array=['{"suffix": "_x"}']),
            fits.Column("timestamp_stop", "28A", array=["2020-01-01T00:00:01"]),
        ],
        name="PROVHISTORY",
    )
    reference = fits.BinTableHDU.from_columns([fits.Column("RA", "D", array=[1.0])], name="REFCAT")
    return fits.HDUList([*hdus, model, catalogue, history, reference])


@pytest.fixture
def raw_file(tmp_path: Path) -> Path:
    path = tmp_path / "N1.fits"
    raw_hdus().writeto(path)
    return path


@pytest.fixture
def product_file(tmp_path: Path) -> Path:
    path = tmp_path / "N1_stack.fits"
    product_hdus().writeto(path)
    return path


@pytest.fixture
def make_ad() -> Callable[..., AstroData]:
    def make(value: Any = 6.0, variance: Any = 2.0, mask: Any = 1, n: int = 1) -> AstroData:
        ad = astrodata.create({"OBJECT": "x"})
        for _ in range(n):
            ext = ad.append(np.full(SHAPE, value, np.float32))
            ext.variance = None if variance is None else np.full(SHAPE, variance, np.float32)
            ext.mask = None if mask is None else np.full(SHAPE, mask, np.uint16)
        return ad

    return make
