"""Parameters that only DRAGONS has: what asks for the usual is accepted, the rest says what to write."""

from __future__ import annotations

import pytest

from niripipe import Reduce
from niripipe.errors import ParameterError
from niripipe.primitives import NIRI
from niripipe.primitives.params import resolve

from .. import frames as make

CASES = [
    ("skyCorrect", "sky", [None, "None"], "x_sky.fits", "associateSky:sky"),
    ("detectSources", "set_saturation", [True, False, "True"], 3, "Leave it out"),
    ("resampleToCommonFrame", "force_affine", [True, "True"], False, "target_wcs"),
    ("makeBPM", "override_thresh", [True], False, "limits"),
]


@pytest.mark.parametrize(("primitive", "name", "accepted", "refused", "instead"), CASES)
def test_the_usual_is_accepted_and_the_rest_refused(primitive, name, accepted, refused, instead):
    model = NIRI.primitives()[primitive].model

    def resolved(value, *, by_user):
        user = {f"{primitive}:{name}": value} if by_user else {}
        return resolve(primitive, model, user=user, call={} if by_user else {name: value}, instrument={})

    usual = resolve(primitive, model, user={}, call={}, instrument={})
    for by_user in (True, False):
        for value in accepted:
            assert resolved(value, by_user=by_user).params == usual.params
        with pytest.raises(ParameterError, match=instead):
            resolved(refused, by_user=by_user)
    assert name in model.all_names()


def test_a_plan_tells_it_before_anything_is_read(tmp_path):
    files = make.sequence(tmp_path, [10.0, 11.0, 12.0])
    settings = {"resampleToCommonFrame:force_affine": True, "detectSources:set_saturation": True}
    skip = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
    assert not Reduce(files, parameters=settings | skip, calibrations={}).plan().faults
    with pytest.raises(ParameterError, match="associateSky:sky"):
        Reduce(files, parameters={"skyCorrect:sky": "x"} | skip, calibrations={}).runr()


@pytest.mark.parametrize(
    "name",
    [
        "decker", "detector_rois_requested", "dispersion", "gain_setting", "lyot_stop", "mdf_row_id",
        "read_speed_setting", "slit",
    ],
)  # fmt: skip
def test_descriptors_of_other_instruments_have_an_answer(name):
    ad = make.frame()
    assert getattr(ad, name)() is None
    assert name in ad.descriptors
