"""Frames with headers of our own making, after the minimal header that raw NIRI data have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.instruments import AstroDataNiri
from niripipe.instruments.pointing import cd_matrix

PHU: dict[str, Any] = {
    "INSTRUME": "NIRI",
    "TELESCOP": "Gemini-North",
    "OBSERVAT": "Gemini-North",
    "OBJECT": "P330E",
    "OBSTYPE": "OBJECT",
    "OBSCLASS": "science",
    "GEMPRGID": "GN-2015A-Q-1",
    "OBSID": "GN-2015A-Q-1-2",
    "DATALAB": "GN-2015A-Q-1-2-003",
    "DATE-OBS": "2015-04-04",
    "UT": "11:14:20.1",
    "LT": "01:14:19.6",
    "RA": 247.8910,
    "DEC": 30.1464,
    "PA": 30.0,
    "FRAME": "FK5",
    "TRKFRAME": "FK5",
    "RATRACK": 0.0,
    "DECTRACK": 0.0,
    "AIRMASS": 1.296,
    "CAMERA": "f6",
    "FILTER1": "open",
    "FILTER2": "K_G0204",
    "FILTER3": "Pupil38_G5207",
    "FPMASK": "f6-cam_G5208",
    "EXPTIME": 20.001,
    "COADDS": 1,
    "LNRS": 1,
    "NDAVGS": 16,
    "VDDUC": -3.49,
    "VDET": -2.89,
    "A_VDDUC": -3.49,
    "A_VDET": -2.89,
    "INPORT": 3,
    "AOFOLD": "park-pos.",
    "POFFSET": 0.0,
    "QOFFSET": 0.0,
}
DARK = {
    "OBJECT": "Dark",
    "OBSTYPE": "DARK",
    "OBSCLASS": "dayCal",
    "FRAME": "AZEL_TOPO",
    "AIRMASS": 1.0,
    "RATRACK": 1.0027,
    "FILTER2": "blank",
}
FLAT = {
    "OBJECT": "GCALflat",
    "OBSTYPE": "FLAT",
    "OBSCLASS": "dayCal",
    "FRAME": "AZEL_TOPO",
    "AIRMASS": 1.0,
    "RATRACK": 1.0027,
    "GCALLAMP": "IRhigh",
    "GCALSHUT": "OPEN",
}

MakeFrame = Callable[..., AstroDataNiri]


def header(cards: dict[str, Any]) -> fits.Header:
    """Make a header, leaving out cards that are None."""
    made = fits.Header()
    for keyword, value in cards.items():
        if value is not None:
            made[keyword] = value
    return made


def wcs_cards(shape: tuple[int, int], *, scale: float = 0.1165, angle: float = 30.0) -> dict[str, Any]:
    a, b, c, d = cd_matrix(scale, angle, mirrored=False)
    return {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRPIX1": (shape[1] + 1) / 2,
        "CRPIX2": (shape[0] + 1) / 2,
        "CRVAL1": 247.8910,
        "CRVAL2": 30.1464,
        "CD1_1": a,
        "CD1_2": b,
        "CD2_1": c,
        "CD2_2": d,
    }


@pytest.fixture
def make_frame() -> MakeFrame:
    """Make a frame: the minimal header, changed by ``phu`` and ``ext`` (None takes a card away)."""

    def make(
        phu: dict[str, Any] | None = None,
        ext: dict[str, Any] | None = None,
        *,
        shape: tuple[int, int] = (1024, 1024),
        extensions: int = 1,
        **cards: Any,
    ) -> AstroDataNiri:
        window = {"LOWROW": 0, "LOWCOL": 0, "HIROW": shape[0] - 1, "HICOL": shape[1] - 1}
        extension = header(window | wcs_cards(shape) | (ext or {}))
        hdus = [fits.ImageHDU(np.zeros(shape, np.float32), extension.copy()) for _ in range(extensions)]
        ad = astrodata.create(header(PHU | (phu or {}) | cards), hdus)
        assert isinstance(ad, AstroDataNiri)
        return ad

    return make


@pytest.fixture
def dark_cards() -> dict[str, Any]:
    return dict(DARK)


@pytest.fixture
def flat_cards() -> dict[str, Any]:
    return dict(FLAT)
