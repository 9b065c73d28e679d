"""Names of frames that users give."""

from __future__ import annotations

import pytest

from niripipe.errors import ParameterError
from niripipe.primitives.named import frames_named, is_named

from .. import frames as make


def named(*names):
    return [make.frame(filename=name) for name in names]


def test_whole_names_count_with_or_without_their_ending():
    frames = named("m51_1.fits", "m51_10.fits", "m51_11.fits")
    for name in ("m51_1.fits", "m51_1", "m51_1.fits.gz", "m51_1.FITS"):
        assert [frame.filename for frame in frames_named(frames, [name], "x")] == ["m51_1.fits"]
    assert not is_named(frames[0], "m51")
    assert not is_named(frames[0], "51_1.fits")


def test_a_frame_keeps_its_names_through_the_reduction():
    (frame,) = named("m51_1.fits")
    frame.update_filename(suffix="_flatCorrected", strip=True)
    assert is_named(frame, "m51_1.fits")
    assert is_named(frame, "m51_1_flatCorrected.fits")


def test_a_path_is_of_one_folder(tmp_path):
    from niripipe import astrodata

    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "obj.fits")
        named("obj.fits")[0].write(paths[-1])
    first, second = (astrodata.open(path) for path in paths)
    assert frames_named([first, second], [str(paths[1])], "x") == [second]
    assert frames_named([first, second], ["obj.fits"], "x") == [first, second]


def test_a_name_of_no_frame_is_an_error_that_lists_the_names():
    with pytest.raises(ParameterError, match=r"m51_2.*m51_1\.fits") as caught:
        frames_named(named("m51_1.fits"), ["m51_2"], "separateSky:ref_sky")
    assert caught.value.item == "separateSky:ref_sky"
