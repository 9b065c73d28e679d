"""Frames that hold nothing are left out by name, blocks of impossible values flagged; nothing spreads."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import time
from pathlib import Path

import numpy as np
import pytest

from niripipe import Reduce, astrodata
from niripipe.astrodata import DQ, FAIL, AstroData
from niripipe.errors import DataError, NiripipeError
from niripipe.simulate import Effects, raw_frame

NOISE = np.random.default_rng(8)


@pytest.fixture(scope="module")
def nod() -> list[AstroData]:
    """Target, sky, target, sky, target, sky."""
    random = np.random.default_rng(3)
    x, y = random.uniform(40, 216, (2, 12))
    stars = list(zip(x.tolist(), y.tolist(), np.geomspace(3000, 60000, 12).tolist(), strict=True))
    effects = Effects.none(photon_noise=True, read_noise=True)
    frames = []
    for number, (p, q) in enumerate([(0, 0), (0, 300), (3, 2), (3, 302), (-3, 3), (-3, 297)]):
        raw = raw_frame(
            kind="sky" if q > 100 else "target", number=270 + number, ut=time(11, 36 + number), p=p, q=q,
            size=256, stars=stars, effects=effects,
        )  # fmt: skip
        frame = astrodata.open(raw.hdulist())
        frame.path = raw.name
        frames.append(frame)
    return frames


def reduced(frames: list[AstroData], folder: Path, **parameters: object) -> Reduce:
    skip = {
        "darkCorrect:do_cal": "skip",
        "flatCorrect:do_cal": "skip",
        "removeFirstFrame:skip_primitive": True,
    }
    r = Reduce(frames, output_dir=folder, threads=1, parameters=skip | parameters)
    r.runr()
    return r


def spoilt(frames: list[AstroData], which: dict[int, object]) -> list[AstroData]:
    copies = [frame.copy() for frame in frames]
    for position, pixels in which.items():
        copies[position][0].data[:] = pixels
    return copies


EMPTY = {
    "NaN": (np.nan, "100% without a value"),
    "zero": (0.0, "constant (0)"),
    "constant": (1000.0, "constant"),
    "dark": (NOISE.normal(0, 3, (256, 256)), "shows no sky"),
    "negative": (NOISE.normal(-900, 30, (256, 256)), "shows no sky"),
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("position", [3, 2], ids=["sky", "target"])
def test_a_frame_that_holds_nothing_is_left_out_by_name(nod, tmp_path, kind, position):
    pixels, reason = EMPTY[kind]
    r = reduced(spoilt(nod, {position: pixels}), tmp_path)
    assert [frame.name for frame in r.report.dropped] == [nod[position].filename]
    assert reason in r.report.dropped[0].reason
    assert np.abs(np.median(r.outputs[0][0].data)) < 30


def test_the_others_are_reduced_as_if_the_empty_frame_had_not_been_given(nod, tmp_path):
    given = reduced(spoilt(nod, {3: np.nan}), tmp_path)
    others = reduced([*nod[:3], *nod[4:]], tmp_path / "others")
    assert np.array_equal(given.outputs[0][0].data, others.outputs[0][0].data, equal_nan=True)


def test_a_saturated_frame_is_left_out_and_the_one_that_it_glows_in(nod, tmp_path):
    r = reduced(spoilt(nod, {3: 30000.0}), tmp_path, **{"addDQ:latency": True})
    assert [frame.name for frame in r.report.dropped] == [nod[3].filename, nod[4].filename]
    assert "100% saturated" in r.report.dropped[0].reason
    assert "after saturation" in r.report.dropped[1].reason


@pytest.mark.parametrize("pixels", [np.nan, 0.0, 30000.0])
def test_a_sequence_of_nothing_is_refused_with_the_names(nod, tmp_path, pixels):
    with pytest.raises(DataError, match=r"N20160102S0270.*N20160102S0275"):
        reduced(spoilt(nod, dict.fromkeys(range(6), pixels)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sequence_without_noise_is_warned_of(nod, tmp_path, caplog):
    levels = {k: 1000.0 + k for k in range(6)}
    with caplog.at_level(logging.WARNING, "niripipe"), suppress(NiripipeError):
        reduced(spoilt(nod, levels), tmp_path)
    assert "the pixels of all frames are constant" in caplog.text


@pytest.mark.parametrize("value", [-1e6, 1e6, -1e30, np.inf, np.nan])
def test_impossible_values_are_flagged_and_do_not_spread(nod, tmp_path, value):
    frames = [nod[0].copy(), nod[1], nod[2], nod[3]]
    frames[0][0].data[100:110, 60:72] = value
    # Two targets, and nothing is rejected: what is not flagged shows.
    stack = reduced(frames, tmp_path, **{"stackFrames:reject_method": "none"}).outputs[0][0]
    good = (stack.mask & int(FAIL)) == 0
    assert np.abs(stack.data[good]).max() < 1e5
    assert stack.variance[good].max() < 1e6
    assert good.mean() > 0.8


def test_what_no_read_out_can_be_is_no_data():
    frame = raw_frame(size=256, effects=Effects.none())
    ad = astrodata.open(frame.hdulist())
    level = ad[0].saturation_level()
    ad[0].data[0, :4] = [-level * 1.01, -level * 0.99, np.nan, level]
    ad.path = frame.name
    r = Reduce([ad], recipe=lambda p: (p.prepare(), p.addDQ()))
    r.runr()
    assert r.outputs[0][0].mask[0, :4].tolist() == [DQ.no_data, 0, DQ.no_data, DQ.saturated]
