"""From counts to magnitudes: standard stars, zero points, extinction, and magnitudes of sources.

`standards` is the table of standard stars, `recognise` finds which of them a frame shows; `to_magnitudes` and
`to_microjansky` turn counts of a calibrated stack into magnitudes and flux densities.
"""

from niripipe.photometry.bands import BANDS, Extinction, StandardBand, ab_offset, extinction, standard_band
from niripipe.photometry.colours import match_catalogues, rgb_picture
from niripipe.photometry.magnitudes import to_magnitudes, to_microjansky
from niripipe.photometry.standards import Recognition, Standard, recognise, standards
from niripipe.photometry.standards import shipped as shipped_standards

__all__ = [
    "BANDS",
    "Extinction",
    "Recognition",
    "Standard",
    "StandardBand",
    "ab_offset",
    "extinction",
    "match_catalogues",
    "recognise",
    "rgb_picture",
    "shipped_standards",
    "standard_band",
    "standards",
    "to_magnitudes",
    "to_microjansky",
]
