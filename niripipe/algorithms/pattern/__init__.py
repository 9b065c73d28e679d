"""Removal of the periodic readout pattern that some NIRI frames carry.

The detector is read in four quadrants at once, each from its outer row inwards, by several amplifiers side by
side. Interference on them leaves a pattern that repeats every 8 columns, in all rows of a quadrant or in
those of a part of the readout, often together with an offset of the level in the same rows. Two methods:

* `clean_readout` finds the pattern as the one box of pixels that explains the rows best, times a strength for
  each row;
* `clean_fft_readout` removes the frequencies of the pattern from each row separately, which also follows a
  pattern whose phase drifts.

`remove_offsets` removes what is constant along rows or columns, and levels quadrants, as far as that is
certain.

All leave sources out when they measure, touch only the rows that carry the pattern, and keep a quadrant as
it is when its noise would not fall.
"""

from niripipe.algorithms.pattern.boxes import clean_readout
from niripipe.algorithms.pattern.fourier import clean_fft_readout
from niripipe.algorithms.pattern.offsets import Offsets, remove_offsets
from niripipe.algorithms.pattern.quadrants import Cleaned, Quadrant

__all__ = ["Cleaned", "Offsets", "Quadrant", "clean_fft_readout", "clean_readout", "remove_offsets"]
