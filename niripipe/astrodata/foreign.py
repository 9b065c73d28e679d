"""Extensions made of arrays, HDUs, CCDData and parts of other data sets."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from niripipe.astrodata.extension import Extension
from niripipe.astrodata.headers import watched
from niripipe.astrodata.slices import Slices
from niripipe.errors import InputError

__all__ = ["as_extension"]


def as_extension(obj: Any, header: Any) -> Extension:
    """Return a new extension; arrays are taken over, everything else is copied.

    Raises
    ------
    InputError
        The object cannot be an extension.
    """
    if isinstance(obj, Slices):
        if not obj.is_single:
            raise InputError("only a single extension can be appended", found=repr(obj), remedy="Use ad[0].")
        extension = obj.extensions[0].copy()
    elif isinstance(obj, Extension):
        extension = obj.copy()
    elif hasattr(obj, "uncertainty") and hasattr(obj, "meta"):
        from niripipe.astrodata.ccddata import from_ccddata

        extension = from_ccddata(obj)
    elif hasattr(obj, "header"):
        extension = _from_hdu(obj)
    else:
        extension = Extension(obj, hdr=header)
        header = None
    if header is not None:
        extension.hdr = watched(header)
        extension.hdr["EXTNAME"] = "SCI"
    return extension


def _from_hdu(hdu: Any) -> Extension:
    from astropy.io import fits

    if (
        isinstance(hdu, fits.PrimaryHDU)
        or not hdu.is_image
        or hdu.data is None
        or hdu.name not in ("", "SCI")
    ):
        _refuse_hdu(hdu)
    return Extension(np.array(hdu.data, np.float32), hdr=hdu)


def _refuse_hdu(hdu: Any) -> NoReturn:
    raise InputError(
        "this HDU cannot be appended",
        found=f"{type(hdu).__name__} {hdu.name!r}",
        expected="an image extension without name or named SCI",
    )
