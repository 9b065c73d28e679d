"""Pixels that wait are the pixels that are computed at once: after sky subtraction, and on a common grid."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.algorithms.affine import Affine, Grid, part_of_grid
from niripipe.algorithms.resample import Resampling, resample
from niripipe.primitives.aligned import aligned, outlined

from .. import frames as make
from .test_sky_truth import CLOSE, SIZE, exposures, subtracted_frames

PIXELS = SIZE * SIZE


def reduced(frames, **parameters):
    b = subtracted_frames(frames, **parameters)
    inside = [frame.nbytes for frame in b.main]
    b.p.detectSources(catalogue="positions")
    b.p.adjustWCSToReference()
    b.p.resampleToCommonFrame(objmask=False)
    return b, inside


def test_frames_from_files_and_frames_in_memory_become_the_same(tmp_path):
    raws = exposures(CLOSE, galaxy=None)
    files = []
    for raw in raws:
        raw.hdulist().writeto(tmp_path / raw.name)
        files.append(astrodata.open(tmp_path / raw.name))
    waiting, inside = reduced(files)
    held = [astrodata.open(raw.hdulist()) for raw in raws]
    for raw, frame in zip(raws, held, strict=True):
        frame.path = raw.name
    known, _ = reduced(held)
    # A sky, the number of its inputs, and bits of an object mask: no data and no variance.
    assert max(inside) < 6 * PIXELS
    assert sum(frame.nbytes for frame in waiting.main) <= sum(inside) + PIXELS
    for one, other in zip(waiting.main, known.main, strict=True):
        assert one[0].shape == other[0].shape
        for name in ("mask", "variance", "data"):
            np.testing.assert_array_equal(one[0].rows(name)[1::3], other[0].rows(name)[1::3])
            np.testing.assert_array_equal(getattr(one[0], name), getattr(other[0], name))
        # Looked at, they are the frame's own.
        one[0].data[...] = 1
        assert (one[0].data == 1).all()


MAPPINGS = {"shift": Affine.shift(0.4, -1.3), "whole": Affine.shift(3.0, -2.0)}
MAPPINGS["turn"] = Affine(np.array([[0.99, 0.1], [-0.1, 0.99]]), np.array([0.3, 2.0]))


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("broken", ["", "data", "variance"])
@pytest.mark.parametrize("waits", [False, True])
def test_a_frame_on_a_grid_is_what_resampling_makes_of_it(name, broken, waits, tmp_path):
    rng = np.random.default_rng(1)
    to_frame, shape = MAPPINGS[name], (300, 41)
    frame = make.electrons(make.frame(rng.normal(100, 5, shape), shape=shape), 25.0, 0)
    frame[0].mask[rng.random(shape) < 0.03] = 1
    frame[0].OBJMASK = (rng.random(shape) < 0.1).astype(np.uint8)
    if broken:
        getattr(frame[0], broken)[200, 20] = np.nan
    grid = Grid((-20, -10), (340, 70))
    part = part_of_grid(grid, shape, to_frame)
    corner = (part.origin[0] - grid.origin[0], part.origin[1] - grid.origin[1])
    options = {"matrix": to_frame.matrix, "offset": to_frame.offset}
    if waits:
        frame.write(tmp_path / "frame.fits")
        frame = astrodata.open(tmp_path / "frame.fits")
    planes = [frame[0].read_once(key) for key in ("data", "variance", "mask", "OBJMASK")]
    expected = resample(*planes, **options, shape=grid.shape, origin=grid.origin)
    job = Resampling(shape, **options, shape=part.shape, origin=part.origin)
    assert job.by_rows == (name != "turn")
    outline = outlined(frame[0], job, grid, corner)
    outline = pickle.loads(pickle.dumps(outline))  # noqa: S301  # as it comes from another process
    found = aligned(frame[0], job, grid, corner, outline)
    assert frame[0].handle("data").is_loaded == (not waits)
    # What becomes of the frame afterwards does not matter.
    frame[0].data[...] = 0
    cut = (slice(corner[0], corner[0] + part.shape[0]), slice(corner[1], corner[1] + part.shape[1]))
    for rows in (slice(None), slice(5, 250, 7)):
        np.testing.assert_array_equal(found.mask(rows), expected.mask[rows])
    np.testing.assert_array_equal(outline.objects.rows(slice(None)), expected.objmask)
    if broken:
        assert (expected.mask & 16).sum() > (~np.isfinite(planes[0])).sum()
    for plane, whole in ((found.data, expected.data), (found.variance, expected.variance)):
        np.testing.assert_array_equal(plane.rows()[3:200:2], whole[cut][3:200:2])
        np.testing.assert_array_equal(plane.read(), whole[cut])
    assert found.variance.read().min() >= 0


def test_a_frame_without_variance_and_mask_stays_so():
    frame = make.frame(np.ones((30, 20)), shape=(30, 20))
    job = Resampling((30, 20), matrix=np.eye(2), offset=(0.5, 0.5), shape=(30, 20))
    grid = Grid((0, 0), (30, 20))
    outline = outlined(frame[0], job, grid, (0, 0))
    found = aligned(frame[0], job, grid, (0, 0), outline)
    assert (found.variance, outline.objects) == (None, None)
    assert set(np.unique(found.mask(slice(None)))) == {0, 16}
