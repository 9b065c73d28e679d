from __future__ import annotations

import pytest

from niripipe.instruments.sections import centred_section, readout_section, roi_name, window_size


def cards(columns: int, rows: int) -> dict[str, int]:
    return {"LOWROW": 0, "HIROW": rows - 1, "LOWCOL": 0, "HICOL": columns - 1}


@pytest.mark.parametrize(
    ("size", "limits"),
    [(1024, (0, 1024)), (768, (128, 896)), (512, (256, 768)), (256, (384, 640)), (128, (448, 576))],
)
def test_subarrays_are_centred(size: int, limits: tuple[int, int]) -> None:
    assert centred_section(window_size(cards(size, size), (size, size))) == limits * 2


def test_windows_of_odd_size_keep_every_pixel() -> None:
    section = centred_section((513, 513))
    assert section is not None
    assert section.x2 - section.x1 == 513


def test_the_image_decides_which_way_a_rectangle_lies() -> None:
    assert window_size(cards(columns=1024, rows=512), (512, 1024)) == (1024, 512)
    assert window_size(cards(columns=1024, rows=512), (1024, 512)) == (512, 1024)
    assert window_size({}, (512, 1024)) == (1024, 512)


def test_an_image_larger_than_the_chip_has_no_place_on_it() -> None:
    assert window_size({}, (1100, 1100)) is None
    assert centred_section(None) is None


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ([(1024, 1024)], "Full Frame"),
        ([(768, 768)], "Central768"),
        ([(512, 512)], "Central512"),
        ([(256, 256)], "Central256"),
        ([(128, 128)], "Custom"),
        ([(1024, 512)], "Custom"),
        ([(1280, 1280)], "Custom"),
        ([(1024, 1024), (512, 512)], "Custom"),
        ([(1024, 1024), (1024, 1024)], "Full Frame"),
        ([], None),
    ],
)
def test_regions_have_names(sizes: list[tuple[int, int]], name: str | None) -> None:
    assert roi_name(sizes) == name


def test_a_window_is_where_its_low_limits_say_and_centred_where_they_are_zero():
    def section(x, y, nx=256, ny=128):
        limits = {"LOWCOL": x, "HICOL": x + nx - 1, "LOWROW": y, "HIROW": y + ny - 1}
        return readout_section(limits, (ny, nx))

    assert section(0, 0) == (384, 640, 448, 576)
    assert section(700, 40) == (700, 956, 40, 168)
    assert section(0, 300) == (0, 256, 300, 428)
    # Counted from 1, or not on the chip: the limits do not tell the position.
    assert section(1, 1) == (384, 640, 448, 576)
    assert section(900, 40) == (384, 640, 448, 576)
