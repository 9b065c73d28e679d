"""World coordinates: from header cards to a mapping to the sky with sanity checks, and back.

Only two celestial axes are handled. The mapping is a `TangentPlane` where that says it all, as in every frame
of the instrument, else an `astropy.wcs.WCS`. Either is built directly from the few keywords that define it,
which is faster than letting the header be parsed again and leaves nothing to warn about.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from niripipe.astrodata import sip_cards
from niripipe.astrodata.distortion import Distortion, to_sip
from niripipe.astrodata.headers import header_value
from niripipe.astrodata.quiet import without_warnings
from niripipe.astrodata.tangent import TangentPlane
from niripipe.astrodata.wcs_numbers import ctype_problem, frame_of, matrix_of, matrix_problem, number
from niripipe.errors import InputError

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = [
    "LinearTerms",
    "SkyMapping",
    "distortion_of",
    "from_header",
    "is_wcs_card",
    "linear_terms",
    "pixel_scale",
    "shifted",
    "terms_of",
    "to_astropy",
    "to_cards",
    "undistorted",
    "with_affine",
    "with_distortion",
    "write_to_header",
]

SkyMapping: TypeAlias = "TangentPlane | WCS"
"""What converts pixels to celestial positions and back: `all_pix2world`, `all_world2pix`."""

_Mapping = TypeVar("_Mapping", TangentPlane, "WCS")

_TANGENT = ("RA---TAN", "DEC--TAN")
_LONGITUDES = ("RA--", "GLON", "ELON")
_SIP = ("RA---TAN-SIP", "DEC--TAN-SIP")
_DISTORTION_KEYS = ("A_ORDER", "B_ORDER", "PV2_1", "PV1_1", "D2IMDIS1", "CPDIS1")
_OLD_CARDS = re.compile(r"(PC|CD)\d_\d|PC\d{6}|CDELT\d|CROTA\d|LONPOLE|LATPOLE|WCSDIM|WCSAXES|FITS-WCS")
_KEYS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2")


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
        matrix, a pixel scale outside 0.0001 to 60 arcsec, a declination beyond a pole, a distortion that
        cannot be understood. One by SIP belongs to the plane, any other one is left to astropy.
    """
    solution = _solution(header)
    if isinstance(solution, str):
        return WcsReading(None, solution)
    if tuple(solution.ctypes) == _SIP and not any(key in header for key in _DISTORTION_KEYS[2:]):
        plane = _tangent(header, solution._replace(ctypes=list(_TANGENT)))
        if plane is not None:
            read = sip_cards.read(header, plane.crpix)
            if isinstance(read, str):
                return WcsReading(None, f"the distortion cannot be understood: {read}")
            return WcsReading(replace(plane, distortion=read))
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
    mapping = _standard(mapping)
    ctypes, terms, radesys, equinox = _description(mapping)
    wcs = _astropy_wcs(ctypes, terms, {"radesys": radesys, "equinox": equinox})
    if mapping.distortion is not None:
        wcs.sip = sip_cards.to_astropy(mapping.distortion)
        wcs.wcs.set()
    return wcs


def undistorted(mapping: SkyMapping) -> SkyMapping:
    """Return the mapping to the sky of undistorted positions (`Distortion.undistort` of pixels)."""
    plane = _as_plane(mapping)
    return mapping if plane is None else plane.undistorted


def distortion_of(mapping: SkyMapping | None) -> Distortion | None:
    """Return the distortion of a mapping; None if it has none, or one that is not SIP's."""
    plane = None if mapping is None else _as_plane(mapping)
    return None if plane is None else plane.distortion


def with_distortion(mapping: SkyMapping, distortion: Distortion | None) -> SkyMapping:
    """Return the same mapping of undistorted positions with another distortion, or none, before it.

    Raises
    ------
    InputError
        The mapping is no tangent plane.
    """
    plane = _as_plane(mapping)
    if plane is None:
        if distortion is None and not mapping.has_distortion:
            return mapping
        raise InputError("a distortion belongs before a tangent plane", found=type(mapping).__name__)
    return replace(plane, distortion=distortion)


