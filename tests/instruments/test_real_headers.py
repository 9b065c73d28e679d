"""The headers of real frames, faults included, beside the golden values known for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from niripipe import astrodata
from niripipe.astrodata.wcs import terms_of
from niripipe.instruments import AstroDataNiri, pointing

from .test_niri import GOLDEN, Golden

NAMES = [
    "N20030325S0098", "N20030912S0301", "N20070818S0031", "N20090918S0386", "N20120118S0441",
    "N20141203S0891",
    "N20150404S0872", "N20150405S0028", "N20151129S0307", "N20170302S0331",
]  # fmt: skip


def real(shared: Path, name: str) -> AstroDataNiri:
    primary, extension = (
        fits.Header.fromtextfile(shared / "headers" / f"{name}.hdu{number}.hdr") for number in (0, 1)
    )
    kind = np.int32 if extension["BITPIX"] == 32 else np.float32
    pixels = np.zeros((extension["NAXIS2"], extension["NAXIS1"]), kind)
    ad = astrodata.create(primary, [fits.ImageHDU(pixels, extension)])
    assert isinstance(ad, AstroDataNiri)
    return ad


@pytest.mark.parametrize("golden", [row for row in GOLDEN if row.file in NAMES], ids=lambda row: row.file)
def test_real_headers_give_their_golden_values(shared: Path, golden: Golden) -> None:
    ad = real(shared, golden.file)
    assert ad.filter_name(pretty=True) == golden.filter
    assert ad.effective_wavelength(output_units="micrometers") == golden.wavelength
    assert ad.wavelength_band() == golden.band
    assert ad.exposure_time() == golden.exposure
    assert (ad.read_mode(), ad.well_depth_setting()) == (golden.mode, golden.well)
    assert ad[0].read_noise() == pytest.approx(golden.read_noise, abs=5e-5)
    assert ad[0].saturation_level() == golden.saturation
    assert ad[0].non_linear_level() == golden.non_linear
    zero_point = ad[0].nominal_photometric_zeropoint()
    assert zero_point == (None if golden.zero_point is None else pytest.approx(golden.zero_point, abs=1e-6))
    assert ad.pixel_scale() == pytest.approx(golden.scale, abs=1e-5)
    offsets = ad.detector_x_offset(), ad.detector_y_offset()
    assert offsets == (golden.offsets if None in golden.offsets else pytest.approx(golden.offsets, abs=1e-3))


@pytest.mark.parametrize("name", NAMES)
def test_every_descriptor_answers_for_real_headers(shared: Path, name: str) -> None:
    ad = real(shared, name)
    for descriptor in ad.descriptors:
        getattr(ad, descriptor)()
        getattr(ad[0], descriptor)()


def test_the_frame_with_text_for_a_voltage(shared: Path) -> None:
    ad = real(shared, "N20070818S0031")
    assert ad.well_depth_setting() == "Deep"
    assert "Shallow" in (ad.voltage_conflict() or "")
    assert ad.array_section() == [(128, 896, 128, 896)]
    assert ad.data_section() == [(0, 768, 0, 768)]
    assert ad.detector_roi_setting() == "Central768"
    assert ad.exposure_time() == 15.05
    assert ad[0].read_noise() == pytest.approx(494.975, abs=1e-3)
    assert ad.pixel_scale() == pytest.approx(0.1162360, abs=1e-7)
    assert (ad.detector_x_offset(), ad.detector_y_offset()) == pytest.approx((5.563, -58.228), abs=1e-3)
    assert ad.target_ra() == pytest.approx(237.81477441, abs=1e-7)


def test_the_frame_with_a_broken_extension_wcs_uses_the_primary_copy(shared: Path) -> None:
    ad = real(shared, "N20030325S0098")
    found = pointing.usable_copies(ad.phu, ad[0].hdr, ad.camera())
    assert [where for _, where in found] == ["primary"]
    assert pointing.wcs_is_consistent(ad) is True


def test_the_frame_with_no_usable_wcs_gets_one_from_its_pointing(shared: Path) -> None:
    ad = real(shared, "N20030912S0301")
    assert pointing.usable_copies(ad.phu, ad[0].hdr, ad.camera()) == []
    assert pointing.wcs_is_consistent(ad) is False
    assert (ad.ra(), ad.dec()) == (277.474125, 1.22497222)
    # As in N20030325S0098, of the same camera and port.
    assert tuple(pointing.wcs_from_pointing(ad).crpix) == pytest.approx((545.186, 489.049))


@pytest.mark.parametrize("name", ["N20030325S0098", "N20090918S0386", "N20120118S0441"])
def test_on_sky_frames_point_where_they_were_sent(shared: Path, name: str) -> None:
    assert pointing.wcs_is_consistent(real(shared, name)) is True


@pytest.mark.parametrize("name", ["N20141203S0891", "N20150404S0872", "N20151129S0307"])
def test_zenith_calibrations_have_no_target(shared: Path, name: str) -> None:
    assert pointing.wcs_is_consistent(real(shared, name)) is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "N20030912S0301"])
def test_the_port_predicts_the_parity(shared: Path, name: str) -> None:
    ad = real(shared, name)
    wcs = terms_of(ad[0].wcs)
    assert wcs is not None
    assert bool(np.linalg.det(np.reshape(wcs.cd, (2, 2))) > 0) is pointing.is_mirrored(ad.port(), ad.is_ao())


@pytest.mark.parametrize("name", ["N20030325S0098", "N20070818S0031", "N20090918S0386"])
def test_a_wcs_built_from_pointing_agrees_with_the_header(shared: Path, name: str) -> None:
    """Within the nominal scale (3 per cent) and the known error of the position angle (0.6 degrees)."""
    ad = real(shared, name)
    built, stated = pointing.wcs_from_pointing(ad), ad[0].wcs
    size = stated.pixel_scale_matrix[1]
    assert built.pixel_scale_matrix == pytest.approx(
        stated.pixel_scale_matrix, abs=0.035 * float(np.hypot(*size))
    )
