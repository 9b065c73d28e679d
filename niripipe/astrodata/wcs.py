"""World coordinates: from header cards to a mapping to the sky with sanity checks, and back.

Only two celestial axes are handled. The mapping is a `TangentPlane` where that says it all, as in every frame
of the instrument, else an `astropy.wcs.WCS`. Either is built directly from the few keywords that define it,
which is faster than letting the header be parsed again and leaves nothing to warn about.
"""

from __future__ import annotations

import copy
import math
import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niripipe.astrodata.headers import header_value
from niripipe.astrodata.tangent import TangentPlane
from niripipe.errors import InputError

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = [
    "LinearTerms",
    "SkyMapping",
    "from_header",
    "is_wcs_card",
    "linear_terms",
    "pixel_scale",
    "shifted",
    "terms_of",
    "to_astropy",
    "to_cards",
    "warnings_lock",
    "with_affine",
    "write_to_header",
]

SkyMapping: TypeAlias = "TangentPlane | WCS"
"""What converts pixels to celestial positions and back: `all_pix2world`, `all_world2pix`."""

_Mapping = TypeVar("_Mapping", TangentPlane, "WCS")

# Pixel scales that are believed, arcsec/pixel.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-4, 60.0

# Ratio of the singular values of the CD matrix beyond which one axis has collapsed. Detectors have 1.
_LARGEST_CONDITION = 100.0
_CELESTIAL = re.compile(r"(RA--|DEC-|GLON|GLAT|ELON|ELAT)-([A-Z]{3})(-SIP)?")
_TANGENT = ("RA---TAN", "DEC--TAN")
_LONGITUDES = ("RA--", "GLON", "ELON")
_PAIRS = ({"RA--", "DEC-"}, {"GLON", "GLAT"}, {"ELON", "ELAT"})
_DISTORTION_KEYS = ("A_ORDER", "B_ORDER", "PV2_1", "PV1_1", "D2IMDIS1", "CPDIS1")
_OLD_CARDS = re.compile(r"(PC|CD)\d_\d|PC\d{6}|CDELT\d|CROTA\d|LONPOLE|LATPOLE|WCSDIM|WCSAXES|FITS-WCS")
_KEYS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")

# Warning filters belong to the whole process: changing them for a moment must not overlap itself.
warnings_lock = threading.Lock()


class WcsReading(NamedTuple):
    """What a header says: a mapping to the sky, or why there is none."""

    mapping: SkyMapping | None
    problem: str = ""


class LinearTerms(NamedTuple):
    """The numbers of a linear WCS.

    Attributes
    ----------
    crpix : tuple of float
        Reference pixel (x, y), 1-based.
    crval : tuple of float
        Longitude and latitude of the reference pixel, degrees.
    cd : tuple of float
        CD1_1, CD1_2, CD2_1, CD2_2 in degrees per pixel.
    """

    crpix: tuple[float, float]
    crval: tuple[float, float]
    cd: tuple[float, float, float, float]

    @property
    def scale(self) -> float:
        """Pixel scale, arcsec: the square root of the pixel area."""
        return 3600.0 * math.sqrt(abs(self.cd[0] * self.cd[3] - self.cd[1] * self.cd[2]))

    def to_plane(self) -> TangentPlane:
        """Return it as a mapping to the sky (FK5, equinox 2000, as NIRI's headers mean)."""
        return TangentPlane(*self)


class _Solution(NamedTuple):
    ctypes: list[str]
    terms: LinearTerms
    distorted: bool


def from_header(header: Any) -> WcsReading:
    """Build the mapping to the sky that a header describes, and check that it can be true.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header with the keywords CTYPEi, CRPIXj, CRVALi and either CDi_j, or CDELTi with PCi_j or CROTA2.
        RADESYS (or RADECSYS) is FK5 where missing, EQUINOX is 2000 where missing or not positive.

    Returns
    -------
    WcsReading
        The mapping; or None and the reason: not celestial, an element missing or not finite, a singular
        matrix, a pixel scale outside 0.0001 to 60 arcsec, a declination beyond a pole.
    """
    solution = _solution(header)
    if isinstance(solution, str):
        return WcsReading(None, solution)
    if solution.distorted:
        return _full(header)
    return WcsReading(_tangent(header, solution) or _linear(header, solution))


