"""Values of a raw header that cannot be true, or are not there: what they are, and what is done about them.

Descriptors answer with a default or None where a keyword is unusable. A reduction goes on with that; these
sentences tell the user.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from niripipe.astrodata import header_value
from niripipe.instruments.headers import clean_text, get_int, parse_float
from niripipe.instruments.pointing import header_wcs, is_mirrored, raw_wcs, rotator_follows
from niripipe.instruments.position import orientation
from niripipe.instruments.tables import niri_tables

if TYPE_CHECKING:
    from niripipe.instruments.niri import AstroDataNiri

__all__ = ["exposure_doubts", "field_doubts", "shown", "wcs_fault"]

_LONGEST = 3600.0
"""Exposure times of one coadd beyond this (s) are doubted: the sky alone saturates NIRI long before."""
_MOST_COADDS = 10000
"""Numbers of coadds beyond this are doubted: at 0.1 s each they take the best part of an hour."""
_SAME_ANGLE = 5.0
"""CD and PA agree to this, degrees: 0.5 in real headers."""
_WCS_KEYWORDS = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def shown(ad: AstroDataNiri, *keywords: str) -> str:
    """Return keywords of the headers with their values, as a user finds them: ``EXPTIME = 20.0``."""
    headers = [ad.phu, *(extension.hdr for extension in ad)]

    def value(keyword: str) -> str:
        holding = [header for header in headers if keyword in header]
        if not holding:
            return "missing"
        found = header_value(holding[-1], keyword)
        return "undefined" if found is None else repr(found)

    return ", ".join(f"{keyword} = {value(keyword)}" for keyword in keywords)


def exposure_doubts(ad: AstroDataNiri) -> list[str]:
    """Return what is doubtful about exposure and detector settings of a raw frame, a sentence each.

    Parameters
    ----------
    ad : AstroDataNiri
        A raw data set.
    """
    doubts = []
    exposure, coadds = ad.exposure_time_per_coadd(), get_int(ad.phu, "COADDS")
    if exposure is not None and exposure > _LONGEST:
        doubts.append(f"{shown(ad, 'EXPTIME')} cannot be true: no coadd is longer than {_LONGEST:g} s")
    if coadds is None or coadds < 1:
        doubts.append(f"{shown(ad, 'COADDS')}: one coadd is assumed")
    elif coadds > _MOST_COADDS:
        doubts.append(f"{shown(ad, 'COADDS')} cannot be true: there are at most {_MOST_COADDS}")
    if niri_tables().read_mode_named(ad.read_mode()) is None:
        assumed = niri_tables().fallback_read_mode
        doubts.append(
            f"{shown(ad, 'LNRS', 'NDAVGS')} is no read mode of NIRI: the read noise of {assumed.name}, "
            f"{assumed.read_noise:g} electrons, is assumed"
        )
    if niri_tables().well_named(ad.well_depth_setting()) is None:
        doubts.append(
            f"{shown(ad, 'A_VDDUC', 'A_VDET')}: the bias is that of no well, so that saturation and "
            "non-linearity are not known"
        )
    return doubts


def field_doubts(ad: AstroDataNiri) -> list[str]:
    """Return what is doubtful about reference pixel and CD matrix of a raw frame, a sentence each.

    Parameters
    ----------
    ad : AstroDataNiri
        A raw data set with one extension.

    Notes
    -----
    The reference pixel lies in the array in real frames, CD is turned by PA and mirrored as port and
    adaptive optics have it. What the header says is used all the same: in frames of 2003 the port is not
    right.
    """
    found = raw_wcs(ad)
    if found is None:
        return []
    doubts = []
    (ny, nx), (x, y) = ad[0].shape[-2:], found.wcs.crpix
    if not (0.5 <= x <= nx + 0.5 and 0.5 <= y <= ny + 0.5):
        doubts.append(f"{shown(ad, 'CRPIX1', 'CRPIX2')}: the reference pixel lies outside of the array")
    if not rotator_follows(ad):
        return doubts
    a, b, c, d = found.wcs.cd
    port, angle = ad.port(), ad.position_angle()
    matrix = shown(ad, *_WCS_KEYWORDS[4:])
    if port is not None and (a * d - b * c > 0) != is_mirrored(port, ad.is_ao()):
        doubts.append(f"{matrix}: images at INPORT = {port} are mirrored the other way")
    elif angle is not None and abs((orientation(found.wcs.cd) - angle + 180) % 360 - 180) > _SAME_ANGLE:
        turned = orientation(found.wcs.cd)
        doubts.append(f"{matrix}: the field is turned by {turned:.1f} degrees, not by PA = {angle:g}")
    return doubts


def wcs_fault(ad: AstroDataNiri) -> str:
    """Return why no copy of the WCS in the headers of a raw frame can be used, with the keywords."""
    header = next((extension.hdr for extension in ad), ad.phu)
    unusable = [key for key in _WCS_KEYWORDS if parse_float(header_value(header, key)) is None]
    if unusable:
        return f"{shown(ad, *unusable)}: not a number"
    types = {key: clean_text(header_value(header, key)) for key in ("CTYPE1", "CTYPE2")}
    wrong = [key for key, text in types.items() if text not in ("RA---TAN", "DEC--TAN")]
    if wrong:
        return f"{shown(ad, *wrong)}: not a tangent plane"
    wcs = header_wcs(header)
    if wcs is not None and not (-360 <= wcs.crval[0] <= 360 and -90 <= wcs.crval[1] <= 90):
        return f"{shown(ad, 'CRVAL1', 'CRVAL2')}: not on the sky"
    return f"{shown(ad, *_WCS_KEYWORDS[4:])}: not the scale of camera {ad.camera()}"
