"""Extensions made of arrays, HDUs, CCDData and parts of other data sets; CCDData made of extensions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.io.fits.verify import VerifyError

from niripipe.astrodata.extension import Extension
from niripipe.astrodata.headers import WatchedHeader, watched
from niripipe.astrodata.slices import Slices
from niripipe.errors import InputError

__all__ = ["as_extension", "from_ccddata", "to_ccddata"]

# Units of BUNIT as observatories spell them; anything else is tried as it stands.
_UNITS = {"ADU": "adu", "ELECTRON": "electron", "ELECTRONS": "electron", "E-": "electron", "COUNTS": "adu"}

_LONGEST_KEYWORD = 8
"""Characters of a FITS keyword; longer names are HIERARCH cards."""


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
    elif hasattr(obj, "to_extension"):
        extension = obj.to_extension()
    elif hasattr(obj, "uncertainty") and hasattr(obj, "meta"):
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


def to_ccddata(extension: Any, phu: Any = None) -> Any:
    """Return an extension as `astropy.nddata.CCDData`.

    Parameters
    ----------
    extension : Extension or single slice
        What to convert.
    phu : header, optional
        Primary header; its cards come before those of the extension in the header of the result.

    Returns
    -------
    astropy.nddata.CCDData
        With its own arrays: data in the unit that BUNIT names (dimensionless where there is none or it is not
        known), `VarianceUncertainty`, a boolean mask of all pixels with any bit set, the bits
        themselves as flags, and the WCS.
    """
    from astropy import units
    from astropy.nddata import CCDData, VarianceUncertainty

    if not isinstance(extension, Extension):
        phu = extension.phu if phu is None else phu
        extension = extension.extensions[0]
    header = WatchedHeader() if phu is None else phu.copy()
    header.update(extension.hdr)
    text = str(header.get("BUNIT", "")).strip()
    try:
        unit = units.Unit(_UNITS.get(text.upper(), text))
    except ValueError:
        unit = units.dimensionless_unscaled
    variance, mask = extension.read("variance"), extension.read("mask")
    result = CCDData(
        extension.read("data").copy(),
        unit=unit,
        uncertainty=None if variance is None else VarianceUncertainty(variance.copy()),
        mask=None if mask is None else mask != 0,
        wcs=None if extension.wcs is None else extension.wcs.deepcopy(),
        meta=header,
    )
    if mask is not None:
        result.flags = mask.copy()
    return result


def from_ccddata(ccd: Any) -> Extension:
    """Return an extension made from `astropy.nddata.CCDData` (or `NDData`); arrays are copied.

    Parameters
    ----------
    ccd : astropy.nddata.CCDData
        Its uncertainty becomes variance, whatever its kind; its flags become the mask, or its boolean
        mask the bit for bad pixels.

    Raises
    ------
    InputError
        The uncertainty cannot be turned into a variance, or the data are not an image.

    Notes
    -----
    The header may be a dict. Entries that no FITS card can hold are left out with a logged warning.
    """
    from astropy.nddata import VarianceUncertainty

    variance = None
    if ccd.uncertainty is not None:
        try:
            variance = np.array(ccd.uncertainty.represent_as(VarianceUncertainty).array, np.float32)
        except (TypeError, AttributeError) as error:
            raise InputError("the uncertainty is not a variance", found=str(error)) from error
    flags = getattr(ccd, "flags", None)
    bits = flags if flags is not None else ccd.mask
    header = ccd.meta if hasattr(ccd.meta, "cards") else _header_of(ccd.meta)
    extension = Extension(
        np.array(ccd.data, np.float32),
        variance,
        None if bits is None else np.array(bits, np.uint16),
        wcs=ccd.wcs,
        hdr=header,
    )
    unit = getattr(ccd, "unit", None)
    if unit is not None and str(unit):
        extension.hdr["BUNIT"] = str(unit)
    return extension


def _header_of(entries: Mapping[str, Any]) -> WatchedHeader:
    """Return the entries of a dict as a header."""
    header, lost = WatchedHeader(), []
    for key, value in entries.items():
        name = str(key).upper()
        try:
            header[name if len(name) <= _LONGEST_KEYWORD else f"HIERARCH {name}"] = value
        except (ValueError, TypeError, VerifyError):
            lost.append(str(key))
    if lost:
        logging.getLogger(__name__).warning("a FITS header cannot hold %s: left out", ", ".join(lost))
    return header


def _from_hdu(hdu: Any) -> Extension:
    from astropy.io import fits

    is_science = hdu.is_image and hdu.data is not None and hdu.name in ("", "SCI")
    if isinstance(hdu, fits.PrimaryHDU) or not is_science:
        raise InputError(
            "this HDU cannot be appended",
            found=f"{type(hdu).__name__} {hdu.name!r}",
            expected="an image extension without name or named SCI",
        )
    return Extension(np.array(hdu.data, np.float32), hdr=hdu)
