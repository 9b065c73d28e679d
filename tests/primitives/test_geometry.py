"""How the pixels of two frames correspond, through both world coordinate systems."""

from __future__ import annotations

import numpy as np
import pytest

from niripipe.errors import DataError
from niripipe.primitives.geometry import pixel_mapping, require_wcs

from .. import frames as make


@pytest.mark.parametrize(("port", "sign"), [(3, 1), (1, -1)])
def test_a_step_on_the_sky_is_a_step_in_pixels(port, sign):
    first = make.frame(INPORT=port)
    east = make.frame(POFFSET=5 * make.SCALE, INPORT=port)
    north = make.frame(QOFFSET=7 * make.SCALE, INPORT=port)
    # East is left unless the image is mirrored; a field further East shows the same star further right.
    y, x = pixel_mapping(first, east)(np.array([31.5]), np.array([31.5]))
    assert (x[0], y[0]) == (pytest.approx(31.5 + sign * 5, abs=0.01), pytest.approx(31.5, abs=0.01))
    y, x = pixel_mapping(first, north)(np.array([31.5]), np.array([31.5]))
    assert (x[0], y[0]) == (pytest.approx(31.5, abs=0.01), pytest.approx(24.5, abs=0.01))


def test_a_frame_maps_onto_itself_and_back():
    a, b = make.frame(), make.frame(POFFSET=3.0, PA=0.0)
    mapping = pixel_mapping(a, b)
    y, x = np.array([3.0, 50.0]), np.array([60.0, 8.0])
    back = pixel_mapping(b, a)(*mapping(y, x))
    np.testing.assert_allclose(back, (y, x), atol=0.01)


def test_a_frame_without_wcs_is_refused_with_what_to_do():
    frame = make.frame(ext={"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"})
    with pytest.raises(DataError, match=r"S0001.*bad_wcs=fix"):
        require_wcs(frame)
    with pytest.raises(DataError):
        pixel_mapping(make.frame(), frame)
