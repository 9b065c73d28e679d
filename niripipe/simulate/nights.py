"""A whole night of frames on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import DataError, InputError, ParameterError, StorageError
from niripipe.instruments.tables import niri_tables
from niripipe.reduction.progress import Progress, as_progress
from niripipe.simulate.conditions import Conditions, add_reality, draw_conditions
from niripipe.simulate.detector import Detector, make_detector
from niripipe.simulate.frames import RawFrame, expose, illumination, motion_of, starlight, write_frame
from niripipe.simulate.header import frame_wcs
from niripipe.simulate.photometric import Photometry, dim, draw_photometry, make_scenes, setup_of
from niripipe.simulate.pointing import TangentWcs
from niripipe.simulate.psf import moffat_radius
from niripipe.simulate.reality import profile, released
from niripipe.simulate.scene import Scene, make_scene
from niripipe.simulate.sequence import Exposure, plan_exposures
from niripipe.simulate.settings import NightPlan, make_plan
from niripipe.simulate.truth import TRUTH_NAME, FrameTruth, Truth, read_truth

__all__ = ["Night", "night", "open_night"]

#: Charge released by persistence later than this many decay times is left out.
_FORGOTTEN = 6.0
#: A pixel leaves an image behind when it held more than this fraction of the full well.
_PERSISTENT = 0.9
#: Persistence of `Reality` is left out when a full pixel would show less than this, e-.
_FAINT_GHOST = 5.0


@dataclass(frozen=True, slots=True)
class Night:
    """Raw frames on disk and the truth about them.

    Attributes
    ----------
    folder : Path
        Where they are.
    truth : Truth
        What was put in.
    """

    folder: Path
    truth: Truth = field(repr=False)

    @property
    def files(self) -> list[Path]:
        """All raw frames, in the order of their names."""
        return [self.folder / name for name in sorted(self.truth.frames)]

    @property
    def target(self) -> list[Path]:
        """Frames on the target."""
        return self.of_kind("target")

    @property
    def sky(self) -> list[Path]:
        """Frames on the offset sky."""
        return self.of_kind("sky")

    @property
    def standard(self) -> list[Path]:
        """Frames of the standard star."""
        return self.of_kind("std")

    @property
    def flats(self) -> list[Path]:
        """Flats, lamp on first."""
        return self.of_kind("flat_on") + self.of_kind("flat_off")

    @property
    def darks(self) -> list[Path]:
        """Darks as long as the target frames."""
        return self.of_kind("dark")

    @property
    def short_darks(self) -> list[Path]:
        """Short darks, for a bad pixel mask."""
        return self.of_kind("short_dark")

    def of_kind(self, kind: str) -> list[Path]:
        """List the files of a kind (see `FrameTruth`), in the order of their names."""
        return [self.folder / name for name in self.truth.names(kind)]


def night(
    folder: str | PathLike[str],
    *,
    seed: int = 1,
    plan: NightPlan | None = None,
    overwrite: bool = False,
    progress: bool | Progress | None = None,
    threads: int = 2,
    **changes: Any,
) -> Night:
    """Simulate a night of NIRI imaging and write it.

    By default: a galaxy behind a dense field of stars in H at f/6, 5 frames on it and 5 on offset sky, 5 of a
    standard star, 10 flats with the lamp on and 10 with it off, 10 darks of 20 s and 10 of 1 s: 55 frames.

    Parameters
    ----------
    folder : path-like
        Made if it does not exist.
    seed : int
        The night depends on seed and plan alone, bit for bit.
    plan : NightPlan, optional
        What to take.
    overwrite : bool
        Replace a simulated night in the folder. Files that do not belong to it are never touched.
    progress : bool or Progress, optional
        True for a line of text, or an object that is told about each frame.
    threads : int
        Frames simulated at a time; the result does not depend on it.
    **changes
        Fields of `NightPlan` or `Setup` to change: ``size=256``, ``n_target=40``, ``scene="sparse"`` ...
        ``reality=True`` switches on all that real nights have, see `Reality`.

    Returns
    -------
    Night

    Raises
    ------
    ParameterError
        If the plan is unknown in part or impossible.
    StorageError
        If the folder holds something else, or cannot be written.
    """
    plan = make_plan(changes, plan)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError("A seed is a whole number", item="seed", found=seed, expected=">= 0")
    if threads < 1:
        raise ParameterError(
            "The number of threads is a positive whole number", item="threads", found=threads, expected=">= 1"
        )
    exposures = plan_exposures(plan)
    folder = _prepare(Path(folder), exposures, overwrite=overwrite)
    ingredients = _Ingredients.draw(plan, exposures, seed)
    made: dict[str, tuple[FrameTruth, NDArray[np.float64]]] = {}

    def simulate(index: int) -> tuple[str, FrameTruth, NDArray[np.float64]]:
        frame = ingredients.make(index)
        write_frame(frame, folder)
        return frame.name, frame.truth, frame.cosmic_rays

    display = as_progress(progress)
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="simulate") as pool:
            for name, frame, hits in pool.map(simulate, range(len(exposures))):
                made[name] = frame, hits
                display.update("simulate", len(made), len(exposures))
    finally:
        display.close()
    truth = ingredients.truth(seed, made)
    truth.write(folder / TRUTH_NAME)
    return Night(folder, truth)


def open_night(folder: str | PathLike[str]) -> Night:
    """Return a night that was simulated before.

    Parameters
    ----------
    folder : path-like
        Its folder.

    Returns
    -------
    Night

    Raises
    ------
    InputError
        If there is no simulated night in the folder, or frames of it are missing.
    DataError
        If its truth cannot be read.
    """
    found = Night(Path(folder), read_truth(folder))
    missing = [path.name for path in found.files if not path.is_file()]
    if missing:
        raise InputError(
            "Frames of the simulated night are missing",
            file=folder,
            found=missing[:5],
            remedy="Simulate it again",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Ingredients:
    """All that frames are made of; drawn before the first, so that frames are independent of each other."""

    plan: NightPlan
    exposures: tuple[Exposure, ...]
    detector: Detector
    scenes: dict[str, Scene]
    conditions: tuple[Conditions, ...]
    seeds: tuple[np.random.SeedSequence, ...]
    photometry: Photometry | None = None

    @classmethod
    def draw(cls, plan: NightPlan, exposures: tuple[Exposure, ...], seed: int) -> _Ingredients:
        root = np.random.SeedSequence(seed)
        for_detector, for_scenes, for_conditions, for_frames, for_reality = root.spawn(5)
        detector = make_detector(plan.setup.size, plan.effects, np.random.default_rng(for_detector))
        rng = np.random.default_rng(for_scenes)
        scenes = {
            kind: make_scene(kind, plan, _base_wcs(kind, plan), rng) for kind in ("target", "sky", "std")
        }
        conditions = draw_conditions(plan, exposures, np.random.default_rng(for_conditions))
        conditions = add_reality(plan, exposures, conditions, for_reality)
        chance = np.random.default_rng(root.spawn(1)[0])
        photometry = draw_photometry(plan, chance)
        if photometry is not None:
            scenes = make_scenes(plan, exposures, scenes, photometry, chance)
            conditions = dim(plan, exposures, conditions, photometry, chance)
        seeds = tuple(for_frames.spawn(len(exposures)))
        return cls(plan, exposures, detector, scenes, conditions, seeds, photometry)

    def make(self, index: int) -> RawFrame:
        exposure = self.exposures[index]
        return expose(
            exposure,
            replace(self.plan, setup=setup_of(exposure, self.plan.setup)),
            self.detector,
            self.scenes.get(exposure.scene or exposure.kind),
            self.conditions[index],
            self.seeds[index],
            self.persistence(index),
            self.ghosts(index),
        )

    def persistence(self, index: int) -> NDArray[np.float32] | None:
        """Charge that pixels filled in earlier frames release during a frame, e-."""
        effects, now = self.plan.effects, self.exposures[index]
        if effects.persistence <= 0:
            return None
        total = np.zeros((self.plan.setup.size,) * 2, np.float32)
        for earlier in range(index):
            then = self.exposures[earlier]
            gap = (now.start - then.start).total_seconds() - then.seconds
            if then.on_sky and 0 <= gap < _FORGOTTEN * effects.persistence_decay:
                total += (
                    effects.persistence * math.exp(-gap / effects.persistence_decay) * self._trapped(earlier)
                )
        return total

    def ghosts(self, index: int) -> NDArray[np.float32] | None:
        """Charge that the bright stars of earlier frames leave in a frame, e- in the sum over coadds."""
        reality, now, setup = self.plan.reality, self.exposures[index], self.plan.setup
        if reality.persistence <= 0:
            return None
        total = np.zeros((setup.size,) * 2, np.float32)
        for earlier in range(index):
            then = self.exposures[earlier]
            gap = (now.start - then.start).total_seconds() - then.seconds
            if not then.on_sky or gap < 0:
                continue
            share = released(reality.persistence, gap, now.seconds)
            if share * setup.full_well * then.coadds >= _FAINT_GHOST:
                total += np.float32(share * then.coadds) * self._bright(earlier)
        return total

    def _bright(self, index: int) -> NDArray[np.float32]:
        """Charge of the pixels in which stars leave enough for persistence, e- per coadd; 0 elsewhere."""
        exposure, setup, conditions = self.exposures[index], self.plan.setup, self.conditions[index]
        reality = self.plan.reality
        least, halo = reality.persistence_from, reality.halo_fwhm / setup.scale
        scene = self.scenes[exposure.scene or exposure.kind]
        # Stars too faint to reach that charge in their middle are left out, with a margin for neighbours.
        middle = sum(
            share * 2 / (math.pi * moffat_radius(width) ** 2)
            for share, width in profile(conditions.fwhm_pix, halo, reality.core_fraction)
        )
        bright = tuple(star for star in scene.stars if 2 * star.flux * middle * exposure.exposure > least)
        field = replace(scene, stars=bright, galaxy=None)
        light = starlight(exposure, setup, field, motion_of(exposure, setup, field, conditions), conditions)
        if light is None:
            return np.zeros((setup.size,) * 2, np.float32)
        charge = np.minimum(light * np.float32(exposure.exposure), np.float32(setup.full_well))
        return np.where(charge > least, charge, np.float32(0))

    def _trapped(self, index: int) -> NDArray[np.float32]:
        """Charge of the pixels that a frame fills, e-; 0 elsewhere."""
        exposure, setup, conditions = self.exposures[index], self.plan.setup, self.conditions[index]
        scene = self.scenes[exposure.scene or exposure.kind]
        # Only stars fill a pixel, and only bright ones need to be drawn.
        bright = tuple(star for star in scene.stars if star.flux * exposure.exposure > setup.full_well)
        field = replace(scene, stars=bright, galaxy=None)
        light = illumination(
            exposure, setup, field, motion_of(exposure, setup, field, conditions), conditions
        )
        if light is None:
            return np.zeros((setup.size,) * 2, np.float32)
        charge = np.minimum(light * np.float32(exposure.exposure), np.float32(setup.full_well))
        return np.where(charge > _PERSISTENT * setup.full_well, charge, np.float32(0))

    def truth(self, seed: int, made: Mapping[str, tuple[FrameTruth, NDArray[np.float64]]]) -> Truth:
        return Truth(
            seed=seed,
            size=self.plan.setup.size,
            gain=niri_tables().detector.gain,
            fwhm_pix=self.plan.fwhm_pix,
            sky_rate=self.plan.sky_rate,
            frames={name: frame for name, (frame, _) in made.items()},
            fields=self.scenes,
            cosmic_rays={name: hits for name, (_, hits) in made.items()},
            dead=self.detector.dead,
            hot=self.detector.hot,
            warm=self.detector.warm,
            reality=None if self.plan.reality.is_off else self.plan.reality,
            photometry=None if self.photometry is None else self.photometry.to_dict(),
        )


def _base_wcs(kind: str, plan: NightPlan) -> TangentWcs:
    """World coordinates of a field's base pointing."""
    # The plan may hold no such frame; the field exists all the same.
    ample = replace(
        plan, n_target=max(1, plan.n_target), n_sky=max(1, plan.n_sky), n_standard=max(1, plan.n_standard)
    )
    first = next(frame for frame in plan_exposures(ample) if frame.kind == kind)
    return frame_wcs(first, plan.setup)


