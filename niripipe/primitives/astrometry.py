"""Primitives that bring in a reference catalogue and fit the world coordinates to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from niripipe.algorithms.filter_magnitudes import filter_magnitudes, system_error
from niripipe.algorithms.match import match_sources
from niripipe.algorithms.register import Registration, Sources, pair_sources
from niripipe.algorithms.source_catalogue import MISSING
from niripipe.algorithms.vote import brightest_first
from niripipe.astrodata import AstroData, undistorted, with_affine
from niripipe.errors import InputError
from niripipe.logutils import get_logger
from niripipe.paths import usable_path
from niripipe.primitives import catalogue_client
from niripipe.primitives.base import Frames, Outcome, PrimitivesBase, primitive, skipped
from niripipe.primitives.geometry import require_sky_mapping, sky_centre
from niripipe.primitives.objcat import inside, sources, straight_sources, update_world
from niripipe.primitives.params import Field, SuffixParams, nearest, path_as_text

__all__ = ["Astrometry"]

log = get_logger(__name__)

Floats = NDArray[np.float64]

_CATALOGUE_ERROR = 0.08
"""Error of a catalogue position per axis, arcsec, where the catalogue does not say: that of 2MASS
(Skrutskie et al. 2006, AJ 131, 1163)."""

_TURNED_PAIRS, _TURNED_RMS = 10, 0.7
"""A rotation that was not asked for needs so many pairs, whose scatter it brings down to this part: 3 sigma
with ten pairs."""

_ASSUMED_ERROR = 0.05
"""Error (mag) of magnitudes whose catalogue states none: that of stars of medium brightness in 2MASS."""


_SHORT = {"ukidss": "ukidss9", "gaia": "gaia3", "sdss": "sdss9"}
"""Catalogues by their names without the release."""


def _source(value: Any) -> Any:
    """Tell names of catalogues from paths; tables stay as they are."""
    if value is None or hasattr(value, "colnames"):
        return value
    if not isinstance(value, str | Path):
        raise ValueError("a catalogue's name, a path, an astropy Table, or None")
    name = _SHORT.get(str(value).lower(), str(value).lower())
    if name in catalogue_client.CATALOGUES:
        return name
    # As text: a parameter that is a path names a frame.
    path = usable_path(value)
    if not path.is_file():
        hint = nearest(str(value), catalogue_client.CATALOGUES) or ""
        raise ValueError(
            f"neither a file nor one of {', '.join(catalogue_client.CATALOGUES)}. {hint}".rstrip()
        )
    return str(path)


class AddReferenceCatalogParams(SuffixParams, suffix="_refcatAdded"):
    """Parameters of `Astrometry.addReferenceCatalog`."""

    source: Annotated[Any, BeforeValidator(_source), BeforeValidator(path_as_text)] = Field(
        None,
        description="a file, an astropy Table, or a catalogue to be asked for over the network: "
        "2mass, ukidss9 (ukidss), sdss9, gaia3 (gaia); None: no catalogue, no network",
    )
    radius: float = Field(0.033, gt=0, le=5, description="radius around the middle of the frame, degrees")
    format: str | None = Field(None, description="astropy's name of the file's format; None: find out")
    server: str = Field(catalogue_client.VIZIER, description="address of a VizieR server")
    timeout: float = Field(30.0, gt=0, description="seconds that an answer may take")
    max_rows: int = Field(5000, ge=1, description="sources asked for at most")
    client: Literal["niripipe", "astroquery"] = Field(
        "niripipe", description="who asks the server; astroquery has to be installed (extra query)"
    )
    required: bool = Field(
        True,
        description="whether a server that cannot be asked is an error in mode sq; otherwise frames stay "
        "without a catalogue, with a warning",
    )

    def as_record(self) -> dict[str, Any]:
        """Return the values in a form that JSON can hold; a table appears by name and length."""
        record = super().as_record()
        if hasattr(self.source, "colnames"):
            name = str(self.source.meta.get("CATALOG", "without name"))
            record["source"] = f"table {name}, {len(self.source)} rows"
        return record


class DetermineAstrometricSolutionParams(SuffixParams, suffix="_astrometryCorrected"):
    """Parameters of `Astrometry.determineAstrometricSolution`."""

    initial: float = Field(5.0, ge=1, description="largest error of the WCS, arcsec")
    final: float = Field(1.0, gt=0, description="largest distance of a matched pair, arcsec")
    rotate: bool | None = Field(
        None, description="allow a rotation; None: where ten or more pairs fit clearly better with one"
    )
    scale: bool = Field(False, description="allow a change of scale")
    min_sources: int = Field(3, ge=2, description="matched sources without which the WCS is left as it is")


class Astrometry(PrimitivesBase):
    """Reference catalogue and world coordinates."""

    @primitive(stamp="ADDRECAT")
    def addReferenceCatalog(self, frames: Frames, params: AddReferenceCatalogParams) -> Frames:
        """Attach the sources of a reference catalogue around each frame as the table REFCAT.

        Columns: Id, Cat_Id, RAJ2000, DEJ2000 (degrees; proper motions, where the catalogue has them, are
        applied up to the time of the frame), magnitudes with errors, and filtermag, filtermag_err in the
        filter of the frame (-999 where not known). Columns of files and tables are found by name in any
        letter case (`niripipe.astrodata.catalogue_columns`): RAJ2000, RA_ICRS, _RAJ2000, RA and the like
        (degrees, or sexagesimal text), or coordinates of astropy; Hmag, H_mag, h_m, mag_H or H; e_Hmag,
        Hmag_err, h_cmsig, H_error or e_H; pmRA, pmDE. Masked values, and numbers that stand for missing ones
        (99.999, -999), are no magnitudes. A catalogue without errors is used with 0.05 mag, with a warning;
        where it has errors, a magnitude without one is an upper limit and not used. Nothing reaches the
        network unless a catalogue is named; a server is asked once for all frames of one field. DRAGONS asks
        for 2MASS by default, around the WCS's reference point, which may lie outside of the frame.

        Raises
        ------
        InputError
            The file cannot be read; or, in mode sq, the server gives no usable answer.
        DataError
            The table has no usable positions, or a frame no WCS.
        """
        if params.source is None:
            return self.note_all(frames, skipped("no source was named"))
        known: list[tuple[float, float, Any]] = []
        for frame in frames:
            ra, dec = sky_centre(frame)
            try:
                table = _covering(known, ra, dec, params)
            except InputError as error:
                if self.context.mode == "sq" and params.required:
                    raise
                log.warning("%s: %s", frame.filename, error)
                self.note(frame, skipped(str(error)))
                continue
            table = catalogue_client.near(table, ra, dec, params.radius, frame.ut_datetime())
            if len(table) == 0:
                self.note(frame, skipped(f"no catalogue source within {params.radius:g} degrees"))
                continue
            if "pmra" in table.colnames and "EPOCH" not in table.meta:
                log.warning(
                    "%s: the proper motions are not applied: the catalogue has no epoch", frame.filename
                )
            _add_filter_magnitudes(table, frame)
            frame.REFCAT = table
            log.stdinfo("%s: %d sources of %s", frame.filename, len(table), table.meta["CATALOG"])
        return frames

    @primitive(stamp="ASTRMTRY", repeatable=True)
    def determineAstrometricSolution(
        self, frame: AstroData, params: DetermineAstrometricSolutionParams
    ) -> Outcome | None:
        """Fit the WCS to the reference catalogue, and give sources their reference magnitudes.

        The objects of OBJCAT (of many, the brightest) are matched with REFCAT within `initial` of where the
        WCS puts them. The WCS moves only if at least `min_sources` pairs agree, so many are no accident, and
        the shift is certain to 0.06 arcsec; one star in the right place proves nothing. Sources within
        `final` of a reference source get REF_NUMBER, REF_MAG, REF_MAG_ERR, also where the WCS stays as it is.

        The extension gets ASTNUM (pairs), ASTDRA and ASTDDEC (how far the middle of the frame moved, arcsec,
        RA times cos Dec), ASTRMSRA and ASTRMSDE (scatter of the pairs on each axis, arcsec), ASTRMS
        (scatter of their distances, the root of the sum of both squares), ASTCAT (catalogue) and ASTEPOCH
        (Julian year of its positions, that of the frame where proper motions are applied). Pixels are not
        touched.
        """
        ext = frame[0]
        missing = _missing(frame)
        if missing:
            if "REFCAT" in frame.tables:
                log.warning("%s: no astrometric solution: %s", frame.filename, missing)
            return skipped(missing)
        scale = float(ext.pixel_scale())
        found = _matched(frame, params, scale)
        accepted = found.accepted and found.n_matched >= params.min_sources
        before = sky_centre(frame)
        if accepted:
            matrix, offset = found.matrix()
            # The registration speaks of arcsec in array order, a WCS of pixels (x, y).
            ext.sky_mapping = with_affine(ext.sky_mapping, matrix[::-1, ::-1], offset[::-1] / scale)
            update_world(frame)
        residuals = _assign(frame, params.final, scale)
        if not accepted:
            reason = _why_left(found, params) + f"; {len(residuals)} sources identified where they are"
            log.warning("%s: the WCS is left as it is: %s", frame.filename, reason)
            return skipped(reason)
        _record(frame, before, residuals)
        return None


def _covering(
    known: list[tuple[float, float, Any]], ra: float, dec: float, params: AddReferenceCatalogParams
) -> Any:
    """Return a table that covers a field: one got before, or a new one."""
    for lon, lat, table in known:
        if np.hypot((lon - ra) * np.cos(np.deg2rad(dec)), lat - dec) <= params.radius:
            return table
    table = _obtained(ra, dec, params)
    known.append((ra, dec, table))
    return table


def _obtained(ra: float, dec: float, params: AddReferenceCatalogParams) -> Any:
    source = params.source
    if not isinstance(source, str):
        return catalogue_client.standard_table(source)
    if source not in catalogue_client.CATALOGUES:
        return catalogue_client.read_table(Path(source), params.format)
    # Twice the radius, so that fields displaced by up to the radius are covered by the same answer.
    settings = params.model_dump(include={"server", "timeout", "max_rows", "client"})
    return catalogue_client.cone_search(source, ra, dec, 2 * params.radius, **settings)


def _add_filter_magnitudes(table: Any, frame: AstroData) -> None:
    """Add the magnitudes in the filter of a frame, unless the catalogue has them by that name."""
    name = frame.filter_name(pretty=True)
    bands = [band for band in table.colnames if band.endswith("mag") and band != "filtermag"]
    if "filtermag" in table.colnames:
        magnitudes = {"filtermag": np.asarray(table["filtermag"], float)}
        stated = _errors(table, magnitudes)
        if not stated:
            _warn_assumed(frame, ["filtermag"])
        found = magnitudes["filtermag"], stated.get("filtermag", np.full(len(table), _ASSUMED_ERROR))
    else:
        magnitudes = {band: np.asarray(table[band], float) for band in bands}
        nothing = np.full(len(table), MISSING)
        found = _derived(name, table, magnitudes, frame) or (nothing, nothing)
    usable = np.isfinite(found[0]) & np.isfinite(found[1]) & (found[0] > MISSING)
    table["filtermag"], table["filtermag_err"] = (np.where(usable, part, MISSING) for part in found)
    _say_missing(table, usable, frame)


def _derived(
    name: str | None, table: Any, magnitudes: dict[str, Floats], frame: AstroData
) -> tuple[Floats, Floats] | None:
    """Return magnitudes and errors in a filter; errors that the catalogue lacks are assumed."""
    stated = _errors(table, magnitudes)
    system = str(table.meta.get("SYSTEM", ""))
    found = filter_magnitudes(name, magnitudes, stated, system)
    without = sorted(set(magnitudes) - set(stated))
    if found is None and without:
        assumed = {band: np.full(len(magnitudes[band]), _ASSUMED_ERROR) for band in without}
        found = filter_magnitudes(name, magnitudes, {**stated, **assumed}, system)
        if found is not None:
            _warn_assumed(frame, without)
    if found is not None:
        if system == "2MASS" and name in ("J", "H") and not {"jmag", "hmag"} <= stated.keys():
            text = "%s: the catalogue has no J - H with errors: %s of 2MASS is taken as it is"
            log.warning(text, frame.filename, name)
            system = ""
        table.meta["SYSERR"] = system_error(name, system)
        return found
    listed = ", ".join(magnitudes) or "none"
    log.warning("%s: the catalogue has no magnitudes in %s (it has: %s)", frame.filename, name, listed)
    return None


def _errors(table: Any, bands: Iterable[str]) -> dict[str, Floats]:
    """Return the errors that a catalogue states, of the bands for which it states any.

    A single magnitude without an error is an upper limit in 2MASS and stays without.
    """
    columns = {band: f"{band}_err" for band in bands if f"{band}_err" in table.colnames}
    errors = {band: np.asarray(table[column], float) for band, column in columns.items()}
    return {band: error for band, error in errors.items() if np.isfinite(error).any()}


def _warn_assumed(frame: AstroData, bands: Iterable[str]) -> None:
    log.warning(
        "%s: the catalogue has no errors of %s: %g mag is assumed",
        frame.filename,
        ", ".join(bands),
        _ASSUMED_ERROR,
    )


def _say_missing(table: Any, usable: NDArray[np.bool_], frame: AstroData) -> None:
    """Say how many stars have no magnitude: missing values are easily taken for a small catalogue."""
    lost = len(table) - int(np.count_nonzero(usable))
    if lost and usable.any():
        log.warning(
            "%s: %d of %d catalogue stars have no usable magnitude in %s (missing value, no error, "
            "flagged, or a colour outside of the colour term)",
            frame.filename,
            lost,
            len(table),
            frame.filter_name(pretty=True),
        )


def _missing(frame: AstroData) -> str:
    """Say what is missing for an astrometric solution; nothing if it is all there."""
    ext = frame[0]
    if "REFCAT" not in frame.tables:
        return "there is no reference catalogue; run addReferenceCatalog first"
    if "OBJCAT" not in ext.exposed or len(ext.OBJCAT) == 0:
        return "there are no sources; run detectSources first"
    if ext.sky_mapping is None or ext.pixel_scale() is None:
        return "the frame has no WCS"
    return ""


def _matched(frame: AstroData, params: DetermineAstrometricSolutionParams, scale: float) -> Registration:
    """Match objects and catalogue, in arcsec from the first pixel.

    A catalogue's positions are no better for a finer pixel scale, so the limits that decide about the match
    are angles.
    """
    ny, nx = frame[0].shape
    x, y, flux = _reference(frame)
    near = inside(frame, x, y, -params.initial / scale)
    x, y, flux = x[near], y[near], flux[near]
    objects = _objects(frame, max(2 * len(x), 10), scale)
    reference = Sources(
        x * scale,
        y * scale,
        _on_scale_of(flux, objects.flux),
        np.full(len(x), np.nan),
        np.full(len(x), float(frame.REFCAT.meta.get("POSERR", _CATALOGUE_ERROR))),
        np.zeros(len(x), bool),
    )
    match = partial(
        match_sources,
        objects,
        reference,
        search_radius=params.initial,
        match_radius=params.final,
        min_sources=params.min_sources,
        scale=params.scale,
        centre=(scale * (nx - 1) / 2, scale * (ny - 1) / 2),
    )
    found = match(rotate=params.rotate)
    if params.rotate is not None or found.angle or not found.accepted or found.n_matched < _TURNED_PAIRS:
        return found
    # Rotations too small for the alignment of frames, 0.1 arcsec at the edge, matter for coordinates.
    turned = match(rotate=True)
    better = turned.accepted and turned.n_matched >= found.n_matched and turned.rms < _TURNED_RMS * found.rms
    return turned if better else found


def _reference(frame: AstroData) -> tuple[Floats, Floats, Floats]:
    """Return where the WCS puts the catalogue, and fluxes on an unknown scale.

    Positions are 0-based pixels without distortion.
    """
    table = frame.REFCAT
    x, y = undistorted(require_sky_mapping(frame)).all_world2pix(
        np.asarray(table["RAJ2000"], float), np.asarray(table["DEJ2000"], float), 0
    )
    magnitude = np.asarray(table["filtermag"], float)
    if not np.any(magnitude > MISSING):
        others = [name for name in ("hmag", "kmag", "jmag", "ymag", "zmag", "gmag") if name in table.colnames]
        magnitude = np.asarray(table[others[0]], float) if others else np.zeros(len(table))
    usable = np.isfinite(magnitude) & (magnitude > MISSING)
    faintest = magnitude[usable].max() if usable.any() else 0.0
    return x, y, 10.0 ** (-0.4 * (np.where(usable, magnitude, faintest) - faintest))


def _objects(frame: AstroData, number: int, scale: float) -> Sources:
    """Return the brightest objects, in arcsec; those fainter than the catalogue would match by accident."""
    found = straight_sources(frame)
    found = replace(found, x=found.x * scale, y=found.y * scale, error=found.error * scale)
    return found.take(brightest_first(found.flux)[:number])


def _on_scale_of(flux: Floats, other: Any) -> Floats:
    """Scale fluxes so that the medians of the brightest of both lists agree."""
    number = min(len(flux), len(other), 10)
    if number == 0:
        return flux
    factor = np.median(np.sort(other)[-number:]) / np.median(np.sort(flux)[-number:])
    return flux * factor if np.isfinite(factor) and factor > 0 else flux


def _why_left(found: Registration, params: DetermineAstrometricSolutionParams) -> str:
    if found.accepted:
        return f"{found.n_matched} matched sources, at least {params.min_sources} wanted"
    return found.reason.replace("pixel", "arcsec")


def _assign(frame: AstroData, radius: float, scale: float) -> Floats:
    """Give sources the numbers and magnitudes of their references.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        Catalogue minus source of each pair, arcsec, RA times cos Dec and Dec.
    """
    catalogue, table = frame[0].OBJCAT, frame.REFCAT
    wcs = require_sky_mapping(frame)
    for name in ("REF_NUMBER", "REF_MAG", "REF_MAG_ERR"):
        catalogue[name] = np.full(len(catalogue), -999, dtype=catalogue[name].dtype)
    objects = sources(frame)
    lon, lat = np.asarray(table["RAJ2000"], float), np.asarray(table["DEJ2000"], float)
    ref_x, ref_y = wcs.all_world2pix(lon, lat, 0)
    here, there = pair_sources(objects.x, objects.y, ref_x, ref_y, radius / scale)
    catalogue["REF_NUMBER"][here] = np.asarray(table["Id"])[there]
    catalogue["REF_MAG"][here] = np.asarray(table["filtermag"])[there]
    catalogue["REF_MAG_ERR"][here] = np.asarray(table["filtermag_err"])[there]
    ra, dec = wcs.all_pix2world(objects.x[here], objects.y[here], 0)
    return np.column_stack(_differences(lon[there], lat[there], ra, dec))


def _differences(lon: Any, lat: Any, ra: Any, dec: Any) -> tuple[Any, Any]:
    """Return differences of positions, arcsec, RA times cos Dec and Dec."""
    turn = (np.asarray(lon) - ra + 180.0) % 360.0 - 180.0
    return 3600 * turn * np.cos(np.deg2rad(dec)), 3600 * (np.asarray(lat) - dec)


def _record(frame: AstroData, before: tuple[float, float], residuals: Floats) -> None:
    hdr = frame[0].hdr
    dra, ddec = _differences(*sky_centre(frame), *before)
    # Two axes, two scatters: the offsets of one say nothing about the other.
    scatter = residuals.std(axis=0, ddof=1) if len(residuals) > 1 else np.zeros(2)
    hdr.set("ASTNUM", len(residuals), "Sources identified with the catalogue")
    hdr.set("ASTDRA", round(float(dra), 4), "Change of RA x cos(Dec) by the catalogue (arcsec)")
    hdr.set("ASTDDEC", round(float(ddec), 4), "Change of Dec by the catalogue (arcsec)")
    hdr.set("ASTRMSRA", round(float(scatter[0]), 4), "Scatter in RA x cos(Dec) (arcsec)")
    hdr.set("ASTRMSDE", round(float(scatter[1]), 4), "Scatter in Dec (arcsec)")
    hdr.set("ASTRMS", round(float(np.hypot(*scatter)), 4), "Scatter of both axes together (arcsec)")
    meta = frame.REFCAT.meta
    hdr.set("ASTCAT", str(meta.get("CATALOG", "unknown"))[:68], "Reference catalogue")
    if "EPOCH" in meta:
        hdr.set("ASTEPOCH", round(float(meta["EPOCH"]), 3), "Epoch of its positions (Julian year)")
    moved = "%s: WCS moved by %.3f, %.3f arcsec (RA, Dec); %d sources scatter by %.3f, %.3f"
    log.stdinfo(moved, frame.filename, dra, ddec, len(residuals), *scatter)
