"""One raw frame: light, detector, headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from niripipe.errors import storage_faults
from niripipe.simulate.conditions import Conditions, add_reality, base_level
from niripipe.simulate.cosmic_rays import cosmic_ray_hits
from niripipe.simulate.detector import Detector, Readout, make_detector, read_out
from niripipe.simulate.header import frame_wcs, raw_headers
from niripipe.simulate.pointing import Affine, TangentWcs
from niripipe.simulate.reality import (
    FrameReality,
    Reality,
    blob_light,
    pixel_area,
    readout_levels,
    slope_light,
    wave_light,
)
from niripipe.simulate.scene import Galaxy, Scene, Star
from niripipe.simulate.sequence import FIELDS, TARGET, Exposure, Kind
from niripipe.simulate.settings import Effects, NightPlan, Setup, check_names, make_plan
from niripipe.simulate.truth import FrameTruth

__all__ = ["RawFrame", "expose", "illumination", "motion_of", "raw_frame", "starlight", "write_frame"]

#: Surface brightness (e- in the frame) below which the wings of stars are left out.
_FAINTEST = 0.05
#: Persistence (e-) from which a pixel is in the truth.
_GHOST = 5.0
#: Bytes of a FITS block.
_BLOCK = 2880


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A raw frame in memory.

    Attributes
    ----------
    name : str
        File name.
    header : astropy.io.fits.Header
        Primary header.
    extension : astropy.io.fits.Header
        Header of the image extension.
    data : ndarray of float32 or int32, shape (size, size)
        ADU.
    truth : FrameTruth
        What happened to it.
    cosmic_rays : ndarray of float64, shape (n, 3)
        y, x, electrons of the pixels hit.
    """

    name: str
    header: fits.Header
    extension: fits.Header
    data: NDArray[np.float32] | NDArray[np.int32]
    truth: FrameTruth
    cosmic_rays: NDArray[np.float64]

    def to_bytes(self) -> bytes:
        """Return it as the bytes of a FITS file.

        Headers are written as they are: the classes of astropy would put their own structural cards in.
        """
        pixels = self.data.astype(self.data.dtype.newbyteorder(">")).tobytes()
        padding = bytes(-len(pixels) % _BLOCK)
        headers: str = self.header.tostring() + self.extension.tostring()
        return headers.encode("ascii") + pixels + padding

    def hdulist(self) -> fits.HDUList:
        """Return it as it would be read from disk."""
        return fits.HDUList.fromstring(self.to_bytes())


