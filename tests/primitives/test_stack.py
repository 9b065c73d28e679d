"""Stacking: values, variance, flags and the header of what was combined."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from niripipe.astrodata import DQ
from niripipe.errors import DataError

from .. import frames as make


def many(levels, *, variance=4.0, mask=0, kind="science", **options):
    return [
        make.electrons(make.frame(v, number=i + 1, kind=kind, **options), variance, mask)
        for i, v in enumerate(levels)
    ]


def test_the_mean_its_variance_and_its_header():
    frames = many([1.0, 2.0, 3.0, 6.0], variance=8.0)
    for i, ad in enumerate(frames):
        ad.phu["AIRMASS"] = [1.0, 1.1, 1.2, 1.5][i]
        ad[0].hdr["RDNOISE"] = [30.0, 40.0, 30.0, 40.0][i]
    b = make.bench(frames)
    b.p.stackFrames(reject_method="none")
    (stacked,) = b.main
    np.testing.assert_allclose(stacked[0].data, 3.0)
    np.testing.assert_allclose(stacked[0].variance, 2.0)
    assert not stacked[0].mask.any()
    phu = stacked.phu
    assert phu["NCOMBINE"] == 4
    assert [phu[f"IMCMB{i:03d}"] for i in (1, 2, 3, 4)] == [make.name(i) for i in (1, 2, 3, 4)]
    assert "IMCMB005" not in phu
    assert phu["AIRMASS"] == pytest.approx(1.2)
    assert stacked[0].hdr["RDNOISE"] == pytest.approx(np.sqrt((900 + 1600) / 2))
    assert stacked.filename == "N20160102S0001_stack.fits"
    assert "STACKFRM" in phu


def test_the_inputs_are_not_changed():
    frames = many([1.0, 2.0, 3.0])
    make.bench(frames).p.stackFrames()
    assert [float(ad[0].data[0, 0]) for ad in frames] == [1, 2, 3]
    assert all("NCOMBINE" not in ad.phu for ad in frames)


@pytest.mark.parametrize(
    ("operation", "expected"), [("mean", 3.0), ("median", 2.5), ("lmedian", 2.0), ("wtmean", 3.0)]
)
def test_the_operation_can_be_chosen(operation, expected):
    b = make.bench(many([1.0, 2.0, 3.0, 6.0]))
    b.p.stackFrames(operation=operation, reject_method="none")
    np.testing.assert_allclose(b.main[0][0].data, expected, rtol=1e-6)


@pytest.mark.parametrize("count", [3, 4, 9])
def test_one_outlier_is_rejected_also_among_few_frames(count):
    frames = many([100.0] * count, variance=100.0)
    frames[1][0].data[5, 6] = 5000
    b = make.bench(frames)
    b.p.stackFrames()
    assert b.main[0][0].data[5, 6] == pytest.approx(100)
    assert b.main[0][0].variance[5, 6] == pytest.approx(100 / (count - 1), rel=1e-4)
    assert b.main[0][0].variance[0, 0] == pytest.approx(100 / count, rel=1e-4)


def test_flagged_pixels_are_left_out_where_there_are_better_ones():
    frames = many([1.0, 2.0, 30.0])
    frames[2][0].mask[3, 4] = DQ.bad_pixel
    for ad in frames:
        ad[0].mask[7, 7] = DQ.bad_pixel
    b = make.bench(frames)
    b.p.stackFrames(reject_method="none")
    ext = b.main[0][0]
    assert ext.data[3, 4] == pytest.approx(1.5)
    assert ext.mask[3, 4] == 0
    assert ext.mask[7, 7] == DQ.bad_pixel
    assert ext.data[7, 7] == pytest.approx(11.0)


def test_flags_can_be_ignored():
    frames = many([1.0, 2.0, 30.0])
    frames[2][0].mask[3, 4] = DQ.bad_pixel
    b = make.bench(frames)
    b.p.stackFrames(reject_method="none", apply_dq=False)
    assert b.main[0][0].data[3, 4] == pytest.approx(11.0)


def test_how_many_inputs_were_rejected_can_be_saved():
    frames = many([100.0] * 4, variance=100.0)
    frames[0][0].data[1, 1] = 9000
    b = make.bench(frames)
    b.p.stackFrames(save_rejection_map=True)
    assert np.argwhere(b.main[0][0].REJMAP).tolist() == [[1, 1]]
    assert b.main[0][0].REJMAP[1, 1] == 1


def test_frames_without_planes_can_be_stacked():
    b = make.bench(many([1.0, 2.0, 3.0], variance=None, mask=None))
    b.p.stackFrames()
    np.testing.assert_allclose(b.main[0][0].data, 2.0)
    assert b.main[0][0].mask is None


@pytest.mark.parametrize("lacking", [(), (1,), (0, 1, 2)])
def test_a_mask_that_not_all_frames_have_is_not_invented_and_the_user_is_told(lacking, caplog):
    frames = many([1.0, 2.0, 3.0])
    for i in lacking:
        frames[i][0].mask = None
    b = make.bench(frames)
    b.p.stackFrames()
    np.testing.assert_allclose(b.main[0][0].data, 2.0)
    assert (b.main[0][0].mask is None) == bool(lacking)
    assert any("data-quality plane" in message for message in caplog.messages) == (len(lacking) == 1)


@pytest.mark.parametrize("lacking", [(1,), (0, 1, 2)])
def test_the_variance_of_frames_that_do_not_all_have_one_is_that_of_their_scatter(lacking):
    frames = many([1.0, 2.0, 6.0], variance=400.0)
    for i in lacking:
        frames[i][0].variance = None
    b = make.bench(frames)
    b.p.stackFrames(reject_method="none")
    np.testing.assert_allclose(b.main[0][0].variance, np.var([1, 2, 6], ddof=1) / 3, rtol=1e-5)


def test_frames_can_be_scaled_or_shifted_to_the_first():
    b = make.bench(many([10.0, 20.0, 40.0]))
    b.p.stackFrames(scale=True)
    np.testing.assert_allclose(b.main[0][0].data, 10.0, rtol=1e-5)
    b = make.bench(many([10.0, 20.0, 40.0]))
    b.p.stackFrames(zero=True, reject_method="none")
    np.testing.assert_allclose(b.main[0][0].data, 10.0, rtol=1e-5)


def test_the_section_for_scales_is_obeyed():
    frames = many([10.0, 20.0])
    frames[1][0].data[:, 32:] = 700
    b = make.bench(frames)
    b.p.stackFrames(scale=True, statsec="1:16,1:64", reject_method="none")
    assert b.main[0][0].data[0, 0] == pytest.approx(10, rel=1e-5)
    assert b.main[0][0].data[0, 40] == pytest.approx((10 + 350) / 2, rel=1e-5)


def test_what_was_measured_on_one_frame_is_not_in_the_stack():
    frames = many([1.0, 2.0])
    frames[0][0].OBJMASK = np.ones(make.SHAPE, np.uint8)
    frames[0][0].OBJCAT = Table({"X_IMAGE": [1.0]})
    b = make.bench(frames)
    b.p.stackFrames()
    assert not {"OBJMASK", "OBJCAT"} & b.main[0][0].exposed


@pytest.mark.parametrize("count", [1, 2])
def test_numbers_that_were_measured_on_one_frame_are_in_no_header_of_the_stack(count):
    frames = many([1.0, 2.0][:count])
    keywords = (
        "SKYLEVEL",
        "SKYNUM",
        "SKYSCALE",
        "SKYRESID",
        "MEANFWHM",
        "FWHMZEN",
        "STREHL",
        "MEANZP",
        "BGMAG",
    )
    for ad in frames:
        for header in (ad.phu, ad[0].hdr):
            for keyword in keywords:
                header[keyword] = 7.0
    b = make.bench(frames)
    b.p.stackFrames()
    for header in (b.main[0].phu, b.main[0][0].hdr):
        assert not [keyword for keyword in keywords if keyword in header]
    assert frames[0].phu["MEANFWHM"] == 7


def test_the_stack_says_how_each_frame_was_aligned():
    frames = many([1.0, 2.0, 3.0])
    for i, ad in enumerate(frames[1:], start=1):
        ad.phu["ALGNMETH"], ad.phu["ALGNNUM"] = "sources", 10 * i
        ad.phu["ALGNRMS"], ad.phu["ALGNERR"] = 0.1 * i, 0.01 * i
    frames[0].phu["ALGNMETH"] = "reference"
    b = make.bench(frames)
    b.p.stackFrames()
    table = b.main[0].ALIGNMENT
    assert list(table["IMAGE"]) == [make.name(i) for i in (1, 2, 3)]
    assert list(table["METHOD"]) == ["reference", "sources", "sources"]
    assert list(table["PAIRS"]) == [0, 10, 20]
    np.testing.assert_allclose(table["RMS"], [np.nan, 0.1, 0.2])
    np.testing.assert_allclose(table["ERROR"], [np.nan, 0.01, 0.02])
    assert not [keyword for keyword in b.main[0].phu if keyword.startswith("ALGN")]


def test_a_single_frame_is_described_but_not_claimed_to_be_a_combination():
    b = make.bench(many([5.0]))
    b.p.stackFrames()
    (stacked,) = b.main
    assert (stacked.phu["NCOMBINE"], stacked.phu["IMCMB001"]) == (1, make.name(1))
    assert stacked.history[-1].status == "SKIPPED"
    assert stacked.filename == "N20160102S0001_stack.fits"


def test_no_frames_give_no_stack():
    for primitive in ("stackFrames", "stackDarks", "stackFlats", "stackSkyFrames"):
        assert getattr(make.bench([]).p, primitive)() == []


@pytest.mark.parametrize("primitive", ["stackFrames", "stackDarks", "stackFlats"])
def test_frames_of_different_shapes_are_refused_by_name(primitive):
    frames = [*many([1.0], kind="dark"), make.electrons(make.frame(kind="dark", shape=(32, 32), number=7))]
    with pytest.raises(DataError, match=r"S0007"):
        getattr(make.bench(frames).p, primitive)()


def test_the_provenance_of_a_stack_names_every_input(tmp_path):
    from niripipe import astrodata

    paths = make.sequence(tmp_path, [1.0, 2.0, 3.0], kind="dark")
    b = make.prepared([astrodata.open(path) for path in paths])
    b.p.stackDarks()
    named = {record.filename.rsplit("/", 1)[-1] for record in b.main[0].provenance}
    assert {path.name for path in paths} <= named


# ---- darks, flats, skies


def test_darks_are_combined_without_scaling():
    b = make.bench(many([10.0, 20.0, 30.0], kind="dark", variance=1e4))
    b.p.stackDarks()
    np.testing.assert_allclose(b.main[0][0].data, 20.0)


@pytest.mark.parametrize(
    ("cards", "found"), [({"EXPTIME": 21.0}, "21"), ({"EXPTIME": 10.0, "COADDS": 2}, "2 coadds")]
)
def test_darks_of_different_exposures_are_refused_with_both(cards, found):
    other = make.electrons(make.frame(kind="dark", number=8, **cards), 4.0, 0)
    with pytest.raises(DataError, match=rf"S0008.*{found}.*20.*as N20160102S0001"):
        make.bench([*many([1.0, 2.0], kind="dark"), other]).p.stackDarks()


def test_what_is_no_dark_is_not_stacked_as_one():
    with pytest.raises(DataError, match=r"not a dark.*S0001"):
        make.bench(many([1.0, 2.0])).p.stackDarks()


def test_flats_lose_their_extremes():
    b = make.bench(many([1.0, 10.0, 11.0, 12.0, 900.0], kind="lamp_on"))
    b.p.stackFlats()
    np.testing.assert_allclose(b.main[0][0].data, 11.0)


def test_objects_stay_out_of_stacked_skies_and_the_frames_stay_as_they_were():
    frames = many([100.0] * 5)
    for i, ad in enumerate(frames):
        objects = np.zeros(make.SHAPE, np.uint8)
        objects[10 * i + 5, 20] = 1
        ad[0].data[10 * i + 3 : 10 * i + 8, 18:23] = 5000
        ad[0].OBJMASK = objects
    b = make.bench(frames)
    b.p.copyInputs(outstream="kept")
    b.p.stackSkyFrames(dilation=3, nlow=0, nhigh=0)
    np.testing.assert_allclose(b.main[0][0].data, 100.0, rtol=1e-5)
    assert not frames[0][0].mask.any()
