"""Moving frames by shifts that the user knows, and putting them on world coordinates that the user gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from niripipe.algorithms.affine import Affine, Grid, corners_of, output_grid, part_of_grid
from niripipe.algorithms.bits import NO_DATA
from niripipe.algorithms.kernels import Kernel
from niripipe.algorithms.project import project
from niripipe.algorithms.resample import DQ_THRESHOLD, Resampled, resample
from niripipe.astrodata import AstroData, SkyMapping, shifted, undistorted
from niripipe.astrodata.wcs import to_astropy
from niripipe.errors import AlgorithmError, DataError, InputError, ParameterError
from niripipe.logutils import get_logger
from niripipe.paths import usable_path
from niripipe.primitives.base import Frames, PrimitivesBase, primitive
from niripipe.primitives.distortion import GONE
from niripipe.primitives.geometry import (
    distorting,
    equal_area,
    is_distorted,
    outline,
    require_wcs,
    undistorting,
)
from niripipe.primitives.params import Field, Params, SuffixParams, path_as_text
from niripipe.primitives.shared_skies import record_position
from niripipe.primitives.zero_point_stacks import rescale_zero_point

if TYPE_CHECKING:
    from astropy.wcs import WCS

    _Target = tuple[WCS, tuple[int, int] | None]
    """World coordinates of a grid of pixels, and its shape (ny, nx); None: as large as the frames need."""

__all__ = ["InterpolationParams", "ResampleTo", "TargetParams", "onto_target", "put_on_grid"]

log = get_logger(__name__)

_OF_STACKS = ("COVERAGE", "EXPOSURE", "REJMAP")
"""Planes that count frames in the pixels of a stack."""

Shifts = tuple[tuple[float, float], ...]
Transform = Callable[[Any, Any], tuple[Any, Any]]
"""Takes arrays y and x of positions, returns arrays y and x."""

_LARGEST = 20000
"""Pixels along a side from which an output is taken for a mistake: 20000 x 20000 is 4 GB a plane and more."""


def _shifts(value: Any) -> Any:
    """Read ``dx,dy:dx,dy:...``, a file with a pair a line, or pairs of numbers."""
    if value is None or not isinstance(value, str | Path):
        return value
    text = str(value).strip()
    pairs = text.split(":")
    path = usable_path(text)
    if not all(re.fullmatch(r"[-+.eE\d\s]+,[-+.eE\d\s]+", pair) for pair in pairs):
        if not path.is_file():
            raise ValueError("shifts are written dx,dy or dx1,dy1:dx2,dy2, or stand in a file, a pair a line")
        lines = (line.partition("#")[0].strip() for line in path.read_text(errors="replace").splitlines())
        pairs = [line for line in lines if line]
    try:
        return tuple(tuple(float(part) for part in re.split(r"[,\s]+", pair.strip())) for pair in pairs)
    except ValueError:
        raise ValueError("a shift is a pair of numbers, dx and dy in pixels") from None


class TargetParams(Params):
    """The parameter of a primitive that puts frames on given world coordinates."""

    target_wcs: Annotated[Any, BeforeValidator(path_as_text)] = Field(
        None, description="world coordinates to use instead: a FITS file, header, WCS or frame, or 'north'"
    )

    def as_record(self) -> dict[str, Any]:
        """Return the values in a form that JSON can hold; a header or WCS appears by its numbers."""
        record = super().as_record()
        target = self.target_wcs
        if hasattr(target, "to_header_string"):
            record["target_wcs"] = " ".join(target.to_header_string().split())
        elif hasattr(target, "cards"):
            wanted = ("CTYPE", "CRVAL", "CRPIX", "CD", "PC", "NAXIS")
            keys = [key for key in target if key.startswith(wanted)]
            record["target_wcs"] = " ".join(f"{key}={target[key]}" for key in keys)
        return record


class InterpolationParams(SuffixParams):
    """Parameters of a primitive that interpolates frames."""

    interpolant: Kernel = Field("poly3", description="interpolation kernel")
    clean_data: bool = Field(True, description="replace unusable pixels before interpolating")
    dq_threshold: float | None = Field(
        None, ge=0, lt=1, description="weight of flagged pixels that flags a new one; None: 0.1"
    )

    @property
    def options(self) -> dict[str, Any]:
        """The values as arguments of `resample` and `project`."""
        threshold = DQ_THRESHOLD if self.dq_threshold is None else self.dq_threshold
        return {"kernel": self.interpolant, "clean": self.clean_data, "dq_threshold": threshold}


class ShiftImagesParams(InterpolationParams, suffix="_shift"):
    """Parameters of `ResampleTo.shiftImages`."""

    shifts: Annotated[Shifts | None, BeforeValidator(_shifts)] = Field(
        None, description="dx,dy in pixels, one for all frames or one each (dx1,dy1:dx2,dy2), or a file"
    )
    trim_data: bool = Field(False, description="keep the first frame's own pixels instead of the whole field")


class ResampleTo(PrimitivesBase):
    """Shifts by hand."""

    @primitive(stamp="SHIFT")
    def shiftImages(self, frames: Frames, params: ShiftImagesParams) -> Frames:
        """Move the content of each frame by (dx, dy) pixels, onto one grid that holds all frames.

        What was at pixel (x, y) is at (x + dx, y + dy) of the grid of the unshifted first frame. The world
        coordinates move with the pixels: a star keeps its position. A single frame, or `trim_data`, keeps
        the frame's own size. Whole pixels are copied; otherwise variance and flags follow as in
        `resampleToCommonFrame`.

        Raises
        ------
        ParameterError
            There are no shifts, or neither one nor as many as frames.
        """
        if not frames:
            return frames
        shifts = _one_each(params.shifts, len(frames))
        moves = [Affine.shift(dy, dx) for dx, dy in shifts]
        if params.trim_data or len(frames) == 1:
            grid = Grid((0, 0), frames[0][0].shape)
        else:
            grid = output_grid(
                corners_of(frame[0].shape, move) for frame, move in zip(frames, moves, strict=True)
            )

        def shift(job: tuple[AstroData, Affine]) -> None:
            frame, move = job
            dy, dx = move.offset - np.array(grid.origin)
            old = frame[0].sky_mapping
            wcs = None if old is None else shifted(old, -float(dx), -float(dy))
            put_on_grid(frame, move.inverse(), grid, wcs, params.options, undistort=False)

        self.map(shift, zip(frames, moves, strict=True))
        return frames


def onto_target(
    frames: Frames,
    source: Any,
    options: dict[str, Any],
    run: Callable[[Callable[[AstroData], None], Frames], Any],
) -> Frames:
    """Put frames on a grid of pixels on the sky, whatever its projection, scale and reference system.

    Data are interpolated (averaged, where the new pixels are larger), variances propagated with the squares
    of the same weights, flags and object masks spread, OBJCAT positions moved. JFACTOR and NOISCORR in the
    extension header are the area of a new pixel in old ones, and the factor by which the variance of a large
    aperture exceeds the sum of the variances in it.

    Parameters
    ----------
    frames : list of AstroData
        Changed in place.
    source : path, FITS header, astropy.wcs.WCS, AstroData or "north"
        Of a file, the first image with celestial coordinates. Its size (NAXIS1, NAXIS2, or the pixel shape of
        a WCS) is the size of the output; without one the output is as large as the frames need. ``north``
        asks for a tangential projection with North up and East left, at the scale of the first frame.
    options : dict
        `kernel`, `dq_threshold`, `clean` and `conserve` for `niripipe.algorithms.project.project`.
    run : callable
        Applies a function to every frame, for example on threads.

    Returns
    -------
    list of AstroData
        The frames.

    Raises
    ------
    InputError
        The target cannot be read, or has no celestial coordinates.
    DataError
        A frame has no WCS, or does not reach the target.
    """
    wcs, shape = _fitted(*_read_target(source, frames), frames)

    def treat(frame: AstroData) -> None:
        # Before `wcs` is asked for, which has a polynomial for the distortion.
        bent, area = is_distorted(frame), equal_area(frame)
        own = require_wcs(frame)
        straight = to_astropy(undistorted(own)) if bent else own
        try:
            result = project(
                *_planes(frame),
                to_input=_transform(wcs, own),
                to_area=_transform(wcs, straight) if bent else None,
                area=area,
                shape=shape,
                **options,
            )
        except AlgorithmError as error:
            raise DataError(
                "The frame does not reach the target",
                file=frame.filename,
                item="target_wcs",
                found=error.found,
                expected="some overlap on the sky",
            ) from None
        grid_y, grid_x = shape[0] // 2, shape[1] // 2
        record_position(frame, shape, _transform(wcs, own)(float(grid_y), float(grid_x)))
        _replace_planes(frame, result, wcs, _transform(own, wcs), conserved=options.get("conserve", True))
        if bent:
            frame.phu.set(GONE, True, "Pixels are on a grid without distortion")

    run(treat, frames)
    return frames


def put_on_grid(
    frame: AstroData,
    to_frame: Affine,
    grid: Grid,
    wcs: SkyMapping | None,
    options: dict[str, Any],
    *,
    undistort: bool = True,
) -> None:
    """Interpolate a frame onto a grid, with zeros and the flag for no data where it does not reach.

    Parameters
    ----------
    frame : AstroData
        Changed in place.
    to_frame : Affine
        Mapping of the positions of the reference to those of the frame, without distortion.
    grid : Grid
        Pixels of the reference that are wanted.
    wcs : SkyMapping or None
        The coordinates of the grid; None keeps what the frame has.
    options : dict
        Keywords of `niripipe.algorithms.resample.resample`.
    undistort : bool
        Take the distortion of the frame out; False leaves it in its pixels and `wcs`.
    """
    # A frame fills a part of the grid: elsewhere there is nothing to interpolate.
    distort = distorting(frame) if undistort else None
    part = part_of_grid(grid, frame[0].shape, to_frame, None if distort is None else outline(frame))
    result = resample(
        *_planes(frame),
        matrix=to_frame.matrix,
        offset=to_frame.offset,
        shape=part.shape,
        origin=part.origin,
        distort=distort,
        area=equal_area(frame) if undistort else 1.0,
        **options,
    )
    to_reference = to_frame.inverse().then(Affine.shift(-grid.origin[0], -grid.origin[1]))
    straight = undistorting(frame)

    def moved(y: Any, x: Any) -> tuple[Any, Any]:
        return to_reference(*(straight(y, x) if undistort else (y, x)))

    middle = [start + size // 2 for start, size in zip(grid.origin, grid.shape, strict=True)]
    record_position(frame, grid.shape, to_frame(*middle))
    conserved = options.get("conserve", True)
    _replace_planes(frame, _on_whole_grid(result, part, grid), wcs, moved, conserved=conserved)
    if distort is not None:
        frame.phu.set(GONE, True, "Pixels are on a grid without distortion")


def _on_whole_grid(result: Resampled, part: Grid, grid: Grid) -> Resampled:
    y, x = part.origin[0] - grid.origin[0], part.origin[1] - grid.origin[1]
    inside = slice(y, y + part.shape[0]), slice(x, x + part.shape[1])

    def whole(plane: NDArray[Any] | None, empty: int = 0) -> Any:
        if plane is None:
            return None
        made = np.full(grid.shape, empty, plane.dtype)
        made[inside] = plane
        return made

    return replace(
        result,
        data=whole(result.data),
        variance=whole(result.variance),
        mask=whole(result.mask, NO_DATA),
        objmask=whole(result.objmask),
    )


def _planes(frame: AstroData) -> list[Any]:
    """Return data, variance, mask and object mask of a frame, for reading only."""
    return [frame[0].read(name) for name in ("data", "variance", "mask", "OBJMASK")]


def _replace_planes(
    frame: AstroData,
    result: Resampled,
    wcs: SkyMapping | WCS | None,
    to_new: Transform,
    *,
    conserved: bool,
) -> None:
    """Give a frame its new planes, coordinates, and the header cards that depend on them.

    Parameters
    ----------
    frame : AstroData
    result : Resampled
        The new planes; the frame takes them over.
    wcs : SkyMapping, astropy.wcs.WCS or None
        The new coordinates; None keeps what the frame has.
    to_new : callable
        Takes old 0-based positions y and x, returns new ones, for OBJCAT.
    conserved : bool
        Whether sources kept their flux, not their surface brightness: else a zero point changes.
    """
    ext = frame[0]
    if "OBJCAT" in ext.exposed and len(ext.columns("OBJCAT")):
        catalogue = ext.columns("OBJCAT")
        moved: dict[str, Any] = {}
        for x, y in (("X_IMAGE", "Y_IMAGE"), ("XWIN_IMAGE", "YWIN_IMAGE")):
            if x in catalogue.dtype.names:
                new_y, new_x = to_new(
                    np.asarray(catalogue[y], float) - 1, np.asarray(catalogue[x], float) - 1
                )
                moved |= {x: new_x + 1, y: new_y + 1}
        ext.set_columns("OBJCAT", moved)
    ext.reset(result.data, mask=result.mask, variance=result.variance)
    left = [name for name in _OF_STACKS if name in ext.exposed]
    for name in left:
        delattr(ext, name)
    if left:
        log.warning(
            "%s: %s of the stack are left out, they are not resampled", frame.filename, ", ".join(left)
        )
    if result.objmask is not None:
        ext.OBJMASK = result.objmask
    if wcs is not None:
        ext.sky_mapping = wcs
    ny, nx = result.data.shape
    ext.hdr.set("DATASEC", f"[1:{nx},1:{ny}]", "Section with data")
    ext.hdr.set("JFACTOR", round(result.jacobian, 9), "Input pixels per output pixel (area)")
    # The pixels of a finished stack are correlated already.
    correlation = result.correlation * float(ext.hdr.get("NOISCORR", 1.0))
    ext.hdr.set("NOISCORR", round(correlation, 5), "Variance of large apertures over sum of VAR")
    if not conserved:
        rescale_zero_point(frame, 1 / result.jacobian, float(frame.exposure_time()))
    for key in ("FRMNAME", "FRAMEID", "DATATYP"):
        ext.hdr.remove(key, ignore_missing=True)


def _read_target(source: Any, frames: Sequence[AstroData]) -> _Target:
    """Return the grid that a user's target describes; see `onto_target`."""
    from astropy.io import fits
    from astropy.wcs import WCS

    if source == "north":
        return _north_up(frames)
    if isinstance(source, AstroData):
        return require_wcs(source), source[0].shape
    if isinstance(source, str | Path):
        return _from_file(usable_path(source))
    if isinstance(source, fits.Header):
        return _from_header(source, None)
    if isinstance(source, WCS):
        if not source.has_celestial:
            raise _no_target("a WCS without celestial axes")
        shape = source.array_shape
        return source.celestial, None if shape is None else _shape(shape)
    raise _no_target(type(source).__name__)


