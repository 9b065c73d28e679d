"""Sky: frames are sorted, skies chosen, and what is subtracted is the sky and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.astrodata import DQ, ScratchFolder
from niripipe.errors import DataError

from .. import frames as make

Y, X = np.mgrid[:64, :64]
GRADIENT = 1 + 0.1 * (X - 32) / 64 - 0.05 * (Y - 32) / 64


def at(number, p=0.0, q=0.0, level=1000.0, minute=None, guided=True, variance=100.0, **cards):
    """A frame in electrons at this offset (arcsec), one a minute."""
    minute = number if minute is None else minute
    times = {"UT": f"{8 + minute // 60:02d}:{minute % 60:02d}:00.0"}
    guiding = {} if guided else {"PWFS2_ST": "parked"}
    ad = make.frame(level, number=number, POFFSET=p, QOFFSET=q, **(times | guiding | cards))
    return make.electrons(ad, variance, 0)


def names(frames):
    return [int(ad.orig_filename[10:14]) for ad in frames]


def chosen(ad):
    return [int(name[10:14]) for name in ad.SKYTABLE["SKYNAME"]] if "SKYTABLE" in ad.tables else []


# ---- object or sky


def test_of_two_fields_the_one_at_the_target_is_the_object():
    b = make.bench([at(1, p=300), at(2), at(3, p=302), at(4, q=2)])
    b.p.separateSky()
    assert names(b.main) == [2, 4]
    assert names(b.p.streams["sky"]) == [1, 3]
    assert all(ad.phu["OBJFRAME"] == "TRUE" for ad in b.main)
    assert all(ad.phu["SKYFRAME"] == "TRUE" for ad in b.p.streams["sky"])
    assert {ad.phu["EXPGROUP"] for ad in b.main} != {ad.phu["EXPGROUP"] for ad in b.p.streams["sky"]}


def test_a_single_dithered_field_is_object_and_sky_at_once():
    b = make.bench([at(1), at(2, p=2), at(3, q=-2)])
    b.p.separateSky()
    assert names(b.main) == names(b.p.streams["sky"]) == [1, 2, 3]


def test_unguided_frames_are_skies():
    b = make.bench([at(1, guided=False), at(2, p=300), at(3, guided=False)])
    b.p.separateSky()
    assert names(b.main) == [2]
    assert names(b.p.streams["sky"]) == [1, 3]


@pytest.mark.parametrize("given", [{"ref_sky": "N20160102S0001"}, {"ref_obj": ["N20160102S0002.fits"]}])
def test_the_user_decides_for_the_whole_field(given):
    b = make.bench([at(1), at(2, p=300), at(3, p=1), at(4, p=301)])
    b.p.separateSky(**given)
    assert names(b.main) == [2, 4]
    assert names(b.p.streams["sky"]) == [1, 3]


def test_what_the_header_says_is_believed():
    frames = [at(1), at(2, p=300)]
    frames[0].phu["SKYFRAME"] = "TRUE"
    b = make.bench(frames)
    b.p.separateSky()
    assert (names(b.main), names(b.p.streams["sky"])) == ([2], [1])


def test_no_frames_are_no_error():
    b = make.bench([])
    b.p.separateSky()
    assert (b.main, b.p.streams["sky"]) == ([], [])


def test_a_frame_without_wcs_is_refused_by_name():
    frames = [at(1), at(2, p=300)]
    frames[1][0].wcs = None
    with pytest.raises(DataError, match="S0002"):
        make.bench(frames).p.separateSky()


# ---- which skies


def sequence(**given):
    b = make.bench(
        [at(1), at(20, p=1), at(2, p=300), at(3, p=301), at(4, p=302), at(18, p=303), at(59, p=304)]
    )
    b.p.separateSky()
    b.p.associateSky(**given)
    return [chosen(ad) for ad in b.main]


def test_skies_are_those_near_in_time():
    assert sequence() == [[2, 3, 4], [18, 3, 4]] or sequence() == [[2, 3, 4], [3, 4, 18]]


def test_all_skies_within_the_time_are_taken():
    assert sequence(time=1200) == [[2, 3, 4, 18], [2, 3, 4, 18]]


def test_there_can_be_an_upper_limit():
    assert sequence(max_skies=2, min_skies=None, time=3600) == [[2, 3], [4, 18]]


def test_the_user_can_choose_the_skies_by_name():
    assert sequence(sky=["N20160102S0003"]) == [[3], [3]]


def test_a_frame_is_not_its_own_sky():
    b = make.bench([at(1), at(2, p=2), at(3, p=4), at(4, p=0.5)])
    b.p.separateSky()
    b.p.associateSky()
    assert chosen(b.main[0]) == [2, 3]
    assert chosen(b.main[3]) == [2, 3]


@pytest.mark.parametrize("other", [{"EXPTIME": 10.0}, {"COADDS": 2, "EXPTIME": 10.0}, {"FILTER2": "J_G0202"}])
def test_a_sky_of_another_set_up_is_not_taken(other):
    b = make.bench([at(1), at(2, p=300), at(3, p=301, **other)])
    b.p.separateSky()
    b.p.associateSky()
    assert chosen(b.main[0]) == [2]


def test_a_frame_without_skies_goes_to_a_stream_of_its_own():
    b = make.bench([at(1), at(2, EXPTIME=5.0), at(3, p=300)])
    b.p.separateSky()
    b.p.associateSky()
    assert names(b.main) == [1]
    assert names(b.p.streams["no_skies"]) == [2]


def test_without_any_sky_the_own_level_is_subtracted_and_the_headers_say_so():
    b = make.bench([at(1)])
    b.p.separateSky()
    b.p.associateSky()
    before = b.main[0][0].variance.copy()
    b.p.skyCorrect()
    frame = b.main[0]
    np.testing.assert_allclose(frame[0].data, 0, atol=1e-3)
    np.testing.assert_array_equal(frame[0].variance, before)
    assert frame.phu["SKYFROM"] == "own level"
    assert (frame[0].hdr["SKYNUM"], frame[0].hdr["SKYMETH"]) == (0, "own level")
    assert frame[0].hdr["SKYLEVEL"] == pytest.approx(1000)
    assert "own level of 1000.0" in frame.history[-1].reason


def test_without_any_sky_nothing_is_subtracted_on_request_and_the_history_says_so():
    b = make.bench([at(1)])
    b.p.separateSky()
    b.p.associateSky()
    b.p.skyCorrect(own_level=False)
    np.testing.assert_allclose(b.main[0][0].data, 1000)
    assert b.main[0].history[-1].status == "SKIPPED"
    assert "SUBSKY" not in b.main[0].phu
    assert names(b.main) == [1]


def test_make_sky_separates_and_associates():
    b = make.bench([at(1), at(2, p=300), at(3, p=301)])
    b.p.makeSky()
    assert names(b.main) == [1]
    assert chosen(b.main[0]) == [2, 3]


# ---- subtraction


def sky_bench(factors=(1.0, 1.1, 0.95, 1.05, 0.9), science=1.2, level=1000.0, star=0.0, noise=0.0, **options):
    pixels = level * science * GRADIENT + make.gaussians((64, 64), [(40, 20, star)])
    frames = [at(3, level=pixels + make.noise(0, noise), variance=max(noise, 1) ** 2)]
    for i, factor in enumerate(factors):
        minute = i if i < 3 else i + 1
        sky = level * factor * GRADIENT + make.noise(i + 1, noise)
        frames.append(at(10 + i, p=300 + 2 * i, level=sky, minute=minute, variance=max(noise, 1) ** 2))
    b = make.bench(frames, **options)
    b.p.makeSky()
    return b


def test_a_sky_with_a_gradient_and_another_level_vanishes():
    b = sky_bench()
    b.p.skyCorrect()
    ext = b.main[0][0]
    assert np.abs(ext.data).max() < 0.5
    assert ext.hdr["SKYNUM"] == 5
    assert ext.hdr["SKYLEVEL"] == pytest.approx(1200, rel=5e-3)
    assert b.main[0].filename == "N20160102S0003_skyCorrected.fits"
    scales = np.asarray(b.main[0].SKYTABLE["SCALE"])
    np.testing.assert_allclose(scales * [1.0, 1.1, 0.95, 1.05, 0.9], 1.2, rtol=2e-3)


def test_the_skies_themselves_are_not_changed():
    b = sky_bench()
    before = [ad[0].data.copy() for ad in b.p.streams["sky"]]
    b.p.skyCorrect()
    for ad, was in zip(b.p.streams["sky"], before, strict=True):
        np.testing.assert_array_equal(ad[0].data, was)


def test_an_offset_sky_is_shifted_to_the_level_of_the_frame():
    b = sky_bench(factors=(1.0,) * 5, science=1.0)
    b.main[0][0].data += 50
    b.p.skyCorrect(scale_sky=False, offset_sky=True)
    assert np.abs(b.main[0][0].data).max() < 1


def test_an_unscaled_sky_has_the_level_between_those_before_and_after():
    b = sky_bench(factors=(1.0, 1.1, 0.95, 1.05, 0.9), science=1.2)
    b.p.skyCorrect(scale_sky=False)
    # the frame is of minute 3, the skies of minutes 0, 1, 2, 4, 5
    assert np.median(b.main[0][0].data) == pytest.approx(1000 * (1.2 - (0.95 + 1.05) / 2), abs=2)


def test_the_original_level_can_be_kept():
    b = sky_bench()
    b.p.skyCorrect(reset_sky=True)
    np.testing.assert_allclose(b.main[0][0].data, 1200, rtol=5e-3)


def test_the_flux_of_a_star_survives():
    b = sky_bench(star=20000.0, noise=5.0)
    b.p.skyCorrect()
    y, x = np.indices((64, 64))
    aperture = np.hypot(x - 40, y - 20) < 9
    residual = b.main[0][0].data
    background = np.median(residual[~aperture])
    assert (residual[aperture] - background).sum() == pytest.approx(20000, rel=0.02)


def test_objects_in_the_skies_leave_no_holes():
    b = sky_bench(noise=2.0)
    for i, sky in enumerate(b.p.streams["sky"]):
        where = (slice(10 * i + 2, 10 * i + 9), slice(10, 17))
        objects = np.zeros(make.SHAPE, np.uint8)
        objects[10 * i + 3 : 10 * i + 8, 11:16] = 1
        sky[0].data[where] += 3000
        sky[0].OBJMASK = objects
    b.p.skyCorrect(mask_objects=True, dilation=3, nlow=0, nhigh=0)
    assert np.abs(b.main[0][0].data[:, 5:22]).max() < 15


def test_where_every_sky_shows_an_object_the_pixel_has_no_data():
    b = sky_bench()
    for sky in b.p.streams["sky"]:
        sky[0].OBJMASK = np.zeros(make.SHAPE, np.uint8)
        objects = np.zeros(make.SHAPE, np.uint8)
        objects[30:34, 30:34] = 1
        sky[0].OBJMASK = objects
    b.p.skyCorrect(mask_objects=True, dilation=0)
    mask = b.main[0][0].mask
    assert (mask[30:34, 30:34] & DQ.no_data).all()
    assert not mask[:28].any()
    assert not (mask & 0x8000).any()


@pytest.mark.parametrize("given", [{}, {"operation": "mean"}, {"reject_method": "sigclip"}])
def test_flags_of_the_skies_brightness_are_not_handed_on_but_bad_pixels_are(given):
    b = sky_bench()
    for sky in b.p.streams["sky"]:
        sky[0].mask[1, 1] = DQ.saturated
        sky[0].mask[1, 2] = DQ.non_linear
        sky[0].mask[2, 2] = DQ.bad_pixel
    b.p.skyCorrect(**given)
    assert (b.main[0][0].mask[1, 1:3] == 0).all()
    assert b.main[0][0].mask[2, 2] == DQ.bad_pixel


@pytest.mark.parametrize("given", [{}, {"operation": "mean", "nlow": 0, "nhigh": 0}])
def test_the_variance_after_sky_subtraction_is_that_of_the_pixels(given):
    # The sky is multiplied by three, and its variance by nine.
    b = sky_bench(noise=30.0, science=3.0)
    b.p.skyCorrect(**given)
    ext = b.main[0][0]
    pull = (ext.data - np.median(ext.data)) / np.sqrt(ext.variance)
    assert pull.std() == pytest.approx(1.0, abs=0.05)


def test_the_sky_can_be_saved(tmp_path):
    b = sky_bench(folder=tmp_path)
    b.p.skyCorrect(save_sky=True)
    saved = astrodata.open(tmp_path / "N20160102S0003_sky.fits")
    assert np.median(saved[0].data) == pytest.approx(1000, rel=0.01)


def test_frames_that_share_their_skies_get_the_same_sky_as_alone():
    frames = [at(1, level=1100 * GRADIENT), at(2, p=1, level=1300 * GRADIENT)]
    skies = [at(3 + i, p=300 + i, level=(1000 + 10 * i) * GRADIENT) for i in range(4)]

    def corrected(chosen_frames):
        b = make.bench([f.copy() for f in [*chosen_frames, *skies]])
        b.p.makeSky()
        b.p.skyCorrect()
        return [ad[0].data for ad in b.main]

    together = corrected(frames)
    np.testing.assert_array_equal(together[0], corrected(frames[:1])[0])
    np.testing.assert_array_equal(together[1], corrected(frames[1:])[0])


def test_a_sky_number_in_the_header_can_be_subtracted():
    b = make.bench([at(1)])
    b.main[0][0].hdr["SKYLEVEL"] = 400.0
    b.p.subtractSkyBackground()
    np.testing.assert_allclose(b.main[0][0].data, 600)
    b = make.bench([at(1)])
    b.p.subtractSkyBackground()
    np.testing.assert_allclose(b.main[0][0].data, 1000)
    assert b.main[0].history[-1].status == "SKIPPED"


@pytest.mark.parametrize(("remove", "level"), [(False, 500), (True, 0)])
def test_backgrounds_are_brought_to_the_first_frames_or_to_zero(remove, level):
    frames = [at(i + 1, level=make.noise(i, 5, 500 + 100 * i)) for i in range(3)]
    b = make.bench(frames)
    b.p.correctBackgroundToReference(remove_background=remove)
    for ad in b.main:
        assert np.median(ad[0].data) == pytest.approx(level, abs=1)
        assert ad[0].hdr["SKYLEVEL"] == pytest.approx(level, abs=1)


@pytest.mark.parametrize("given", [{}, {"operation": "mean", "nlow": 0, "nhigh": 1}, {"scale": False}])
def test_skies_on_disk_are_read_row_by_row_and_give_the_same(tmp_path, given):
    whole, moved = sky_bench(noise=2.0), sky_bench(noise=2.0)
    whole.p.skyCorrect(**given)
    skies = moved.p.streams["sky"] = [sky.copy() for sky in moved.p.streams["sky"]]
    for sky in skies:
        sky.move_to_disk(ScratchFolder(tmp_path))
    assert sum(sky.nbytes for sky in skies) == 0
    moved.p.skyCorrect(**given)
    assert sum(sky[0].plane(name).nbytes for sky in skies for name in ("data", "variance")) == 0
    for name in ("data", "variance", "mask"):
        np.testing.assert_array_equal(whole.main[0][0].read(name), moved.main[0][0].read(name))


def dithered(number, *, noise=5.0):
    """Frames of one field, dithered, with a star that moves, and variances that follow the data."""
    frames = []
    for i in range(number):
        star = make.gaussians((64, 64), [(10 + 2 * i, 20 + i, 8000.0)])
        level = 1000 + 2.0 * i + star + make.noise(i, noise)
        frames.append(at(i + 1, p=4.0 * (i % 5), q=3.0 * (i % 3), level=level))
    b = make.bench(frames)
    b.p.makeSky()
    for ad in b.main:
        ad[0].variance = np.abs(ad[0].read("data")) / 40
    return b


def beside_the_target(number):
    b = dithered(number)
    for ad in b.main:
        del ad.phu["OBJFRAME"]
    return b


def test_shared_skies_are_those_of_neighbours_and_find_the_same_objects():
    alone, shared = beside_the_target(12), beside_the_target(12)
    alone.p.skyCorrect(mask_objects=False)
    shared.p.skyCorrect(mask_objects=False, share=4, scale_sky=False)
    made_of = [chosen(ad) for ad in shared.main]
    assert len({tuple(one) for one in made_of}) <= 3
    assert all(len(one) >= 9 for one in made_of)
    for one, other in zip(alone.main, shared.main, strict=True):
        assert np.median(other[0].data) == pytest.approx(0, abs=1)
        star = one[0].data > 150
        assert star.sum() > 5
        np.testing.assert_allclose(other[0].data[star], one[0].data[star], rtol=0.02, atol=12)


def test_frames_of_the_target_have_a_sky_each():
    alone, shared = dithered(12), dithered(12)
    alone.p.skyCorrect(mask_objects=False)
    shared.p.skyCorrect(mask_objects=False, share=4)
    for one, other in zip(alone.main, shared.main, strict=True):
        np.testing.assert_array_equal(one[0].data, other[0].data)


def test_a_few_skies_are_not_shared_because_the_frame_itself_would_show():
    alone, shared = beside_the_target(5), beside_the_target(5)
    alone.p.skyCorrect(mask_objects=False)
    shared.p.skyCorrect(mask_objects=False, share=4)
    for one, other in zip(alone.main, shared.main, strict=True):
        np.testing.assert_array_equal(one[0].data, other[0].data)


def test_the_variance_of_a_sky_is_that_of_its_level_where_the_noise_is_known():
    b = dithered(7)
    b.p.skyCorrect(mask_objects=False)
    for ad in b.main:
        quiet = np.abs(ad[0].data) < 60
        # 1000 / 40 for the frame, and the same for a median of six: 1.288 / 6.
        assert np.median(ad[0].variance[quiet]) == pytest.approx(25 * (1 + 1.288 / 6), rel=0.02)


def test_skies_of_different_noise_are_each_counted_with_their_own():
    b = dithered(7)
    for factor, ad in enumerate(b.main, start=1):
        ad[0].variance = np.abs(ad[0].read("data")) * np.float32(factor / 40)
    b.p.skyCorrect(mask_objects=False)
    first = b.main[0]
    mean = np.mean([int(name[10:14]) for name in first.SKYTABLE["SKYNAME"]])
    quiet = np.abs(first[0].data) < 60
    assert np.median(first[0].variance[quiet]) == pytest.approx(25 * (1 + mean * 1.288 / 6), rel=0.03)
