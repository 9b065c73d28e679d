"""The numbers of NIRI, read once from `niri.toml` into frozen objects.

Nothing outside this module opens the table file; nothing outside the table file states a number about the
instrument. Units and sources are given there with the numbers.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from importlib import resources
from types import MappingProxyType
from typing import Any

from niripipe.errors import DataError

__all__ = ["LinearityCoefficients", "NiriTables", "niri_tables"]


_COMPONENT = re.compile(r"G\d{4}$")


@dataclass(frozen=True, slots=True)
class Detector:
    """The array.

    Attributes
    ----------
    size : int
        Pixels along a side of the full frame.
    gain : float
        e-/ADU.
    linear_limit : float
        Fraction of the saturation level up to which the response can be made linear.
    bias_tolerance : float
        V; how close a measured bias must be to a nominal one.
    voltage_tolerance : float
        V; how far the bias before and after an exposure may differ.
    central_sizes : tuple of int
        Sizes of the named centred subarrays, pixels.
    """

    size: int
    gain: float
    linear_limit: float
    bias_tolerance: float
    voltage_tolerance: float
    central_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReadMode:
    """One read mode: numbers of low-noise reads and digital averages, read noise (e-) of one coadd."""

    name: str
    lnrs: int
    ndavgs: int
    read_noise: float


@dataclass(frozen=True, slots=True)
class Well:
    """One well depth: bias voltage (V) and full well (e- per coadd)."""

    name: str
    bias: float
    full_well: int


@dataclass(frozen=True, slots=True)
class LinearityCoefficients:
    """Coefficients of the non-linearity correction of one read mode, subarray and well.

    For counts c in electrons per coadd and exposure time t per coadd the true counts are
    ``c * (1 + c * (gamma + eta * c)) * t / (t + dead_time)``.

    Attributes
    ----------
    read_mode, rows, well
        What they hold for; `rows` is the height of the array in pixels.
    dead_time : float
        s.
    gamma : float
        1/e-.
    eta : float
        1/e-^2.
    max_counts : float
        e-; the end of the range over which they were measured.
    """

    read_mode: str
    rows: int
    well: str
    dead_time: float
    gamma: float
    eta: float
    max_counts: float


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera: nominal pixel scale without and with AO, and the plausible range (arcsec/pixel)."""

    name: str
    aliases: tuple[str, ...]
    scale: float
    scale_ao: float
    scale_range: tuple[float, float]

    def plausible(self, scale: float | None) -> bool:
        """Tell whether a pixel scale (arcsec/pixel) can belong to this camera."""
        return scale is not None and self.scale_range[0] <= scale <= self.scale_range[1]


@dataclass(frozen=True, slots=True)
class RadialDistortion:
    """The published distortion of a camera with or without AO: k of r' = r + k r**2, its error; 1/pixel."""

    camera: str
    ao: bool
    radial: float
    error: float