def _one_each(shifts: Shifts | None, number: int) -> Shifts:
    if shifts is None or len(shifts) not in (1, number):
        raise ParameterError(
            "There must be one shift, or one for each frame",
            item="shiftImages:shifts",
            found=None if shifts is None else f"{len(shifts)} shifts for {number} frames",
            expected=f"1 or {number} pairs dx,dy",
        )
    return shifts if len(shifts) == number else shifts * number


def _transform(source: WCS, target: WCS) -> Transform:
    """Return the mapping of pixels (y, x) through the sky; also between reference systems."""
    from astropy.wcs.utils import pixel_to_pixel

    def mapping(y: Any, x: Any) -> tuple[Any, Any]:
        new_x, new_y = pixel_to_pixel(source, target, x, y)
        return new_y, new_x

    return mapping


def _fitted(
    wcs: WCS, shape: tuple[int, int] | None, frames: Sequence[AstroData]
) -> tuple[WCS, tuple[int, int]]:
    """Return the target with a size: the given one, or that of all frames together."""
    if shape is not None:
        return wcs, shape
    corners = []
    for frame in frames:
        points = corners_of(frame[0].shape)
        y, x = _transform(require_wcs(frame), wcs)(points[:, 0], points[:, 1])
        corners.append(np.stack([y, x], axis=1))
    if not np.isfinite(np.concatenate(corners)).all():
        raise InputError("The frames lie outside of the target's projection", item="target_wcs")
    grid = output_grid(corners)
    if max(grid.shape) > _LARGEST:
        raise InputError(
            "The target would have too many pixels",
            item="target_wcs",
            found=grid.shape,
            expected=f"at most {_LARGEST} pixels along a side",
            remedy="Give a target with a size (NAXIS1, NAXIS2), or with larger pixels.",
        )
    return shifted(wcs, grid.origin[1], grid.origin[0]), grid.shape


