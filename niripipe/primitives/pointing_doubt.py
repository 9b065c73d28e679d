"""Where the other frames of a sequence decided about a pointing, the images have the last word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from niripipe.astrodata import AstroData, TangentPlane
from niripipe.instruments.headers import get_float
from niripipe.logutils import get_logger
from niripipe.primitives.offsets import Seen, seen

__all__ = ["OTHER", "settle_pointing"]

log = get_logger(__name__)

OTHER = ("PNTALT1", "PNTALT2")
"""RA and Dec of the reference pixel by the statement that was not believed, degrees."""

_MANY = 6
_FEW = 0.2
"""Where of so many sources less than this share is seen, the frame shows another field."""

_OPPOSITE = {"WCS": "offsets", "offsets": "WCS"}
"""What is wrong if the images contradict the judgement."""


def settle_pointing(frames: Sequence[AstroData]) -> None:
    """Take the other position of a doubtful frame if the sources say so.

    Parameters
    ----------
    frames : sequence of AstroData
        With WCS and OBJCAT. Those with `OTHER` in the primary header may get another WCS; PNTDIST and
        PNTWITN then say that the images decided. `OTHER` is removed: its reference pixel is that of the raw
        frame, and would be wrong in a product.
    """
    doubtful = [frame for frame in frames if _other(frame) is not None]
    if not doubtful:
        return
    sure = [frame for frame in frames if _other(frame) is None]
    if sure:
        wrong = [frame for frame in doubtful if _contradicted(frame, sure[0], _other(frame))]
    else:
        # A WCS that stands still: frames are compared with one whose position is by the same statement.
        first = frames[0].copy()
        first[0].sky_mapping = _other(frames[0])
        votes = [
            (seen(frame, frames[0], frame[0].sky_mapping), seen(frame, first, _other(frame)))
            for frame in frames[1:]
        ]
        wrong = list(frames) if 2 * sum(_better(b, a) for a, b in votes) > len(votes) else []
    others = {id(frame): _other(frame) for frame in wrong}
    for frame in doubtful:
        for key in OTHER:
            frame.phu.remove(key)
    for frame in wrong:
        frame[0].sky_mapping = others[id(frame)]
        distrusted = _OPPOSITE[str(frame.phu["PNTDIST"])]
        frame.phu["PNTDIST"], frame.phu["PNTWITN"] = distrusted, "images"
        log.warning(
            "%s: the images show that not the %s, but the %s was right", frame.filename, *_pair(distrusted)
        )


def _pair(distrusted: str) -> tuple[str, str]:
    return distrusted, _OPPOSITE[distrusted]


def _contradicted(frame: AstroData, reference: AstroData, other: Any) -> bool:
    """Whether the sources are where the other WCS puts them, or at least not where this one does."""
    now = seen(frame, reference, frame[0].sky_mapping)
    missing = now.expected >= _MANY and now.found < _FEW * now.expected
    return _better(seen(frame, reference, other), now) or missing


def _better(some: Seen, than: Seen) -> bool:
    """Whether most bright sources are where one WCS puts them, and few where the other does."""
    return some.found > 0 and 2 * some.found >= some.expected and some.found > 2 * than.found


def _other(frame: AstroData) -> TangentPlane | None:
    """Return the WCS by the statement that was not believed; None without one."""
    ra, dec = (get_float(frame.phu, key) for key in OTHER)
    mapping = frame[0].sky_mapping
    if ra is None or dec is None or not isinstance(mapping, TangentPlane):
        return None
    return replace(mapping, crval=(ra, dec))
