"""The Fourier clean-up of the readout pattern, as a primitive."""

from __future__ import annotations

import numpy as np
import pytest

from .. import frames as make

SHAPE = (256, 256)


def patterned(amplitude):
    """A frame whose 8-column pattern drifts in phase from row to row."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pattern = amplitude * np.sin(2 * np.pi * (x / 8 + y / 40))
    noise = make.noise(3, 10.0, 0.0, SHAPE)
    return make.electrons(make.frame(noise + pattern, shape=SHAPE), 100.0, 0), noise, pattern


def test_nothing_is_cleaned_unless_asked():
    ad, _, _ = patterned(40.0)
    before = ad[0].data.copy()
    make.bench([ad]).p.cleanFFTReadout()
    assert np.array_equal(ad[0].data, before)
    assert (ad.history[-1].status, ad.history[-1].reason) == ("SKIPPED", "clean is skip")
    assert "CLNFFTRD" not in ad.phu


@pytest.mark.parametrize("clean", ["default", "force"])
def test_a_pattern_of_drifting_phase_falls_by_more_than_five_times(clean):
    ad, noise, pattern = patterned(40.0)
    make.bench([ad]).p.cleanFFTReadout(clean=clean)
    left = ad[0].data - noise
    # The noise at the pattern's frequencies goes with it; the rest is what was left of the pattern.
    kept = float((left * pattern).sum() / (pattern**2).sum())
    assert abs(kept) < 0.1
    assert np.std(left) < np.std(pattern) / 5
    assert (ad[0].variance == 100).all()
    assert not ad[0].mask.any()
    assert "CLNFFTRD" in ad.phu
    assert ad.filename.endswith("_readoutFFTCleaned.fits")


def test_a_clean_frame_is_left_alone_and_not_stamped():
    ad, noise, _ = patterned(0.0)
    make.bench([ad]).p.cleanFFTReadout(clean="default")
    assert np.array_equal(ad[0].data, noise)
    assert ad.history[-1].status == "NOT_NEEDED"
    assert "CLNFFTRD" not in ad.phu
