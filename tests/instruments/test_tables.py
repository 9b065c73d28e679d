from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources

import pytest

from niripipe.errors import DataError
from niripipe.instruments import niri_tables, tables

#: Pretty name, wavelength in micrometres, band: from the observatory's filter list.
GOLDEN_FILTERS = """
Y 1.02 Y|J 1.25 J|H 1.65 H|K(prime) 2.12 K|K(short) 2.15 K|K 2.2 K|L(prime) 3.78 L|M(prime) 4.68 M
Jcon(1065) 1.065 X|HeI 1.083 X|Pa(gamma) 1.094 X|Jcon(112) 1.122 X|Jcon(121) 1.207 J|Pa(beta) 1.282 J
H-con(157) 1.57 H|CH4(short) 1.58 H|FeII 1.644 H|CH4(long) 1.69 H|H2Oice(2045) 2.045 K
HeI(2p2s) 2.059 K|Kcon(209) 2.0975 K|H2 1-0 S1 2.1239 K|Br(gamma) 2.1686 K|H2 2-1 S1 2.2465 K
Kcon(227) 2.2718 K|CH4ice(2275) 2.275 K|CO 2-0 (bh) 2.289 K|H2O ice 3.05 L|hydrocarb 3.295 L
Br(alpha)Con 3.99 L|Br(alpha) 4.052 L
"""


def golden_filters() -> list[tuple[str, float, str]]:
    rows = (row.rsplit(" ", 2) for line in GOLDEN_FILTERS.strip().splitlines() for row in line.split("|"))
    return [(name, float(wavelength), band) for name, wavelength, band in rows]


def test_the_table_is_read_once() -> None:
    assert niri_tables() is niri_tables()


def test_nothing_in_the_tables_can_be_changed() -> None:
    found = niri_tables()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.detector.gain = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        found.bands["J"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize(("name", "wavelength", "band"), golden_filters())
def test_every_filter_has_its_wavelength_and_band(name: str, wavelength: float, band: str) -> None:
    found = niri_tables().filter_named(name)
    assert found is not None
    assert found.wavelength == wavelength
    assert niri_tables().band(found.wavelength) == band


def test_only_order_sorting_filters_have_no_wavelength() -> None:
    without = {f.name for f in niri_tables().filters if f.wavelength is None}
    assert without == {f"{letter} order sort" for letter in "JHKLM"}
    assert {f.name for f in niri_tables().filters} - without == {row[0] for row in golden_filters()}


@pytest.mark.parametrize("raw", [("K", "H2v=1-0S1"), ("H2v=1-0s1", "k"), ("h2V=1-0S1 ", "K")])
def test_filters_are_found_in_any_case_and_order(raw: tuple[str, ...]) -> None:
    found = niri_tables().filter_of(raw)
    assert found is not None
    assert found.name == "H2 1-0 S1"


def test_thermal_filters_are_those_without_lamp_flats() -> None:
    thermal = {f.raw[0] for f in niri_tables().filters if f.thermal}
    assert thermal == {"Lprime", "Mprime", "Bra", "Bracont", "hydrocarb"}


@pytest.mark.parametrize(
    ("bias", "well"),
    [(-0.579, "Shallow"), (-0.649, "Shallow"), (-0.891, "Deep"), (-0.75, None), (None, None)],
)
def test_wells_are_recognised_within_their_tolerance(bias: float | None, well: str | None) -> None:
    found = niri_tables().well(bias)
    assert (found.name if found else None) == well


def test_zero_points_are_in_electrons_and_only_for_f6_and_f32() -> None:
    found = niri_tables()
    assert found.zero_point("K(prime)", "f6") == 26.40
    assert found.zero_point("K(short)", "f32") == 25.67
    assert found.zero_point("K", "f14") is None
    assert found.zero_point("Y", "f32") is None
    assert found.zero_point(None, "f6") is None


def test_linearity_coefficients_in_adu_agree_with_the_published_ones() -> None:
    published = {
        ("Low Background", 1024, "Shallow"): (7.3877618e-06, 1.940645271e-10, 12000),
        ("Medium Background", 1024, "Shallow"): (3.428783846e-06, 4.808353308e-10, 12000),
        ("Medium Background", 256, "Shallow"): (6.815415667e-06, 2.125210479e-10, 12000),
        ("High Background", 1024, "Shallow"): (3.040036696e-06, 4.640788333e-10, 12000),
        ("High Background", 1024, "Deep"): (3.581914163e-06, 1.820403678e-10, 21000),
    }
    found, gain = niri_tables(), niri_tables().detector.gain
    for (mode, rows, well), (gamma, eta, most) in published.items():
        entry = found.linearity_for(mode, rows, well)
        assert entry is not None
        assert entry.gamma * gain == pytest.approx(gamma, rel=1e-8)
        assert entry.eta * gain**2 == pytest.approx(eta, rel=1e-8)
        assert entry.max_counts == pytest.approx(most * gain)
    assert len(found.linearity) == len(published)
    assert found.linearity_for("Low Background", 768, "Shallow") is None


def test_cameras_are_found_by_every_name() -> None:
    f14 = niri_tables().camera("f14")
    assert f14 is not None
    assert f14 is niri_tables().camera("f13.9")
    assert niri_tables().camera("INVALID") is None


@pytest.mark.parametrize(
    ("camera", "scales"),
    [("f6", [0.1162, 0.1168, 0.1171]), ("f13.9", [0.0490, 0.0498]), ("f32", [0.0214, 0.0217, 0.0219])],
)
def test_measured_scales_are_plausible_for_their_camera_only(camera: str, scales: list[float]) -> None:
    for known in niri_tables().cameras:
        assert [known.plausible(scale) for scale in scales] == [known.name == camera] * len(scales)


def test_every_table_names_its_unit_and_source() -> None:
    raw = tomllib.loads(resources.files("niripipe.instruments").joinpath("niri.toml").read_text("utf-8"))
    sections = raw.pop("qa") | raw
    assert [name for name, table in sections.items() if not (table["unit"] and table["source"])] == []


def test_a_damaged_table_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables.tomllib, "loads", lambda _: {"detector": {}, "qa": {}})
    niri_tables.cache_clear()
    try:
        with pytest.raises(DataError, match="Install niripipe again"):
            niri_tables()
    finally:
        niri_tables.cache_clear()
