"""Primitives that separate object and sky frames, and that build and subtract skies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.algorithms import background, grouping, normalize
from niripipe.algorithms import sky as sky_algorithm
from niripipe.algorithms.combine import Combined, combine
from niripipe.astrodata import DQ, AstroData
from niripipe.errors import AlgorithmError, DataError
from niripipe.logutils import get_logger
from niripipe.primitives import objmask
from niripipe.primitives.base import PrimitivesBase, not_needed, primitive, skipped
from niripipe.primitives.geometry import require_wcs
from niripipe.primitives.params import Field, NameList, Params
from niripipe.primitives.stack import SkyCombineParams
from niripipe.primitives.stacking import Rejection, clipping_limits, section_slices

__all__ = ["Sky"]

log = get_logger(__name__)

_OBJECT = 0x8000
"""Private bit by which the combination avoids objects; it never reaches a frame."""


class SeparateSkyParams(Params):
    """Parameters of `Sky.separateSky`."""

    suffix: str | None = Field("_skySeparated", description="suffix of the file name")
    ref_obj: NameList = Field(None, description="names of frames that show the object")
    ref_sky: NameList = Field(None, description="names of frames that show sky")
    frac_FOV: float = Field(
        0.9, ge=0.3, le=1, description="frames closer than this part of the field are of one group"
    )


class AssociateSkyParams(Params):
    """Parameters of `Sky.associateSky`."""

    suffix: str | None = Field("_skyAssociated", description="suffix of the file name")
    time: float = Field(600.0, ge=0, description="largest difference in time, s")
    distance: float = Field(3.0, ge=0, description="smallest separation on the sky, arcsec")
    min_skies: int | None = Field(3, ge=0, description="take at least so many, if need be beyond `time`")
    max_skies: int | None = Field(None, ge=1, description="take at most so many")
    use_all: bool = Field(False, description="use every other frame, object or sky")
    sky: NameList = Field(None, description="names of the frames to be used as skies, of those reduced")


class MakeSkyParams(SeparateSkyParams, AssociateSkyParams):
    """Parameters of `Sky.makeSky`."""

    suffix: str | None = Field("_skyMade", description="suffix of the file name")


class SubtractSkyParams(Params):
    """Parameters of `Sky.subtractSky`."""

    suffix: str | None = Field("_skySubtracted", description="suffix of the file name")
    reset_sky: bool = Field(False, description="add the original level back")
    scale_sky: bool = Field(True, description="scale the sky to the level of the frame")
    offset_sky: bool = Field(False, description="shift the sky to the level of the frame")
    save_sky: bool = Field(False, description="write the sky frames")
    debug_threshold: float = Field(0.001, gt=0, description="relative precision of the scale")


class SkyCorrectParams(SkyCombineParams, SubtractSkyParams):
    """Parameters of `Sky.skyCorrect`."""

    suffix: str | None = Field("_skyCorrected", description="suffix of the file name")


class SubtractSkyBackgroundParams(Params):
    """Parameters of `Sky.subtractSkyBackground`."""

    suffix: str | None = Field("_skyBackgroundSubtracted", description="suffix of the file name")


class CorrectBackgroundParams(Params):
    """Parameters of `Sky.correctBackgroundToReference`."""

    suffix: str | None = Field("_backgroundCorrected", description="suffix of the file name")
    separate_ext: bool = Field(True, description="treat extensions separately; NIRI has one")
    remove_background: bool = Field(False, description="bring the level to zero, not to the first frame's")


class Sky(PrimitivesBase):
    """Sky subtraction."""

    @primitive(stamp="SEPSKY")
    def separateSky(self, frames: list[AstroData], params: SeparateSkyParams) -> list[AstroData]:
        """Tell object frames from sky frames; the latter become the stream ``sky``.

        A frame is an object or sky frame because the user or its header (OBJFRAME, SKYFRAME) says so, or
        because a frame of the same field is; an unguided frame is sky. Where nothing is known, the
        field nearest to the target is the object's. A single field is object and sky at once.

        Raises
        ------
        DataError
            A frame has no WCS.
        """
        if not frames:
            self.streams["sky"] = []
            return frames
        found = grouping.classify(
            _exposures(frames, params),
            grouping.group_frames(len(frames), lambda i, j: _overlap(frames[i], frames[j], params.frac_FOV)),
            target=_target(frames[0]),
        )
        for warning in found.warnings:
            log.warning("%s", warning)
        objects, skies = [], []
        for frame, verdict in zip(frames, found.frames, strict=True):
            frame.phu.set("EXPGROUP", verdict.group, "Exposures of one field")
            if verdict.is_object:
                frame.phu.set("OBJFRAME", "TRUE", "Shows the object")
                objects.append(frame)
            if verdict.is_sky:
                frame.phu.set("SKYFRAME", "TRUE", "Shows sky")
                skies.append(frame)
            log.fullinfo("%s: %s", frame.filename, verdict.reason)
        log.stdinfo("%d object frames, %d sky frames", len(objects), len(skies))
        self.streams["sky"] = skies
        return objects

    @primitive(stamp="ASSOCSKY")
    def associateSky(self, frames: list[AstroData], params: AssociateSkyParams) -> list[AstroData]:
        """Choose for each frame the sky frames to be combined; SKYTABLE holds their names.

        A sky has the same set-up, was taken within `time` and points at least `distance` elsewhere. A
        frame without skies moves from the stream to ``no_skies``; it stays available as a sky for others.
        """
        skies = self.streams.get("sky", frames)
        if params.sky is not None:
            skies = [
                s for s in skies if any(name.removesuffix(".fits") in str(s.filename) for name in params.sky)
            ]
        if params.use_all:
            skies = list({id(frame): frame for frame in [*frames, *skies]}.values())
        if not frames or not skies:
            for frame in frames:
                self.note(frame, skipped("there is no sky frame"))
            return frames
        records = [_sky_record(sky) for sky in skies]
        lonely = []
        for frame in frames:
            choice = grouping.choose_skies(
                _sky_record(frame),
                records,
                time=params.time,
                distance=params.distance,
                min_skies=params.min_skies,
                max_skies=params.max_skies,
                use_all=params.use_all,
            )
            for warning in choice.warnings:
                log.warning("%s", warning)
            _set_sky_table(frame, [_root(skies[i]) for i in choice.skies])
            if not choice.skies:
                lonely.append(frame)
                reasons = "; ".join(f"{_root(skies[i])}: {why}" for i, why in choice.rejected.items())
                log.warning("%s has no sky (%s)", frame.filename, reasons)
        if lonely and len(lonely) < len(frames):
            self.streams["no_skies"] = lonely
            return [frame for frame in frames if all(frame is not other for other in lonely)]
        return frames

    @primitive
    def makeSky(self, frames: list[AstroData], params: MakeSkyParams) -> list[AstroData]:
        """Do what separateSky and associateSky do."""
        objects = self.separateSky(frames, **_subset(params, SeparateSkyParams))
        return self.associateSky(objects, **_subset(params, AssociateSkyParams))

    @primitive(stamp="SUBSKY")
    def skyCorrect(self, frames: list[AstroData], params: SkyCorrectParams) -> list[AstroData]:
        """Combine for each frame the skies in its SKYTABLE, and subtract the result.

        The skies are scaled to the one nearest in time to the frame, without their objects (OBJMASK,
        grown by `dilation`), and combined. With `scale_sky` the result is scaled to the level of the
        frame first, with `offset_sky` shifted. The variance of the sky is added, its unusable pixels
        are flagged; where every sky shows an object the pixel is flagged as without data (bit 16).
        SKYNUM, SKYSCALE, SKYLEVEL and SKYRESID in the extension header say what was subtracted.
        """
        skies = {_root(sky): sky.copy() for sky in self.streams.get("sky", frames)}
        builder = _SkyBuilder(skies, params, threads=self.context.threads)
        wanted = [tuple(name for name in _sky_names(frame) if name in skies) for frame in frames]
        for names in dict.fromkeys(wanted):
            users = [frame for frame, own in zip(frames, wanted, strict=True) if own == names]
            if not names:
                for frame in users:
                    log.warning("%s: no sky was subtracted, there is none", frame.filename)
                    self.note(frame, skipped("there is no sky for this frame"))
                continue
            sky = builder.build(names)
            self.map(partial(_subtract, sky=sky, builder=builder, params=params), users)
            if params.save_sky:
                self._save_sky(users[0], sky)
        return frames

    @primitive(stamp="SUBSKYBG")
    def subtractSkyBackground(self, frame: AstroData, params: SubtractSkyBackgroundParams) -> Any:
        """Subtract the number in SKYLEVEL of the extension header."""
        level = frame[0].hdr.get("SKYLEVEL")
        if level is None:
            return skipped("there is no SKYLEVEL")
        frame.subtract(np.float32(level))
        return None

    @primitive(stamp="CORRBG")
    def correctBackgroundToReference(
        self, frames: list[AstroData], params: CorrectBackgroundParams
    ) -> list[AstroData]:
        """Shift the level of each frame to that of the first, or to zero; SKYLEVEL keeps it."""
        reference: float | None = 0.0 if params.remove_background else None
        for frame in frames:
            level = _level(frame)
            reference = level if reference is None else reference
            if level == reference:
                self.note(frame, not_needed("the level is the reference's"))
            frame.add(np.float32(reference - level))
            frame[0].hdr.set("SKYLEVEL", reference, "Sky level")
        return frames

    def _save_sky(self, user: AstroData, sky: _BuiltSky) -> None:
        frame = user.copy()
        planes = sky.planes
        frame[0].reset(planes.data, mask=planes.mask, variance=planes.variance)
        frame.update_filename(suffix="_sky", strip=True)
        path = self.context.output_dir / str(frame.filename)
        self.runner.save(frame, path, overwrite=self.context.overwrite)


@dataclass(frozen=True, slots=True)
class _BuiltSky:
    """A sky made of several frames.

    `planes` are on the flux scale of the first name; `scales` brings each input to it.
    """

    names: tuple[str, ...]
    planes: Combined
    scales: dict[str, float]


class _SkyBuilder:
    """Combines skies; what does not depend on the frame to be corrected is computed once.

    Parameters
    ----------
    skies : dict of str to AstroData
        By root name. Not changed.
    params : SkyCorrectParams
    threads : int
    """

    def __init__(self, skies: dict[str, AstroData], params: SkyCorrectParams, *, threads: int) -> None:
        self.skies = skies
        self.params = params
        self.threads = threads
        self._masks: dict[str, NDArray[np.uint16]] = {}
        self._levels: dict[str, float] = {}

    def build(self, names: tuple[str, ...]) -> _BuiltSky:
        """Return the combination of the skies of these names, on the flux scale of the first."""
        params = self.params
        exts = [self.skies[name][0] for name in names]
        variance = [ext.read("variance") for ext in exts]
        levels = [self._level(name) for name in names]
        normalisation: dict[str, Any] = {}
        if params.scale:
            normalisation["scale"] = [levels[0] / level for level in levels]
        elif params.zero:
            normalisation["zero"] = [levels[0] - level for level in levels]
        has_variance = all(plane is not None for plane in variance)
        rejection: Rejection = params.reject_method if has_variance else "minmax"
        hsigma, lsigma = clipping_limits(params, rejection)
        planes = combine(
            [ext.read("data") for ext in exts],
            variance if has_variance else None,
            [self._mask(name) for name in names],
            operation=params.operation,
            reject=rejection,
            hsigma=hsigma,
            lsigma=lsigma,
            mclip=params.mclip,
            max_iters=params.max_iters,
            nlow=params.nlow,
            nhigh=params.nhigh,
            threads=self.threads,
            **normalisation,
        )
        _clean_flags(planes.mask)
        scales = dict(zip(names, normalisation.get("scale", [1.0] * len(names)), strict=True))
        return _BuiltSky(names, planes, scales)

    def nearest(self, frame: AstroData, names: Sequence[str]) -> str:
        """Return the sky taken nearest in time to a frame."""
        time = frame.ut_datetime()
        return min(names, key=lambda name: abs((self.skies[name].ut_datetime() - time).total_seconds()))

    def _level(self, name: str) -> float:
        """Return the level of a sky relative to the first sky, from the pixels that both can use."""
        if name not in self._levels:
            self._levels.update(self._all_levels())
        return self._levels[name]

    def _all_levels(self) -> dict[str, float]:
        """Return ratio or difference of every sky's level to the first sky's."""
        names = list(self.skies)
        params = self.params
        if not (params.scale or params.zero):
            return dict.fromkeys(names, 1.0)
        planes = [self.skies[name][0].read("data") for name in names]
        where = section_slices(params.statsec, planes[0].shape)
        masks = [self._mask(name) for name in names]
        if params.scale:
            factors = normalize.scale_factors(planes, masks, method="reference", section=where)
            return {name: 1.0 / float(factor) for name, factor in zip(names, factors, strict=True)}
        offsets = normalize.zero_offsets(planes, masks, method="reference", section=where)
        return {name: -float(offset) for name, offset in zip(names, offsets, strict=True)}

    def _mask(self, name: str) -> NDArray[np.uint16]:
        """Return the mask of a sky with its objects in the private bit."""
        if name not in self._masks:
            frame = self.skies[name]
            mask = frame[0].read("mask") if self.params.apply_dq else None
            grown = objmask.dilated(frame, self.params.dilation) if self.params.mask_objects else None
            joined = np.zeros(frame[0].shape, np.uint16) if mask is None else mask
            if grown is not None:
                joined = joined | (grown.astype(np.uint16) * np.uint16(_OBJECT))
            self._masks[name] = joined
        return self._masks[name]


def _clean_flags(mask: NDArray[np.uint16] | None) -> None:
    """Turn the private object bit into "no data", and forget brightness: it was another exposure's."""
    if mask is not None:
        everywhere_object = mask & np.uint16(_OBJECT) != 0
        mask &= np.uint16(0xFFFF ^ _OBJECT ^ int(DQ.non_linear) ^ int(DQ.saturated))
        mask[everywhere_object] |= np.uint16(DQ.no_data)


