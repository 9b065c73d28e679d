"""Science and standard images from raw frames to the stack, against the truth of simulated nights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from niripipe import Reduce, astrodata, simulate


@pytest.fixture(scope="module", params=["science", "standard"])
def product(request, reduced):
    return getattr(reduced, request.param), "target" if request.param == "science" else "std"


@pytest.fixture(scope="module")
def score(product, reduced):
    made, kind = product
    return simulate.score(reduced.night, made.output_filenames[0], kind=kind)


def test_the_flux_of_bright_stars_is_right(score, reduced):
    # The standard stands alone on the night with everything on. Distortion makes a flat brighter by 3 k r,
    # which takes 0.4 % of the light of stars at the mean distance from the centre, 0.7 % in the corners.
    alone = reduced.is_real and score.kind == "std"
    assert score.n_bright >= (1 if alone else 3)
    assert score.flux_ratio_snr100 == pytest.approx(1, abs=0.012 if reduced.is_real else 0.006)


def test_stars_are_where_the_world_coordinates_say(score, reduced):
    # A few stars measure this to about 0.01 pixel. The distortion k r^2 is 0.4 pixel in the corners.
    assert score.astrom_rms_pix < (0.2 if reduced.is_real else 0.03)
    # The pointing of the first frame, 0.05 arcsec rms, is the stack's.
    assert np.hypot(*score.shift) < 2


def test_images_are_as_sharp_as_the_seeing(score, reduced):
    # One frame in five is trailed by 8 pixels: alone it has a half-light radius of 1.3 times the others'.
    assert score.r50_ratio < (1.05 if reduced.is_real else 1.012)


def test_the_variance_is_that_of_the_pixels(score):
    assert score.pull == pytest.approx(1, abs=0.05)


def test_no_cosmic_ray_is_left(score):
    assert score.cr_hits >= 5
    assert score.cr_left <= 0.02


def test_all_stars_are_there_and_few_pixels_are_flagged(score):
    assert score.completeness == 1
    assert score.flagged < 0.01


def test_the_stack_covers_the_whole_dithered_field(product, reduced):
    made, kind = product
    truth = reduced.night.truth
    frames = [truth.frames[name] for name in truth.names(kind)][1:]
    wanted = [256 + np.ptp([frame.dy for frame in frames]), 256 + np.ptp([frame.dx for frame in frames])]
    assert made.outputs[0][0].shape == (pytest.approx(wanted[0], abs=3), pytest.approx(wanted[1], abs=3))


def test_the_product_says_what_it_is(product, reduced):
    made, kind = product
    (ad,) = made.outputs
    names = reduced.night.truth.names(kind)[1:]
    assert Path(made.output_filenames[0]).name == names[0].replace(".fits", "_image.fits")
    assert ad.phu["NCOMBINE"] == len(names)
    assert [ad.phu[f"IMCMB{i:03d}"] for i in range(1, len(names) + 1)] == names
    assert {"PROCESSED", "IMAGE", "NIRI"} <= ad.tags
    assert ad.phu["FLATIM"] == Path(reduced.flat.output_filenames[0]).name
    assert ad.phu["BPMIM"] == Path(reduced.bpm.output_filenames[0]).name
    if kind == "target":
        assert ad.phu["DARKIM"] == Path(reduced.dark.output_filenames[0]).name
    assert ad[0].hdr["BUNIT"] == "electron"
    assert ad[0].hdr["NOISCORR"] >= 1


def test_astropy_reads_the_product(product):
    made, _ = product
    with fits.open(made.output_filenames[0]) as hdus:
        hdus.verify("exception")
        assert [h.name for h in hdus[1:4]] == ["SCI", "VAR", "DQ"]
        assert hdus["SCI"].shape == hdus["VAR"].shape == hdus["DQ"].shape
        assert WCS(hdus["SCI"].header).has_celestial
        good = hdus["DQ"].data == 0
        assert np.isfinite(hdus["SCI"].data).all()
        assert (hdus["VAR"].data[good] > 0).all()
        assert {"HISTORY", "PROVENANCE"} <= {h.name for h in hdus}


def test_the_product_on_disk_is_the_product_in_memory(product):
    made, _ = product
    written = astrodata.open(made.output_filenames[0])
    for name in ("data", "variance", "mask"):
        np.testing.assert_array_equal(written[0].read(name), made.outputs[0][0].read(name))


def test_history_and_provenance_lead_back_to_the_raw_frames(product, reduced):
    made, kind = product
    written = astrodata.open(made.output_filenames[0])
    steps = [record.primitive for record in written.history if record.status != "WARNING"]
    assert steps[0] == "prepare"
    assert steps[-1] == "storeProcessedScience"
    named = {Path(record.filename).name for record in written.provenance}
    assert set(reduced.night.truth.names(kind)[1:]) <= named
    assert Path(reduced.flat.output_filenames[0]).name in named


def test_what_was_skipped_is_told(reduced):
    steps = {s.primitive: s for s in reduced.standard.report.steps}
    assert "do_cal is skip" in steps["darkCorrect"].summary()
    assert "DARKIM" not in reduced.standard.outputs[0].phu
    # Real nights have rows and quadrants that are off.
    expected = "DONE" if reduced.is_real else "no quadrant has a pattern"
    assert expected in steps["cleanReadout"].summary()
    assert steps["flatCorrect"].summary() == "4 DONE"


def test_the_raw_frames_are_as_they_were_and_only_products_were_written(reduced):
    raw = {p.name for p in (reduced.folder / "raw").iterdir()}
    assert raw == {p.name for p in reduced.night.files} | {"truth.json"}
    assert len(list((reduced.folder / "products").iterdir())) == 5


def test_threads_and_order_of_reading_do_not_change_a_bit(reduced, tmp_path):
    files = [*reduced.night.target, *reduced.night.sky]
    given = {"skyCorrect": {"scale_sky": False}}
    alone = reduced.reduce(files, str(tmp_path), parameters=given, threads=1)
    for name in ("data", "variance", "mask"):
        np.testing.assert_array_equal(
            alone.outputs[0][0].read(name), reduced.science.outputs[0][0].read(name)
        )


def test_a_quick_look_needs_no_calibrations(reduced, tmp_path):
    r = Reduce(reduced.night.target[:4] + reduced.night.sky[:3], mode="ql", output_dir=tmp_path)
    r.runr()
    assert r.outputs[0].phu["NCOMBINE"] == 3
    assert "no processed_dark" in r.report.step("darkCorrect").summary()
    assert simulate.score(reduced.night, r.output_filenames[0]).flux_ratio_snr100 == pytest.approx(1, abs=0.1)


def test_one_unreadable_frame_does_not_sink_the_night(reduced, tmp_path):
    broken = tmp_path / "N20160102S0999.fits"
    broken.write_bytes(reduced.night.target[1].read_bytes()[:60000])
    files = [*reduced.night.target[:4], broken, *reduced.night.sky]
    r = reduced.reduce(files, str(tmp_path / "out"))
    assert [d.name for d in r.report.dropped] == [broken.name]
    assert r.outputs[0].phu["NCOMBINE"] == 3


@pytest.mark.parametrize(("port", "angle"), [(3, 0.0), (1, 0.0), (3, 70.0), (1, -40.0)])
def test_telescope_offsets_align_for_every_port_and_angle(tmp_path, port, angle):
    """With a perfect pointing the offsets alone must bring stars onto each other: the sign of both axes."""
    night = simulate.night(
        tmp_path / "raw",
        seed=2,
        size=256,
        scene="crowded",
        port=port,
        position_angle=angle,
        n_target=4,
        n_sky=0,
        n_standard=0,
        n_flat=0,
        n_dark=0,
        n_short_dark=0,
        effects=simulate.Effects.none(photon_noise=True, read_noise=True),
    )
    r = Reduce(
        night.target,
        output_dir=tmp_path,
        mode="ql",
        parameters={
            "adjustWCSToReference:method": "offsets",
            "removeFirstFrame:remove_first": False,
            "nonlinearityCorrect:skip_primitive": True,
        },
    )
    r.runr()
    found = simulate.score(night, r.output_filenames[0])
    assert r.outputs[0].phu["NCOMBINE"] == 4
    assert found.n_bright >= 3
    assert found.r50_ratio < 1.02
    assert found.astrom_rms_pix < 0.05
    assert found.flux_ratio_snr100 == pytest.approx(1, abs=0.02)
