"""The book of calibrations of one reduction: where each comes from, opened once, cut to size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from niripipe import astrodata
from niripipe.cal_service import CalReturn
from niripipe.errors import CalibrationError, DataError, InputError
from niripipe.primitives.calibrations import CalibrationBook, FoundCalibration, clipped

from .. import frames as make


class Service:
    """A service that knows one dark and counts its questions."""

    def __init__(self, path):
        self.path, self.asked = path, []

    def get_calibrations(self, frames, caltype, procmode=None):
        self.asked.append((frames[0].filename, caltype, procmode))
        return CalReturn([self.path], ["my store"], [[]])


@pytest.fixture
def dark(tmp_path: Path) -> Path:
    return make.write(tmp_path / "x_dark.fits", 3.0, kind="dark")


def test_a_parameter_wins_over_the_user_and_the_user_over_the_service(dark, tmp_path):
    other = make.write(tmp_path / "y_dark.fits", 4.0, kind="dark")
    service = Service(str(other))
    frame = make.frame()
    memory = make.frame(kind="dark")
    book = CalibrationBook(service, {"processed_dark": dark})
    assert book.find(frame, "processed_dark", memory).frame is memory
    assert book.find(frame, "processed_dark", memory).origin == "parameter"
    assert (book.find(frame, "processed_dark").name, book.find(frame, "processed_dark").origin) == (
        "x_dark.fits",
        "user",
    )
    assert service.asked == []
    found = CalibrationBook(service, mode="ql").find(frame, "processed_dark")
    assert (found.name, found.origin) == ("y_dark.fits", "my store")
    assert service.asked == [(make.name(1), "processed_dark", "ql")]


def test_without_service_and_calibrations_there_is_none():
    book = CalibrationBook()
    assert book.find(make.frame(), "processed_dark") is None
    error = book.missing(make.frame(), "processed_dark")
    assert isinstance(error, CalibrationError)
    assert error.file == make.name(1)


def test_every_file_is_opened_once_and_every_question_asked_once(dark):
    service = Service(str(dark))
    book = CalibrationBook(service)
    frame, other = make.frame(), make.frame(number=2)
    first = book.find(frame, "processed_dark")
    assert book.find(frame, "processed_dark") is first
    assert book.find(other, "processed_dark").frame is first.frame
    assert book.opened(dark) is first.frame
    assert len(service.asked) == 2


def test_a_calibration_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(InputError, match="absent"):
        CalibrationBook().find(make.frame(), "processed_dark", tmp_path / "absent_dark.fits")


def test_what_was_used_is_remembered_by_the_original_name(dark):
    book = CalibrationBook()
    frame = make.frame()
    frame.filename = "renamed.fits"
    book.remember(frame, FoundCalibration(astrodata.open(dark), "processed_dark", "user"), "darkCorrect")
    assert book.used == {(make.name(1), "processed_dark"): "x_dark.fits"}


def test_a_calibration_of_the_same_size_is_not_copied():
    calibration = make.frame()
    assert clipped(make.frame(), calibration) is calibration


def test_a_larger_calibration_is_cut_to_the_same_pixels_of_the_detector():
    pixels = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    calibration = make.frame(pixels, kind="dark")
    cut = clipped(make.frame(shape=(32, 32)), calibration)
    np.testing.assert_array_equal(cut[0].data, pixels[16:48, 16:48])
    assert calibration[0].shape == (64, 64)


def test_a_smaller_calibration_is_refused():
    with pytest.raises(DataError, match="full-frame"):
        clipped(make.frame(), make.frame(shape=(32, 32)))