@dataclass(frozen=True, slots=True)
class ReferencePixel:
    """Where the pointing falls on the full frame (1-based x, y): camera, light path, port (None: any)."""

    camera: str
    ao: bool
    x: float
    y: float
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter or filter pair.

    Attributes
    ----------
    name : str
        The pretty name.
    raw : tuple of str
        Wheel names without component identifiers.
    wavelength : float or None
        Effective wavelength in micrometres; None for order-sorting filters.
    thermal : bool
        Whether no lamp flats are taken for it.
    """

    name: str
    raw: tuple[str, ...]
    wavelength: float | None = None
    thermal: bool = False


@dataclass(frozen=True, slots=True)
class GroupRules:
    """Which descriptors make up the group identifier of darks, spectra and everything else."""

    dark: tuple[str, ...]
    other: tuple[str, ...]
    spectroscopy: tuple[str, ...]
    imaging_suffix: str
    twilight_suffix: str
    exposure_decimals: int


@dataclass(frozen=True, slots=True)
class Pointing:
    """Limits of pointing (arcsec), tracking (arcsec/s) and distortion; the port that mirrors the image."""

    max_offset: float
    max_distortion: float
    sidereal_rate: float
    mirrored_port: int


@dataclass(frozen=True, slots=True)
class Epochs:
    """UT dates from which old peculiarities of raw frames no longer occur."""

    read_pairs_averaged_since: date
    subarray_crpix_since: date
    offsets_on_sky_since: date


Limits = tuple[tuple[int, float], ...]
"""Percentiles of observing conditions and their limits."""


@dataclass(frozen=True, slots=True)
class QaLimits:
    """Limits of the observing condition bands.

    Attributes
    ----------
    image_quality : mapping of str to Limits
        By band or ``"AO"``: largest FWHM (arcsec, at zenith).
    background : mapping of str to Limits
        By pretty filter name: brightest sky, mag/arcsec^2.
    cloud_cover : Limits
        Largest extinction, mag.
    """

    image_quality: Mapping[str, Limits]
    background: Mapping[str, Limits]
    cloud_cover: Limits


@dataclass(frozen=True, slots=True)
class NiriTables:
    """All tables, with the look-ups the descriptors need."""

    detector: Detector
    read_modes: tuple[ReadMode, ...]
    fallback_read_mode: ReadMode
    wells: tuple[Well, ...]
    linearity: tuple[LinearityCoefficients, ...]
    cameras: tuple[Camera, ...]
    distortions: tuple[RadialDistortion, ...]
    reference_pixels: tuple[ReferencePixel, ...]
    filters: tuple[Filter, ...]
    components: Mapping[str, str]
    bands: Mapping[str, float]
    zero_points: Mapping[tuple[str, str], float]
    group_rules: GroupRules
    pointing: Pointing
    epochs: Epochs
    qa: QaLimits
    _by_raw: Mapping[tuple[str, ...], Filter]

    def read_mode(self, lnrs: int | None, ndavgs: int | None) -> ReadMode | None:
        """Find the read mode of a pair of read and average counts; None if it is not a standard one."""
        return next((m for m in self.read_modes if (m.lnrs, m.ndavgs) == (lnrs, ndavgs)), None)

    def well(self, bias: float | None) -> Well | None:
        """Find the well of a measured bias (V); None if it is near no nominal one."""
        if bias is None:
            return None
        tolerance = self.detector.bias_tolerance
        return next((w for w in self.wells if abs(bias - w.bias) <= tolerance), None)

    def well_named(self, name: str) -> Well | None:
        """Find a well by its name."""
        return next((w for w in self.wells if w.name == name), None)

    def read_mode_named(self, name: str) -> ReadMode | None:
        """Find a read mode by its name."""
        return next((m for m in self.read_modes if m.name == name), None)

    def linearity_for(self, read_mode: str, rows: int, well: str) -> LinearityCoefficients | None:
        """Find linearity coefficients; None where none were measured."""
        wanted = (read_mode, rows, well)
        return next((c for c in self.linearity if (c.read_mode, c.rows, c.well) == wanted), None)

    def camera(self, name: str | None) -> Camera | None:
        """Find a camera by its header name (``f14`` is ``f13.9``), in any letter case."""
        wanted = (name or "").strip().lower()
        return next((c for c in self.cameras if wanted == c.name or wanted in c.aliases), None)

    def distortion(self, camera: str | None, ao: bool) -> RadialDistortion | None:
        """Find the published distortion of a camera, with or without AO; None if there is none."""
        known = self.camera(camera)
        name = None if known is None else known.name
        return next((d for d in self.distortions if (d.camera, d.ao) == (name, ao)), None)

    def reference_pixel(self, camera: str | None, ao: bool, port: int | None) -> tuple[float, float] | None:
        """Find where the pointing falls on the full frame, (x, y), 1-based; None where no header says."""
        known = self.camera(camera)
        name = None if known is None else known.name
        fitting = (r for r in self.reference_pixels if (r.camera, r.ao) == (name, ao))
        return next(((r.x, r.y) for r in fitting if r.port in (None, port)), None)

    def filter_of(self, raw: Iterable[str]) -> Filter | None:
        """Find the filter made by these wheel names (identifiers removed), in any case and order."""
        return self._by_raw.get(_filter_key(raw))

    def wheel_name(self, name: str) -> str:
        """Return the wheel name in the tables of a name from a header: by its identifier, else without it."""
        found = _COMPONENT.search(name.strip().upper())
        known = None if found is None else self.components.get(found.group())
        return known or str(name).split("_G")[0]

    def filter_named(self, name: str | None) -> Filter | None:
        """Find a filter by its pretty name, in any letter case."""
        wanted = (name or "").lower()
        return next((f for f in self.filters if f.name.lower() == wanted), None)

    def zero_point(self, filter_name: str | None, camera: str | None) -> float | None:
        """Look up the nominal zero point (mag, 1 e-/s) of a pretty filter name and a camera."""
        known = self.camera(camera)
        if known is None or filter_name is None:
            return None
        return self.zero_points.get((filter_name, known.name))

    def band(self, wavelength: float | None) -> str | None:
        """Name the band nearest to a wavelength in micrometres."""
        return None if wavelength is None else self._nearest_band(wavelength, self.bands)

    def image_quality_limits(self, wavelength: float) -> Limits:
        """Return the limits of image quality in the band nearest to a wavelength in micrometres."""
        known = [name for name in self.bands if name in self.qa.image_quality]
        return self.qa.image_quality[self._nearest_band(wavelength, known)]

    def _nearest_band(self, wavelength: float, names: Iterable[str]) -> str:
        return min(names, key=lambda name: abs(self.bands[name] - wavelength))


@functools.cache
def niri_tables() -> NiriTables:
    """Read the tables of NIRI.

    Returns
    -------
    NiriTables
        The same object at every call.

    Raises
    ------
    DataError
        If the table file of the installation is damaged.
    """
    text = resources.files(__package__).joinpath("niri.toml").read_text(encoding="utf-8")
    try:
        return _build(tomllib.loads(text))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "The instrument table of NIRI is damaged",
            file="niri.toml",
            found=repr(error),
            remedy="Install niripipe again",
        ) from error


def _build(raw: dict[str, Any]) -> NiriTables:
    read_modes = tuple(ReadMode(**entry) for entry in raw["read_modes"]["entries"])
    filters = tuple(Filter(**_values(entry)) for entry in raw["filters"]["entries"])
    qa = raw["qa"]
    return NiriTables(
        detector=Detector(**_values(raw["detector"])),
        read_modes=read_modes,
        fallback_read_mode=next(m for m in read_modes if m.name == raw["read_modes"]["fallback"]),
        wells=tuple(Well(**entry) for entry in raw["wells"]["entries"]),
        linearity=tuple(LinearityCoefficients(**entry) for entry in raw["linearity"]["entries"]),
        cameras=tuple(Camera(**_values(entry)) for entry in raw["cameras"]["entries"]),
        distortions=tuple(RadialDistortion(**entry) for entry in raw["distortion"]["entries"]),
        reference_pixels=tuple(ReferencePixel(**entry) for entry in raw["reference_pixels"]["entries"]),
        filters=filters,
        components=MappingProxyType(_values(raw["components"])),
        bands=MappingProxyType(_values(raw["bands"])),
        zero_points=MappingProxyType(
            {(e["filter"], e["camera"]): e["value"] for e in raw["zero_points"]["entries"]}
        ),
        group_rules=GroupRules(**_values(raw["group_id"])),
        pointing=Pointing(**_values(raw["pointing"])),
        epochs=Epochs(**_values(raw["epochs"])),
        qa=QaLimits(
            image_quality=_limits(qa["image_quality"]),
            background=_limits(qa["background"]),
            cloud_cover=_limits(qa["cloud_cover"])["limits"],
        ),
        _by_raw=MappingProxyType({_filter_key(f.raw): f for f in filters}),
    )


def _filter_key(raw: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(name.strip().lower() for name in raw))


def _values(table: dict[str, Any]) -> dict[str, Any]:
    """Drop what is for the reader and make lists immutable."""
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in table.items()
        if key not in ("unit", "source")
    }


def _limits(table: dict[str, Any]) -> Mapping[str, Limits]:
    """Give each limit of a table its percentile."""
    limits = _values(table)
    percentiles = limits.pop("percentiles")
    return MappingProxyType(
        {name: tuple(zip(percentiles, values, strict=True)) for name, values in limits.items()}
    )
