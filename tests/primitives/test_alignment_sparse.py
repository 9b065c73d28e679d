"""Alignment of fields with few stars, of distorted and trailed frames: what is good is kept, and says so."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from .. import frames as make
from .test_alignment_truth import SHAPE, Field


@pytest.mark.parametrize("n_stars", [1, 2, 3, 5, 20])
def test_no_frame_of_a_sparse_field_is_lost_to_an_error_of_the_pointing(n_stars):
    field = Field((4, n_stars), n_stars)
    for _ in range(4):
        field.expose(rms=0.05)
    field.align()
    assert "set aside" not in field.methods()
    to = field.reference()
    for k, ad in enumerate(field.frames):
        if k != to:
            # 0.05 FWHM is 0.21 to 0.28 pixel here.
            assert field.wrong(k, to) < (4 * ad.phu["ALGNERR"] if ad.phu["ALGNFLAG"] else 0.2)


def test_a_bright_galaxy_and_few_stars_align():
    field = Field((1, 2, 77), 2)
    y, x = np.indices(SHAPE)
    for k in range(4):
        ad = field.expose(rms=0.05)
        middle = field.place(k)
        radius = np.hypot(x - middle[0] - 25, (y - middle[1] - 17) / 0.6)
        ad[0].data += np.float32(9e4) * np.exp(-7.67 * (radius / 60) ** 0.25).astype(np.float32)
    field.align()
    to = field.reference()
    assert "set aside" not in field.methods()
    assert max(field.wrong(k, to) for k in range(4) if k != to) < 0.2


def test_a_doubtful_frame_is_kept_with_a_warning_that_names_it_and_a_flag(caplog):
    field = Field(31, 1, (3.55, 3.55))
    for _ in range(2):
        field.expose(rms=0.03, sigma=2.0)
    with caplog.at_level(logging.WARNING, logger="niripipe"):
        field.align()
    assert field.methods() == ["reference", "sources"]
    phu = field.frames[1].phu
    assert phu["ALGNFLAG"] is True
    assert field.frames[0].phu["ALGNFLAG"] is False
    warning = next(r.getMessage() for r in caplog.records if "doubtful" in r.getMessage())
    assert make.name(2)[:14] in warning
    assert "S/N of the pair" in warning
    assert "doubtful" in field.reason(1)
    assert 0.03 < phu["ALGNERR"] < 0.5


def test_the_header_says_how_far_the_sources_are_from_their_place():
    field = Field(32, 15, (4.0, 5.5))
    for error in ((0.0, 0.0), (3.3, -1.7)):
        field.expose(error=np.array(error), sigma=2.0)
    field.align()
    phu = field.frames[1].phu
    assert (phu["ALGNDX"], phu["ALGNDY"]) == pytest.approx((3.3, -1.7), abs=0.05)
    assert (phu["ALGNROT"], phu["ALGNSCL"]) == (0, 1)
    assert phu["ALGNFLAG"] is False
    first = field.frames[0].phu
    assert (first["ALGNDX"], first["ALGNDY"]) == (0, 0)


def test_a_stack_has_the_shift_of_each_of_its_frames():
    field = Field(33, 15, (4.0, 5.5))
    for error in ((0.0, 0.0), (3.3, -1.7), (-2.1, 0.6)):
        field.expose(error=np.array(error), sigma=2.0)
    b = field.align()
    b.p.resampleToCommonFrame()
    b.p.stackFrames()
    table = b.main[0].ALIGNMENT
    assert list(table["DX"]) == pytest.approx([0, 3.3, -2.1], abs=0.05)
    assert list(table["DY"]) == pytest.approx([0, -1.7, 0.6], abs=0.05)
    assert list(table["WEIGHT"]) == [1, 1, 1]
    assert not any(table["DOUBTFUL"])
    for name in ("IMAGE", "METHOD", "PAIRS", "RMS", "ERROR", "ROTATION", "SCALE"):
        assert len(table[name]) == 3
    # What all were aligned on is true of the stack as well.
    assert [keyword for keyword in b.main[0].phu if keyword.startswith("ALGN")] == ["ALGNON"]


def test_distorted_frames_are_kept_and_their_error_is_that_of_the_distortion():
    """Displacements that grow over the field to 0.8 pixel either way, with eight stars."""
    field = Field(34, 8, (4.3, 5.5))
    for k in range(4):
        ad = field.expose(rms=0.02, sigma=2.5)
        if k:
            wcs, error, _ = field.truth[k]
            stretch = 1 + 0.006 * (-1) ** k
            shown = []
            for ra, dec, flux in field.stars:
                x, y = np.array(wcs.all_world2pix(ra, dec, 0), float) + error
                shown.append((150 + (x - 150) * stretch, 150 + (y - 150) * stretch, flux))
            ad[0].data = (make.gaussians(SHAPE, shown, 2.5) + field.rng.normal(0, 10, SHAPE)).astype("f4")
    field.align()
    assert field.methods() == ["reference", "sources", "sources", "sources"]
    for k, ad in enumerate(field.frames[1:], 1):
        assert ad.phu["ALGNRMS"] > 0.2
        assert 0.05 < ad.phu["ALGNERR"] < 0.6
        assert field.wrong(k, 0) < 3 * ad.phu["ALGNERR"]


@pytest.mark.parametrize(("length", "n_stars"), [(15, 8), (30, 8), (30, 1)])
def test_trailed_stars_are_refused(length, n_stars):
    field = Field((35, 1), n_stars, (4.6, 5.5))
    for _ in range(3):
        field.expose(rms=0.03, sigma=2.0)
    wcs, error, _ = field.truth[1]
    shown = []
    for ra, dec, flux in field.stars:
        x, y = np.array(wcs.all_world2pix(ra, dec, 0), float) + error
        steps = np.linspace(-length / 2, length / 2, 2 * length + 1)
        shown += [(x + step, y, flux / steps.size) for step in steps]
    pixels = make.gaussians(SHAPE, shown, 2.0) + field.rng.normal(0, 10, SHAPE)
    field.frames[1][0].data = pixels.astype("f4")
    field.align()
    assert field.methods() == ["reference", "set aside", "sources"]
    assert "trailed" in field.reason(1)


def test_offsets_that_are_good_to_a_fifth_of_the_width_are_used_as_doubtful():
    field = Field(36, 12, (4.0, 5.5))
    # All stars in the right half (East is left), which the fourth frame does not show.
    step = make.SCALE / 3600 / np.cos(np.deg2rad(make.DEC))
    field.stars = [(make.RA - abs(ra - make.RA) - 15 * step, dec, flux) for ra, dec, flux in field.stars]
    for k, error in enumerate(((0, 0), (0.5, 0.3), (-0.4, 0.5), (0.2, 0.3), (0.4, -0.5))):
        field.expose(error=np.array(error, float), sigma=2.3, **({"POFFSET": 20.0} if k == 3 else {}))
    field.align()
    # The others' errors are 0.43 pixel per axis; 0.2 FWHM is 1.1.
    assert field.methods()[3] == "offsets"
    assert field.frames[3].phu["ALGNFLAG"] is True
    assert field.frames[3].phu["ALGNERR"] == pytest.approx(0.43, abs=0.05)


def test_a_star_that_only_one_frame_detects_is_looked_for_in_the_pixels_of_the_others():
    field = Field((3, 5), 1, (3.2, 3.2))
    for scale in (1.3, 0.85, 0.85, 0.85):
        field.expose(rms=0.01, sigma=1.8, scale=scale)
    field.align()
    assert [len(ad[0].OBJCAT) for ad in field.frames] == [1, 0, 0, 0]
    assert "set aside" not in field.methods()
    for k in range(1, 4):
        assert "source" in field.reason(k)


def test_a_star_that_is_not_where_the_offsets_put_it_is_no_confirmation():
    field = Field((3, 5), 1, (3.2, 3.2))
    field.expose(rms=0.01, sigma=1.8, scale=1.3)
    field.expose(rms=0.01, away=12.0, sigma=1.8, scale=0.85)
    field.align()
    assert field.methods() == ["reference", "set aside"]
