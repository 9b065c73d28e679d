from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe.errors import ParameterError, StorageError
from niripipe.simulate import Effects, Galaxy, RawFrame, raw_frame, write_frame
from niripipe.simulate.psf import moffat_radius

from ..frames import centroid

GAIN = 12.3
STARS = ((130.0, 120.0, 30000.0), (60.37, 180.81, 20000.0), (190.5, 61.5, 10000.0))


def _aperture(image: np.ndarray, x: float, y: float, radius: float) -> float:
    fine = 10
    rows = (np.arange(image.shape[0] * fine) + 0.5) / fine - 0.5
    columns = (np.arange(image.shape[1] * fine) + 0.5) / fine - 0.5
    inside = (rows[:, None] - y) ** 2 + (columns[None, :] - x) ** 2 <= radius**2
    share = inside.reshape(image.shape[0], fine, image.shape[1], fine).mean(axis=(1, 3))
    return float((share * image).sum())


def test_star_fluxes_in_a_noiseless_frame_are_true_to_a_thousandth() -> None:
    frame = raw_frame(size=256, stars=STARS, level=0.0, effects=Effects.none())
    electrons = frame.data.astype(float) * GAIN
    for x, y, flux in STARS:
        enclosed = 1 - (1 + (11.0 / moffat_radius(frame.truth.fwhm_pix)) ** 2) ** -2
        expected = flux * frame.truth.seconds * enclosed
        # The wings of the other two stars are part of the frame.
        others = [s for s in STARS if s != (x, y, flux)]
        alone = electrons - raw_frame(size=256, stars=others, level=0.0, effects=Effects.none()).data * GAIN
        assert _aperture(alone, x, y, 11.0) == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize(
    ("port", "angle", "p", "q"),
    [(3, 0.0, 0.0, 0.0), (3, 0.0, 2.0, -1.5), (1, 40.0, -2.0, 1.0), (5, 328.8, 1.3, 2.2)],
)
def test_world_coordinates_find_the_stars(port: int, angle: float, p: float, q: float) -> None:
    options = {"size": 256, "level": 0.0, "effects": Effects.none(), "port": port, "position_angle": angle}
    base = WCS(raw_frame(**options).extension)  # type: ignore[arg-type]
    frame = raw_frame(p=p, q=q, stars=STARS, **options)  # type: ignore[arg-type]
    header = WCS(frame.extension)
    for x, y, _ in STARS:
        expected = header.all_world2pix(*base.all_pix2world(x, y, 0), 0)
        found = centroid(frame.data.astype(float), *(float(v) for v in expected))
        np.testing.assert_allclose(found, expected, atol=0.01)
        motion = frame.truth.motion(256).apply(np.array([x]), np.array([y]))
        np.testing.assert_allclose(found, np.ravel(motion), atol=0.01)
    sense = -1 if port == 1 else 1
    assert frame.truth.dx == pytest.approx(sense * p / 0.1171, abs=0.01)
    assert frame.truth.dy == pytest.approx(-q / 0.1171, abs=0.01)


def test_coadds_are_summed() -> None:
    one = raw_frame(size=256, exposure=2.0, effects=Effects.none())
    five = raw_frame(size=256, exposure=2.0, coadds=5, effects=Effects.none())
    np.testing.assert_allclose(five.data, 5 * one.data, rtol=1e-6)
    assert one.data.mean() == pytest.approx(600 * 2 / GAIN, rel=1e-6)


def test_a_galaxy_lies_where_it_was_put() -> None:
    galaxy = Galaxy(100.0, 140.0, 100.0, 40.0, 50.0, 10.0, 0.5, 30.0)
    light = raw_frame(size=256, galaxy=galaxy, level=0.0, effects=Effects.none()).data
    assert np.unravel_index(light.argmax(), light.shape) == (140, 100)


@pytest.mark.parametrize("kind", ["dark", "short_dark", "flat_on", "flat_off", "target"])
def test_each_kind_has_its_own_light(kind: str) -> None:
    level = raw_frame(kind=kind, size=256, exposure=10.0, effects=Effects.none()).data.mean() * GAIN / 10  # type: ignore[arg-type]
    expected = {"dark": 0, "short_dark": 0, "flat_on": 1460, "flat_off": 60, "target": 600}[kind]
    assert level == pytest.approx(expected, rel=1e-4)


def test_cosmic_rays_are_where_the_truth_lists_them() -> None:
    frame = raw_frame(size=256, level=0.0, effects=Effects.none(cosmic_rays=50.0))
    y, x, charge = frame.cosmic_rays.T
    np.testing.assert_allclose(frame.data[y.astype(int), x.astype(int)] * GAIN, charge, rtol=1e-5)
    assert np.count_nonzero(frame.data) == len(charge) > 100


def test_the_same_seed_gives_the_same_frame_and_another_number_other_noise() -> None:
    one, same = raw_frame(size=256), raw_frame(size=256)
    other = raw_frame(size=256, number=271)
    assert one.to_bytes() == same.to_bytes()
    assert not np.array_equal(one.data, other.data)


def test_frames_before_2007_hold_integers(tmp_path: Path) -> None:
    path = write_frame(raw_frame(size=256, date=date(2003, 3, 25), exposure=15.001, coadds=3), tmp_path)
    with fits.open(path) as hdus:
        assert hdus[1].data.dtype.kind == "i"
        assert hdus[1].header["BITPIX"] == 32
        assert abs(np.median(hdus[1].data) * GAIN / 45 - 600) < 30


def test_keywords_can_be_overwritten_and_removed() -> None:
    frame = raw_frame(size=256, keywords={"A_VDET": "-2.602", "PA": None, "FRAME": None})
    assert frame.header["A_VDET"] == "-2.602"
    assert "PA" not in frame.header
    assert "FRAME" not in frame.header


def test_in_memory_units_equal_those_on_disk(tmp_path: Path) -> None:
    frame = raw_frame(size=256)
    with fits.open(write_frame(frame, tmp_path)) as disk, frame.hdulist() as memory:
        assert repr(disk[0].header) == repr(memory[0].header)
        np.testing.assert_array_equal(disk[1].data, memory[1].data)
        np.testing.assert_array_equal(disk[1].data, frame.data)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="sizes"):
        raw_frame(sizes=256)
    with pytest.raises(ParameterError, match="size"):
        raw_frame(size=200)


def test_a_failed_write_raises_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame: RawFrame = raw_frame(size=256)

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(data[:5000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left"):
        write_frame(frame, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageError):
        write_frame(frame, tmp_path / "absent")
