from __future__ import annotations

from typing import Any

import pytest

from niripipe import astrodata
from niripipe.errors import InputError


@pytest.mark.parametrize(
    ("current", "arguments", "expected"),
    [
        ("N1_a.fits", {"suffix": "_b"}, "N1_a_b.fits"),
        ("N1_a.fits", {"suffix": "_b", "strip": True}, "N1_b.fits"),
        ("qN1_a_c.fits", {"suffix": "_b", "strip": True}, "qN1_a_b.fits"),
        ("qN1_a_c.fits", {"prefix": "p", "suffix": "_b", "strip": True}, "pN1_a_b.fits"),
        ("foo_x.fits", {"suffix": "_b", "strip": True}, "foo_b.fits"),
        ("N1_a.fits", {"suffix": "", "strip": True}, "N1.fits"),
        ("N1.fits.bz2", {"suffix": "_b"}, "N1_b.fits"),
        ("N1_a.fits.gz", {"suffix": "_b", "strip": True}, "N1_b.fits"),
        ("N1.fits.fz", {"prefix": "p"}, "pN1.fits"),
    ],
)
def test_products_are_named_after_the_original(
    current: str, arguments: dict[str, Any], expected: str
) -> None:
    ad = astrodata.create({"ORIGNAME": "N1.fits"})
    ad.path = f"/folder/{current}"
    ad.update_filename(**arguments)
    assert ad.filename == expected
    assert ad.path == f"/folder/{expected}"
    assert ad.orig_filename == current


def test_the_name_comes_from_origname_when_there_is_no_other() -> None:
    ad = astrodata.create({"ORIGNAME": "N1.fits"})
    ad.update_filename(suffix="_x")
    assert ad.filename == "N1_x.fits"
    with pytest.raises(InputError, match="no file name"):
        astrodata.create({}).update_filename(suffix="_x")


def test_origname_is_recorded_when_it_is_missing() -> None:
    ad = astrodata.create({})
    ad.path = "N2.fits"
    ad.update_filename(suffix="_x")
    assert ad.phu["ORIGNAME"] == "N2.fits"
