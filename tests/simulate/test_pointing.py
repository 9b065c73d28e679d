from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st

from niripipe.simulate.pointing import Affine, TangentWcs, offset_pointing


def _astropy(wcs: TangentWcs) -> WCS:
    other = WCS(naxis=2)
    other.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    other.wcs.crpix, other.wcs.crval = wcs.crpix, wcs.crval
    other.wcs.cd = np.reshape(wcs.cd, (2, 2))
    return other


@given(
    ra=st.floats(0, 359.9),
    dec=st.floats(-85, 85),
    angle=st.floats(-180, 180),
    mirrored=st.booleans(),
    x=st.floats(-100, 1100),
    y=st.floats(-100, 1100),
)
def test_world_coordinates_are_those_of_the_fits_standard(
    ra: float, dec: float, angle: float, mirrored: bool, x: float, y: float
) -> None:
    ours = TangentWcs.oriented((545.2, 489.0), (ra, dec), 0.1171, angle, mirrored=mirrored)
    theirs = _astropy(ours)
    sky = ours.to_sky(x, y)
    expected = theirs.wcs_pix2world([[x, y]], 0)[0]
    assert abs((sky[0] - expected[0] + 180) % 360 - 180) < 1e-9
    assert sky[1] == pytest.approx(expected[1], abs=1e-10)
    back = ours.to_pixel(*sky)
    np.testing.assert_allclose(back, (x, y), atol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0.0, 90.0, 328.8])
def test_offsets_move_sources_along_the_axes_of_the_detector(mirrored: bool, angle: float) -> None:
    # +P moves the telescope to the position angle + 90 degrees: sources go to +x, on a mirrored image to -x.
    base = TangentWcs.oriented((512.5, 512.5), (150.0, 20.0), 0.1, angle, mirrored=mirrored)
    moved = TangentWcs(base.crpix, offset_pointing(base.crval, 3.0, -5.0, angle), base.cd)
    motion = Affine.between(base, moved, 1024)
    assert motion.dx == pytest.approx(-30 if mirrored else 30, abs=0.01)
    assert motion.dy == pytest.approx(50, abs=0.01)


def test_north_is_up_and_east_left_on_the_side_port() -> None:
    wcs = TangentWcs.oriented((100.0, 100.0), (10.0, 0.0), 0.1, 0.0, mirrored=False)
    east, north = wcs.to_sky(0.0, 199.0)
    assert east > 10.0
    assert north > 0.0


def test_motion_between_pointings_is_right_in_the_corners_at_high_declination() -> None:
    base = TangentWcs.oriented((545.2, 489.0), (148.9, 69.7), 0.1171, 20.0, mirrored=False)
    moved = TangentWcs(base.crpix, offset_pointing(base.crval, 10.0, 10.0, 20.0), base.cd)
    motion = Affine.between(base, moved, 1024)
    x, y = np.array([0.0, 1023.0, 0.0, 1023.0]), np.array([0.0, 0.0, 1023.0, 1023.0])
    exact = moved.to_pixel(*base.to_sky(x, y))
    np.testing.assert_allclose(motion.apply(x, y), exact, atol=1e-4)
    # A plain shift would not do.
    assert np.abs(exact[0] - x - motion.dx).max() > 0.05


@given(dx=st.floats(-50, 50), dy=st.floats(-50, 50), turn=st.floats(-0.01, 0.01))
def test_motions_can_be_inverted(dx: float, dy: float, turn: float) -> None:
    motion = Affine(dx, dy, turn, 511.5)
    x, y = np.array([0.0, 300.0, 1023.0]), np.array([5.0, 800.0, 1000.0])
    np.testing.assert_allclose(motion.invert(*motion.apply(x, y)), (x, y), atol=1e-9)