def _subtract(frame: AstroData, sky: _BuiltSky, builder: _SkyBuilder, params: SkyCorrectParams) -> None:
    ext = frame[0]
    data, mask, planes = ext.read("data"), ext.read("mask"), sky.planes
    before = _level(frame) if params.reset_sky else 0.0
    factor, constant, residual = _match(frame, sky, builder, params)
    result = data - np.float32(factor) * planes.data
    if constant or before:
        result += np.float32(before - constant)
    variance = ext.read("variance")
    if variance is not None and planes.variance is not None:
        variance = variance + np.float32(factor**2) * planes.variance
    joined = mask if planes.mask is None else planes.mask if mask is None else mask | planes.mask
    ext.reset(result, mask=joined, variance=variance)
    level = float(np.median(planes.data[::8, ::8])) * factor + constant
    ext.hdr.set("SKYNUM", len(sky.names), "Number of sky frames combined")
    ext.hdr.set("SKYSCALE", round(factor, 6), "Factor by which the sky was multiplied")
    ext.hdr.set("SKYLEVEL", round(level, 3), "Level of the sky that was subtracted")
    if residual is not None:
        ext.hdr.set("SKYRESID", round(residual, 4), "Level left after the subtraction")
    _set_sky_table(frame, sky.names, [factor * sky.scales[name] for name in sky.names])