def linear_terms(header: Any) -> LinearTerms | None:
    """Return the numbers of the WCS that `from_header` would build, without building it.

    Returns
    -------
    LinearTerms or None
        None where there is no WCS to build, or it is more than these numbers: with distortions, or
        with other axes than right ascension and declination, in this order.
    """
    solution = _solution(header)
    if isinstance(solution, str) or solution.distorted or not solution.ctypes[0].startswith("RA--"):
        return None
    return solution.terms


def terms_of(wcs: SkyMapping | None) -> LinearTerms | None:
    """Return the linear part of a WCS; None if it has no celestial axes."""
    if isinstance(wcs, TangentPlane):
        return _description(wcs)[1]
    return _description(wcs.celestial)[1] if wcs is not None and wcs.has_celestial else None


def to_astropy(mapping: SkyMapping) -> WCS:
    """Return a mapping to the sky as an `astropy.wcs.WCS`: a new one, or itself if it is one."""
    if not isinstance(mapping, TangentPlane):
        return mapping
    ctypes, terms, radesys, equinox = _description(mapping)
    return _astropy_wcs(ctypes, terms, {"radesys": radesys, "equinox": equinox})


def pixel_scale(wcs: SkyMapping) -> float:
    """Return the pixel scale, 3600 sqrt(|det CD|), in arcsec/pixel."""
    return 3600.0 * math.sqrt(abs(float(np.linalg.det(wcs.pixel_scale_matrix))))


def shifted(wcs: _Mapping, dx: float, dy: float) -> _Mapping:
    """Return the WCS of an image whose pixel (x, y) is pixel (x + dx, y + dy) of the old one.

    Parameters
    ----------
    wcs : TangentPlane or astropy.wcs.WCS
        WCS of the old image; it is not changed.
    dx, dy : float
        Old position of the new origin, pixels.

    Returns
    -------
    TangentPlane or astropy.wcs.WCS
        As `wcs`.
    """
    if isinstance(wcs, TangentPlane):
        return replace(wcs, crpix=(wcs.crpix[0] - dx, wcs.crpix[1] - dy))
    new = copy.deepcopy(wcs)
    new.wcs.crpix = np.asarray(new.wcs.crpix) - [dx, dy]
    if new.sip is not None:
        from astropy.wcs import Sip

        sip = new.sip
        new.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, np.asarray(sip.crpix) - [dx, dy])
    new.wcs.set()
    return new


def with_affine(wcs: _Mapping, matrix: ArrayLike, offset: ArrayLike) -> _Mapping:
    """Return the WCS of an image whose pixel p shows what pixel p' = M p + o of the old one shows.

    Parameters
    ----------
    wcs : TangentPlane or astropy.wcs.WCS
        WCS of the old image, without distortions; it is not changed.
    matrix : array_like
        M, 2 x 2, for column vectors (x, y).
    offset : array_like
        o = (ox, oy), pixels.

    Returns
    -------
    TangentPlane or astropy.wcs.WCS
        As `wcs`, with CD' = CD M, and CRPIX' so that M CRPIX' + o = CRPIX (0-based).

    Raises
    ------
    InputError
        The matrix is singular, or the WCS has distortions.
    """
    m = np.asarray(matrix, float)
    o = np.asarray(offset, float)
    if m.shape != (2, 2) or o.shape != (2,) or not abs(np.linalg.det(m)) > 0:
        raise InputError(
            "a WCS cannot be carried along by this mapping",
            found=f"matrix {m.tolist()}, offset {o.tolist()}",
            expected="a regular 2 x 2 matrix and two offsets",
        )
    if wcs.has_distortion:
        raise InputError("an affine mapping cannot be put into a WCS with distortions")
    cd = np.asarray(wcs.pixel_scale_matrix) @ m
    crpix = np.linalg.solve(m, np.asarray(_description(wcs)[1].crpix) - 1.0 - o) + 1.0
    if isinstance(wcs, TangentPlane):
        (x, y), ((a, b), (c, d)) = crpix.tolist(), cd.tolist()
        return replace(wcs, crpix=(x, y), cd=(a, b, c, d))
    new = copy.deepcopy(wcs)
    if new.wcs.has_cd():
        new.wcs.cd = cd
    else:
        # PC and CDELT would be applied on top of CD
        new.wcs.cdelt = [1.0, 1.0]
        new.wcs.pc = cd
    new.wcs.crpix = crpix
    new.wcs.set()
    return new