def _standard(plane: TangentPlane) -> TangentPlane:
    """Return a plane with its reference pixel in the centre of the distortion, as SIP has it."""
    bent = plane.distortion
    if bent is None or bent.centre == (plane.crpix[0] - 1, plane.crpix[1] - 1):
        return plane
    return plane.about(*bent.centre)


def _as_plane(mapping: SkyMapping) -> TangentPlane | None:
    """Return an object of astropy as a plane with or without SIP; None where it is more than that."""
    if isinstance(mapping, TangentPlane):
        return mapping
    w = mapping.wcs
    linear = (str(w.ctype[0]), str(w.ctype[1])) in (_TANGENT, _SIP)
    others = mapping.cpdis1, mapping.cpdis2, mapping.det2im1, mapping.det2im2
    if mapping.naxis != 2 or not linear or len(w.get_pv()) or any(other is not None for other in others):
        return None
    _, terms, radesys, equinox = _description(mapping)
    if w.lonpole != (180.0 if terms.crval[1] < 90 else 0.0):
        return None
    shape = mapping.pixel_shape
    reach = math.inf
    if shape is not None and None not in shape:
        reach = math.hypot(*(max(c, n + 1 - c) for c, n in zip(terms.crpix, shape, strict=True)))
    bent = None if mapping.sip is None else sip_cards.of_astropy(mapping.sip, reach)
    return TangentPlane(*terms, radesys=radesys, equinox=equinox, distortion=bent)


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
        bent = None if wcs.distortion is None else wcs.distortion.moved(dx, dy)
        return replace(wcs, crpix=(wcs.crpix[0] - dx, wcs.crpix[1] - dy), distortion=bent)
    new = copy.deepcopy(wcs)
    new.wcs.crpix = np.asarray(new.wcs.crpix) - [dx, dy]
    if new.sip is not None:
        from astropy.wcs import Sip

        sip = new.sip
        new.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, np.asarray(sip.crpix) - [dx, dy])
    new.wcs.set()
    return new


