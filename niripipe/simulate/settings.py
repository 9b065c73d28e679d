"""What to simulate: the instrument's setting, the effects that are on, and the plan of a night.

All are frozen and check themselves, so that a plan that exists can be carried out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any, Literal, get_args

from niripipe.errors import ParameterError
from niripipe.instruments.tables import LinearityCoefficients, ReadMode, Well, niri_tables
from niripipe.simulate.reality import Reality

__all__ = ["Effects", "NightPlan", "SceneName", "Setup", "check_names", "make_plan"]

SceneName = Literal["extended", "sparse", "crowded", "empty"]
PixelType = Literal["float32", "int32"]

#: Wheel names of the broad-band filters, from raw headers and the archive's filter lists.
_BROAD_BAND = {
    "J": ("open", "J_G0202"),
    "H": ("open", "H_G0203"),
    "K": ("K_G0204", "open"),
    "Kshort": ("Kshort_G0205", "open"),
    "Kprime": ("Kprime_G0206", "open"),
}
#: Raw frames before this date hold 32-bit integers; the samples have none between 2003 and 2007.
_FLOATS_SINCE = date(2007, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the instrument is set for a whole night.

    Parameters
    ----------
    size : int
        Pixels along a side: 1024, or the centred subarrays 768, 512, 256.
    camera : str
        ``"f6"``, ``"f13.9"`` or ``"f32"``.
    filter : str or tuple of three str
        A broad-band filter by its wheel name (``"H"``, ``"Kprime"``, ...), or the contents of the three
        filter wheels.
    read_mode, well : str
        Names of the instrument table. Non-linearity is simulated where coefficients exist for read mode, size
        and well; elsewhere the response is linear.
    position_angle : float
        Of +y on the sky, degrees East of North.
    port : int
        Port of the telescope; port 1 mirrors the image unless `ao` is set.
    ao : bool
        Whether the light comes through the adaptive optics.
    pixel_type : {"float32", "int32"}, optional
        Type of the raw pixels; by default that of the epoch (integers before 2007).
    """

    size: int = 1024
    camera: str = "f6"
    filter: str | tuple[str, str, str] = "H"
    read_mode: str = "Medium Background"
    well: str = "Shallow"
    position_angle: float = 0.0
    port: int = 3
    ao: bool = False
    pixel_type: PixelType | None = None

    def __post_init__(self) -> None:
        tables = niri_tables()
        _one_of("size", self.size, (tables.detector.size, *tables.detector.central_sizes))
        _one_of("camera", self.camera, [c.name for c in tables.cameras])
        _one_of("read_mode", self.read_mode, [m.name for m in tables.read_modes])
        _one_of("well", self.well, [w.name for w in tables.wells])
        _one_of("port", self.port, (1, 3, 5))
        _one_of("pixel_type", self.pixel_type, (None, *get_args(PixelType)))
        if isinstance(self.filter, str):
            _one_of("filter", self.filter, list(_BROAD_BAND))
        elif len(self.filter) != 3:
            raise ParameterError(
                "A filter is the contents of three wheels",
                item="filter",
                found=self.filter,
                expected=f"three names, or one of {sorted(_BROAD_BAND)}",
            )

    @property
    def scale(self) -> float:
        """Nominal pixel scale, arcsec."""
        camera = niri_tables().camera(self.camera)
        assert camera is not None
        return camera.scale_ao if self.ao else camera.scale

    @property
    def mirrored(self) -> bool:
        """Whether East is right when North is up (parity is explained in `niripipe.simulate.pointing`)."""
        return self.port == 1 and not self.ao

    @property
    def reads(self) -> tuple[int, int]:
        """Numbers of low-noise read pairs and of digital averages."""
        return self._mode.lnrs, self._mode.ndavgs

    @property
    def read_noise(self) -> float:
        """Read noise of one coadd, e-."""
        return self._mode.read_noise

    @property
    def full_well(self) -> float:
        """Full well of one coadd, e-."""
        return float(self._well.full_well)

    @property
    def bias(self) -> float:
        """Nominal bias voltage, V."""
        return self._well.bias

    @property
    def linearity(self) -> LinearityCoefficients | None:
        """Coefficients of the non-linearity, None where none were measured."""
        return niri_tables().linearity_for(self.read_mode, self.size, self.well)

    @property
    def _mode(self) -> ReadMode:
        mode = niri_tables().read_mode_named(self.read_mode)
        assert mode is not None
        return mode

    @property
    def _well(self) -> Well:
        well = niri_tables().well_named(self.well)
        assert well is not None
        return well

    def wheels(self, day: date) -> tuple[str, str, str]:
        """Return what the three filter wheels held, in the spelling of the epoch."""
        if not isinstance(self.filter, str):
            return self.filter
        first, second = _BROAD_BAND[self.filter]
        return first, second, "pupil38_G5207" if day.year < 2004 else "Pupil38_G5207"

    def pixels(self, day: date) -> PixelType:
        """Return the type of the raw pixels of a day."""
        return self.pixel_type or ("float32" if day >= _FLOATS_SINCE else "int32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What the sky, the telescope and the detector do to a frame; each can be switched off by itself.

    Parameters
    ----------
    photon_noise, read_noise : bool
        The two noises; with both off a frame holds its expectation.
    dark_current : float
        e-/s. The observatory quotes 0.25.
    glow : float
        Amplifier glow at the edges of the array, e- per coadd and read pair.
    pedestal : float
        Level by which the last read lies above the first without light, e- per coadd.
    hot, warm, dead : float
        Fractions of pixels with a dark current of 1.5e3 to 2e4 e-/s, of 2 to 600 e-/s, and with less than 0.6
        of the normal response.
    flat_large, flat_pixel, vignetting : float
        Response: rms of the smooth variation, rms from pixel to pixel, loss in the corners.
    nonlinearity, saturation : bool
        The inverse of the linearity correction, and the full well.
    saturation_hole : bool
        Whether pixels that fill before the first read lose signal in the difference of the reads.
    persistence, persistence_decay : float
        Fraction of a saturated pixel's charge released in a frame that starts at once, and the time (s) in
        which it falls by e. The observatory quotes 0.005 to 0.01.
    cosmic_rays : float
        Hits per second on 1024 x 1024 pixels.
    pointing_rms : float
        Error of the pointing per axis and frame, arcsec.
    seeing_rms, transparency_rms : float
        Relative variation from frame to frame; transparency only falls.
    sky_drift, sky_gradient : float
        Relative drift of the sky over a sequence, and its relative slope across the array.
    lamp_rms : float
        Relative variation of the flat lamp from frame to frame.
    pattern, quadrant_offset : float
        Amplitude of the 8-column readout pattern and rms of the quadrants' levels, e- per coadd.
    quantised : bool
        Whether pixels are whole numbers of converter steps: 1 ADU, or 1 ADU / NDAVGS where averages are
        stored as floats.
    """

    photon_noise: bool = True
    read_noise: bool = True
    dark_current: float = 0.25
    glow: float = 20.0
    pedestal: float = 60.0
    hot: float = 0.0012
    warm: float = 0.002
    dead: float = 0.0012
    flat_large: float = 0.035
    flat_pixel: float = 0.012
    vignetting: float = 0.05
    nonlinearity: bool = True
    saturation: bool = True
    saturation_hole: bool = False
    persistence: float = 0.0
    persistence_decay: float = 60.0
    cosmic_rays: float = 2.5
    pointing_rms: float = 0.05
    seeing_rms: float = 0.03
    transparency_rms: float = 0.0
    sky_drift: float = 0.01
    sky_gradient: float = 0.002
    lamp_rms: float = 0.001
    pattern: float = 0.0
    quadrant_offset: float = 0.0
    quantised: bool = True

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, bool) and not value >= 0:
                raise ParameterError(
                    "An effect has no negative strength", item=name, found=value, expected=">= 0"
                )

    @classmethod
    def none(cls, **on: Any) -> Effects:
        """Return a perfect detector under a steady sky, with only the effects named switched on.

        Raises
        ------
        ParameterError
            If there is no effect of a name.
        """
        off: dict[str, Any] = {f.name: False if isinstance(f.default, bool) else 0.0 for f in fields(cls)}
        off["persistence_decay"] = 60.0
        check_names(cls, on)
        return cls(**(off | on))


@dataclass(frozen=True, slots=True, kw_only=True)
class NightPlan:
    """Everything about a night except the chance in it.

    Parameters
    ----------
    n_target, n_sky, n_standard, n_flat, n_dark, n_short_dark : int
        Frames of each kind; `n_flat` with the lamp on and as many with it off. Without sky frames the target
        is only dithered.
    scene : {"extended", "sparse", "crowded", "empty"}
        Stars on a galaxy that fills the field; few stars; many stars; nothing but sky.
    n_stars : int, optional
        Stars of the target field besides saturated ones; by default as many as suit scene and size.
    n_saturated : int, optional
        Stars that fill the well; by default one in the scenes ``"extended"`` and ``"crowded"``.
    date : datetime.date
        UT date of the first frame. The short darks are taken on the next.
    exposure, coadds, standard_exposure, standard_coadds, flat_exposure, short_exposure : float, int
        Seconds per coadd as the header states them, and coadds.
    dither, standard_dither, sky_offset : float, optional
        arcsec. By default 3 for the target, 10 for the standard (in proportion for subarrays), 300 for the
        sky.
    fwhm : float
        Of the stars, arcsec.
    sky_rate, lamp_rate, thermal_rate : float
        Mean sky, lamp flux and thermal flux with the lamp shut off, e-/s per pixel.
    standard_rate : float
        Flux of the standard star, e-/s, where `standards` names none.
    standards : tuple of str
        Names of standard stars, which are taken one after the other over the night, `n_standard` frames each.
        They stand at their real positions and have the fluxes that their magnitudes and the zero point give,
        and the atmosphere dims all stars by the airmass. By default there is one, of `standard_rate`, and no
        extinction.
    filters : tuple of str
        Filters in which targets, standards and flats are taken, by their wheel names; that of the setup by
        default. Needs `standards`.
    zero_point_shift : float
        Zero points above the nominal ones, mag.
    extinction : float, optional
        mag per airmass; by default the mean on Mauna Kea in each filter.
    clouds : float
        What a thin cloud dims at most, mag: it does so in three frames of ten.
    catalogue_errors : bool
        Whether the real magnitudes of the standards scatter about those of the catalogue by its errors.
    setup : Setup
        The instrument's setting.
    effects : Effects
        What disturbs the frames.
    reality : Reality
        What real nights have besides; all off by default. `make_plan` takes True for all at realistic
        strengths.
    """

    n_target: int = 5
    n_sky: int = 5
    n_standard: int = 5
    n_flat: int = 10
    n_dark: int = 10
    n_short_dark: int = 10
    scene: SceneName = "extended"
    n_stars: int | None = None
    n_saturated: int | None = None
    date: date = date(2016, 1, 2)
    exposure: float = 20.002
    coadds: int = 1
    standard_exposure: float = 2.001
    standard_coadds: int = 5
    flat_exposure: float = 42.001
    short_exposure: float = 1.001
    dither: float | None = None
    standard_dither: float | None = None
    sky_offset: float = 300.0
    fwhm: float = 0.55
    sky_rate: float = 600.0
    lamp_rate: float = 1400.0
    thermal_rate: float = 60.0
    standard_rate: float = 250000.0
    standards: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    zero_point_shift: float = 0.0
    extinction: float | None = None
    clouds: float = 0.0
    catalogue_errors: bool = False
    setup: Setup = field(default_factory=Setup)
    effects: Effects = field(default_factory=Effects)
    reality: Reality = field(default_factory=Reality)

    def __post_init__(self) -> None:
        _one_of("scene", self.scene, get_args(SceneName))
        for names, low, high in (
            (("n_target", "n_sky", "n_standard", "n_flat", "n_dark", "n_short_dark"), 0, 300),
            (("n_stars", "n_saturated"), 0, 20000),
            (("coadds", "standard_coadds"), 1, 999),
            (("exposure", "standard_exposure", "flat_exposure", "short_exposure"), 0.001, 1000.0),
            (("fwhm",), 1.5 * self.setup.scale, 10.0),
            (("sky_rate", "lamp_rate", "thermal_rate", "standard_rate"), 0.0, 1e9),
        ):
            for name in names:
                self._check_range(name, low, high)
        if not 2000 <= self.date.year <= 2021:
            raise ParameterError(
                "NIRI took no data then", item="date", found=self.date, expected="2000 to 2021"
            )

        for wheel in self.filters:
            _one_of("filters", wheel, list(_BROAD_BAND))
        if self.filters and not self.standards:
            raise ParameterError("Several filters need standards", item="standards", found=self.standards)
        if self.standards and not self.filters and not isinstance(self.setup.filter, str):
            raise ParameterError(
                "A night with standards needs a filter by its name", item="filter", found=self.setup.filter
            )

    @property
    def all_filters(self) -> tuple[str, ...]:
        """The filters of the night, by their wheel names."""
        return self.filters or ((self.setup.filter,) if isinstance(self.setup.filter, str) else ())

    def _check_range(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if value is None and name in ("n_stars", "n_saturated"):
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            expected = f"{low} to {high}"
            raise ParameterError("This cannot be simulated", item=name, found=value, expected=expected)

    @property
    def fwhm_pix(self) -> float:
        """Full width at half maximum of the stars, pixels."""
        return self.fwhm / self.setup.scale

    @property
    def saturated_stars(self) -> int:
        """Number of stars that fill the well."""
        if self.n_saturated is not None:
            return self.n_saturated
        return int(self.scene in ("extended", "crowded") and self.n_stars is None)

    @property
    def field_stars(self) -> int:
        """Number of stars in the target field besides saturated ones."""
        if self.n_stars is not None:
            return self.n_stars
        area = (self.setup.size / 1024) ** 2
        return round({"extended": 400, "crowded": 800, "sparse": 60, "empty": 0}[self.scene] * area)


def make_plan(changes: Mapping[str, Any], base: NightPlan | None = None) -> NightPlan:
    """Return a plan with some fields changed.

    Parameters
    ----------
    changes : mapping
        Fields of `NightPlan`, and for convenience those of `Setup` by their own names.
    base : NightPlan, optional
        What to change; the tutorial-like night by default.

    Returns
    -------
    NightPlan

    Raises
    ------
    ParameterError
        If there is no field of a name (the nearest is named), or a value is not usable.
    """
    base = base or NightPlan()
    of_setup = {name: value for name, value in changes.items() if name in Setup.__slots__}
    rest = {name: value for name, value in changes.items() if name not in of_setup}
    check_names(NightPlan, rest, Setup)
    if isinstance(rest.get("reality"), bool):
        rest["reality"] = Reality.everything() if rest["reality"] else Reality()
    if of_setup:
        rest["setup"] = replace(rest.get("setup", base.setup), **of_setup)
    return replace(base, **rest)


def check_names(cls: type, given: Iterable[str], *more: type) -> None:
    """Refuse names that are fields neither of a class nor of further classes.

    Raises
    ------
    ParameterError
        The nearest field is named.
    """
    names = [f.name for owner in (cls, *more) for f in fields(owner)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise ParameterError(
                f"{cls.__name__} has no field of this name",
                item=name,
                expected=near[0] if near else f"one of {sorted(names)}",
            )


def _one_of(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise ParameterError(
            "This cannot be simulated", item=name, found=value, expected=f"one of {list(allowed)}"
        )
