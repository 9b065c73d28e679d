"""Raw files and files of other software are not replaced, however the recipe writes."""

import hashlib

import pytest
from astropy.io import fits

from niripipe import Reduce
from niripipe.errors import StorageError


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_outputs(p):
    p.writeOutputs()


def store(p):
    p.storeProcessedScience()


def write_bare(p):
    p.copyInputs(write_outputs=True)


@pytest.mark.parametrize("recipe", [write_outputs, store, write_bare])
def test_raw_files_are_never_replaced(raw, recipe):
    before = md5(raw)
    reduction = Reduce([raw], recipe=recipe, output_dir=raw.parent)
    with pytest.raises(StorageError, match="input of the reduction"):
        reduction.runr()
    assert md5(raw) == before


def test_a_link_to_a_raw_file_is_not_replaced(raw, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / raw.name).symlink_to(raw)
    with pytest.raises(StorageError, match="input of the reduction"):
        Reduce([raw], recipe=write_outputs, output_dir=folder).runr()
    assert (folder / raw.name).is_symlink()


def test_files_of_others_are_not_replaced(raw, tmp_path):
    other = tmp_path / f"{raw.stem}_mine.fits"
    fits.PrimaryHDU([[1]]).writeto(other)
    before = md5(other)
    reduction = Reduce(
        [raw], recipe=write_outputs, parameters={"writeOutputs:suffix": "_mine"}, output_dir=tmp_path
    )
    with pytest.raises(StorageError, match="niripipe did not make"):
        reduction.runr()
    assert md5(other) == before


def test_own_products_and_named_files_are_replaced(raw, tmp_path):
    for _ in range(2):
        Reduce(
            [raw], recipe=write_outputs, parameters={"writeOutputs:suffix": "_x"}, output_dir=tmp_path
        ).runr()
    other = tmp_path / "other.fits"
    fits.PrimaryHDU([[1]]).writeto(other)
    named = {"writeOutputs:outfilename": "other.fits"}
    Reduce([raw], recipe=write_outputs, parameters=named, output_dir=tmp_path).runr()
    assert fits.getval(other, "INSTRUME") == "NIRI"
