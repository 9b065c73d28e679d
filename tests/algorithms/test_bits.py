from __future__ import annotations

from niripipe.algorithms import bits


def test_bits_are_distinct_powers_of_two() -> None:
    single = [
        bits.BAD,
        bits.NON_LINEAR,
        bits.SATURATED,
        bits.COSMIC_RAY,
        bits.NO_DATA,
        bits.OVERLAP,
        bits.UNILLUMINATED,
    ]
    assert single == [1, 2, 4, 8, 16, 32, 64]


def test_combinations_have_the_documented_values() -> None:
    assert bits.FAIL == 29
    assert bits.NOT_SIGNAL == 65529
