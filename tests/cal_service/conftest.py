"""Small FITS files with the headers of NIRI frames and products."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from niripipe import cal_service, logutils

from .postgresql_for_tests import Server, binaries, running_server

Maker = Callable[..., Path]

_COMMON: dict[str, Any] = {
    "TELESCOP": "Gemini-North",
    "INSTRUME": "NIRI",
    "OBJECT": "target",
    "OBSCLASS": "science",
    "OBSTYPE": "OBJECT",
    "DATALAB": "GN-2015B-Q-1-5-001",
    "GEMPRGID": "GN-2015B-Q-1",
    "CAMERA": "f6",
    "FPMASK": "f6-cam_G5208",
    "FILTER1": "open",
    "FILTER2": "K_G0204",
    "FILTER3": "pupil38_G5207",
    "EXPTIME": 20.002,
    "COADDS": 1,
    "LNRS": 1,
    "NDAVGS": 16,
    "A_VDDUC": -3.4,
    "A_VDET": -2.8,
    "GCALLAMP": "No Value",
    "GCALSHUT": "CLOSED",
    "DATE-OBS": "2016-01-02",
    "UT": "08:00:00.0",
    "RAWPIREQ": "UNKNOWN",
    "RAWGEMQA": "UNKNOWN",
}
_PRODUCT = {"PREPARE": "2016-01-03T00:00:00", "GEM-TLM": "2016-01-03T00:00:00", "PROCMODE": "sq"}
_KINDS: dict[str, dict[str, Any]] = {
    "science": {},
    "raw_dark": {"OBSTYPE": "DARK", "OBSCLASS": "dayCal", "FILTER2": "blank"},
    "dark": {"OBSTYPE": "DARK", "FILTER2": "blank", "PROCDARK": "2016-01-03", **_PRODUCT},
    "flat": {
        "OBSTYPE": "FLAT",
        "EXPTIME": 42.0,
        "NDAVGS": 1,
        "GCALLAMP": "IRhigh",
        "GCALSHUT": "OPEN",
        "PROCFLAT": "2016-01-03",
        **_PRODUCT,
    },
    "bpm": {"OBSTYPE": "FLAT", "GCALLAMP": "IRhigh", "GCALSHUT": "OPEN", "PROCBPM": "2016-01-03", **_PRODUCT},
}


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """Return a function that writes a frame: ``make("x_dark.fits", "dark", COADDS=2)``."""

    def write(name: str | Path, kind: str = "science", value: float = 0.0, **cards: Any) -> Path:
        header = fits.Header()
        values = {
            **_COMMON,
            **_KINDS[kind],
            **{key.replace("DATE_", "DATE-"): card for key, card in cards.items()},
        }
        header.update({key: card for key, card in values.items() if card is not None})
        window = fits.Header({"LOWROW": 1, "HIROW": 16, "LOWCOL": 1, "HICOL": 16})
        data = np.full((16, 16), value, dtype=np.float32)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hdus = fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(data, window, name="SCI", ver=1)])
        hdus.writeto(path, overwrite=True)
        return path

    return write


@pytest.fixture
def make_static_mask(tmp_path: Path) -> Maker:
    """Return a function that writes a mask as the archive has them: one integer plane DQ, few keywords."""

    def write(name: str = "bpm_20010317_niri_niri_11_full_1amp.fits", **cards: Any) -> Path:
        values = {"INSTRUME": "NIRI", "OBJECT": "BPM", "BPMASK": True, "DATE-OBS": "2001-03-17"}
        values |= {key.replace("_", "-"): card for key, card in cards.items()}
        header = fits.Header({key: card for key, card in values.items() if card is not None})
        mask = np.zeros((1024, 1024), dtype=np.int16)
        mask[100, 200], mask[300, 400] = 1, 2
        path = tmp_path / name
        hdus = fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(mask, name="DQ", ver=1)])
        hdus.writeto(path, overwrite=True)
        return path

    return write


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of our own; where it or its driver is not installed, the tests skip."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed")
    if find_spec("psycopg") is None:
        pytest.skip("psycopg, the driver for PostgreSQL, is not installed")
    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Return a function that names a place for a store in which there is nothing yet, in each database."""
    if request.param == "sqlite":
        numbers = iter(["", *map(str, range(2, 1000))])
        return lambda: str(tmp_path / f"cal_manager{next(numbers)}.db")
    server: Server = request.getfixturevalue("postgresql")
    return server.new_place


@pytest.fixture
def place(new_place: Callable[[], str]) -> str:
    """A place for a store in which there is nothing yet, in each kind of database."""
    return new_place()


@pytest.fixture
def caldb(place: str) -> cal_service.CalibrationService:
    """A service with an empty store, in each kind of database."""
    service = cal_service.CalibrationService()
    service.config(db_dir=place)
    service.init()
    return service


@pytest.fixture(autouse=True)
def _no_ambient_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_current_service() -> Iterator[None]:
    yield
    cal_service.clear_calservice()
    logutils.reset()