def raw_frame(
    *,
    kind: Kind = "target",
    exposure: float = 20.002,
    coadds: int = 1,
    date: date = date(2016, 1, 2),
    ut: time = time(11, 36, 12, 300000),
    number: int = 270,
    p: float = 0.0,
    q: float = 0.0,
    stars: Sequence[tuple[float, float, float]] = (),
    galaxy: Galaxy | None = None,
    level: float | None = None,
    fwhm: float = 0.55,
    effects: Effects | None = None,
    reality: Reality | bool = False,
    seed: int = 1,
    keywords: Mapping[str, Any] | None = None,
    **setup: Any,
) -> RawFrame:
    """Make a single raw frame.

    Parameters
    ----------
    kind : Kind
        ``target``, ``sky``, ``std``, ``flat_on``, ``flat_off``, ``dark`` or ``short_dark``.
    exposure, coadds : float, int
        s per coadd, coadds.
    date, ut : datetime.date, datetime.time
        Start, UT; the header takes the form of that epoch.
    number : int
        In the file name.
    p, q : float
        Offsets, arcsec.
    stars : sequence of (x, y, flux)
        0-based pixels at zero offset, e-/s.
    galaxy : Galaxy, optional
        A galaxy, at zero offset.
    level : float, optional
        Sky or lamp, e-/s per pixel; by default that of a `NightPlan`.
    fwhm : float
        arcsec.
    effects : Effects, optional
        By default all that a `NightPlan` has. `Effects.none` gives the expectation of a perfect detector.
    reality : Reality or bool
        What real nights have besides; True for all of it. Persistence needs earlier frames, which there are
        none of.
    seed : int
        The detector depends on the seed alone; the noise on seed and number.
    keywords : mapping, optional
        Primary keywords to overwrite, or with the value None to remove.
    **setup
        Fields of `Setup`: ``size``, ``filter``, ``read_mode``, ``well``, ``port`` and so on.

    Returns
    -------
    RawFrame

    Raises
    ------
    ParameterError
        If a value cannot be simulated.
    """
    check_names(Setup, [name for name in setup if name != "setup"])
    plan = make_plan(
        {
            "exposure": exposure,
            "coadds": coadds,
            "date": date,
            "fwhm": fwhm,
            "effects": effects or Effects(),
            "reality": reality,
            **setup,
        }
    )
    # A script may send the telescope elsewhere by setting TARGET of this module.
    frame = Exposure(
        name=f"N{date:%Y%m%d}S{number:04d}.fits", kind=kind, start=datetime.combine(date, ut),
        exposure=exposure, coadds=coadds, field={**FIELDS, "target": TARGET, "sky": TARGET}[kind], p=p, q=q,
    )  # fmt: skip
    root = np.random.SeedSequence(seed)
    detector = make_detector(plan.setup.size, plan.effects, np.random.default_rng(root.spawn(1)[0]))
    scene = Scene(frame_wcs(replace(frame, p=0.0, q=0.0), plan.setup), tuple(Star(*s) for s in stars), galaxy)
    conditions = Conditions(level=base_level(kind, plan) if level is None else level, fwhm_pix=plan.fwhm_pix)
    (conditions,) = add_reality(plan, (frame,), (conditions,), root.spawn(1)[0])
    child = np.random.SeedSequence((seed, number))
    made = expose(frame, plan, detector, scene if frame.on_sky else None, conditions, child)
    for keyword, value in (keywords or {}).items():
        if value is None:
            made.header.remove(keyword, ignore_missing=True, remove_all=True)
        else:
            made.header[keyword] = value
    return made


def expose(
    frame: Exposure,
    plan: NightPlan,
    detector: Detector,
    scene: Scene | None,
    conditions: Conditions,
    seed: np.random.SeedSequence,
    persistence: NDArray[np.float32] | None = None,
    ghosts: NDArray[np.float32] | None = None,
) -> RawFrame:
    """Simulate a frame; the result depends on the arguments alone.

    Parameters
    ----------
    frame : Exposure
        What is taken.
    plan : NightPlan
        Setup and effects.
    detector : Detector
        The array.
    scene : Scene or None
        The field; None for calibrations.
    conditions : Conditions
        Of this frame.
    seed : numpy.random.SeedSequence
        Of this frame's noise and cosmic rays.
    persistence, ghosts : ndarray of float32, optional
        Charge left by earlier frames, e- in this frame: of `Effects` and of `Reality`.

    Returns
    -------
    RawFrame
    """
    setup, effects = plan.setup, plan.effects
    rng = np.random.default_rng(seed)
    hits = cosmic_ray_hits(effects.cosmic_rays, frame.seconds, setup.size, rng)
    extra = persistence if ghosts is None else ghosts if persistence is None else persistence + ghosts
    if len(hits):
        extra = np.zeros((setup.size, setup.size), np.float32) if extra is None else extra.copy()
        extra[hits[:, 0].astype(int), hits[:, 1].astype(int)] += hits[:, 2].astype(np.float32)
    motion = (
        Affine(0.0, 0.0, 0.0, (setup.size - 1) / 2)
        if scene is None
        else motion_of(frame, setup, scene, conditions)
    )
    rates = illumination(frame, setup, scene, motion, conditions)
    readout = Readout(
        exposure=frame.exposure, coadds=frame.coadds, setup=setup, effects=effects, day=frame.start.date()
    )
    reality = conditions.reality
    offsets = None if reality is None else readout_levels(setup.size, reality.rows, reality.quadrants)
    data = read_out(detector, readout, rates, extra, rng, offsets)
    if reality is not None and ghosts is not None:
        y, x = np.nonzero(ghosts >= _GHOST)
        charge = np.round(ghosts[y, x].astype(float), 2)
        reality = replace(reality, ghosts=tuple(zip(y.tolist(), x.tolist(), charge.tolist(), strict=True)))
    truth = FrameTruth(
        kind=frame.kind, dx=motion.dx, dy=motion.dy, rotation=motion.rotation, sky=conditions.level,
        fwhm_pix=conditions.fwhm_pix, transparency=conditions.transparency, exposure=frame.exposure,
        coadds=frame.coadds, p=frame.p, q=frame.q, reality=reality, scene=frame.scene,
    )  # fmt: skip
    return RawFrame(frame.name, *raw_headers(frame, setup), data, truth, hits)


