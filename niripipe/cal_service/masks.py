"""Bad pixel masks of several origins, and the registration of a user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from niripipe import astrodata
from niripipe.algorithms.bits import BAD, as_flags
from niripipe.astrodata import AstroData
from niripipe.cal_service.service import CalibrationService
from niripipe.cal_service.session import get_calservice
from niripipe.errors import InputError
from niripipe.instruments.tables import niri_tables
from niripipe.paths import usable_path

__all__ = ["MaskOrigin", "mask_origin", "masks_to_unite", "register_bpm"]

T = TypeVar("T")

_OWN = "BPMOWN"
_ARCHIVE_NAME = re.compile(r"bpm_\d{8}_", re.IGNORECASE)


class MaskOrigin(StrEnum):
    """Where a bad pixel mask comes from."""

    MADE = "made from flats and darks"
    ARCHIVE = "static, of the archive"
    REGISTERED = "registered by the user"
    OTHER = "of unknown origin"


def mask_origin(mask: AstroData) -> MaskOrigin:
    """Return where a bad pixel mask comes from, by its header and its name (``bpm_20010317_niri_...``)."""
    if _OWN in mask.phu:
        return MaskOrigin.REGISTERED
    if _ARCHIVE_NAME.match(mask.filename or ""):
        return MaskOrigin.ARCHIVE
    return MaskOrigin.MADE if {"BPMASK", "PROCBPM"} & set(mask.phu) else MaskOrigin.OTHER


def masks_to_unite(masks: Sequence[tuple[T, MaskOrigin]]) -> list[T]:
    """Choose among the masks that fit a frame, best first, those that are used together.

    Parameters
    ----------
    masks : sequence of (mask, origin)
        Any objects with their origins.

    Returns
    -------
    list
        The best of each origin, and all that the user registered: a mask that is made of one night's flats
        replaces that of another night, but not the static mask of the archive, which knows other defects.
    """
    chosen: list[T] = []
    seen: set[MaskOrigin] = set()
    for mask, origin in masks:
        if origin not in seen or origin is MaskOrigin.REGISTERED:
            chosen.append(mask)
        seen.add(origin)
    return chosen


def register_bpm(
    mask: str | PathLike[str] | NDArray[Any],
    path: str | PathLike[str],
    *,
    like: AstroData | str | PathLike[str],
    valid_from: datetime | str | None = None,
    service: CalibrationService | None = None,
    overwrite: bool = False,
) -> str:
    """Make a bad pixel mask of any array or FITS file, and register it.

    Parameters
    ----------
    mask : array or path
        Two-dimensional; anything but 0 is bad, and so is what is not a number. Of a FITS file the first image
        with two axes is taken. True and 1 mean a bad pixel; other integers are taken as bits of the
        data-quality plane.
    path : path-like
        The file to be written, for example ``my_bpm.fits``.
    like : AstroData or path
        A frame of the instrument. A mask of its shape covers the same part of the detector; a mask of the
        whole detector fits subarrays as well, wherever they are.
    valid_from : datetime or str, optional
        The mask is used for frames taken after this date (ISO, UTC); by default after that of `like`.
    service : CalibrationService, optional
        Where it is registered; the current service by default. Without either the file is only written.
    overwrite : bool, optional
        Whether `path` may be replaced.

    Returns
    -------
    str
        Absolute path of the file. All masks registered in this way that fit a frame are used together,
        besides those of the archive and of the night.

    Raises
    ------
    InputError
        No image with two axes, or one that is neither of the shape of `like` nor of the whole detector.
    DataError, StorageError
        A file cannot be read, or not be written.
    """
    frame = like if isinstance(like, AstroData) else astrodata.open(like)
    bits = _as_bits(mask)
    header = _header(frame, bits.shape)
    phu: dict[str, Any] = {
        key: frame.phu[key]
        for key in ("INSTRUME", "TELESCOP", "OBSERVAT", "DATE-OBS", "UT")
        if key in frame.phu
    }
    if valid_from is not None:
        date = datetime.fromisoformat(valid_from) if isinstance(valid_from, str) else valid_from
        phu |= {"DATE-OBS": f"{date:%Y-%m-%d}", "UT": f"{date:%H:%M:%S.0}"}
    phu |= {"OBJECT": "BPM", "OBSTYPE": "BPM", _OWN: True}
    from astropy.io import fits

    product = astrodata.create(phu, [fits.ImageHDU(bits, fits.Header(header))])
    target = usable_path(path).absolute()
    product.write(target, overwrite=overwrite)
    service = get_calservice() if service is None else service
    if service is not None:
        service.add_cal(str(target))
    return str(target)


def _as_bits(mask: str | PathLike[str] | NDArray[Any]) -> NDArray[np.int16]:
    """Return a mask as flags."""
    if isinstance(mask, (str, PathLike)):
        mask = _first_image(mask)
    values = np.asarray(mask)
    if values.ndim != 2:
        raise InputError(
            "A bad pixel mask has two axes", item="mask", found=f"{values.ndim} axes", expected="(ny, nx)"
        )
    flags = as_flags(values)
    # BPM files hold 16-bit integers with a sign.
    return np.where(flags < 2**15, flags, BAD).astype(np.int16)


def _first_image(path: str | PathLike[str]) -> NDArray[Any]:
    from astropy.io import fits

    try:
        with fits.open(path) as hdus:
            for hdu in hdus:
                if hdu.is_image and len(hdu.shape) == 2:
                    return np.array(hdu.data)
    except OSError as error:
        raise InputError("The mask cannot be read", file=path, found=str(error)) from None
    raise InputError("There is no image with two axes in the file", file=path, item="mask")


def _header(frame: AstroData, shape: tuple[int, ...]) -> dict[str, int]:
    """Return the keywords of the part of the detector that a mask covers."""
    section = frame[0].detector_section()
    if shape == frame[0].shape and section is not None:
        x, y = section.x1, section.y1
    elif shape == (niri_tables().detector.size,) * 2:
        x = y = 0
    else:
        raise InputError(
            "The mask covers neither the frame nor the whole detector",
            item="mask",
            file=frame.filename,
            found=shape,
            expected=f"{frame[0].shape} or {(niri_tables().detector.size,) * 2}",
            remedy="Give a frame of the same subarray as like=.",
        )
    ny, nx = shape
    return {"LOWROW": y, "HIROW": y + ny - 1, "LOWCOL": x, "HICOL": x + nx - 1}
