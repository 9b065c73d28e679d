"""Primitives that separate object and sky frames, and that build and subtract skies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator

from niripipe.algorithms import grouping
from niripipe.astrodata import AstroData
from niripipe.astrodata.tables import as_rows
from niripipe.errors import DataError, ParameterError
from niripipe.logutils import get_logger
from niripipe.primitives import fields, targets, usable
from niripipe.primitives.base import (
    Frames,
    Outcome,
    PrimitivesBase,
    done,
    not_needed,
    opened_name,
    primitive,
    raw_name,
    skipped,
)
from niripipe.primitives.named import is_named, no_such_frame, same_exposure, tell_apart
from niripipe.primitives.params import Field, NameList, OfDragons, Params, SuffixParams, split_names
from niripipe.primitives.skybuild import BuiltSky, SkyBuilder, SkyBuildParams, as_built, seconds_of
from niripipe.primitives.skymatch import SKY_FROM, SkyLevel, level_of, match_sky, without_sky
from niripipe.primitives.skynoise import SharedNoise, subtract_planes

__all__ = ["Sky"]

log = get_logger(__name__)

_MANY_SKIES = 9
"""A median of so many frames moves by 0.14 deviations of one of them at most for a star in one of them."""
_ENOUGH_SKIES = 15
"""More do little for a sky that is shared: the noise of the difference is 1.05 times that of a frame."""
_STATE = ("ADUTOELE", "DARKCORR", "FLATCORR")
"""Steps that frame and sky must have in common."""


def _frames(value: Any) -> Any:
    return (value,) if isinstance(value, AstroData | Path) else split_names(value)


FrameList = Annotated[tuple[AstroData | Path | str, ...] | None, BeforeValidator(_frames)]
"""Frames by name, by file or in memory, as a sequence or (names) as one comma-separated text."""


class SeparateSkyParams(SuffixParams, suffix="_skySeparated"):
    """Parameters of `Sky.separateSky`."""

    ref_obj: NameList = Field(None, description="names of frames that show the object")
    ref_sky: NameList = Field(None, description="names of frames that show sky")
    frac_FOV: float = Field(
        0.9, ge=0.3, le=1, description="frames closer than this part of the field are of one group"
    )


class AssociateSkyParams(SuffixParams, suffix="_skyAssociated"):
    """Parameters of `Sky.associateSky`."""

    time: float = Field(600.0, ge=0, description="largest difference in time, s")
    distance: float = Field(3.0, ge=0, description="smallest separation on the sky, arcsec")
    min_skies: int | None = Field(3, ge=0, description="take at least so many, if need be beyond `time`")
    max_skies: int | None = Field(None, ge=1, description="take at most so many")
    use_all: bool = Field(False, description="use every other frame, object or sky")
    sky: FrameList = Field(
        None, description="the frames to be used as skies: names of frames reduced, files, or frames"
    )


class MakeSkyParams(SeparateSkyParams, AssociateSkyParams, suffix="_skyMade"):
    """Parameters of `Sky.makeSky`."""


class SubtractSkyParams(SuffixParams, suffix="_skySubtracted"):
    """Parameters of everything that subtracts a sky."""

    reset_sky: bool = Field(False, description="add the original level back")
    scale_sky: bool = Field(True, description="scale the sky to the level of the frame")
    offset_sky: bool = Field(False, description="shift the sky to the level of the frame")
    save_sky: bool = Field(False, description="write the sky frames")
    propagate_variance: bool = Field(
        True,
        description="add the variance of the sky; without, the result has none, which is enough to look at",
    )
    level: SkyLevel = Field(
        "auto",
        description="what the sky level of a frame is: boxes, parts of the field that agree with each other; "
        "peak or median of the pixels; faint, the faintest fifth; auto: boxes, or peak in small frames",
    )
    debug_threshold: float = Field(0.001, gt=0, description="relative precision of the scale")


class SubtractGivenSkyParams(SubtractSkyParams):
    """Parameters of `Sky.subtractSky`."""

    sky: FrameList = Field(None, description="sky frame for all, or one for each frame: files or frames")


class SkyCorrectParams(SkyBuildParams, SubtractSkyParams, suffix="_skyCorrected"):
    """Parameters of `Sky.skyCorrect`."""

    of_dragons = MappingProxyType(
        {"sky": OfDragons((None,), "Name skies with associateSky:sky, or subtract one with subtractSky:sky.")}
    )

    keep_skies: bool = Field(
        True, description="keep the sky stream; without, it is let go of as soon as the skies are made"
    )
    own_level: bool = Field(True, description="subtract from a frame without skies its own level")
    share: int = Field(
        1,
        ge=1,
        description="so many neighbouring frames beside the target get one sky, made of the 15 nearest of "
        "all their skies, which may be the frames themselves: quicker, and good enough to find objects",
    )


class SubtractSkyBackgroundParams(SuffixParams, suffix="_skyBackgroundSubtracted"):
    """Parameters of `Sky.subtractSkyBackground`."""


class CorrectBackgroundParams(SuffixParams, suffix="_backgroundCorrected"):
    """Parameters of `Sky.correctBackgroundToReference`."""

    separate_ext: bool = Field(True, description="treat extensions separately; NIRI has one")
    remove_background: bool = Field(False, description="bring the level to zero, not to the first frame's")


class Sky(PrimitivesBase):
    """Sky subtraction."""

    @primitive(stamp="SEPSKY")
    def separateSky(self, frames: Frames, params: SeparateSkyParams) -> Frames:
        """Tell object frames from sky frames; the latter become the stream ``sky``.

        A frame is an object or sky frame because the user or its header (OBJFRAME, SKYFRAME) says so, or
        because a frame of the same field is; an unguided frame is sky. Where nothing is known, the
        field nearest to the target is the object's, and a warning names the frames that are taken for sky.
        A single field is object and sky at once, and so are guided fields that share pixels at their
        edges, a mosaic. The report has the reason for each frame. A frame whose level is below a tenth of
        that of the others, which show a sky, is neither: it is left out.

        Raises
        ------
        DataError
            A frame has no WCS, or object frames are of targets that cannot overlap.
        """
        if not frames:
            self.streams["sky"] = []
            return frames
        frames = usable.without_dark_frames(self, frames)
        exposures = fields.exposures(frames, params.ref_obj, params.ref_sky)
        groups = grouping.group_frames(fields.overlaps(frames, params.frac_FOV))
        mosaic = grouping.is_mosaic(exposures, groups, fields.overlaps(frames, 1.0))
        found = grouping.classify(exposures, groups, target=fields.target(frames[0]), mosaic=mosaic)
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
            self.note(frame, done(verdict.reason))
        log.stdinfo("%d object frames, %d sky frames", len(objects), len(skies))
        guided = [f for f, e in zip(frames, exposures, strict=True) if e.guided and not e.is_sky]
        targets.require_one_target(objects, guided)
        self.streams["sky"] = skies
        return objects

    @primitive(stamp="ASSOCSKY")
    def associateSky(self, frames: Frames, params: AssociateSkyParams) -> Frames:
        """Choose for each frame the sky frames to be combined; SKYTABLE holds their names.

        A sky has the same set-up, was taken within `time` and points at least `distance` elsewhere. A
        frame without skies moves from the stream to ``no_skies``; it stays available as a sky for others.

        With `sky` only the frames named there are skies: names of frames of this reduction, or files and
        frames from elsewhere that were processed as far (give files that have an OBJMASK).

        Raises
        ------
        ParameterError
            A sky that was named does not exist.
        DataError
            A sky from elsewhere was not processed like the frames, or a frame has no time.
        """
        skies = self.streams.get("sky", frames)
        if params.sky is not None:
            skies = self._skies_given(params.sky, list(dict.fromkeys([*skies, *frames])))
            _require_same_state(frames, skies)
            self._add_to_sky_stream(skies)
        if params.use_all:
            skies = list(dict.fromkeys([*frames, *skies]))
        if not frames or not skies:
            return self.note_all(frames, skipped("there is no sky frame"))
        records = [fields.sky_record(sky) for sky in skies]
        without_sky: dict[AstroData, str] = {}
        doubts: dict[str, list[str]] = {}
        for frame in frames:
            choice = grouping.choose_skies(
                fields.sky_record(frame),
                records,
                **params.model_dump(include={"time", "distance", "min_skies", "max_skies", "use_all"}),
            )
            _name_skies(frame, [opened_name(skies[i]) for i in choice.skies])
            if choice.skies:
                for text in choice.warnings:
                    doubts.setdefault(text, []).append(raw_name(frame))
                continue
            reasons = "; ".join(f"{opened_name(skies[i])}: {why}" for i, why in choice.rejected.items())
            without_sky[frame] = f"{opened_name(frame)} has no sky ({reasons})"
        for text, names in doubts.items():
            log.warning("%s: %s", ", ".join(names), text)
        # If none has a sky, the first explains them all.
        for text in list(without_sky.values())[: 1 if len(without_sky) == len(frames) else None]:
            log.warning("%s", text)
        if 0 < len(without_sky) < len(frames):
            self.streams["no_skies"] = list(without_sky)
            return [frame for frame in frames if frame not in without_sky]
        return frames

    @primitive
    def makeSky(self, frames: Frames, params: MakeSkyParams) -> Frames:
        """Do what separateSky and associateSky do."""
        objects = self.separateSky(frames, **_subset(params, SeparateSkyParams))
        return self.associateSky(objects, **_subset(params, AssociateSkyParams))

    @primitive(stamp="SUBSKY")
    def skyCorrect(self, frames: Frames, params: SkyCorrectParams) -> Frames:
        """Combine for each frame the skies in its SKYTABLE, and subtract the result.

        The skies are brought to one level, without their objects (OBJMASK, grown by `dilation`) and without
        what galaxies leave outside of it, and combined. With `scale_sky` the result is scaled to the level of
        the frame, with `offset_sky` shifted; else it gets the level that the skies before and after the frame
        let expect. Where extended light leaves hardly any sky in the frame, a scale above that is not
        believed. The variance of the sky is added, its unusable pixels are flagged; where every sky shows
        an object the pixel is flagged as without data (bit 16). Noise of a dark and a flat that were applied
        to frame and skies alike cancels between them and is taken out of the variance; VARSHARE in the
        extension header names them. It stays where dark or flat are not there any more. VARSKY is the part of
        the variance that is the sky's: a stack needs it to know which noise its frames have in common.

        SKYNUM, SKYMETH, SKYSCALE, SKYLEVEL and SKYRESID in the extension header say what was subtracted and
        what is left; SKYTABLE which frames the sky was made of, by what each was multiplied (SCALE), and how
        much later each was taken (DT, s).

        A frame without skies loses its own background level only, or keeps it with ``own_level=False``.
        SKYFROM in the primary header: ``other frames``, ``own level`` or ``none``.

        The default combination, a median, shares its work between frames: it takes a time proportional to
        their number. Other combinations are computed anew for each frame.
        """
        known = {opened_name(sky): sky for sky in self.streams.get("sky", frames)}
        users: dict[tuple[str, ...], Frames] = {}
        level = params.own_level and not params.reset_sky
        for frame in frames:
            names = tuple(name for name in _sky_names(frame) if name in known)
            if names:
                users.setdefault(names, []).append(frame)
            else:
                self.note(frame, without_sky(frame, own_level=level))
        if not users:
            return frames
        if params.share > 1:
            users = _shared(users, {name: seconds_of(sky) for name, sky in known.items()}, params.share)
        needed = {name for names in users for name in names}
        # Frames may be their own neighbours' skies: copies keep the pixels from before the subtraction.
        skies = {name: sky.copy() for name, sky in known.items() if name in needed}
        self.keep(skies.values())
        shared = SharedNoise(self.context.calibrations, known)
        del known
        if not params.keep_skies:
            self.streams.pop("sky", None)
        builder = SkyBuilder(
            skies,
            {name: _partners(name, sky, users) for name, sky in skies.items()},
            params,
            threads=self.workers,
            with_variance=params.propagate_variance,
            each=self.map,
        )
        wanted = sorted(users, key=lambda names: float(np.mean([builder.times[name] for name in names])))
        for group in builder.built(wanted):
            jobs = [(frame, sky) for sky in group for frame in users[sky.names]]
            self._subtract_skies(jobs, params, shared)
            if params.save_sky:
                for sky in group:
                    self._save_sky(users[sky.names][0], sky)
        return frames

    @primitive(stamp="SUBSKY")
    def subtractSky(self, frames: Frames, params: SubtractGivenSkyParams) -> Frames:
        """Subtract a sky frame that exists already: one for all frames, or one for each.

        It is `sky`, or the one frame of the stream ``sky``. Scaling, shifting and what the headers say are as
        in `skyCorrect`; unscaled, the sky is subtracted as it is.

        Raises
        ------
        ParameterError
            There is neither one sky nor one for each frame.
        DataError
            A sky differs in shape from the frame.
        """
        given = self._skies_given(params.sky, []) if params.sky else self.streams.get("sky", [])
        if len(given) not in (1, len(frames)) and frames:
            raise ParameterError(
                "One sky for all frames is needed, or one for each",
                item="subtractSky:sky",
                found=f"{len(given)} skies for {len(frames)} frames",
                remedy="Name the sky with sky=, or combine the skies first (stackSkyFrames).",
            )
        skies = list(given) if len(given) == len(frames) else list(given) * len(frames)
        for frame, sky in zip(frames, skies, strict=True):
            if frame[0].shape != sky[0].shape:
                raise DataError(
                    "Sky and frame differ in shape",
                    file=frame.filename,
                    item=sky.filename,
                    found=sky[0].shape,
                    expected=frame[0].shape,
                )
        jobs = [(frame, as_built(sky)) for frame, sky in zip(frames, skies, strict=True)]
        self._subtract_skies(jobs, params)
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
    def correctBackgroundToReference(self, frames: Frames, params: CorrectBackgroundParams) -> Frames:
        """Shift the level of each frame to that of the first, or to zero; SKYLEVEL keeps it."""
        reference: float | None = 0.0 if params.remove_background else None
        for frame in frames:
            level = level_of(frame)
            reference = level if reference is None else reference
            if level == reference:
                self.note(frame, not_needed("the level is the reference's"))
            frame.add(np.float32(reference - level))
            frame[0].hdr.set("SKYLEVEL", reference, "Sky level")
        return frames

    def _subtract_skies(
        self,
        jobs: list[tuple[AstroData, BuiltSky]],
        params: SubtractSkyParams,
        shared: SharedNoise | None = None,
    ) -> None:
        """Subtract from each frame its sky."""
        for frame, outcome in self.map(lambda job: _subtract(*job, params, shared), jobs):
            self.note(frame, outcome)

    def _add_to_sky_stream(self, skies: Frames) -> None:
        present = self.streams.setdefault("sky", [])
        present += [sky for sky in skies if sky not in present]

    def _skies_given(self, given: Sequence[AstroData | Path | str], known: Frames) -> Frames:
        """Return the frames that a user means: of those reduced, in memory, or in a file."""
        found: Frames = []
        for one in given:
            sky = one
            if not isinstance(sky, AstroData):
                same = [frame for frame in known if is_named(frame, str(one))]
                if not same and not Path(sky).is_file():
                    raise no_such_frame(known, str(one), "sky")
                sky = same[0] if same else self.context.calibrations.opened(Path(sky))
            # A copy of a frame that is reduced, and one exposure in two files, count once.
            found.append(next((f for f in (*known, *found) if same_exposure(f, sky)), sky))
        tell_apart([sky for sky in dict.fromkeys(found) if sky not in known], known)
        return list(dict.fromkeys(found))

    def _save_sky(self, user: AstroData, sky: BuiltSky) -> None:
        frame = user.copy()
        frame[0].reset(sky.data, mask=sky.mask, variance=sky.variance)
        frame.update_filename(suffix="_sky", strip=True)
        path = self.context.output_dir / str(frame.filename)
        self.runner.save(frame, path, overwrite=self.context.overwrite)


def _subtract(
    frame: AstroData, sky: BuiltSky, params: SubtractSkyParams, shared: SharedNoise | None
) -> tuple[AstroData, Outcome]:
    """Subtract a sky from a frame, and say in its headers what was subtracted."""
    match = match_sky(frame, sky, params)
    kept = level_of(frame) if params.reset_sky else 0.0
    subtract_planes(frame, sky, match.factor, match.constant - kept, params, shared)
    level = float(np.median(sky.data[::8, ::8])) * match.factor + match.constant
    frame.phu.set(SKY_FROM, "other frames", "Where the sky subtracted comes from")
    hdr = frame[0].hdr
    hdr.set("SKYNUM", len(sky.names), "Number of sky frames combined")
    hdr.set("SKYMETH", match.method, "How the sky was matched to the frame")
    hdr.set("SKYSCALE", round(match.factor, 6), "Factor by which the sky was multiplied")
    hdr.set("SKYLEVEL", round(level, 3), "Level of the sky that was subtracted")
    detail = f"{len(sky.names)} skies, {match.method}, factor {match.factor:.5f}"
    if match.residual is not None:
        hdr.set("SKYRESID", round(match.residual, 4), "Level left after the subtraction")
        detail += f", level left {match.residual:.3g}"
    else:
        hdr.remove("SKYRESID", ignore_missing=True)
    if match.warning:
        log.warning("%s: %s", frame.filename, match.warning)
        detail += f"; {match.warning}"
    _set_sky_table(frame, sky, match.factor)
    return frame, done(detail)


def _shared(
    users: dict[tuple[str, ...], Frames], times: dict[str, float], number: int
) -> dict[tuple[str, ...], Frames]:
    """Unite the skies of neighbouring frames, if a median of them hardly shows the light of one of them."""
    ordered = sorted(
        ((names, frame) for names, own in users.items() for frame in own),
        key=lambda pair: seconds_of(pair[1]),
    )
    united: dict[tuple[str, ...], Frames] = {}
    for start in range(0, len(ordered), number):
        group = ordered[start : start + number]
        every = sorted({name for own, _ in group for name in own})
        # Of a target with extended light each exposure less in its own sky counts.
        if len(every) < _MANY_SKIES or any("OBJFRAME" in frame.phu for _, frame in group):
            for own, frame in group:
                united.setdefault(own, []).append(frame)
            continue
        middle = np.mean([seconds_of(frame) for _, frame in group])
        nearest = sorted(every, key=lambda name: abs(times[name] - middle))[:_ENOUGH_SKIES]
        united.setdefault(tuple(sorted(nearest)), []).extend(frame for _, frame in group)
    return united


def _sky_names(frame: AstroData) -> list[str]:
    if "SKYTABLE" not in frame.tables:
        return []
    return [str(name) for name in frame.columns("SKYTABLE")["SKYNAME"]]


def _name_skies(frame: AstroData, names: Sequence[str]) -> None:
    """Write the names of a frame's skies into SKYTABLE; without any there is none."""
    if names:
        frame.SKYTABLE = as_rows({"IMAGE": [opened_name(frame)] * len(names), "SKYNAME": list(names)})
    elif "SKYTABLE" in frame.tables:
        del frame.SKYTABLE