def motion_of(frame: Exposure, setup: Setup, scene: Scene, conditions: Conditions) -> Affine:
    """Find where the field really fell: the pointing of the header plus the pointing error."""
    p, q = conditions.error
    true = frame_wcs(replace(frame, p=frame.p + p, q=frame.q + q), setup)
    crpix = scene.wcs.crpix
    return Affine.between(scene.wcs, TangentWcs(crpix, true.crval, true.cd), setup.size)


def starlight(
    frame: Exposure, setup: Setup, scene: Scene | None, motion: Affine, conditions: Conditions
) -> NDArray[np.float32] | None:
    """Return the light of stars and galaxy on each pixel at unit response, e-/s; None if there is none."""
    if scene is None:
        return None
    faintest = _FAINTEST / frame.seconds
    light = scene.rates(motion, setup.size, conditions.fwhm_pix, faintest, conditions.reality)
    if light is not None and conditions.transparency != 1.0:
        light *= np.float32(conditions.transparency)
    return light


def illumination(
    frame: Exposure, setup: Setup, scene: Scene | None, motion: Affine, conditions: Conditions
) -> NDArray[np.float32] | None:
    """Return the light on each pixel at unit response, e-/s; None in the dark."""
    size, reality = setup.size, conditions.reality
    light = starlight(frame, setup, scene, motion, conditions)
    if conditions.level == 0 and (reality is None or reality.thermal == 0):
        return light
    across = (np.arange(size) - (size - 1) / 2) / size
    gx, gy = conditions.gradient
    sky = conditions.level * (1 + gx * across[None, :] + gy * across[:, None])
    if reality is not None:
        sky += _sky_structure(size, reality)
        if reality.distortion:
            sky *= pixel_area(size, reality.distortion)
        # Waves and slopes of a faint sky may not take light away.
        np.maximum(sky, 0, out=sky)
    return (
        sky.astype(np.float32)
        if light is None
        else np.add(light, sky, dtype=np.float32, casting="same_kind", out=light)
    )


def _sky_structure(size: int, reality: FrameReality) -> NDArray[np.float64]:
    """Return what `Reality` adds to an even sky, e-/s per pixel."""
    sky = slope_light(size, reality.slope) + reality.thermal
    sky += blob_light(size, reality.blobs)
    for wave in (reality.fringes, reality.oh_wave):
        if wave:
            amplitude, length, angle, phase = wave
            sky += wave_light(size, amplitude, length, angle, phase)
    return sky


def write_frame(frame: RawFrame, folder: str | PathLike[str]) -> Path:
    """Write a frame under its own name.

    Parameters
    ----------
    frame : RawFrame
        The frame.
    folder : path-like
        Where.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    StorageError
        If it cannot be written; nothing is left behind then.
    """
    path = Path(folder) / frame.name
    remedy = "Check the space left and the permissions of the folder"
    with storage_faults("A simulated frame cannot be written", path, remedy=remedy):
        try:
            path.write_bytes(frame.to_bytes())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    return path