def _north_up(frames: Sequence[AstroData]) -> _Target:
    from astropy.units import arcsec
    from reproject.mosaicking import find_optimal_celestial_wcs

    fields = [(frame[0].shape, require_wcs(frame)) for frame in frames]
    scale = frames[0][0].pixel_scale()
    wcs, shape = find_optimal_celestial_wcs(fields, resolution=None if scale is None else scale * arcsec)
    return wcs, _shape(shape)


def _from_file(path: Path) -> _Target:
    from astropy.io import fits

    problem = "no image with celestial coordinates"
    try:
        with fits.open(path, memmap=True) as hdus:
            headers = [hdu.header for hdu in hdus if "CTYPE1" in hdu.header]
            # A primary header without an image may repeat the coordinates of the image, but not its size.
            headers.sort(key=lambda header: not header.get("NAXIS"))
            if headers:
                return _from_header(headers[0], path)
    except OSError as error:
        problem = str(error)
    raise _no_target(problem, path)


def _from_header(header: Any, path: Path | None) -> _Target:
    from astropy.wcs import WCS

    try:
        wcs = WCS(header, fix=False)  # fixing dates is a warning about nothing that is used here
        celestial = wcs.celestial if wcs.has_celestial else None
    except Exception as error:  # whatever a damaged header provokes in the parser
        raise _no_target(f"{type(error).__name__}: {error}", path) from None
    if celestial is None:
        raise _no_target("a header without celestial axes", path)
    size = header.get("NAXIS1", header.get("ZNAXIS1")), header.get("NAXIS2", header.get("ZNAXIS2"))
    known = all(isinstance(n, int) and n > 0 for n in size)
    return celestial, (int(size[1]), int(size[0])) if known else None


def _shape(shape: Sequence[int]) -> tuple[int, int]:
    return int(shape[-2]), int(shape[-1])


def _no_target(found: str, path: Path | None = None) -> InputError:
    return InputError(
        "This cannot be used as a target",
        file=path,
        item="target_wcs",
        found=found,
        expected="a FITS file, a header, a WCS or a frame with celestial coordinates, or 'north'",
    )