def _set_sky_table(frame: AstroData, sky: BuiltSky, factor: float) -> None:
    """Say what a frame's sky was made of."""
    start = seconds_of(frame)
    frame.SKYTABLE = as_rows(
        {
            "IMAGE": [opened_name(frame)] * len(sky.names),
            "SKYNAME": list(sky.names),
            "SCALE": [factor * sky.scales[name] for name in sky.names],
            "DT": [sky.times[name] - start for name in sky.names],
        }
    )


def _partners(name: str, sky: AstroData, users: dict[tuple[str, ...], Frames]) -> list[str]:
    """Return the frames that show the sky of a sky: its own skies, else those it is combined with."""
    own = [other for other in _sky_names(sky) if other != name]
    return own or sorted({other for names in users if name in names for other in names} - {name})


def _require_same_state(frames: Sequence[AstroData], skies: Sequence[AstroData]) -> None:
    """Refuse skies from elsewhere that were not processed as far as the frames."""
    for sky in skies:
        for stamp in _STATE:
            lacking = [frame for frame in frames if (stamp in frame.phu) != (stamp in sky.phu)]
            if lacking:
                raise DataError(
                    "Frame and sky were not processed alike",
                    file=sky.filename,
                    item=stamp,
                    found="present" if stamp in sky.phu else "missing",
                    expected=f"as in {lacking[0].filename}",
                    remedy="Reduce the sky with the frames, or write it out after flatCorrect.",
                )


def _subset(params: Params, model: type[Params]) -> dict[str, Any]:
    return {name: getattr(params, name) for name in model.model_fields if name != "suffix"}
