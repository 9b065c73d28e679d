"""The tags that there are, so that a mistyped one is an error and not an empty selection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from niripipe.astrodata import AstroData
from niripipe.astrodata.tags import tag_methods
from niripipe.errors import InputError, nearest

__all__ = ["KNOWN_TAGS", "check_tags"]

KNOWN_TAGS = frozenset(
    {
        "ACQUISITION", "ARC", "AT_ZENITH", "AZEL_TARGET", "BPM", "CAL", "DARK", "EXTRACTED", "FLAT", "FRINGE",
        "GCALFLAT", "GCAL_IR_OFF", "GCAL_IR_ON", "GEMINI", "IMAGE", "LAMPOFF", "LAMPON", "LS", "MASK", "NIRI",
        "NON_SIDEREAL", "NORTH", "OVERSCAN_SUBTRACTED", "OVERSCAN_TRIMMED", "PREPARED", "PROCESSED",
        "PROCESSED_SCIENCE", "RAW", "SIDEREAL", "SOUTH", "SPECT", "STANDARD", "TELLURIC", "TWILIGHT",
        "UNPREPARED",
    }
)  # fmt: skip
"""The tags that frames of NIRI can have."""

_ELSEWHERE = frozenset(
    {
        "ALOPEKE", "BIAS", "BUNDLE", "ECHELLE", "F2", "GHOST", "GMOS", "GNIRS", "GPI", "GRACES", "GSAOI",
        "HAM", "IFU", "IGRINS", "LXD", "MAROONX", "MICHELLE", "MOS", "NICI", "NIFS", "NODANDSHUFFLE",
        "PHOENIX", "PINHOLE", "RONCHI", "SLIT", "SLITILLUM", "SLITV", "STD", "THRUSLIT", "TRECS",
        "XD", "ZORRO",
    }
)  # fmt: skip
"""Tags of other instruments, which scripts for several of them may name."""


def check_tags(tags: Iterable[str], item: str) -> None:
    """Refuse tags that no frame can have.

    Parameters
    ----------
    tags : iterable of str
        Tags that a user gives.
    item : str
        Where they were given, for the message.

    Raises
    ------
    InputError
        A tag that is unknown, with the nearest ones. Where a class outside niripipe has tag methods, any
        tag may exist, and nothing is refused.
    """
    unknown = sorted(set(tags) - KNOWN_TAGS - _ELSEWHERE)
    if not unknown or _has_foreign_tags(AstroData):
        return
    raise InputError(
        f"There is no tag {', '.join(map(repr, unknown))}",
        item=item,
        expected=None if nearest(unknown[0], KNOWN_TAGS) else ", ".join(sorted(KNOWN_TAGS)),
        remedy=nearest(unknown[0], KNOWN_TAGS),
    )


def _has_foreign_tags(cls: Any) -> bool:
    """Return whether a class that is not niripipe's, below `cls`, has tag methods of its own."""
    return any(
        (not child.__module__.startswith("niripipe.") and set(vars(child)) & set(tag_methods(child)))
        or _has_foreign_tags(child)
        for child in cls.__subclasses__()
    )
