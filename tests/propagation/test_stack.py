"""Stacks: values, variances, masks, exposure maps and headers against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.astrodata import DQ

from .. import frames as make
from .planes import SHAPES, check, flags, frame, median_variance, values

STACKS = ["stackFrames", "stackDarks", "stackFlats", "stackSkyFrames"]
KINDS = {"stackDarks": "dark", "stackFlats": "lamp_on"}


def inputs(place, primitive, data, variances, masks=None, **options):
    masks = [0] * len(data) if masks is None else masks
    kind = KINDS.get(primitive, "science")
    return place(
        *(
            frame(d, v, m, kind=kind, number=i + 1, **options)
            for i, (d, v, m) in enumerate(zip(data, variances, masks, strict=True))
        )
    )


def stacked(frames, primitive, **options):
    b = make.bench(frames)
    unscaled = {"scale": False} if primitive == "stackSkyFrames" else {}
    getattr(b.p, primitive)(**unscaled | options)
    (result,) = b.main
    return result


@pytest.mark.parametrize("primitive", STACKS)
@pytest.mark.parametrize("operation", ["mean", "wtmean", "median", "lmedian"])
@pytest.mark.parametrize(("n", "shape"), [(2, SHAPES[0]), (4, SHAPES[1]), (5, SHAPES[1])])
def test_operations(place, primitive, operation, n, shape):
    data = np.array([values(i, 50, 150, shape) for i in range(n)], float)
    variances = np.array([values(50 + i, 1, 9, shape) for i in range(n)], float)
    result = stacked(
        inputs(place, primitive, data, variances), primitive, operation=operation, reject_method="none"
    )
    if operation == "mean":
        expected, noise = data.mean(axis=0), variances.sum(axis=0) / n**2
    elif operation == "wtmean":
        weights = 1 / variances
        expected, noise = (weights * data).sum(axis=0) / weights.sum(axis=0), 1 / weights.sum(axis=0)
    elif operation == "median":
        expected, noise = np.median(data, axis=0), median_variance(n) * variances.mean(axis=0)
    else:
        expected = np.sort(data, axis=0)[(n - 1) // 2]
        noise = median_variance(n, lower=True) * variances.mean(axis=0)
    # Of medians the factor is a table of six digits.
    check(result, expected, noise, 0, rtol=1e-5 if "mean" in operation else 1e-4)
    assert result.phu["NCOMBINE"] == n


@pytest.mark.parametrize("operation", ["mean", "wtmean"])
@pytest.mark.parametrize("primitive", STACKS)
def test_flagged_pixels_neither_count_nor_add_noise(place, primitive, operation):
    data = np.array([values(i, 50, 150) for i in range(4)], float)
    variances = np.array([values(50 + i, 1, 9) for i in range(4)], float)
    masks = np.array([flags(70 + i, DQ.bad_pixel, share=0.2) for i in range(4)])
    masks[:, masks.all(axis=0)] = 0
    result = stacked(
        inputs(place, primitive, data, variances, masks), primitive, operation=operation, reject_method="none"
    )
    weights = (masks == 0) / (variances if operation == "wtmean" else 1)
    weights /= weights.sum(axis=0)
    check(result, (weights * data).sum(axis=0), (weights**2 * variances).sum(axis=0), 0)


def test_without_variances_the_scatter_of_the_inputs_is_the_noise(place):
    data = np.array([values(i, 50, 150) for i in range(5)], float)
    result = stacked(inputs(place, "stackFrames", data, [None] * 5), "stackFrames", reject_method="none")
    check(result, data.mean(axis=0), data.var(axis=0, ddof=1) / 5)


@pytest.mark.parametrize("primitive", STACKS)
@pytest.mark.parametrize(("nlow", "nhigh"), [(1, 1), (2, 0), (0, 1), (1, 2)])
def test_minmax_drops_as_many_as_it_is_told(place, primitive, nlow, nhigh):
    data = np.array([values(i, 50, 150) for i in range(6)], float)
    variances = np.array([values(50 + i, 1, 9) for i in range(6)], float)
    result = stacked(
        inputs(place, primitive, data, variances),
        primitive,
        operation="mean",
        reject_method="minmax",
        nlow=nlow,
        nhigh=nhigh,
    )
    used = slice(nlow, 6 - nhigh)
    order = np.argsort(data, axis=0)[used]
    kept, noise = (np.take_along_axis(planes, order, axis=0) for planes in (data, variances))
    check(result, kept.mean(axis=0), noise.sum(axis=0) / len(order) ** 2)


LIMITS = [(3.0, 100.0), (100.0, 3.0), (3.0, 3.0)]
CLIPPING = [*STACKS, "makeLampFlat"]


def clipped(place, primitive, data, variances, **options):
    kind = "stackFlats" if primitive == "makeLampFlat" else primitive
    return stacked(inputs(place, kind, data, variances), primitive, operation="mean", **options)


@pytest.mark.parametrize(
    ("primitive", "mclip"), [(primitive, True) for primitive in CLIPPING] + [("stackFrames", False)]
)
@pytest.mark.parametrize(("hsigma", "lsigma"), LIMITS)
def test_sigclip_has_a_lower_and_an_upper_limit(place, primitive, mclip, hsigma, lsigma):
    # Half of the frames lie 1 above, half 1 below 100, so that of these nothing is ever 3 sigma away.
    n, shape = 20, (32, 32)
    data = np.array([100 + (-1) ** i + values(i, -0.1, 0.1, shape) for i in range(n)], float)
    variances = np.array([values(50 + i, 1, 9, shape) for i in range(n)], float)
    # In every pixel one frame is low and another one is high. Of 20 values one that lies far off is 4.2
    # standard deviations from the mean, two on either side are 3.1 each.
    low = np.arange(n)[:, None, None] == np.random.default_rng(1).integers(0, n, shape)
    high = np.roll(low, 1, axis=0)
    data += 1000.0 * high - 1000.0 * low
    result = clipped(
        place,
        primitive,
        data,
        variances,
        reject_method="sigclip",
        hsigma=hsigma,
        lsigma=lsigma,
        mclip=mclip,
    )
    used = ~((low & (lsigma == 3)) | (high & (hsigma == 3)))
    number = used.sum(axis=0)
    check(result, (data * used).sum(axis=0) / number, (variances * used).sum(axis=0) / number**2)


@pytest.mark.parametrize("primitive", CLIPPING)
@pytest.mark.parametrize("method", ["varclip", "noiseclip"])
@pytest.mark.parametrize(("hsigma", "lsigma"), LIMITS)
def test_clipping_at_the_noise_has_a_lower_and_an_upper_limit(place, primitive, method, hsigma, lsigma):
    n, shape = 6, (32, 32)
    data = np.array([values(i, -0.1, 0.1, shape) for i in range(n)], float)
    variances = np.ones((n, *shape))
    # So far from each other that each hit is looked at alone.
    low, high = np.zeros(data.shape, bool), np.zeros(data.shape, bool)
    low[0, 4::12, 4::12] = high[3, 4::12, 4::12] = low[5, 10::12, 4::12] = high[1, 4::12, 10::12] = True
    data += 30.0 * high - 30.0 * low
    result = clipped(place, primitive, data, variances, reject_method=method, hsigma=hsigma, lsigma=lsigma)
    used = ~((low & (lsigma == 3)) | (high & (hsigma == 3)))
    number = used.sum(axis=0)
    check(result, (data * used).sum(axis=0) / number, 1 / number)


LEVELS = (1.0, 2.0, 0.5, 4.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("primitive", ["stackFrames", "stackFlats", "stackSkyFrames", "stackSkyFlats"])
def test_scaled_inputs_have_the_noise_that_their_factor_gives(place, primitive, shape):
    base = values(1, 500, 1500, shape)
    variances = np.array([values(50 + i, 1, 9, shape) for i in range(4)], float)
    frames = inputs(place, primitive, [base * level for level in LEVELS], variances)
    result = stacked(frames, primitive, operation="mean", reject_method="none", scale=True)
    noise = sum(v / level**2 for v, level in zip(variances, LEVELS, strict=True)) / 16
    check(result, base, noise, rtol=1e-4)


@pytest.mark.parametrize("primitive", ["stackFrames", "stackFlats", "stackSkyFrames"])
def test_weights_of_scaled_inputs_are_those_of_their_scaled_noise(place, primitive):
    base = values(1, 500, 1500)
    variances = np.array([values(50 + i, 1, 9) for i in range(4)], float)
    frames = inputs(place, primitive, [base * level for level in LEVELS], variances)
    result = stacked(frames, primitive, operation="wtmean", reject_method="none", scale=True)
    noise = 1 / sum(level**2 / v for v, level in zip(variances, LEVELS, strict=True))
    check(result, base, noise, rtol=1e-4)


@pytest.mark.parametrize("primitive", ["stackFrames", "stackFlats", "stackSkyFrames"])
def test_offsets_bring_inputs_to_the_first_and_add_no_noise(place, primitive):
    base = values(1, 500, 1500)
    variances = np.array([values(50 + i, 1, 9) for i in range(4)], float)
    frames = inputs(place, primitive, [base + offset for offset in (0, 300, -200, 50)], variances)
    result = stacked(frames, primitive, operation="mean", reject_method="none", zero=True)
    check(result, base, variances.sum(axis=0) / 16, rtol=1e-4)


def test_frames_are_scaled_by_what_is_in_the_section(place):
    base = values(1, 500, 1500)
    second = base * 2
    second[32:] *= 5
    frames = inputs(place, "stackFrames", [base, second], [np.ones(make.SHAPE), np.full(make.SHAPE, 4.0)])
    result = stacked(frames, "stackFrames", reject_method="none", scale=True, statsec="1:64,1:32")
    check(result, (base + second / 2) / 2, 0.5, rtol=1e-4)


# ---- exposures


def aligned(place, times, masks=None, **options):
    frames = [
        frame(
            values(i, 90, 110),
            np.ones(make.SHAPE),
            0 if masks is None else masks[i],
            number=i + 1,
            EXPTIME=time,
            **options,
        )
        for i, time in enumerate(times)
    ]
    b = make.bench(place(*frames))
    # All point at the same position, so that the grid is that of the first frame.
    b.p.resampleToCommonFrame(clean_data=False, interpolant="nearest")
    assert {ad[0].shape for ad in b.main} == {make.SHAPE}
    return b


@pytest.mark.parametrize("times", [(20.0, 40.0), (20.0, 40.0, 5.0)])
@pytest.mark.parametrize("scaling", [[], ["scaleCountsToReference"], ["scaleByExposureTime", 10.0, 80.0]])
def test_unequal_exposures_are_added_up_as_they_were_taken(place, times, scaling):
    masks = [flags(70 + i, DQ.bad_pixel, share=0.2) for i in range(len(times))]
    b = aligned(place, times, masks)
    if scaling:
        name, *given = scaling
        for time in given or [None]:
            getattr(b.p, name)(**({} if time is None else {"time": time}))
    b.p.stackFrames(reject_method="none")
    (result,) = b.main
    good = np.array(masks) == 0
    some = good.any(axis=0)
    seconds = (good * np.array(times)[:, None, None]).sum(axis=0)
    np.testing.assert_allclose(result[0].EXPOSURE[some], seconds[some])
    np.testing.assert_array_equal(result[0].COVERAGE[some], good.sum(axis=0)[some])
    assert result.phu["TEXPTIME"] == pytest.approx(sum(times))


def test_the_first_exposure_time_is_kept_through_several_scalings(place):
    data, variance = values(1, 90, 110), values(2, 1, 9)
    frames = place(frame(data, variance, EXPTIME=20.0), frame(2 * data, variance, number=2, EXPTIME=40.0))
    b = make.bench(frames)
    b.p.scaleByExposureTime(time=10.0)
    b.p.scaleByExposureTime(time=80.0)
    for ad, time in zip(b.main, (20.0, 40.0), strict=True):
        factor = 80 / time
        check(ad, data * (time / 20) * factor, variance * factor**2)
        assert ad.phu["ORIGTEXP"] == time
        assert ad.exposure_time() == pytest.approx(80)
    b.p.scaleCountsToReference()
    assert [ad.phu["ORIGTEXP"] for ad in b.main] == [20.0, 40.0]
    b.p.stackFrames()
    assert b.main[0].phu["TEXPTIME"] == pytest.approx(60)


def test_the_exposure_time_of_coadds_counts_in_full(place):
    frames = place(
        *(frame(100.0, 1.0, number=i + 1, COADDS=coadds, EXPTIME=5.0) for i, coadds in enumerate((4, 8)))
    )
    b = make.bench(frames)
    b.p.scaleByExposureTime()
    check(b.main[1], 50.0, 0.25)
    b.p.stackFrames()
    assert b.main[0].phu["TEXPTIME"] == pytest.approx(60)


# ---- headers


@pytest.mark.parametrize("primitive", STACKS)
@pytest.mark.parametrize("n", [2, 4])
def test_read_noise_and_gain_of_a_stack(place, primitive, n):
    data = [values(i, 90, 110) for i in range(n)]
    frames = inputs(place, primitive, data, [np.ones(make.SHAPE)] * n, adu=True)
    noises, gains = np.array([10.0, 20.0, 30.0, 40.0])[:n], np.array([2.0, 3.0, 6.0, 12.0])[:n]
    for ad, noise, gain in zip(frames, noises, gains, strict=True):
        ad[0].hdr["RDNOISE"], ad[0].hdr["GAIN"] = noise, gain
    result = stacked(frames, primitive, reject_method="none")
    hdr = result[0].hdr
    assert hdr["RDNOISE"] == pytest.approx(np.sqrt(np.mean(noises**2)))
    # The noise of a mean is the root of the sum of the squares over their number.
    assert hdr["EFFRDN"] == pytest.approx(np.sqrt(np.sum(noises**2)) / n)
    assert hdr["GAIN"] == pytest.approx(n / np.sum(1 / gains))
    # The photon variance of the mean of equal counts c is sum(c / gain) / n**2 = c / EFFGAIN.
    assert 1 / hdr["EFFGAIN"] == pytest.approx(np.sum(1 / gains) / n**2)
    assert (result.phu["NCOMBINE"], result.phu[f"IMCMB{n:03d}"]) == (n, make.name(n))


def test_a_stack_of_one_frame_is_that_frame(place):
    data, variance, mask = values(1, 90, 110), values(2, 1, 9), flags(3, 1)
    result = stacked(place(frame(data, variance, mask)), "stackFrames")
    check(result, data, variance, mask)
    hdr = result[0].hdr
    assert hdr["EFFRDN"] == pytest.approx(hdr["RDNOISE"])
    assert (result.phu["NCOMBINE"], result.phu["TEXPTIME"]) == (1, pytest.approx(20))
