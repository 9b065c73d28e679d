from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe import simulate
from niripipe.errors import DataError, InputError, ParameterError
from niripipe.simulate.psf import add_stars

SIGMA = 40.0


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> simulate.Night:
    """A night of which only truth and headers are used."""
    return simulate.night(
        tmp_path_factory.mktemp("night"),
        seed=6,
        size=512,
        n_target=3,
        n_sky=0,
        n_standard=2,
        n_flat=0,
        n_dark=0,
        n_short_dark=0,
        n_stars=60,
        n_saturated=0,
        effects=simulate.Effects(cosmic_rays=25.0),
    )


def _perfect(night: simulate.Night, kind: str = "target", **spoil: Any) -> SimpleNamespace:
    """Build the ideal stack of all frames but the first, on the pixels of the second."""
    truth, names = night.truth, night.truth.names(kind)[1:]
    first, scene = truth.frames[names[0]], truth.fields[kind]
    header = fits.getheader(night.folder / names[0], 1)
    data = np.zeros((512, 512), np.float32)
    motion = first.motion(512)
    for name in names:
        table = scene.table
        x, y = motion.apply(table[:, 0], table[:, 1])
        flux = table[:, 2] * truth.frames[name].seconds * spoil.get("flux", 1.0) / len(names)
        add_stars(data, x, y, flux, truth.frames[name].fwhm_pix * spoil.get("size", 1.0), 0.01)
    if scene.galaxy is not None:
        rows, columns = np.indices(data.shape)
        light = scene.galaxy.brightness(*motion.invert(columns, rows)) * np.float32(first.seconds)
        data += light * np.float32(spoil.get("galaxy", 1.0))
    data += np.random.default_rng(1).normal(300.0, SIGMA, data.shape).astype(np.float32)
    mask = np.zeros(data.shape, np.uint16)
    if "cosmic_rays" in spoil:
        for name in names:
            hits = truth.cosmic_rays[name]
            x, y = motion.apply(*truth.frames[name].motion(512).invert(hits[:, 1], hits[:, 0]))
            inside = (x > 1) & (y > 1) & (x < 510) & (y < 510)
            pixel = np.rint(y[inside]).astype(int), np.rint(x[inside]).astype(int)
            data[pixel] += hits[inside, 2].astype(np.float32) / len(names)
            if spoil["cosmic_rays"] == "flagged":
                mask[pixel] |= 8
    variance = np.full(data.shape, SIGMA**2 * spoil.get("variance", 1.0), np.float32)
    plane = SimpleNamespace(
        data=data, variance=variance, mask=mask, wcs=WCS(header), hdr={"BUNIT": "electron"}
    )

    class Stack(SimpleNamespace):
        def __getitem__(self, index: int) -> SimpleNamespace:
            return plane

    return Stack(phu={"NCOMBINE": len(names)})


def test_a_perfect_stack_has_a_perfect_score(night: simulate.Night) -> None:
    score = simulate.score(night, _perfect(night))
    assert score.n_stars >= 15
    assert score.n_bright >= 10
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.002)
    assert score.flux_ratio == pytest.approx(1, abs=0.004)
    assert score.astrom_rms_pix < 0.025
    assert score.r50_ratio == pytest.approx(1, abs=0.005)
    assert score.galaxy_ratio == pytest.approx(1, abs=0.001)
    assert score.pull == pytest.approx(1, abs=0.01)
    assert score.cr_hits > 30
    assert score.cr_left == 0
    assert score.completeness == 1
    assert score.flagged == 0
    assert score.shape == (512, 512)


def test_the_shift_of_a_stack_is_the_pointing_error_of_its_first_frame(night: simulate.Night) -> None:
    names = night.truth.names("target")
    frame = night.truth.frames[names[1]]
    base, header = night.truth.fields["target"].wcs, WCS(fits.getheader(night.folder / names[1], 1))
    x, y = header.all_world2pix(*base.to_sky(255.5, 255.5), 0)
    score = simulate.score(night, _perfect(night))
    assert score.shift == pytest.approx((255.5 + frame.dx - float(x), 255.5 + frame.dy - float(y)), abs=0.01)
    assert abs(score.shift[0]) + abs(score.shift[1]) > 0.1


def test_each_fault_shows_in_its_own_figure(night: simulate.Night) -> None:
    def of(**spoil: Any) -> simulate.Score:
        return simulate.score(night, _perfect(night, **spoil))

    assert of(flux=0.98).flux_ratio_snr100 == pytest.approx(0.98, abs=0.003)
    assert of(size=1.03).r50_ratio == pytest.approx(1.03, abs=0.008)
    assert of(galaxy=0.95).galaxy_ratio == pytest.approx(0.95, abs=0.002)
    assert of(variance=4.0).pull == pytest.approx(0.5, abs=0.01)
    assert of(cosmic_rays="left").cr_left > 0.9
    assert of(cosmic_rays="flagged").cr_left == 0
    assert of(cosmic_rays="flagged").flagged > 0
    assert of(flux=0.3).completeness < 0.1


def test_variable_seeing_is_not_held_against_the_stack(tmp_path: Path) -> None:
    effects = simulate.Effects(seeing_rms=0.12)
    frames = {"n_target": 4, "n_sky": 0, "n_standard": 0, "n_flat": 0, "n_dark": 0, "n_short_dark": 0}
    varying = simulate.night(
        tmp_path, seed=2, size=512, n_stars=40, effects=effects, scene="sparse", **frames
    )
    score = simulate.score(varying, _perfect(varying))
    assert score.r50_ratio == pytest.approx(1, abs=0.005)
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.003)


def test_the_standard_is_scored_on_its_own_field(night: simulate.Night) -> None:
    score = simulate.score(night, _perfect(night, "std"), kind="std")
    assert score.galaxy_ratio is None
    assert score.n_bright >= 3
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.005)


def test_stack_and_truth_can_be_files_and_the_stack_in_adu(night: simulate.Night, tmp_path: Path) -> None:
    stack = _perfect(night)
    plane = stack[0]
    header = plane.wcs.to_header()
    header["BUNIT"] = "adu"
    primary = fits.PrimaryHDU()
    primary.header["NCOMBINE"] = 2
    path = tmp_path / "stack.fits"
    fits.HDUList(
        [
            primary,
            fits.ImageHDU(plane.data / np.float32(12.3), header, name="SCI"),
            fits.ImageHDU(plane.variance / np.float32(12.3**2), header, name="VAR"),
            fits.ImageHDU(plane.mask.astype(np.int16), header, name="DQ"),
        ]
    ).writeto(path)
    from_file, direct = simulate.score(night.folder, path), simulate.score(night.truth, stack)
    assert from_file.n_stars == direct.n_stars
    assert from_file.flux_ratio_snr100 == pytest.approx(direct.flux_ratio_snr100, abs=1e-5)
    assert from_file.pull == pytest.approx(direct.pull, abs=1e-4)
    assert "S/N > 100" in str(direct)
    assert set(direct.to_dict()) >= {"flux_ratio_snr100", "astrom_rms_pix", "r50_ratio", "cr_left", "pull"}


def test_what_cannot_be_scored_is_a_clear_error(night: simulate.Night, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        simulate.score(night, tmp_path / "absent.fits")
    with pytest.raises(DataError):
        simulate.score(night, night.target[0])
    without = replace(night.truth, frames={n: f for n, f in night.truth.frames.items() if f.kind != "std"})
    with pytest.raises(ParameterError):
        simulate.score(without, _perfect(night), kind="std")
    stack = _perfect(night)
    stack[0].variance = None
    with pytest.raises(DataError, match="variance"):
        simulate.score(night, stack)