def _match(
    frame: AstroData, sky: _BuiltSky, builder: _SkyBuilder, params: SkyCorrectParams
) -> tuple[float, float, float | None]:
    """Return factor and constant by which the sky fits the frame, and the level that is left if known."""
    ext, planes = frame[0], sky.planes
    arguments = (ext.read("data"), planes.data, ext.read("mask"), planes.mask, ext.read("OBJMASK"))
    try:
        if params.scale_sky:
            found = sky_algorithm.sky_factor(*arguments, threshold=params.debug_threshold)
            return found.value, 0.0, found.residual
        if params.offset_sky:
            found = sky_algorithm.sky_offset(*arguments)
            return 1.0, found.value, found.residual
    except AlgorithmError as error:
        error.file = frame.filename
        raise
    # Unscaled, the sky is the one that was seen nearest in time.
    nearest = builder.nearest(frame, sky.names)
    return 1.0 / sky.scales[nearest], 0.0, None


def _level(frame: AstroData) -> float:
    ext = frame[0]
    return background.measure_background(ext.read("data"), ext.read("mask"), ext.read("OBJMASK")).level


def _root(frame: AstroData) -> str:
    return str(frame.orig_filename or frame.filename)


def _sky_names(frame: AstroData) -> list[str]:
    if "SKYTABLE" not in frame.tables:
        return []
    return [str(name) for name in frame.SKYTABLE["SKYNAME"]]


