"""Parameters: one rule resolves them, and every value knows where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest

from niripipe.errors import ParameterError
from niripipe.primitives.params import (
    CalibrationParams,
    Field,
    FrameOrPath,
    NameList,
    Origin,
    Params,
    Section,
    nearest,
    resolve,
)


class DemoParams(Params):
    suffix: str | None = Field("_demo", description="suffix")
    operation: Literal["mean", "median"] = Field("mean", description="how")
    nlow: int = Field(0, ge=0, description="low")
    hsigma: float = Field(3.0, ge=0, description="high")
    scale: bool = Field(False, description="scale")
    statsec: Section = Field(None, description="section")
    tags: NameList = Field(None, description="tags")
    bpm: FrameOrPath = Field(None, description="mask")
    copy_frames: bool = Field(False, alias="copy", description="copy")


class DemoCalibrationParams(CalibrationParams):
    caltype: ClassVar[str] = "processed_dark"
    calibration_field: ClassVar[str] = "dark"
    dark: FrameOrPath = Field(None, description="dark")


def _resolve(user=None, call=None, instrument=None, model=DemoParams):
    return resolve("demo", model, user=user or {}, call=call or {}, instrument=instrument or {})


def test_the_user_is_stronger_than_the_recipe_the_instrument_and_the_default():
    everything = {"instrument": {"nlow": 1, "hsigma": 4}, "call": {"nlow": 2, "scale": True}}
    resolved = _resolve(user={"demo:nlow": 3}, **everything)
    assert (resolved.params.nlow, resolved.origins["nlow"]) == (3, Origin.USER)
    assert (resolved.params.scale, resolved.origins["scale"]) == (True, Origin.RECIPE)
    assert (resolved.params.hsigma, resolved.origins["hsigma"]) == (4.0, Origin.INSTRUMENT)
    assert (resolved.params.operation, resolved.origins["operation"]) == ("mean", Origin.DEFAULT)


def test_a_named_value_beats_a_bare_one_and_other_primitives_values_are_ignored():
    resolved = _resolve(user={"demo:nlow": 5, "nlow": 4, "other:hsigma": 9, "unrelated": 1})
    assert resolved.params.nlow == 5
    assert resolved.params.hsigma == 3.0


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"nlow": "3"}, "nlow", 3),
        ({"hsigma": "2.5"}, "hsigma", 2.5),
        ({"scale": "True"}, "scale", True),
        ({"suffix": "None"}, "suffix", None),
        ({"tags": "DARK, FLAT"}, "tags", ("DARK", "FLAT")),
        ({"tags": ["DARK"]}, "tags", ("DARK",)),
        ({"statsec": "[1:100,20:30]"}, "statsec", "1:100,20:30"),
        ({"bpm": "x_bpm.fits"}, "bpm", Path("x_bpm.fits")),
        ({"copy": True}, "copy_frames", True),
    ],
)
def test_text_becomes_the_type_of_the_field(given, name, expected):
    assert getattr(_resolve(call=given).params, name) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"nlow": -1},
        {"nlow": 1.5},
        {"operation": "mode"},
        {"scale": "perhaps"},
        {"statsec": "1:2"},
        {"statsec": "9:3,1:2"},
        {"hsigma": "many"},
    ],
)
def test_a_value_outside_its_range_is_refused_with_name_value_and_source(given):
    with pytest.raises(ParameterError) as caught:
        _resolve(user={f"demo:{name}": value for name, value in given.items()})
    (name,) = given
    assert "demo" in str(caught.value)
    assert f"{name}={given[name]!r} from the user" in str(caught.value)


def test_several_refused_values_are_reported_together():
    with pytest.raises(ParameterError, match=r"nlow.*hsigma"):
        _resolve(call={"nlow": -1, "hsigma": -1})


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ParameterError, match=r"hsigmas.*Did you mean 'hsigma'"):
        _resolve(user={"demo:hsigmas": 1})
    with pytest.raises(ParameterError, match="opration"):
        _resolve(call={"opration": "mean"})


def test_do_dark_of_old_scripts_means_do_cal():
    assert _resolve(user={"demo:do_dark": False}, model=DemoCalibrationParams).params.do_cal == "skip"
    assert _resolve(user={"demo:do_dark": "True"}, model=DemoCalibrationParams).params.do_cal == "procmode"


def test_pseudo_parameters_are_switches_with_or_without_the_primitives_name():
    assert _resolve(user={"demo:skip_primitive": True}).skip_primitive
    assert _resolve(user={"skip_primitive": True, "write_outputs": True}).write_outputs
    assert not _resolve(user={"skip_primitive": True, "demo:skip_primitive": False}).skip_primitive
    assert not _resolve(user={"demo:skip_primitive": "False"}).skip_primitive
    with pytest.raises(ParameterError, match="skip_primitive"):
        _resolve(user={"demo:skip_primitive": "yes"})


def test_parameters_cannot_be_changed():
    params = _resolve().params
    with pytest.raises(Exception, match="frozen"):
        params.nlow = 3


def test_the_record_holds_what_json_can_and_the_names_that_users_write():
    record = _resolve(call={"bpm": "x.fits", "tags": "A,B", "copy": True}).params.as_record()
    assert record["bpm"] == "x.fits"
    assert record["tags"] == ["A", "B"]
    assert record["copy"] is True
    assert "copy_frames" not in record


def test_nearest_names_what_is_close_and_nothing_else():
    assert nearest("Dark", ["dark", "flat"]) == "Did you mean 'dark'?"
    assert nearest("zzz", ["dark", "flat"]) is None
