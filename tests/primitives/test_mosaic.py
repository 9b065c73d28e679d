"""Mosaics, rotations and random fields: where frames end up, against positions that only the test knows."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from astropy.wcs import WCS

from .. import frames as make
from ..alignment_fields import align_random_field, draw_stars

SIZE = 200


def tiles(pointings, seed, *, error=0.3, density=40, turn=None):
    """Frames at offsets (arcsec), their pointing wrong by `error` (arcsec rms); offsets; errors in pixels."""
    rng = np.random.default_rng(seed)
    pointings = np.array(pointings, float)
    low, high = pointings.min(axis=0) - 14, pointings.max(axis=0) + 14
    number = int(density * np.prod((high - low) / (SIZE * make.SCALE)))
    east, north = rng.uniform(low, high, (number, 2)).T / 3600
    ra, dec = make.RA + east / np.cos(np.deg2rad(make.DEC)), make.DEC + north
    flux = 10 ** rng.uniform(3.7, 5.0, number)
    frames, errors = [], rng.normal(0, error / make.SCALE, (len(pointings), 2))
    errors[0] = 0
    middle = (SIZE - 1) / 2
    for k, (p, q) in enumerate(pointings):
        cards = {"POFFSET": float(p), "QOFFSET": float(q)}
        wcs = WCS(make.hdus(0.0, shape=(SIZE, SIZE), **cards)[1].header)
        x, y = np.array(wcs.all_world2pix(ra, dec, 0)) - middle
        angle = np.deg2rad(0.0 if turn is None else turn[k])
        x, y = np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y
        x, y = x + middle + errors[k, 0], y + middle + errors[k, 1]
        pixels = draw_stars(SIZE, x, y, flux, 1.8) + rng.normal(0, 5, (SIZE, SIZE)).astype(np.float32)
        raw = make.frame(pixels, number=k + 1, shape=(SIZE, SIZE), **cards)
        frames.append(make.electrons(raw, 25.0, 0))
    return frames, pointings, errors


def aligned(frames, **given):
    bench = make.bench(frames, droppable=True)
    bench.p.detectSources()
    bench.p.adjustWCSToReference(**given)
    return bench


def wrong(frames, pointings, errors):
    """How far the centre of each frame is from the truth, pixels, relative to the first (not turned)."""
    off = []
    for frame, (p, q), error in zip(frames, pointings, errors, strict=True):
        wcs = WCS(make.hdus(0.0, shape=(SIZE, SIZE), POFFSET=float(p), QOFFSET=float(q))[1].header)
        middle = (SIZE - 1) / 2
        sky = wcs.all_pix2world(middle, middle, 0)
        there = np.array(frame[0].wcs.all_world2pix(*sky, 0), float)
        off.append(there - middle - error)
    return np.hypot(*(np.array(off) - off[0]).T)


def dithered(corners):
    return [(x + dx, y + dy) for x, y in corners for dx, dy in ((0, 0), (1.1, -0.8), (-0.9, 1.3))]


@pytest.mark.parametrize(
    "corners",
    [
        [(15.6 * k, 0) for k in range(4)],
        [(0, 0), (16, 0), (16, 16), (0, 16)],
        [(0, -15.6 * k) for k in range(10)],
    ],
    ids=["strip of 4", "2 x 2", "strip of 10"],
)
def test_tiles_are_tied_through_their_neighbours(corners):
    frames, pointings, errors = tiles(dithered(corners), 3)
    bench = aligned(frames)
    assert len(bench.main) == len(frames), bench.report.dropped
    # Relative to the frame next in the list, on which sharpness depends, and to the first.
    off = wrong(frames, pointings, errors)
    assert off.max() < 0.1
    tied = [frame.phu["ALGNTIES"] for frame in frames]
    assert sorted(tied)[1] >= 2  # All but the reference.
    last = frames[-1].phu
    assert not last["ALGNFLAG"]
    assert 0 < last["ALGNRES"] < 0.1
    assert off[-1] < 4 * last["ALGNERR"] < 0.3


def test_the_grid_holds_the_whole_mosaic_and_the_table_its_residuals():
    frames, _, _ = tiles(dithered([(15.6 * k, 0) for k in range(4)]), 8)
    # Levels climb along the strip: levels of neighbours alone do not do.
    for k, frame in enumerate(frames):
        frame[0].data += np.float32(30 * (k // 3) + 5 * (k % 3))
    bench = aligned(frames)
    bench.p.resampleToCommonFrame()
    ny, nx = bench.main[0][0].shape
    assert nx >= SIZE + 3 * 15.6 / make.SCALE - 2
    assert ny < SIZE + 40
    bench.p.stackFrames(level=True)
    stack = bench.main[0]
    table = stack.ALIGNMENT
    assert len(table) == len(frames)
    residuals = np.array(table["RESIDUAL"], float)
    assert np.nanmax(residuals) < 0.1
    assert np.isfinite(residuals).sum() == len(frames) - 1  # All but the reference.
    covered = stack[0].mask & 16 == 0
    assert covered.mean() > 0.8
    # The level of the sky is the same in all tiles.
    thirds = [
        np.median(part[kept])
        for part, kept in zip(
            np.array_split(stack[0].data, 3, axis=1), np.array_split(covered, 3, axis=1), strict=True
        )
    ]
    assert np.ptp(thirds) < 1.0


def test_frames_that_share_the_reference_keep_their_direct_result():
    frames, _, _ = tiles([(0, 0), (2, 1), (-2, 2), (1, -2)], 4)
    aligned(frames)
    assert [frame.phu["ALGNTIES"] for frame in frames] == [0, 1, 1, 1]
    assert "ALGNRES" not in frames[1].phu


def test_an_empty_tile_is_kept_as_doubtful_and_an_empty_frame_of_the_same_field_is_not():
    corners = dithered([(0, 0), (15.6, 0), (31.2, 0)])
    frames, _, _ = tiles(corners, 5, error=0.5)
    for frame in frames[6:]:
        frame[0].data = np.random.default_rng(1).normal(0, 5, (SIZE, SIZE)).astype(np.float32)
    bench = aligned(frames)
    kept = {ad.orig_filename for ad in bench.main}
    assert {frame.orig_filename for frame in frames[6:]} <= kept
    assert all(frame.phu["ALGNFLAG"] and frame.phu["ALGNMETH"] == "offsets" for frame in frames[6:])
    frames, _, _ = tiles(corners[:4], 5, error=0.5)
    frames[1][0].data = np.random.default_rng(1).normal(0, 5, (SIZE, SIZE)).astype(np.float32)
    bench = aligned(frames)
    assert [d.name for d in bench.report.dropped] == [frames[1].orig_filename]


def test_a_field_that_turns_is_followed_without_being_asked():
    turn = [0.0, 0.2, 0.4, -0.5]
    frames, _, _ = tiles([(0, 0), (2, 1), (-2, 2), (1, -2)], 6, turn=turn)
    bench = aligned(frames)
    assert len(bench.main) == 4
    for frame, angle in zip(frames, turn, strict=True):
        assert frame.phu["ALGNROT"] == pytest.approx(angle, abs=0.02)
    frames, _, _ = tiles([(0, 0), (2, 1), (-2, 2), (1, -2)], 6)
    aligned(frames)
    assert all(frame.phu["ALGNROT"] == 0 for frame in frames)


def test_a_stack_is_where_its_own_wcs_says_it_is():
    frames, _, _ = tiles([(0, 0), (3, 1)], 7, density=0, error=0)
    for frame in frames:
        frame.phu["NCOMBINE"] = 5
    frames[1].phu["POFFSET"] = 9.0
    before = frames[1][0].wcs.all_pix2world(10, 20, 0)
    aligned(frames)
    assert frames[1].phu["ALGNMETH"] == "header WCS"
    np.testing.assert_allclose(frames[1][0].wcs.all_pix2world(10, 20, 0), before, atol=1e-9)


def test_of_random_fields_no_frame_is_put_at_a_wrong_place(caplog):
    caplog.set_level(logging.CRITICAL)
    found = [o for seed in range(700, 712) for o in align_random_field(seed, size=200, number=3)]
    assert not [o for o in found if o.failed]
    good = [o for o in found if o.good]
    assert good
    assert not [o.reason for o in good if o.lost]


@pytest.mark.parametrize("seed", [16, 544, 2249])
def test_a_few_stars_in_turned_frames_are_doubted_where_others_do_not_agree(seed, caplog):
    """One star agrees there, and another one is off, or is cut; or the images say else than two."""
    caplog.set_level(logging.CRITICAL)
    found = align_random_field(seed)
    off = [o for o in found if o.kept and o.wrong > o.limit]
    assert off
    assert all(o.flagged for o in off)


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(3096, id="no star of a crowded field is bright against its neighbours"),
        pytest.param(3289, id="turned frames in a chain whose ends share no star"),
    ],
)
def test_crowded_fields_are_aligned_or_doubted(seed, caplog):
    found = align_random_field(seed)
    assert not [o for o in found if o.failed or o.lost]


def test_seven_stars_show_a_rotation_that_hides_the_shift(caplog):
    caplog.set_level(logging.CRITICAL)
    found = align_random_field(20000, size=1024)
    assert [o.kept for o in found[1:]] == [True, True]
    assert not [o for o in found if o.failed]


def test_a_star_at_the_edge_far_from_two_that_disagree_does_not_confirm_the_offsets(caplog):
    caplog.set_level(logging.CRITICAL)
    last = align_random_field(6024, size=1024)[-1]
    assert last.method == "offsets"
    assert last.kept
    assert last.flagged