def _set_sky_table(frame: AstroData, names: Sequence[str], scales: Sequence[float] | None = None) -> None:
    from astropy.table import Table

    if not names:
        if "SKYTABLE" in frame.tables:
            del frame.SKYTABLE
        return
    columns: dict[str, Any] = {"IMAGE": [_root(frame)] * len(names), "SKYNAME": list(names)}
    if scales is not None:
        columns["SCALE"] = np.asarray(scales, float)
    frame.SKYTABLE = Table(columns)


def _subset(params: Params, model: type[Params]) -> dict[str, Any]:
    return {name: getattr(params, name) for name in model.model_fields if name != "suffix"}


def _exposures(frames: Sequence[AstroData], params: SeparateSkyParams) -> list[grouping.Exposure]:
    objects, skies = _chosen(frames, params.ref_obj), _chosen(frames, params.ref_sky)
    return [
        grouping.Exposure(
            name=str(frame.filename),
            position=_pointing(frame),
            guided=_guided(frame),
            is_object="OBJFRAME" in frame.phu or id(frame) in objects,
            is_sky="SKYFRAME" in frame.phu or id(frame) in skies,
        )
        for frame in frames
    ]


def _chosen(frames: Sequence[AstroData], names: Sequence[str] | None) -> set[int]:
    """Return the identities of the frames that the user names; a root name is enough."""
    chosen: set[int] = set()
    for name in names or ():
        matches = [frame for frame in frames if name.removesuffix(".fits") in str(frame.filename)]
        if not matches:
            log.warning("there is no frame %s", name)
        chosen.update(id(frame) for frame in matches)
    return chosen


