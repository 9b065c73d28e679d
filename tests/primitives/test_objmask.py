"""Object masks as the primitives handle them."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.astrodata import DQ
from niripipe.primitives import objmask

from .. import frames as make


@pytest.fixture
def frame():
    ad = make.electrons(make.frame())
    objects = np.zeros(make.SHAPE, np.uint8)
    objects[10, 20] = 1
    ad[0].OBJMASK = objects
    return ad


def test_growing_returns_a_new_mask_and_keeps_the_frames(frame):
    grown = objmask.dilated(frame, 1.0)
    assert grown.dtype == bool
    assert grown.sum() == 5
    assert frame[0].OBJMASK.sum() == 1


def test_growing_in_place(frame):
    assert objmask.dilate(frame, 1.0)
    assert frame[0].OBJMASK.sum() == 5
    assert frame[0].OBJMASK.dtype == np.uint8


def test_a_bit_is_set_where_there_is_an_object(frame):
    assert objmask.add_to_mask(frame, DQ.cosmic_ray)
    assert np.argwhere(frame[0].mask == 8).tolist() == [[10, 20]]


def test_a_frame_without_objects_says_so():
    bare = make.electrons(make.frame())
    assert objmask.dilated(bare, 2.0) is None
    assert not objmask.dilate(bare, 2.0)
    assert not objmask.add_to_mask(bare, DQ.bad_pixel)
    assert bare[0].mask is None