def to_cards(wcs: SkyMapping) -> list[tuple[str, Any, str]]:
    """Return the header cards of a WCS as (keyword, value, comment).

    Notes
    -----
    A WCS with distortions gives the cards that astropy writes for it.
    """
    if not isinstance(wcs, TangentPlane) and wcs.has_distortion:
        return [(c.keyword, c.value, c.comment) for c in wcs.to_header(relax=True).cards]
    ctypes, terms, radesys, equinox = _description(wcs)
    cards: list[tuple[str, Any, str]] = []
    for i in (0, 1):
        cards += [
            (f"CTYPE{i + 1}", ctypes[i], "Coordinate and projection"),
            (f"CRPIX{i + 1}", terms.crpix[i], "[pixel] Reference pixel"),
            (f"CRVAL{i + 1}", terms.crval[i], "[deg] Coordinate at the reference pixel"),
            (f"CUNIT{i + 1}", "deg", "Unit of the coordinate"),
        ]
    for name, value in zip(("CD1_1", "CD1_2", "CD2_1", "CD2_2"), terms.cd, strict=True):
        cards.append((name, value, "[deg/pixel] Matrix element"))
    if radesys:
        cards.append(("RADESYS", radesys, "Reference frame"))
    if math.isfinite(equinox):
        cards.append(("EQUINOX", equinox, "[yr] Equinox"))
    return cards


def write_to_header(wcs: SkyMapping | None, header: Any) -> None:
    """Put a WCS into a header; present cards keep their place and comment. None removes the WCS.

    Parameters
    ----------
    wcs : TangentPlane, astropy.wcs.WCS or None
        The WCS.
    header : astropy.io.fits.Header
        Changed in place. Other ways of saying the same (PC, CDELT, CROTA) are removed.
    """
    cards = [] if wcs is None else to_cards(wcs)
    keep = {key for key, _, _ in cards}
    for key in [k for k in header.keywords() if is_wcs_card(k) and k not in keep]:
        header.remove(key, ignore_missing=True, remove_all=True)
    for key, value, comment in cards:
        if key in header:
            header[key] = value
        else:
            header.set(key, value, comment)


def signature(wcs: SkyMapping) -> tuple[Any, ...]:
    """Return what defines a WCS, to see whether it changed; the same for a plane and its astropy object."""
    ctypes, terms, radesys, equinox = _description(wcs)
    return ctypes, terms, radesys, repr(equinox), wcs.has_distortion


def _description(wcs: SkyMapping) -> tuple[tuple[str, str], LinearTerms, str, float]:
    """Return what is written of a WCS: CTYPEs, numbers, RADESYS, EQUINOX."""
    if isinstance(wcs, TangentPlane):
        return _TANGENT, LinearTerms(wcs.crpix, wcs.crval, wcs.cd), wcs.radesys, wcs.equinox
    w = wcs.wcs
    cd = tuple(np.ravel(wcs.pixel_scale_matrix).tolist())
    terms = LinearTerms(tuple(w.crpix.tolist()), tuple(w.crval.tolist()), cd)
    return (str(w.ctype[0]), str(w.ctype[1])), terms, str(w.radesys), float(w.equinox)


def is_wcs_card(key: str) -> bool:
    """Return whether a keyword belongs to a WCS."""
    return bool(_OLD_CARDS.fullmatch(key)) or key in _KEYS or key in ("CUNIT1", "CUNIT2")


def _ctype_problem(ctypes: list[str]) -> str:
    matches = [_CELESTIAL.fullmatch(ctype) for ctype in ctypes]
    if not all(matches):
        return f"CTYPE {ctypes[0]!r}, {ctypes[1]!r} are not celestial axes"
    if {ctype[:4] for ctype in ctypes} not in _PAIRS:
        return f"CTYPE {ctypes[0]!r}, {ctypes[1]!r} are not a longitude and a latitude"
    return ""


