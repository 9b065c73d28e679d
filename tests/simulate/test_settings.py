from __future__ import annotations

from datetime import date

import pytest

from niripipe.errors import ParameterError
from niripipe.simulate.settings import Effects, NightPlan, Setup, make_plan


def test_changes_reach_plan_and_setup() -> None:
    plan = make_plan({"n_target": 7, "size": 256, "port": 1}, NightPlan(n_sky=0))
    assert (plan.n_target, plan.n_sky, plan.setup.size, plan.setup.mirrored) == (7, 0, 256, True)


def test_a_misspelt_field_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ParameterError, match="n_target") as caught:
        make_plan({"n_targets": 3})
    assert caught.value.item == "n_targets"
    with pytest.raises(ParameterError, match="cosmic_rays"):
        Effects.none(cosmic_ray=1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 300},
        {"scene": "nebula"},
        {"n_dark": -1},
        {"n_dark": 2.5e3},
        {"coadds": 0},
        {"exposure": float("nan")},
        {"fwhm": 0.01},
        {"read_mode": "Fast"},
        {"well": "Bottomless"},
        {"camera": "f99"},
        {"filter": "H_G0203"},
        {"filter": ("open", "H_G0203")},
        {"pixel_type": "int16"},
        {"date": date(1999, 1, 1)},
        {"port": 2},
    ],
    ids=str,
)
def test_what_cannot_be_simulated_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ParameterError) as caught:
        make_plan(changes)
    assert caught.value.item == next(iter(changes))


def test_effects_have_no_negative_strength() -> None:
    with pytest.raises(ParameterError, match="cosmic_rays"):
        Effects(cosmic_rays=-1)


def test_numbers_of_the_instrument_come_from_its_table() -> None:
    setup = Setup(read_mode="Low Background", well="Deep", camera="f32", ao=True)
    assert (setup.reads, setup.read_noise, setup.full_well, setup.bias) == ((16, 16), 12.3, 280000, -0.87)
    assert setup.scale == 0.0214
    assert setup.linearity is None
    assert Setup().linearity is not None


def test_pixels_and_wheel_names_follow_the_epoch() -> None:
    assert Setup().pixels(date(2006, 12, 31)) == "int32"
    assert Setup().pixels(date(2007, 1, 1)) == "float32"
    assert Setup().wheels(date(2003, 3, 25))[2] == "pupil38_G5207"
    assert Setup(filter="Kprime").wheels(date(2012, 1, 1)) == ("Kprime_G0206", "open", "Pupil38_G5207")
