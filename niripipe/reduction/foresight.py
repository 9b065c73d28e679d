"""What can be known of the output before the first pixel is read: names, folder, space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from niripipe.astrodata import AstroData
from niripipe.astrodata.filenames import product_name
from niripipe.errors import NiripipeError, StorageError
from niripipe.primitives.base import Primitive
from niripipe.primitives.params import Resolved
from niripipe.reduction.guard import check_target

__all__ = ["STORES", "NamedStreams", "folder_faults", "product_faults"]

_STACKS = frozenset({"stackFrames", "stackDarks", "stackFlats", "stackSkyFlats", "makeLampFlat", "makeBPM"})
"""Primitives that make one frame of all, named after the first."""

STORES = frozenset(
    {
        "storeProcessedDark",
        "storeProcessedFlat",
        "storeBPM",
        "storeProcessedStandard",
        "storeProcessedScience",
    }
)  # fmt: skip
"""Primitives that write products, with the mode in the name unless it is ``sq``."""

_BYTES_PER_PIXEL = 10
"""Data and variance of four bytes, flags of two."""


class NamedStreams:
    """The names that frames have in the streams while a recipe is planned, and the files that it stores.

    Parameters
    ----------
    frames : sequence of AstroData
        The inputs.
    mode : str
        ``sq``, ``ql`` or ``qa``.

    Attributes
    ----------
    stored : list of str
        File names of the products that the recipe stores.
    """

    def __init__(self, frames: Sequence[AstroData], mode: str) -> None:
        self.stored: list[str] = []
        self._mode = mode
        self._names = {id(frame): str(frame.filename) for frame in frames}
        self._original = {id(frame): str(frame.phu.get("ORIGNAME") or frame.filename) for frame in frames}

    def call(self, primitive: Primitive, resolved: Resolved, frames: list[AstroData]) -> list[AstroData]:
        """Follow the names through a call; return the frames whose names go on."""
        if resolved.skip_primitive or not frames:
            return frames
        if primitive.name in _STACKS:
            lit = [frame for frame in frames if "LAMPON" in frame.tags]
            frames = (lit or frames)[:1] if primitive.name == "makeLampFlat" else frames[:1]
        suffix = getattr(resolved.params, "suffix", None)
        stores = primitive.name in STORES
        if stores and self._mode != "sq" and suffix is not None:
            suffix = f"_{self._mode}{suffix}"
        for frame in frames:
            if suffix is not None and (stores or (primitive.renames and suffix)):
                self._names[id(frame)] = self._renamed(frame, suffix)
            if stores:
                self.stored.append(self._names[id(frame)])
        return frames

    def final(self, frames: Sequence[AstroData], suffix: str | None) -> list[str]:
        """Return the names of the frames that are written when the recipe has ended."""
        if suffix:
            return [f"{self._original[id(frame)].split('.fits')[0]}{suffix}.fits" for frame in frames]
        names = [self._names[id(frame)] for frame in frames if id(frame) in self._names]
        return [name for name in names if name not in self._original.values()]

    def _renamed(self, frame: AstroData, suffix: str) -> str:
        return product_name(self._names[id(frame)], self._original[id(frame)], suffix=suffix, strip=True)


def product_faults(
    names: Iterable[str], folder: Path, inputs: Sequence[Path], *, overwrite: bool, mode: str
) -> list[NiripipeError]:
    """Return what speaks against writing products of these names.

    Parameters
    ----------
    names : iterable of str
        File names.
    folder : pathlib.Path
        Where they are to be written.
    inputs : sequence of pathlib.Path
        The files that are reduced.
    overwrite : bool
        Whether older products may be replaced.
    mode : str
        ``sq``, ``ql`` or ``qa``.
    """
    faults: list[NiripipeError] = []
    for path in dict.fromkeys(folder / name for name in names):
        if not overwrite and os.path.lexists(path):
            faults.append(
                StorageError(
                    "The product exists already",
                    file=path,
                    remedy="Pass overwrite=True to replace it, or another output_dir or suffix.",
                )
            )
            continue
        try:
            check_target(path, inputs, mode=mode)
        except StorageError as error:
            faults.append(error)
    return faults


def folder_faults(folder: Path, frames: Sequence[AstroData]) -> list[NiripipeError]:
    """Return why nothing can be written into a folder, which need not exist yet."""
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    problem, found = "", ""
    if not nearest.is_dir():
        problem, found = "The output folder cannot be made", f"{nearest} is no folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        problem, found = "The output folder cannot be written", f"no permission to write into {nearest}"
    elif (free := shutil.disk_usage(nearest).free) < (least := _least_bytes(frames)):
        problem = "There is no space for the product"
        found = f"{free / 1e6:.0f} MB free, {least / 1e6:.0f} MB needed for one frame"
    if not problem:
        return []
    return [
        StorageError(problem, file=folder, item="output_dir", found=found, remedy="Give another output_dir.")
    ]


def _least_bytes(frames: Sequence[AstroData]) -> int:
    """Return the size of one reduced frame."""
    shape: Any = frames[0][0].shape if frames and len(frames[0]) else (0, 0)
    return int(shape[0] * shape[1] * _BYTES_PER_PIXEL)