def _matrix(header: Any) -> NDArray[np.float64] | None:
    """Return the CD matrix in deg/pixel, or None where an element is not a number."""
    if any(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        elements = [_float(header, f"CD{i}_{j}", 0.0) for i in (1, 2) for j in (1, 2)]
        return None if None in elements else np.array(elements, float).reshape(2, 2)
    cdelt = [_float(header, f"CDELT{i}", 1.0) for i in (1, 2)]
    pc = [_float(header, f"PC{i}_{j}", float(i == j)) for i in (1, 2) for j in (1, 2)]
    rotation = _float(header, "CROTA2", 0.0)
    if None in cdelt or None in pc or rotation is None:
        return None
    scale = np.array(cdelt, float)
    matrix: NDArray[np.float64] = scale[:, None] * np.array(pc, float).reshape(2, 2)
    if rotation and not any(f"PC{i}_{j}" in header for i in (1, 2) for j in (1, 2)):
        # CD from CDELT and CROTA2: Calabretta & Greisen 2002, A&A 395, 1077, section 6.1
        c, s = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        matrix = np.array([[scale[0] * c, -scale[1] * s], [scale[0] * s, scale[1] * c]])
    return matrix


def _matrix_problem(matrix: NDArray[np.float64] | None) -> str:
    if matrix is None or not np.isfinite(matrix).all():
        return "the CD matrix has elements that are not finite numbers"
    large, small = np.linalg.svd(matrix, compute_uv=False)
    if not small > 0 or large / small > _LARGEST_CONDITION:
        return f"the CD matrix {matrix.ravel().tolist()} is singular"
    scale = 3600.0 * math.sqrt(large * small)
    if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:
        return f"a pixel scale of {scale:.4g} arcsec is outside {_SMALLEST_SCALE} to {_LARGEST_SCALE}"
    return ""


def _solution(header: Any) -> _Solution | str:
    """Return what a header says about its WCS, or why that cannot be true."""
    ctypes = [str(header_value(header, f"CTYPE{i}", "")).strip().upper() for i in (1, 2)]
    problem = _ctype_problem(ctypes)
    if problem:
        return problem
    values = {key: _float(header, key) for key in _KEYS[2:]}
    bad = [key for key, value in values.items() if value is None or not math.isfinite(value)]
    if bad:
        return f"{', '.join(bad)} missing or not a finite number"
    x, y, first, second = (float(values[key] or 0.0) for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"))
    matrix = _matrix(header)
    problem = _matrix_problem(matrix)
    latitude = first if ctypes[1][:4] in _LONGITUDES else second
    if not problem and abs(latitude) > 90:
        problem = f"the reference point has latitude {latitude:g}"
    if problem or matrix is None:
        return problem
    (a, b), (c, d) = matrix.tolist()
    terms = LinearTerms((x, y), (first, second), (a, b, c, d))
    return _Solution(ctypes, terms, any(key in header for key in _DISTORTION_KEYS))


def _tangent(header: Any, solution: _Solution) -> TangentPlane | None:
    """Return the mapping of a header if it is a tangent plane; LATPOLE has no meaning there."""
    terms = solution.terms
    default_pole = 180.0 if terms.crval[1] < 90 else 0.0
    if (
        tuple(solution.ctypes) != _TANGENT
        or abs(terms.crval[0]) > 360
        or ("LONPOLE" in header and _float(header, "LONPOLE") not in (None, default_pole))
    ):
        return None
    return TangentPlane(*terms, **_frame(header))


def _linear(header: Any, solution: _Solution) -> WCS:
    poles = {name: _float(header, name.upper()) for name in ("lonpole", "latpole") if name.upper() in header}
    frame = _frame(header) if solution.ctypes[0].startswith(("RA", "DEC")) else {}
    return _astropy_wcs(solution.ctypes, solution.terms, poles | frame)


def _astropy_wcs(ctypes: Sequence[str], terms: LinearTerms, others: dict[str, Any]) -> WCS:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    w = wcs.wcs
    w.ctype, w.cunit = list(ctypes), ["deg", "deg"]
    w.crpix, w.crval, w.cd = terms.crpix, terms.crval, np.reshape(terms.cd, (2, 2))
    for name, value in others.items():
        if value is not None:
            setattr(w, name, value)
    w.set()
    return wcs


def _frame(header: Any) -> dict[str, Any]:
    name = header_value(header, "RADESYS", header_value(header, "RADECSYS", ""))
    frame = str(name).strip().upper() or "FK5"
    if frame == "ICRS":
        return {"radesys": frame, "equinox": math.nan}
    equinox = _float(header, "EQUINOX", 0.0) or 0.0
    default = 1950.0 if frame.startswith("FK4") else 2000.0
    return {"radesys": frame, "equinox": equinox if equinox > 0 else default}


def _full(header: Any) -> WcsReading:
    """Let astropy parse a header with distortions."""
    from astropy.wcs import WCS

    with warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return WcsReading(WCS(header, naxis=2))
        except Exception as error:  # whatever a damaged header provokes in the parser means the same here
            return WcsReading(None, f"the distortions cannot be understood: {error}")


def _float(header: Any, key: str, default: float | None = None) -> float | None:
    value = header_value(header, key, default)
    if isinstance(value, bool):
        return None
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
