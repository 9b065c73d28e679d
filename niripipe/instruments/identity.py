"""Which files hold the same exposure, whatever their names are.

An exposure is known by its data label (DATALAB) and the start of the exposure. Where a header lacks one of
the two, or labels differ at one time, the pixels decide. They are only read where times do not tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from niripipe.astrodata import AstroData
from niripipe.errors import NiripipeError

__all__ = ["Exposure", "Twin", "exposure_of", "find_twins", "pixel_checksum"]

_ROWS = 256
"""Rows that are read at a time."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What tells one exposure from others.

    Attributes
    ----------
    name : str
        Name of the file.
    label : str or None
        Data label.
    time : datetime.datetime or None
        Start of the exposure, UT.
    checksum : callable
        Returns a checksum of the pixels; called only where it is needed.
    """

    name: str
    label: str | None
    time: datetime | None
    checksum: Callable[[], str]

    @property
    def key(self) -> tuple[str, datetime] | None:
        """Label and time; None where one of them is not known."""
        return (self.label, self.time) if self.label and self.time is not None else None


class Twin(NamedTuple):
    """A frame that holds the same exposure as another one.

    Attributes
    ----------
    position, of : int
        Its position in the list, and that of the frame that is kept.
    same_pixels : bool
        Whether the pixels are equal; if not, one of the two was processed or edited.
    """

    position: int
    of: int
    same_pixels: bool


def exposure_of(frame: AstroData) -> Exposure:
    """Return what tells the exposure of a frame from others; no pixels are read."""
    label, time = _asked(frame, "data_label"), _asked(frame, "ut_datetime")
    return Exposure(
        name=str(frame.filename),
        label=str(label) if label else None,
        time=time if isinstance(time, datetime) else None,
        checksum=lambda: pixel_checksum(frame),
    )


def find_twins(exposures: Sequence[Exposure]) -> list[Twin]:
    """Return the frames that hold the exposure of another frame in the list.

    The first of them is kept, but ``N1.fits`` rather than ``N1 (1).fits`` or ``N1.fits.gz``.

    Parameters
    ----------
    exposures : sequence of Exposure

    Returns
    -------
    list of Twin
        In order of position.
    """
    by_time: dict[datetime | None, list[int]] = {}
    for index, exposure in enumerate(exposures):
        by_time.setdefault(exposure.time, []).append(index)
    twins: list[Twin] = []
    for members in by_time.values():
        if len(members) > 1:
            twins += _twins_among(members, exposures)
    return sorted(twins)


def pixel_checksum(frame: AstroData) -> str:
    """Return a checksum of the science pixels of a frame, by their values whatever their type.

    The pixels are read in blocks of rows, and are not kept in memory.
    """
    digest = hashlib.blake2b(digest_size=16)
    for extension in frame:
        digest.update(repr(extension.shape).encode())
        plane = extension.plane("data")
        for start in range(0, plane.shape[0] if plane.shape else 0, _ROWS):
            # + 0.0 makes -0.0 and 0.0 the same bytes.
            digest.update((np.asarray(plane[start : start + _ROWS], np.float64) + 0.0).tobytes())
    return digest.hexdigest()


def _twins_among(members: Sequence[int], exposures: Sequence[Exposure]) -> list[Twin]:
    """Compare frames of one time, or those without a time."""
    sums = {index: _checksum(exposures[index]) for index in members}
    names = {exposures[index].name for index in members}
    by_name = sorted(members, key=lambda index: (_is_copy(exposures[index].name, names), index))
    twins, kept = [], list[int]()
    for index in by_name:
        of = next((other for other in kept if sums[other] == sums[index] is not None), None)
        if of is None:
            kept.append(index)
        else:
            twins.append(Twin(index, of, same_pixels=True))
    first: dict[Any, int] = {}
    for index in sorted(kept):
        key = exposures[index].key
        of = None if key is None else first.setdefault(key, index)
        if of is not None and of != index:
            twins.append(Twin(index, of, same_pixels=False))
    return twins


def _is_copy(name: str, names: set[str]) -> bool:
    """Return whether a name is that of another frame with something behind it."""
    stem = name.partition(".")[0]
    return any(
        (name != other and name.startswith(other))
        or (stem != (root := other.partition(".")[0]) and stem.startswith(root))
        for other in names
    )


def _checksum(exposure: Exposure) -> str | None:
    """Return the checksum; None where the pixels cannot be read, which is reported where they are used."""
    try:
        return exposure.checksum()
    except NiripipeError:
        return None


def _asked(frame: AstroData, descriptor: str) -> Any:
    """Return a descriptor; None where the frame has none or cannot tell."""
    method = getattr(frame, descriptor, None)
    try:
        return None if method is None else method()
    except NiripipeError:
        return None