def _prepare(folder: Path, exposures: Sequence[Exposure], *, overwrite: bool) -> Path:
    """Make the folder, or empty it of a night simulated earlier."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise StorageError("There can be no folder for the night", file=folder, found=str(error)) from error
    if not present:
        return folder
    if not overwrite:
        raise StorageError(
            "The folder of the night is not empty",
            file=folder,
            found=f"{len(present)} entries",
            remedy="Name another folder, or set overwrite=True to replace a simulated night",
        )
    ours = _earlier_night(folder) & present
    foreign = sorted(({frame.name for frame in exposures} & present) - ours)
    if foreign:
        raise StorageError(
            "Frames in the folder were not made by the simulator",
            file=folder / foreign[0],
            found=f"{len(foreign)} such frames",
            remedy="Name another folder",
        )
    try:
        for name in ours:
            (folder / name).unlink()
    except OSError as error:
        raise StorageError("The earlier night cannot be removed", file=folder, found=str(error)) from error
    return folder


def _earlier_night(folder: Path) -> set[str]:
    if not (folder / TRUTH_NAME).exists():
        return set()
    try:
        return {TRUTH_NAME, *read_truth(folder).frames}
    except DataError as error:
        raise StorageError(
            "The folder holds the truth of another simulator",
            file=folder / TRUTH_NAME,
            remedy="Name another folder",
        ) from error