def _guided(frame: AstroData) -> bool | None:
    """Return whether a wavefront sensor guided; None where the header does not say."""
    known = all(keyword in frame.phu for keyword in ("PWFS1_ST", "PWFS2_ST", "OIWFS_ST"))
    return frame.wavefront_sensor() is not None if known else None


def _target(frame: AstroData) -> tuple[float, float] | None:
    ra, dec = frame.target_ra(), frame.target_dec()
    return None if ra is None or dec is None else (ra, dec)


def _sky_record(frame: AstroData) -> grouping.SkyRecord:
    time = frame.ut_datetime()
    if time is None:
        raise DataError(
            "The frame has no time, so that its skies cannot be chosen",
            file=frame.filename,
            item="DATE-OBS, UT",
        )
    return grouping.SkyRecord(
        name=str(frame.filename),
        time=time.timestamp(),
        position=_pointing(frame),
        configuration=_configuration(frame),
        exposure_time=float(frame.exposure_time()),
    )


def _configuration(frame: AstroData) -> tuple[Any, ...]:
    """Return what a sky must share with a frame."""
    return (
        frame[0].shape,
        str(frame[0].detector_section()),
        frame.read_mode(),
        frame.well_depth_setting(),
        frame.coadds(),
        frame.camera(),
        frame.filter_name(),
        frame.focal_plane_mask(),
        frame.pupil_mask(),
        frame.disperser(),
    )


def _pointing(frame: AstroData) -> tuple[float, float]:
    """Return the sky position (ra, dec) of the middle of a frame, degrees."""
    ny, nx = frame[0].shape
    ra, dec = require_wcs(frame).all_pix2world(nx // 2 - 0.5, ny // 2 - 0.5, 0)
    return float(ra), float(dec)


def _overlap(a: AstroData, b: AstroData, fraction: float) -> bool:
    """Return whether the middle of one frame lies in that part of the other's field."""
    ny, nx = a[0].shape
    ra, dec = require_wcs(a).all_pix2world((nx - 1) / 2, (ny - 1) / 2, 0)
    x, y = require_wcs(b).all_world2pix(ra, dec, 0)
    return grouping.fields_overlap((float(y), float(x)), (ny, nx), fraction)
