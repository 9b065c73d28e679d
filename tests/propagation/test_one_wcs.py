"""Every product states one WCS: as an object, in its header and in the primary header, also on disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe import Reduce, astrodata
from niripipe.simulate import Effects, raw_frame

QUIET = Effects.none(photon_noise=True, read_noise=True)
RAW = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
BOX = [(0.0, 0.0), (3.0, 3.0), (-3.0, 2.5), (-2.5, -3.0)]
PIXELS = np.array([[0.0, 0.0], [100.0, 30.0], [200.0, 180.0]])
HUNDREDTH_PIXEL = 0.01 * 0.117 / 3600


def _raw(folder: Path, offsets: Sequence[tuple[float, float]], **given) -> list[Path]:
    random = np.random.default_rng(3)
    stars = [(float(x), float(y), 4e4) for x, y in random.uniform(30, 226, (20, 2))]
    paths, first = [], given.pop("first", 270)
    for k, (p, q) in enumerate(offsets):
        when = datetime(2016, 1, 2, 11, 36, 12) + timedelta(seconds=35 * (first - 270 + k))
        frame = raw_frame(
            **{
                "size": 256, "stars": stars, "p": p, "q": q, "date": when.date(), "ut": when.time(),
                "number": first + k, "effects": QUIET,
                **given,
            }
        )  # fmt: skip
        path = folder / frame.name
        path.write_bytes(frame.to_bytes())
        paths.append(path)
    return paths


def _reduced(files: Sequence[Path | str], folder: Path, **given) -> Reduce:
    reduction = Reduce([str(path) for path in files], calibrations={}, output_dir=str(folder), **given)
    reduction.runr()
    return reduction


def _sky(header: fits.Header) -> np.ndarray:
    keys = [f"{stem}{i}" for stem in ("CTYPE", "CRPIX", "CRVAL") for i in (1, 2)]
    keys += ["CD1_1", "CD1_2", "CD2_1", "CD2_2", "EQUINOX", "RADESYS"]
    cards = fits.Header([(key, header[key]) for key in keys if key in header])
    return WCS(cards).all_pix2world(PIXELS, 0)


def _assert_one_wcs(reduction: Reduce) -> None:
    for product, path in zip(reduction.outputs, reduction.output_filenames, strict=True):
        true = product[0].wcs.all_pix2world(PIXELS, 0)
        found = {"hdr": product[0].hdr, "phu": product.phu}
        with fits.open(path) as hdus:
            found |= {hdu.name: hdu.header for hdu in hdus if hdu.name in ("PRIMARY", "SCI", "VAR", "DQ")}
        assert len(found) == 6
        for name, header in found.items():
            np.testing.assert_allclose(_sky(header), true, rtol=0, atol=HUNDREDTH_PIXEL, err_msg=name)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_images_and_stacks_of_them(tmp_path: Path) -> None:
    first = _reduced(_raw(tmp_path, BOX), tmp_path / "a", parameters=RAW)
    _assert_one_wcs(first)
    raw = fits.getheader(tmp_path / "N20160102S0270.fits")
    # The grid of the stack is larger than a frame: its reference pixel is another one.
    moved = [first.outputs[0].phu[f"CRPIX{i}"] - raw[f"CRPIX{i}"] for i in (1, 2)]
    assert max(moved) > 10
    second = _reduced(_raw(tmp_path, BOX, first=290), tmp_path / "b", parameters=RAW)
    files = [*first.output_filenames, *second.output_filenames]
    _assert_one_wcs(_reduced(files, tmp_path / "c", recipe="alignAndStack"))


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.parametrize("kind", ["dark", "flat"])
def test_calibrations(tmp_path: Path, kind: str) -> None:
    if kind == "dark":
        files = _raw(tmp_path, [(0, 0)] * 3, kind="dark")
    else:
        files = _raw(tmp_path, [(0, 0)] * 3, kind="flat_on") + _raw(
            tmp_path, [(0, 0)] * 3, kind="flat_off", first=280
        )
    reduction = _reduced(files, tmp_path / "out")
    assert kind.upper() in reduction.outputs[0].tags
    _assert_one_wcs(reduction)


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_a_subarray_whose_reference_pixel_counts_from_the_chip(tmp_path: Path) -> None:
    files = _raw(tmp_path, BOX)
    for path in files:
        with fits.open(path, mode="update") as hdus:
            for hdu in hdus:
                hdu.header["CRPIX1"] += 384
                hdu.header["CRPIX2"] += 384
    reduction = _reduced(files, tmp_path / "out", parameters=RAW)
    _assert_one_wcs(reduction)


def test_scripts_that_change_a_wcs(tmp_path: Path) -> None:
    (path,) = _raw(tmp_path, BOX[:1])
    ad = astrodata.open(path)
    before = ad[0].hdr["CRPIX1"]
    ad[0].wcs.wcs.crpix = [before + 7, ad[0].hdr["CRPIX2"]]
    assert ad[0].hdr["CRPIX1"] == before + 7
    ad.write(tmp_path / "changed.fits")
    assert fits.getheader(tmp_path / "changed.fits")["CRPIX1"] == before + 7
    other = WCS(ad[0].hdr)
    other.wcs.crval = [150.0, 2.0]
    ad[0].wcs = other
    assert ad[0].hdr["CRVAL1"] == 150.0


def test_raw_headers_that_nobody_changed_stay_as_they_are(tmp_path: Path) -> None:
    (path,) = _raw(tmp_path, BOX[:1])
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["CRPIX1"] = 1.5
    ad = astrodata.open(path)
    assert ad[0].wcs is not None
    ad.write(tmp_path / "copy.fits")
    assert fits.getheader(tmp_path / "copy.fits")["CRPIX1"] == 1.5
