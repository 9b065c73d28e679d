"""Products: marked for what they are, named after their first input, written once and complete."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.errors import DataError, StorageError

from .. import frames as make


def product(kind, **cards):
    return make.electrons(make.frame(5.0, kind=kind, **cards), variance=1.0, mask=0)


@pytest.mark.parametrize(
    ("primitive", "kind", "suffix", "label", "keyword", "tags"),
    [
        ("storeProcessedDark", "dark", "_dark", "-SQ-DARK", "PROCDARK", {"PROCESSED", "DARK", "CAL"}),
        ("storeProcessedFlat", "lamp_on", "_flat", "-SQ-FLAT", "PROCFLAT", {"PROCESSED", "FLAT", "CAL"}),
        ("storeProcessedScience", "science", "_image", "-SQ-IMAGE", "PROCSCI", {"PROCESSED", "IMAGE"}),
    ],
)
def test_a_product_is_named_labelled_stamped_and_tagged(
    tmp_path, primitive, kind, suffix, label, keyword, tags
):
    b = make.bench([product(kind)], folder=tmp_path)
    getattr(b.p, primitive)(suffix=suffix)
    (path,) = tmp_path.iterdir()
    assert path.name == f"N20160102S0001{suffix}.fits"
    written = astrodata.open(path)
    assert written.phu["DATALAB"] == f"GN-2016A-Q-1-5-001{label}"
    assert keyword in written.phu
    assert written.phu["PROCMODE"] == "sq"
    assert tags <= written.tags
    assert written.history[-1].primitive == primitive
    assert b.runner.written[id(b.main[0])][1] == path


@pytest.mark.parametrize(("before", "after"), [(None, "ql"), ("sq", "sq")])
def test_the_mode_is_marked_where_no_mode_is_known(tmp_path, before, after):
    frame = product("science")
    if before is None:
        del frame.phu["PROCMODE"]
    b = make.bench([frame], folder=tmp_path, mode="ql")
    b.p.storeProcessedScience(suffix="_image")
    assert astrodata.open(next(tmp_path.iterdir())).phu["PROCMODE"] == after


def test_a_bad_pixel_mask_is_stored_as_whole_numbers_and_tagged(tmp_path):
    ad = make.electrons(make.frame(0.0, kind="lamp_on", OBJECT="BPM", BPMASK="2016-01-03T00:00:00"))
    ad[0].reset(np.eye(64, dtype=np.int16), mask=None, variance=None)
    b = make.bench([ad], folder=tmp_path)
    b.p.storeBPM()
    with fits.open(tmp_path / "N20160102S0001_bpm.fits") as hdus:
        assert hdus[1].data.dtype.kind == "i"
        assert hdus[1].data.sum() == 64
    written = astrodata.open(tmp_path / "N20160102S0001_bpm.fits")
    assert {"BPM", "CAL", "PROCESSED"} <= written.tags
    assert written.phu["DATALAB"] == "GN-2016A-Q-1-5-001"


def test_the_planes_on_disk_are_what_dragons_and_astropy_expect(tmp_path):
    b = make.bench([product("science")], folder=tmp_path)
    b.p.storeProcessedScience(suffix="_image")
    with fits.open(tmp_path / "N20160102S0001_image.fits") as hdus:
        assert [h.name for h in hdus[1:4]] == ["SCI", "VAR", "DQ"]
        assert [h.ver for h in hdus[1:4]] == [1, 1, 1]
        assert [h.data.dtype.kind for h in hdus[1:4]] == ["f", "f", "u"]
        assert hdus["SCI"].data.dtype.itemsize == 4
        assert {"HISTORY", "PROVENANCE"} >= {h.name for h in hdus[4:]}
        assert hdus["SCI"].header["BUNIT"] == "electron"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("GN-2016A-Q-1-5-001", "GN-2016A-Q-1-5-001-QL-DARK"),
        ("GN-2016A-Q-1-5-001-SQ-DARK", "GN-2016A-Q-1-5-001-QL-DARK"),
        ("GN-2016A-Q-1-5-001-stack", "GN-2016A-Q-1-5-001-QL-DARK"),
    ],
)
def test_the_label_says_mode_and_kind_once(tmp_path, before, after):
    b = make.bench([product("dark", DATALAB=before)], folder=tmp_path, mode="ql")
    b.p.storeProcessedDark()
    assert b.main[0].phu["DATALAB"] == after
    assert b.main[0].filename == "N20160102S0001_ql_dark.fits"


def test_a_frame_without_a_label_gets_none(tmp_path):
    b = make.bench([product("dark", DATALAB=None)], folder=tmp_path)
    b.p.storeProcessedDark()
    assert "DATALAB" not in b.main[0].phu


@pytest.mark.parametrize("primitive", ["storeProcessedDark", "storeProcessedFlat", "storeBPM"])
def test_a_product_is_not_called_what_it_is_not(tmp_path, primitive):
    b = make.bench([product("science")], folder=tmp_path)
    with pytest.raises(DataError, match=r"not a .*N20160102S0001|N20160102S0001.*"):
        getattr(b.p, primitive)()
    assert list(tmp_path.iterdir()) == []
    assert not {"PROCDARK", "PROCFLAT", "PROCBPM"} & set(b.main[0].phu)


@pytest.mark.parametrize(
    ("primitive", "tag"), [("storeProcessedFlat", "FLAT"), ("storeProcessedDark", "DARK")]
)
def test_science_frames_can_be_made_a_calibration_by_force(tmp_path, primitive, tag):
    b = make.bench([product("science")], folder=tmp_path)
    getattr(b.p, primitive)(force=True)
    written = astrodata.open(next(tmp_path.iterdir()))
    assert {tag, "CAL", "PROCESSED"} <= written.tags
    assert written.phu["OBSID"] == "GN-CAL20160102-900"
    assert written.phu["DATALAB"].startswith("GN-CAL20160102-900-001")


def test_an_older_product_is_replaced_only_where_allowed(tmp_path):
    make.bench([product("dark")], folder=tmp_path).p.storeProcessedDark()
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    with pytest.raises(StorageError, match=path.name):
        make.bench([product("dark")], folder=tmp_path, overwrite=False).p.storeProcessedDark()
    assert path.read_bytes() == before
    make.bench([product("dark")], folder=tmp_path, overwrite=True).p.storeProcessedDark()
    assert len(list(tmp_path.iterdir())) == 1
