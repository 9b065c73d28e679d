"""A reduced stack gets coordinates and a zero point from a catalogue, later and by itself."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from niripipe import astrodata
from niripipe.errors import InputError

from ..primitives.catalogue_server import Answers, serving, votable
from .test_image_qa import ZERO_POINT, truth_catalogue


@pytest.fixture
def stack(reduced):
    return reduced.science.output_filenames[0]


@pytest.fixture
def catalogue(reduced) -> Table:
    return truth_catalogue(reduced.night)


def test_a_stack_is_calibrated_with_a_file(reduced, stack, catalogue, tmp_path):
    catalogue.write(tmp_path / "stars.ecsv")
    run = reduced.reduce(
        [stack],
        "calibrated",
        recipe="calibrate",
        parameters={"addReferenceCatalog:source": str(tmp_path / "stars.ecsv")},
    )
    assert run.output_filenames[0].endswith("_calibrated.fits")
    product = astrodata.open(run.output_filenames[0])
    names = reduced.night.truth.names("target")[1:]
    clear = np.mean([reduced.night.truth.frames[name].transparency for name in names])
    assert product[0].hdr["MEANZP"] == pytest.approx(ZERO_POINT + 2.5 * np.log10(clear), abs=0.12)
    assert product[0].hdr["PHOTZP"] > product[0].hdr["MEANZP"]
    assert product.phu["MEANFWHM"] > 0.4
    before = astrodata.open(stack)
    assert np.array_equal(product[0].data, before[0].data)
    assert np.array_equal(product[0].variance, before[0].variance)


def test_by_default_2mass_is_asked_for(reduced, stack, catalogue):
    table = Table(
        {
            "RAJ2000": catalogue["RA"],
            "DEJ2000": catalogue["DEC"],
            "Hmag": catalogue["hmag"],
            "e_Hmag": catalogue["hmag_err"],
        }
    )
    with serving(Answers(votable(table))) as server:
        run = reduced.reduce(
            [stack],
            "calibrated_2mass",
            recipe="calibrate",
            parameters={"addReferenceCatalog:server": server.address},
        )
    assert server.queries[0]["-source"] == ["II/246/out"]
    assert run.outputs[0][0].hdr["ZPNUM"] >= 3


def test_a_server_that_fails_is_an_error_and_nothing_is_written(reduced, stack):
    with serving(Answers(b"down", 500)) as server, pytest.raises(InputError, match="500"):
        reduced.reduce(
            [stack],
            "not_calibrated",
            recipe="calibrate",
            parameters={"addReferenceCatalog:server": server.address},
        )
    assert not list((reduced.folder / "not_calibrated").glob("*.fits"))


# Tables read from files carry the checksums of those, which differ.
@pytest.mark.filterwarnings("ignore:Cannot merge meta key")
def test_reduced_frames_can_be_aligned_and_stacked(reduced):
    frames = reduced.reduce(
        [*reduced.night.target, *reduced.night.sky],
        "unstacked",
        recipe=until_alignment,
        parameters={"skyCorrect": {"scale_sky": False}},
    )
    assert len(frames.outputs) > 2
    run = reduced.reduce(frames.output_filenames, "stacked", recipe="alignAndStack")
    assert run.outputs[0].phu["NCOMBINE"] == len(frames.outputs)
    assert run.output_filenames[0].endswith("_stack.fits")
    expected = reduced.science.outputs[0][0].read("data")
    assert np.array_equal(run.outputs[0][0].data, expected)


def until_alignment(p):
    """The first part of reduce, as a recipe of the user's own."""
    from niripipe.recipes import image

    image._correct(p)
    image._subtract_sky(p)
    p.cleanReadout(clean="default")
    p.correctResidualSky()
