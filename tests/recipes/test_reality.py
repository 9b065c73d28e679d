"""The recipes on a night with everything that real nights have: what is promised there.

Distortion, haloes, changing seeing and clouds, a trailed frame, a sky with blobs, slopes, fringes and waves,
thermal light, rows and quadrants that jump, persistence; the standard stands alone on hardly any sky.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sep

from niripipe import Reduce, astrodata, simulate

GAIN = 12.3


@pytest.fixture(scope="module", params=["science", "standard"])
def product(request, real):
    return getattr(real, request.param), "target" if request.param == "science" else "std"


def test_all_of_reality_is_in_the_frames(real):
    assert real.night.truth.reality == simulate.Reality.everything()
    names = real.night.truth.names("target")
    trails = [np.hypot(*real.night.truth.frames[name].reality.trail) for name in names]
    assert trails == pytest.approx([0, 0, 0, 8, 0, 0])
    assert max(ghost[2] for ghost in real.night.truth.frames[names[1]].reality.ghosts) > 30


def test_every_frame_is_in_the_stack_or_named_as_left_out(product, real):
    made, kind = product
    (ad,) = made.outputs
    given = set(real.night.truth.names(kind)[1:])  # removeFirstFrame takes the first
    count = ad.phu["NCOMBINE"]
    stacked = {ad.phu[f"IMCMB{i:03d}"] for i in range(1, count + 1)}
    left_out = {Path(dropped.name).name for dropped in made.report.dropped}
    assert len(stacked) == count >= 3
    assert given - stacked <= left_out
    assert not stacked & left_out


def test_the_trailed_frame_is_named_and_has_less_weight(real):
    made = real.science
    table = made.outputs[0].STACKING
    trailed = real.night.truth.names("target")[3]
    weights = dict(zip(map(str, table["IMAGE"]), map(float, table["WEIGHT"]), strict=True))
    if trailed not in weights:
        assert trailed in {Path(dropped.name).name for dropped in made.report.dropped}
        return
    assert weights.pop(trailed) < 0.85
    assert min(weights.values()) > 0.9
    (outcome,) = made.report.step("stackFrames").outcomes.values()
    assert f"{trailed} is trailed" in outcome.reason


def test_stars_and_their_fluxes_come_out(product, real):
    made, kind = product
    score = simulate.score(real.night, made.output_filenames[0], kind=kind)
    assert score.n_bright >= (5 if kind == "target" else 1)
    assert score.completeness >= (0.9 if kind == "target" else 1)
    # The trailed frame loses light from the aperture, and clouds differ by up to 10 per cent.
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.02)
    assert score.cr_hits >= 5
    assert score.cr_left <= 0.1


def test_the_standard_has_the_flux_of_its_frames_in_plain_apertures(real):
    """Without the scores: the star's electrons in 12 pixels, raw minus ring, through the flat."""
    night, (ad,) = real.night, real.standard.outputs
    flat = real.flat.outputs[0][0].data
    expected = []
    for name in night.truth.names("std")[1:]:
        raw = np.ascontiguousarray(
            astrodata.open(night.folder / name)[0].data.astype(float) * GAIN / np.where(flat > 0.1, flat, 1)
        )
        expected.append(_flux(raw, *night.truth.positions(name)[0, :2]))
    x, y = np.unravel_index(np.nanargmax(ad[0].data), ad[0].shape)[::-1]
    # Raw counts are up to 1 per cent below the collected charge (non-linearity), and frames are put on the
    # scale of the first.
    stack = _flux(np.ascontiguousarray(ad[0].data, float), *_centre(ad[0].data, x, y))
    assert stack == pytest.approx(np.mean(expected), rel=0.03)


def test_noise_in_blank_pixels_is_that_of_the_variance(product, real):
    made, kind = product
    score = simulate.score(real.night, made.output_filenames[0], kind=kind)
    assert score.pull == pytest.approx(1, abs=0.1)


def test_calibrations_do_not_mind(real):
    """Rows, quadrants and persistence average out of the dark; the flat is that of the optics."""
    dark = real.dark.outputs[0][0].data
    assert np.median(dark) == pytest.approx(65, abs=10)
    flat = real.flat.outputs[0][0]
    good = flat.mask == 0
    assert np.median(flat.data[good]) == pytest.approx(1, abs=0.01)
    assert good.mean() > 0.98


def test_a_short_standard_alone_on_hardly_any_sky_is_stacked(tmp_path):
    """0.2 s x 10 coadds in J, 10 electrons of sky, one star: nothing to scale to and nothing else to see."""
    night = simulate.night(
        tmp_path / "raw",
        seed=8,
        size=256,
        filter="J",
        n_target=0,
        n_sky=0,
        n_standard=5,
        n_flat=0,
        n_dark=0,
        n_short_dark=0,
        standard_exposure=0.2,
        standard_coadds=10,
        standard_rate=400000.0,
        reality=simulate.Reality(standard_sky=5.0, lone_standard=True),
    )
    made = Reduce(night.standard, output_dir=tmp_path, mode="ql")
    made.runr()
    (ad,) = made.outputs
    data = np.ascontiguousarray(ad[0].data, float)
    x, y = np.unravel_index(np.nanargmax(data), data.shape)[::-1]
    assert ad.phu["NCOMBINE"] == 4
    # 0.97 of a Moffat profile of 4.7 pixels is inside 12 pixels, some is in the ring.
    assert _flux(data, x, y) == pytest.approx(800000, rel=0.06)


def _centre(data, x, y):
    found = sep.winpos(np.ascontiguousarray(data, float), [x], [y], [2.0])
    return float(found[0][0]), float(found[1][0])


def _flux(data, x, y):
    flux, _, _ = sep.sum_circle(data, [x], [y], 12.0, bkgann=(18.0, 26.0))
    return float(flux[0])
