"""What a primitive is: its model is found by annotation, and its signature is what recipes may write."""

from __future__ import annotations

import inspect

import pytest

from niripipe.astrodata import AstroData
from niripipe.primitives.base import DONE, Outcome, Primitive, Status, not_needed, primitive, skipped
from niripipe.primitives.niri import NIRI
from niripipe.primitives.params import Field, Params

from .. import frames as make


class OddlyNamed(Params):
    amount: float = Field(2.0, description="amount")
    stream: str = Field("main", description="a parameter of the name of a stream argument")


class Demo(NIRI):
    @primitive(stamp="ONE")
    def one(self, frame: AstroData, params: OddlyNamed) -> Outcome | None:
        """Do one thing."""

    @primitive
    def many(self, frames: list[AstroData], params: OddlyNamed) -> list[AstroData]:
        return frames


def test_the_model_and_the_kind_are_found_by_the_annotations():
    one, many = Demo.primitives()["one"], Demo.primitives()["many"]
    assert one.model is many.model is OddlyNamed
    assert one.per_frame
    assert not many.per_frame
    assert (one.stamp, many.stamp) == ("ONE", None)
    assert one.__doc__ == "Do one thing."


def test_the_signature_lists_parameters_with_defaults_and_streams():
    signature = inspect.signature(make.bench([], primitives=Demo).p.one)
    assert signature.parameters["amount"].default == 2.0
    assert signature.parameters["amount"].kind is inspect.Parameter.KEYWORD_ONLY
    assert list(signature.parameters) == ["frames", "amount", "stream", "instream", "outstream"]
    signature = inspect.signature(make.bench([]).p.skyCorrect)
    assert {"scale_sky", "mask_objects", "stream", "instream", "outstream"} <= set(signature.parameters)


@pytest.mark.parametrize("name", NIRI.primitives())
def test_every_primitive_is_documented_typed_and_describes_its_parameters(name):
    found = NIRI.primitives()[name]
    assert isinstance(found, Primitive)
    assert found.name == found.__name__ == name
    assert found.__doc__
    assert issubclass(found.model, Params)
    for field, info in found.model.fields().items():
        assert info.description, f"{name}:{field} has no description"
    assert found.model()


def test_instrument_defaults_name_primitives_and_parameters_that_exist():
    for name, values in NIRI.instrument_defaults.items():
        assert set(values) <= set(NIRI.primitives()[name].model.fields())


def test_stamps_fit_a_fits_keyword_and_are_not_shared_by_different_work():
    stamps = {}
    for name, found in NIRI.primitives().items():
        if found.stamp is not None:
            assert len(found.stamp) <= 8
            assert found.stamp == found.stamp.upper()
            stamps.setdefault(found.stamp, set()).add(name)
    shared = {stamp: names for stamp, names in stamps.items() if len(names) > 1}
    assert set(shared) <= {"STACKFRM", "SUBSKY"}


def test_outcomes_say_what_was_done_and_why_not():
    assert DONE.status is Status.DONE
    assert skipped("why").reason == "why"
    assert not_needed("why").status == "NOT_NEEDED"


def test_a_primitive_shows_how_it_is_called():
    assert repr(make.bench([]).p.rejectInputs).startswith("<primitive rejectInputs(frames")
