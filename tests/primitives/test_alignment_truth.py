"""Alignment that cannot fail silently: whatever the field shows, no shift is accepted that is wrong."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from astropy.wcs import WCS

from .. import frames as make

SHAPE = (300, 300)
TRUSTED = ("reference", "sources", "correlation")


class Field:
    """Frames of one field, with errors of the pointing that only the test knows."""

    def __init__(self, seed, n_stars, fluxes=(3.0, 5.5)):
        self.rng = np.random.default_rng(seed)
        self.stars = self.sky(n_stars, fluxes)
        self.frames, self.truth = [], []

    def sky(self, n_stars, fluxes=(3.0, 5.5)):
        x, y = self.rng.uniform(-0.42, 0.42, (2, n_stars)) * SHAPE[0] * make.SCALE / 3600
        flux = 10 ** self.rng.uniform(*fluxes, n_stars)
        return list(zip(make.RA + x / np.cos(np.deg2rad(make.DEC)), make.DEC + y, flux, strict=True))

    def expose(self, *, error=None, rms=0.07, away=0.0, stars=None, sigma=None, scale=1.0, **cards):
        """Add a frame whose stars are `error` pixels beside where its header puts them."""
        number = len(self.frames) + 1
        p, q = (0.0, 0.0) if number == 1 else self.rng.uniform(-4, 4, 2)
        cards = {"POFFSET": float(p), "QOFFSET": float(q)} | cards
        wcs = WCS(make.hdus(0.0, shape=SHAPE, **cards)[1].header)
        angle = self.rng.uniform(0, 2 * np.pi)
        if error is None:
            error = self.rng.normal(0, rms / make.SCALE, 2)
        error = error + away / make.SCALE * np.array([np.cos(angle), np.sin(angle)])
        shown = [
            (*np.array(wcs.all_world2pix(ra, dec, 0), float) + error, flux * scale)
            for ra, dec, flux in (self.stars if stars is None else stars)
        ]
        pixels = make.gaussians(SHAPE, shown, self.rng.uniform(1.8, 2.4) if sigma is None else sigma)
        pixels += self.rng.normal(0, 10, SHAPE) + 2 * np.sin(np.arange(SHAPE[1]) * np.pi / 4)
        ad = make.electrons(make.frame(pixels, number=number, shape=SHAPE, **cards), 100.0, 0)
        self.frames.append(ad)
        self.truth.append((wcs, error, stars is None))
        return ad

    def align(self, detect=True, **given):
        self.bench = make.bench(self.frames, droppable=True)
        if detect:
            self.bench.p.detectSources()
        self.bench.p.adjustWCSToReference(**given)
        return self.bench

    def methods(self):
        return [ad.phu["ALGNMETH"] for ad in self.frames]

    def place(self, index):
        """Where the middle of the field truly is in a frame."""
        wcs, error, _ = self.truth[index]
        return np.array(wcs.all_world2pix(make.RA, make.DEC, 0), float) + error

    def wrong(self, index, to):
        """How far the shift of a frame relative to another is wrong, pixels."""
        sky = self.frames[to][0].wcs.all_pix2world(*self.place(to), 0)
        return np.hypot(*(np.array(self.frames[index][0].wcs.all_world2pix(*sky, 0)) - self.place(index)))

    def reason(self, index):
        name = self.frames[index].orig_filename
        step = self.bench.report.step("adjustWCSToReference")
        dropped = [d.reason for d in self.bench.report.dropped if d.name == name]
        return dropped[0] if dropped else step.outcomes[name].reason

    def reference(self):
        name = self.frames[0].phu["ALGNREF"]
        return next(k for k, ad in enumerate(self.frames) if ad.orig_filename == name)


# ---- many fields


@pytest.mark.parametrize("n_stars", [0, 1, 2, 3, 5, 20])
@pytest.mark.parametrize("fault", ["none", "8 arcsec", "30 arcsec", "foreign"])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_shift_is_accepted_that_is_wrong_by_a_fifth_of_a_pixel(seed, fault, n_stars):
    field = Field((seed, n_stars), n_stars)
    odd = seed % 4
    for k in range(4):
        spoilt = k == odd
        away = {"8 arcsec": 8.0, "30 arcsec": 30.0}.get(fault, 0.0) if spoilt else 0.0
        foreign = field.sky(n_stars) if spoilt and fault == "foreign" else None
        field.expose(away=away, stars=foreign)
    field.align()
    to = field.reference()
    own = field.truth[to][2]
    for k, method in enumerate(field.methods()):
        if method in TRUSTED and k != to:
            assert field.truth[k][2] == own, "a foreign frame was matched"
            phu = field.frames[k].phu
            # A doubtful shift may be wrong by more, but says by how much.
            assert field.wrong(k, to) < (min(4 * phu["ALGNERR"], 0.5) if phu["ALGNFLAG"] else 0.2)
        if method == "offsets":
            # Nothing in these frames speaks for or against the telescope, and that is said.
            assert "unchecked" in field.reason(k) or "confirm" in field.reason(k)
            assert ("ALGNERR" in field.frames[k].phu) == ("unchecked" not in field.reason(k))
    kept = [ad.orig_filename for ad in field.bench.main]
    dropped = [d.name for d in field.bench.report.dropped]
    assert sorted(kept + dropped) == [ad.orig_filename for ad in field.frames]
    if n_stars >= 5 and fault == "none":
        assert not dropped
        assert set(field.methods()) <= set(TRUSTED)


# ---- one by one


def test_a_wrong_pointing_is_found_again_where_there_are_stars_enough():
    field = Field(3, 25, (4.0, 5.5))
    for away in (0.0, 0.0, 12.0):
        field.expose(away=away)
    field.align()
    assert field.methods() == ["reference", "sources", "sources"]
    assert field.wrong(2, 0) < 0.05
    field = Field(3, 25, (4.0, 5.5))
    for away in (0.0, 0.0, 12.0):
        field.expose(away=away)
    field.align(last_pass=None)
    assert field.methods()[2] == "set aside"


def test_a_first_frame_of_another_field_is_set_aside_and_the_others_are_aligned():
    field = Field(4, 12, (4.0, 5.5))
    field.expose(stars=field.sky(12, (4.0, 5.5)))
    for _ in range(3):
        field.expose()
    b = field.align()
    assert field.methods()[0] == "set aside"
    assert [ad.orig_filename for ad in b.main] == [make.name(k) for k in (2, 3, 4)]
    assert [d.name for d in b.report.dropped] == [make.name(1)]
    to = field.reference()
    assert all(field.wrong(k, to) < 0.05 for k in (1, 2, 3))


def test_a_poor_first_frame_is_not_the_reference_but_keeps_its_wcs():
    field = Field(5, 12, (4.0, 5.0))
    field.expose(sigma=4.5, scale=0.3)
    for _ in range(3):
        field.expose(sigma=1.9)
    crval, crpix = (field.frames[0][0].wcs.wcs.crval.copy(), field.frames[0][0].wcs.wcs.crpix.copy())
    field.align()
    assert field.reference() != 0
    assert field.methods()[0] == "sources"
    np.testing.assert_array_equal(field.frames[0][0].wcs.wcs.crval, crval)
    np.testing.assert_array_equal(field.frames[0][0].wcs.wcs.crpix, crpix)
    assert all(field.wrong(k, field.reference()) < 0.1 for k in range(4))
    assert field.bench.main[0] is field.frames[0]


@pytest.mark.parametrize(("choice", "first"), [("auto", True), ("first", True), ("best", False)])
def test_the_first_frame_is_the_reference_unless_another_is_much_better_or_asked_for(choice, first):
    field = Field(6, 12, (4.0, 5.0))
    field.expose(sigma=2.1)
    field.expose(sigma=1.8)
    field.align(reference=choice)
    assert (field.reference() == 0) == first
    assert field.wrong(1, 0) < 0.05
    assert field.frames[field.reference()].phu["ALGNMETH"] == "reference"


@pytest.mark.parametrize("detect", [True, False])
def test_without_a_catalogue_the_images_are_correlated(detect):
    field = Field(7, 30, (4.0, 5.0))
    for _ in range(3):
        field.expose()
    field.align(detect=detect, **({"method": "correlation"} if detect else {}))
    assert field.methods() == ["reference", "correlation", "correlation"]
    assert max(field.wrong(k, 0) for k in (1, 2)) < 0.15
    assert all(0 < ad.phu["ALGNERR"] < 0.06 for ad in field.frames[1:])


def test_without_a_fallback_neither_images_nor_offsets_are_used():
    field = Field(7, 30, (4.0, 5.0))
    for _ in range(2):
        field.expose()
    field.align(detect=False, fallback=None)
    assert field.methods() == ["reference", "set aside"]
    assert "could not be aligned" in field.reason(1)


def test_offsets_are_believed_as_far_as_the_other_frames_say():
    good = Field(8, 15, (4.0, 5.5))
    for k in range(5):
        good.expose(rms=0.005, stars=[] if k == 3 else None, scale=1.0)
    good.align()
    assert good.methods()[3] == "set aside"
    assert "bright sources" in good.reason(3)
    bad = Field(9, 15, (4.0, 5.5))
    for k in range(5):
        bad.expose(rms=0.1, stars=[] if k == 3 else None)
    bad.align()
    assert bad.methods()[3] == "set aside"
    assert "in the 3 frames aligned otherwise they are wrong by" in bad.reason(3)
    spread = float(bad.reason(3).split("wrong by ")[1].split()[0])
    errors = [np.subtract(bad.truth[k][1], bad.truth[0][1]) for k in (1, 2, 4)]
    assert spread == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=0.05)


@pytest.mark.parametrize(("rms", "method"), [(0.005, "offsets"), (0.1, "set aside")])
def test_a_frame_beside_the_stars_is_aligned_by_offsets_that_were_good_in_the_others(rms, method):
    field = Field(10, 12, (4.0, 5.5))
    # All stars in the right half (East is left), which the fourth frame does not show.
    step = make.SCALE / 3600 / np.cos(np.deg2rad(make.DEC))
    field.stars = [(make.RA - abs(ra - make.RA) - 15 * step, dec, flux) for ra, dec, flux in field.stars]
    for k in range(5):
        field.expose(rms=rms, **({"POFFSET": 20.0} if k == 3 else {}))
    field.align()
    assert field.methods()[3] == method
    if method == "offsets":
        assert "pixel in 3 other frames" in field.reason(3)
        assert 0 < field.frames[3].phu["ALGNERR"] < 0.15
        assert field.wrong(3, 0) < 0.2
    else:
        assert "wrong by" in field.reason(3)


def test_a_blank_field_is_aligned_by_offsets_with_a_warning(caplog):
    field = Field(11, 0)
    for _ in range(3):
        field.expose()
    with caplog.at_level(logging.WARNING, logger="niripipe"):
        field.align()
    assert caplog.text.count("aligned by telescope offsets, unchecked") == 2
    assert field.methods() == ["reference", "offsets", "offsets"]
    assert "unchecked" in field.reason(1)
    assert "ALGNERR" not in field.frames[1].phu


def test_each_frame_reports_method_pairs_and_scatter():
    field = Field(12, 20, (4.0, 5.5))
    for _ in range(3):
        field.expose()
    b = field.align()
    for ad in field.frames[1:]:
        assert ad.phu["ALGNREF"] == make.name(1)
        assert ad.phu["ALGNNUM"] >= 8
        assert 0 < ad.phu["ALGNRMS"] < 0.1
        assert 0 < ad.phu["ALGNERR"] < 0.05
        reason = b.report.step("adjustWCSToReference").outcomes[ad.orig_filename].reason
        assert reason.startswith("sources: ")
        assert f"{ad.phu['ALGNNUM']} pairs" in reason
        assert ad.history[-1].reason == reason