def with_affine(wcs: SkyMapping, matrix: ArrayLike, offset: ArrayLike) -> SkyMapping:
    """Return the WCS of an image whose pixel p shows what pixel p' = M p + o of the old one shows.

    Parameters
    ----------
    wcs : TangentPlane or astropy.wcs.WCS
        WCS of the old image; it is not changed. With a distortion, M and o speak of undistorted
        positions, and the pixels of both images are distorted alike.
    matrix : array_like
        M, 2 x 2, for column vectors (x, y).
    offset : array_like
        o = (ox, oy), pixels.

    Returns
    -------
    TangentPlane or astropy.wcs.WCS
        As `wcs`, with CD' = CD M, and CRPIX' so that M CRPIX' + o = CRPIX (0-based). An object of
        astropy with SIP gives a `TangentPlane`.

    Raises
    ------
    InputError
        The matrix is singular, or the WCS has distortions other than SIP's.
    """
    m = np.asarray(matrix, float)
    o = np.asarray(offset, float)
    if m.shape != (2, 2) or o.shape != (2,) or not abs(np.linalg.det(m)) > 0:
        raise InputError(
            "a WCS cannot be carried along by this mapping",
            found=f"matrix {m.tolist()}, offset {o.tolist()}",
            expected="a regular 2 x 2 matrix and two offsets",
        )
    if wcs.has_distortion and not isinstance(wcs, TangentPlane):
        plane = _as_plane(wcs)
        if plane is None:
            raise InputError("an affine mapping cannot be put into a WCS with distortions other than SIP")
        return with_affine(plane, m, o)
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
    With a distortion (SIP) the reference pixel is its centre, whatever it was before. Distortions that
    are not SIP give the cards that astropy writes for them.
    """
    if wcs.has_distortion:
        wcs = _as_plane(wcs) or wcs
    if isinstance(wcs, TangentPlane):
        wcs = _standard(wcs)
    elif wcs.has_distortion:
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
    if isinstance(wcs, TangentPlane) and wcs.distortion is not None:
        cards += sip_cards.cards(wcs.distortion)
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
    plane = _as_plane(wcs) if wcs.has_distortion else None
    bent: Any = wcs.has_distortion
    if plane is not None and plane.distortion is not None:
        wcs = _standard(plane)
        bent = tuple(tuple(sorted(terms.items())) for terms in to_sip(plane.distortion)[:2])
    ctypes, terms, radesys, equinox = _description(wcs)
    return ctypes, terms, radesys, repr(equinox), bent


def _description(wcs: SkyMapping) -> tuple[tuple[str, str], LinearTerms, str, float]:
    """Return what is written of a WCS: CTYPEs, numbers, RADESYS, EQUINOX."""
    if isinstance(wcs, TangentPlane):
        ctypes = _TANGENT if wcs.distortion is None else _SIP
        return ctypes, LinearTerms(wcs.crpix, wcs.crval, wcs.cd), wcs.radesys, wcs.equinox
    w = wcs.wcs
    cd = tuple(np.ravel(wcs.pixel_scale_matrix).tolist())
    terms = LinearTerms(tuple(w.crpix.tolist()), tuple(w.crval.tolist()), cd)
    return (str(w.ctype[0]), str(w.ctype[1])), terms, str(w.radesys), float(w.equinox)


def is_wcs_card(key: str) -> bool:
    """Return whether a keyword belongs to a WCS."""
    if _OLD_CARDS.fullmatch(key) or sip_cards.SIP_KEYWORD.fullmatch(key):
        return True
    return key in _KEYS or key in ("CUNIT1", "CUNIT2")


def _solution(header: Any) -> _Solution | str:
    """Return what a header says about its WCS, or why that cannot be true."""
    ctypes = [str(header_value(header, f"CTYPE{i}", "")).strip().upper() for i in (1, 2)]
    problem = ctype_problem(ctypes)
    if problem:
        return problem
    values = {key: number(header, key) for key in _KEYS[2:]}
    bad = [key for key, value in values.items() if value is None or not math.isfinite(value)]
    if bad:
        return f"{', '.join(bad)} missing or not a finite number"
    x, y, first, second = (float(values[key] or 0.0) for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"))
    matrix = matrix_of(header)
    problem = matrix_problem(matrix)
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
        or ("LONPOLE" in header and number(header, "LONPOLE") not in (None, default_pole))
    ):
        return None
    return TangentPlane(*terms, **frame_of(header))


def _linear(header: Any, solution: _Solution) -> WCS:
    poles = {name: number(header, name.upper()) for name in ("lonpole", "latpole") if name.upper() in header}
    frame = frame_of(header) if solution.ctypes[0].startswith(("RA", "DEC")) else {}
    return _astropy_wcs(solution.ctypes, solution.terms, poles | frame)


def _astropy_wcs(ctypes: Sequence[str], terms: LinearTerms, others: dict[str, Any]) -> WCS:
    from niripipe.astrodata.frame_wcs import FrameWCS

    wcs = FrameWCS(naxis=2)
    w = wcs.wcs
    w.ctype, w.cunit = list(ctypes), ["deg", "deg"]
    w.crpix, w.crval, w.cd = terms.crpix, terms.crval, np.reshape(terms.cd, (2, 2))
    for name, value in others.items():
        if value is not None:
            setattr(w, name, value)
    w.set()
    return wcs


def _full(header: Any) -> WcsReading:
    """Let astropy parse a header with distortions."""
    from niripipe.astrodata.frame_wcs import FrameWCS

    with without_warnings():
        try:
            return WcsReading(FrameWCS(header, naxis=2))
        except Exception as error:  # whatever a damaged header provokes in the parser means the same here
            return WcsReading(None, f"the distortions cannot be understood: {error}")
