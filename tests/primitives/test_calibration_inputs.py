"""Raw darks and flats that cannot make a calibration are named and left out, and good ones all pass."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe import Reduce
from niripipe.errors import DataError, NiripipeError

from .. import frames as make

NOISE = make.READ_NOISE / make.GAIN
FULL_WELL = 200000 / make.GAIN


def adu(electrons, seed=0):
    """A frame of a level (electrons) with its noise, in ADU."""
    sigma = np.hypot(make.READ_NOISE, np.sqrt(max(electrons, 0)))
    return np.round(make.noise(seed, sigma, electrons) / make.GAIN).astype(np.float32)


def raw(levels, kind, first=1, **options):
    return [
        make.frame(
            adu(level, seed=first + i) if np.isscalar(level) else level,
            kind=kind,
            number=first + i,
            **options,
        )
        for i, level in enumerate(levels)
    ]


def names(frames):
    return [frame.filename for frame in frames]


USELESS = {
    "nan": np.nan,
    "infinite": np.inf,
    "zero": 0.0,
    "constant": 5.0,
    "negative": -5000.0,
    "saturated": 1.2 * FULL_WELL,
    "noisy and saturated": adu(1.2 * FULL_WELL * make.GAIN),
    "noisy and negative": adu(-6000.0),
    "half of it NaN": np.where(np.arange(64) < 32, np.nan, adu(60.0)),
}


@pytest.mark.parametrize("kind", ["dark", "lamp_on", "lamp_off"])
@pytest.mark.parametrize("fault", USELESS)
def test_one_useless_frame_among_good_ones_is_left_out_and_named(kind, fault, caplog):
    level = {"dark": 60.0, "lamp_on": 20000.0, "lamp_off": 300.0}[kind]
    frames = raw([level, level, level, np.broadcast_to(USELESS[fault], make.SHAPE)], kind)
    b = make.bench(frames)
    b.p.checkCalibrationInputs()
    assert names(b.main) == [make.name(n) for n in (1, 2, 3)]
    assert [one.name for one in b.report.dropped] == [make.name(4)]
    assert make.name(4) in caplog.text
    assert all((one[0].data == adu(level, seed=n)).all() for n, one in enumerate(b.main, 1))


@pytest.mark.parametrize("fault", USELESS)
def test_where_most_frames_are_useless_nothing_is_made(fault):
    pixels = np.broadcast_to(USELESS[fault], make.SHAPE)
    with pytest.raises(DataError, match=r"2 of 3.*S0002.*S0003.*unfit='warn'"):
        make.bench(raw([60.0, pixels, pixels], "dark")).p.checkCalibrationInputs()
    if fault != "constant":
        with pytest.raises(DataError, match="1 of 1"):
            make.bench(raw([pixels], "dark")).p.checkCalibrationInputs()


def test_frames_that_are_all_without_noise_are_a_simulation_and_a_warning(caplog):
    frames = raw([np.full(make.SHAPE, level) for level in (3.0, 4.0)], "dark")
    b = make.bench(frames)
    b.p.checkCalibrationInputs()
    assert names(b.main) == names(frames)
    assert "darks are constant" in caplog.text


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        ("dark", [40.0, 42.0, 300.0, 41.0]),
        ("lamp_on", [2e4, 2.1e4, 4e3, 2e4]),
        ("lamp_off", [300, 310, 2e4, 290]),
    ],
)
def test_a_frame_unlike_the_others_is_left_out_with_both_levels(kind, levels):
    b = make.bench(raw(levels, kind))
    b.p.checkCalibrationInputs()
    assert names(b.main) == [make.name(n) for n in (1, 2, 4)]
    reason = b.report.dropped[0].reason
    assert f"{levels[2]:.0f}"[:1] in reason
    assert " e-" in reason


def test_darks_with_light_in_them_are_refused_with_level_and_limit():
    with pytest.raises(DataError, match=r"light in this dark: its level is \d{4} e- \(limit: 1500 e-"):
        make.bench(raw([5700.0] * 3, "dark")).p.checkCalibrationInputs()


def glowing(level):
    """A dark with glow at the edges, 2 % of hot pixels, and 1 % that are dead or negative."""
    pixels = adu(level)
    pixels[:4] += 100
    pixels.flat[::50] = 9000
    pixels.flat[1::100] = -200
    return pixels


@pytest.mark.parametrize(
    "frames",
    [
        raw([glowing(20.0)] * 3, "dark"),
        raw([glowing(1000.0)] * 3, "dark", EXPTIME=300.0),
        raw([-60.0, -62.0, -58.0], "dark", EXPTIME=1.0),
        raw([5.0], "dark", LNRS=16, EXPTIME=1.0),
        raw([400.0] * 3, "lamp_on"),
        raw([60.0 * 50] * 3, "dark", EXPTIME=0.2, COADDS=50),
        raw([180.0] * 3, "lamp_on") + raw([60.0] * 3, "lamp_off", first=11),
        raw([90000.0] * 3, "lamp_on") + raw([70000.0] * 3, "lamp_off", first=11),
        raw([150000.0] * 3, "lamp_on", FILTER2="Kprime_G0206"),
        raw([-10.0, 10.0, 3.0], "lamp_off") + raw([20000.0] * 3, "lamp_on", first=11),
    ],
    ids=[
        "glow",
        "warm",
        "low offset",
        "one short",
        "faint",
        "coadds",
        "narrow band",
        "thermal",
        "bright",
        "no thermal",
    ],
)
def test_good_frames_all_pass(frames):
    b = make.bench(frames)
    b.p.checkCalibrationInputs()
    assert names(b.main) == names(frames)
    assert not b.report.dropped


def test_a_lamp_that_did_not_start_is_named_in_one_frame_or_in_all():
    off = raw([300.0] * 3, "lamp_off", first=11)
    b = make.bench(raw([20000.0, 310.0, 305.0, 20000.0], "lamp_on") + off)
    b.p.checkCalibrationInputs()
    assert names(b.main) == [make.name(n) for n in (1, 4, 11, 12, 13)]
    assert "no light of the lamp" in b.report.dropped[0].reason
    with pytest.raises(DataError, match=r"no light of the lamp.*with the lamp off 29\d e-"):
        make.bench(raw([301.0] * 3, "lamp_on") + off).p.checkCalibrationInputs()
    with pytest.raises(DataError, match=r"no light in this flat: its level is \d\d e-.*limit: 350 e-"):
        make.bench(raw([65.0] * 3, "lamp_on")).p.checkCalibrationInputs()


def test_who_insists_keeps_all_frames_and_is_warned(caplog):
    frames = raw([5700.0, np.full(make.SHAPE, np.nan)], "dark")
    b = make.bench(frames)
    b.p.checkCalibrationInputs(unfit="warn")
    assert names(b.main) == names(frames)
    assert caplog.text.count("is used all the same") == 2


def test_frames_in_electrons_have_the_same_limits():
    frames = raw([5700.0] * 3, "dark")
    b = make.prepared(frames)
    b.p.ADUToElectrons()
    with pytest.raises(DataError, match=r"limit: 1500 e-"):
        b.p.checkCalibrationInputs()


def test_a_product_among_raw_frames_is_refused_before_a_pixel_is_read(tmp_path):
    paths = make.sequence(tmp_path, [adu(60.0, n) for n in range(3)], kind="dark")
    first = Reduce(paths, output_dir=tmp_path)
    first.runr()
    product = first.output_filenames[0]
    with pytest.raises(NiripipeError, match=r"product, not a raw.*S0001_dark.fits") as caught:
        Reduce([*paths, product], output_dir=tmp_path / "again").runr()
    assert "unfit" in str(caught.value)
    insisting = Reduce(
        [*paths, product], output_dir=tmp_path / "again", parameters={"checkCalibrationInputs:unfit": "warn"}
    )
    insisting.runr()
    assert insisting.outputs[0].phu["NCOMBINE"] == 4


def test_a_useless_dark_does_not_reach_the_product(tmp_path):
    good = [adu(60.0, n) for n in range(4)]
    clean = Reduce(make.sequence(tmp_path / "clean", good, kind="dark"), output_dir=tmp_path / "a")
    spoilt = [*good, np.full(make.SHAPE, 30000.0)]
    dirty = Reduce(make.sequence(tmp_path / "dirty", spoilt, kind="dark"), output_dir=tmp_path / "b")
    for r in (clean, dirty):
        r.runr()
    assert dirty.outputs[0].phu["NCOMBINE"] == 4
    np.testing.assert_array_equal(dirty.outputs[0][0].data, clean.outputs[0][0].data)
    assert [one.name for one in dirty.report.dropped] == [make.name(5)]


# ---- the flat itself


def faint(mode):
    frames = raw([80.0] * 2, "lamp_on") + raw([40.0] * 2, "lamp_off", first=11)
    return make.bench(frames, mode=mode)


def test_a_flat_near_its_own_noise_is_refused_or_with_more_frames_to_come_a_warning(caplog):
    with pytest.raises(DataError, match=r"not well above its noise.*2 lamp-on and 2 lamp-off.*3 times"):
        faint("sq").p.checkCalibrationInputs()
    b = faint("qa")
    b.p.checkCalibrationInputs()
    assert len(b.main) == 4
    assert "not well above its noise" in caplog.text


def test_normalising_a_noisy_flat_is_a_warning(caplog):
    flat = make.electrons(make.frame(make.noise(1, 30.0, 90.0), kind="lamp_on"))
    make.bench([flat]).p.normalizeFlat()
    assert "only 3 times its noise" in caplog.text
    assert np.median(flat[0].data) == pytest.approx(1.0)


# ---- bad pixel masks


def mask_of(share):
    values = np.zeros(make.SHAPE, np.int16)
    values.flat[: int(share * values.size)] = 1
    ad = make.frame(values, filename="my_mask.fits", number=70)
    ad.phu.set("BPMASK", "2016-01-03T00:00:00")
    return ad


def test_a_mask_that_says_1_for_good_pixels_is_refused_with_its_share():
    with pytest.raises(DataError, match=r"my_mask.*addDQ:max_bad.*98\.\d%.*at most 33"):
        make.prepared(raw([100.0], "science")).p.addDQ(user_bpm=mask_of(0.985))
    b = make.prepared(raw([100.0], "science"))
    b.p.addDQ(user_bpm=mask_of(0.985), max_bad=1)
    assert (b.main[0][0].mask != 0).mean() > 0.98


def test_a_mask_of_a_fifth_of_the_detector_is_taken():
    b = make.prepared(raw([100.0], "science"))
    b.p.addDQ(user_bpm=mask_of(0.2))
    assert (b.main[0][0].mask != 0).mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("max_bad", [None, 1])
def test_frames_that_make_a_mask_of_half_the_chip_are_refused(max_bad):
    response = np.where(np.arange(64) % 2, 1.0, 0.3) * np.ones((64, 1))
    flat = make.frame(response, kind="lamp_on")
    b = make.bench([flat])
    b.p.streams["darks"] = [make.electrons(make.frame(10.0, kind="dark", number=9, EXPTIME=1.0))]
    if max_bad is None:
        with pytest.raises(DataError, match=r"makeBPM:max_bad.*50\.0%"):
            b.p.makeBPM()
    else:
        b.p.makeBPM(max_bad=max_bad)
        assert (b.main[0][0].data != 0).mean() == 0.5
