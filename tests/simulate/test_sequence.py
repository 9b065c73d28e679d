from __future__ import annotations

from datetime import date
from itertools import pairwise

import pytest

from niripipe.errors import ParameterError
from niripipe.simulate.sequence import plan_exposures
from niripipe.simulate.settings import make_plan


def test_default_night_has_the_names_of_the_tutorial() -> None:
    frames = plan_exposures(make_plan({}))
    numbers: dict[str, list[int]] = {}
    for frame in frames:
        day = "N20160103S" if frame.kind == "short_dark" else "N20160102S"
        assert frame.name.startswith(day)
        numbers.setdefault(frame.kind, []).append(int(frame.name[10:14]))
    assert numbers == {
        "target": list(range(270, 275)),
        "sky": list(range(275, 280)),
        "std": list(range(295, 300)),
        "flat_off": list(range(363, 373)),
        "flat_on": list(range(373, 383)),
        "dark": list(range(423, 433)),
        "short_dark": list(range(463, 473)),
    }
    assert {(f.exposure, f.coadds) for f in frames} == {(20.002, 1), (2.001, 5), (42.001, 1), (1.001, 1)}


@pytest.mark.parametrize(
    "changes", [{"n_target": 40, "n_sky": 40}, {"n_flat": 60, "n_standard": 100}, {"n_sky": 0}]
)
def test_longer_sequences_keep_names_and_times_apart(changes: dict[str, int]) -> None:
    frames = plan_exposures(make_plan(changes))
    assert len({frame.name for frame in frames}) == len(frames)
    for kind in {frame.kind for frame in frames}:
        own = [frame for frame in frames if frame.kind == kind]
        assert len(own) == changes.get(f"n_{kind}", len(own))
    on_sky = sorted((f for f in frames if f.kind in ("target", "sky")), key=lambda f: f.name)
    for before, after in pairwise(on_sky):
        assert (after.start - before.start).total_seconds() > before.seconds


def test_no_two_target_frames_have_the_same_offset() -> None:
    frames = [f for f in plan_exposures(make_plan({"n_target": 60, "n_sky": 0})) if f.kind == "target"]
    assert len({(f.p, f.q) for f in frames}) == 60
    assert max(abs(f.p) for f in frames) == 3.0
    assert (frames[0].p, frames[0].q) == (0.0, 0.0)


def test_target_and_sky_alternate_in_blocks() -> None:
    frames = [
        f for f in plan_exposures(make_plan({"n_target": 10, "n_sky": 10})) if f.kind in ("target", "sky")
    ]
    assert [f.kind for f in frames] == (["target"] * 5 + ["sky"] * 5) * 2
    assert all(f.q > 290 for f in frames if f.kind == "sky")


def test_short_darks_are_taken_the_next_day() -> None:
    frames = plan_exposures(make_plan({"date": date(2010, 12, 31)}))
    assert {f.start.date() for f in frames if f.kind == "short_dark"} == {date(2011, 1, 1)}


def test_a_night_without_frames_is_refused() -> None:
    nothing = dict.fromkeys(("n_target", "n_sky", "n_standard", "n_flat", "n_dark", "n_short_dark"), 0)
    with pytest.raises(ParameterError, match="no frames"):
        plan_exposures(make_plan(nothing))
