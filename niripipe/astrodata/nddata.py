"""An extension as astropy's NDData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.nddata import NDData, VarianceUncertainty

from niripipe.astrodata.section import Section
from niripipe.astrodata.wcs import shifted, to_astropy
from niripipe.errors import InputError

if TYPE_CHECKING:
    from niripipe.astrodata.extension import Extension

__all__ = ["NDAstroData", "as_variance", "uncertainty_of"]


class NDAstroData(NDData):  # type: ignore[misc]
    """A view of an extension, or of a rectangle of it: what is written into its arrays is written there.

    `data`, `mask`, `wcs` and `meta` are those of `astropy.nddata.NDData`; `variance` is the array of
    `uncertainty`. ``meta["header"]`` is the header, ``meta["other"]`` holds attached tables and arrays.
    Slicing with two slices gives a view of a part: variance, mask, WCS and attached arrays are cut alike.

    Parameters
    ----------
    extension : Extension
        Whose arrays they are.
    section : Section, optional
        The part that is shown.
    """

    def __init__(self, extension: Extension, section: Section | None = None) -> None:
        self.extension, self.section = extension, section
        cut: Any = ... if section is None else section.as_slice()
        wcs = extension.wcs
        if section is not None and wcs is not None:
            wcs = to_astropy(shifted(wcs, section.x1, section.y1))
        variance, mask = extension.variance, extension.mask
        extras = {name: extension.get_extra(name) for name in extension.extras}
        super().__init__(
            extension.data[cut],
            uncertainty=None if variance is None else VarianceUncertainty(variance[cut], copy=False),
            mask=None if mask is None else mask[cut],
            wcs=wcs,
            meta={
                "header": extension.hdr,
                "other": {
                    name: value[cut]
                    if isinstance(value, np.ndarray) and value.shape == extension.shape
                    else value
                    for name, value in extras.items()
                },
            },
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the pixels."""
        return tuple(self.data.shape)

    @property
    def variance(self) -> Any:
        """The variance of each pixel, or None."""
        return None if self.uncertainty is None else self.uncertainty.array

    @property
    def window(self) -> NDAstroData:
        """The view itself: ``window[y1:y2, x1:x2]`` is a part of it."""
        return self

    def __getitem__(self, index: Any) -> NDAstroData:
        rows, columns = index if isinstance(index, tuple) and len(index) == 2 else (index, slice(None))
        old = self.section or Section.from_shape(self.extension.shape)
        limits = []
        for part, size, start in ((columns, self.shape[1], old.x1), (rows, self.shape[0], old.y1)):
            first, last, step = part.indices(size) if isinstance(part, slice) else (0, 0, 0)
            if step != 1 or last <= first:
                raise InputError(
                    "a part of an extension is a rectangle",
                    item="nddata",
                    found=repr(index),
                    expected="nddata[y1:y2, x1:x2], without steps, not empty",
                )
            limits += [start + first, start + last]
        return NDAstroData(self.extension, Section(*limits))

    def to_extension(self) -> Extension:
        """Return a new extension with the pixels and all that belongs to them."""
        twin = self.extension.copy()
        if self.section is not None:
            twin.crop(self.section)
        return twin


def uncertainty_of(variance: Any) -> VarianceUncertainty | None:
    """Return a variance as an uncertainty of astropy that shares the array; None for None."""
    return None if variance is None else VarianceUncertainty(variance, copy=False)


def as_variance(uncertainty: Any) -> Any:
    """Return the array of variances of an uncertainty of astropy of any kind, or None.

    Raises
    ------
    InputError
        It is none.
    """
    if uncertainty is None:
        return None
    try:
        return uncertainty.represent_as(VarianceUncertainty).array
    except (AttributeError, TypeError) as error:
        raise InputError(
            "this is no uncertainty",
            item="uncertainty",
            found=str(error),
            expected="one of astropy.nddata, or None",
            remedy="Assign an array of variances to variance.",
        ) from error
