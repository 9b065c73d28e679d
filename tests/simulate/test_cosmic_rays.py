from __future__ import annotations

import numpy as np

from niripipe.simulate.cosmic_rays import cosmic_ray_hits


def test_every_pixel_is_listed_once_and_lies_on_the_array() -> None:
    hits = cosmic_ray_hits(5.0, 200.0, 256, np.random.default_rng(1))
    pixels = hits[:, 0] * 256 + hits[:, 1]
    assert len(np.unique(pixels)) == len(pixels) > 100
    assert ((hits[:, :2] >= 0) & (hits[:, :2] < 256)).all()
    assert (hits[:, 2] >= 20).all()


def test_charge_grows_with_rate_time_and_area() -> None:
    def charge(rate: float, seconds: float, size: int) -> float:
        return sum(
            cosmic_ray_hits(rate, seconds, size, np.random.default_rng(s))[:, 2].sum() for s in range(20)
        )

    reference = charge(10.0, 100.0, 512)
    assert 1.8 < charge(20.0, 100.0, 512) / reference < 2.2
    assert 1.8 < charge(10.0, 200.0, 512) / reference < 2.2
    assert 3.5 < charge(10.0, 100.0, 1024) / reference < 4.5


def test_tracks_cross_several_pixels() -> None:
    hits = cosmic_ray_hits(2.5, 20.0, 1024, np.random.default_rng(4))
    tracks = np.random.default_rng(4).poisson(50)
    assert 2 * tracks < len(hits) < 8 * tracks


def test_without_a_rate_nothing_is_hit() -> None:
    assert cosmic_ray_hits(0.0, 100.0, 1024, np.random.default_rng(1)).shape == (0, 3)
