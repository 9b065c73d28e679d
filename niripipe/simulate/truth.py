"""What was put into a simulated night, as typed objects and as ``truth.json``.

The file's main keys: ``frames`` (by file name: ``kind``, ``dx``, ``dy``, ``sky`` ...), ``stars`` (``[x, y,
flux]``), ``fwhm_pix``, ``std_flux``, ``dead`` and ``hot`` (``[y, x]``), ``cosmic_rays`` (by file name: ``[y,
x, electrons]``), ``fields`` (world coordinates, stars and galaxy of each pointing). Positions are 0-based
pixels at zero offset, fluxes e-/s. Nights with `Reality` have ``reality``, for the night and for each frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import DataError, InputError, storage_faults
from niripipe.simulate.pointing import Affine, TangentWcs
from niripipe.simulate.reality import FrameReality, Reality, distort
from niripipe.simulate.scene import Galaxy, Scene, Star

__all__ = ["TRUTH_NAME", "FrameTruth", "Truth", "read_truth"]

#: Name of the file beside the frames.
TRUTH_NAME = "truth.json"
#: Layout of the file; a reader refuses others.
_LAYOUT = 1
#: Fields of `Truth` that are written as they are, and those that are lists of pixels.
_NUMBERS = ("seed", "size", "gain", "fwhm_pix", "sky_rate")
_BAD_PIXELS = ("dead", "hot", "warm")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTruth:
    """What happened to one frame.

    Attributes
    ----------
    kind : str
        ``target``, ``sky``, ``std``, ``flat_on``, ``flat_off``, ``dark`` or ``short_dark``.
    dx, dy, rotation : float
        Motion of the field on the detector from zero offset: shift (pixels) of the centre of the array and
        turn (radians, counter-clockwise). Pointing errors are in it, but not in the header.
    sky : float
        Level of the sky, or of lamp and thermal light, at the centre, e-/s per pixel at unit response.
    fwhm_pix : float
        Of the stars, pixels.
    transparency : float
        Factor on stars and galaxy.
    exposure, coadds : float, int
        s per coadd, coadds.
    p, q : float
        Offsets in the header, arcsec.
    reality : FrameReality or None
        What `Reality` did; None on a clean night.
    scene : str
        Key of its field in `Truth.fields`, where that is not the kind.
    """

    kind: str
    dx: float = 0.0
    dy: float = 0.0
    rotation: float = 0.0
    sky: float = 0.0
    fwhm_pix: float = 0.0
    transparency: float = 1.0
    exposure: float
    coadds: int
    p: float = 0.0
    q: float = 0.0
    reality: FrameReality | None = None
    scene: str = ""

    @property
    def seconds(self) -> float:
        """Exposure time over all coadds, s."""
        return self.exposure * self.coadds

    def motion(self, size: int) -> Affine:
        """Return the motion of the field as a map of pixel positions."""
        return Affine(self.dx, self.dy, self.rotation, (size - 1) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Everything that is known about a simulated night.

    Attributes
    ----------
    seed, size : int
        Seed, and pixels along a side.
    gain : float
        e-/ADU.
    fwhm_pix, sky_rate : float
        Nominal seeing and sky.
    frames : mapping of str to FrameTruth
        By file name.
    fields : mapping of str to Scene
        ``target``, ``sky`` and ``std``.
    cosmic_rays : mapping of str to ndarray, shape (n, 3)
        y, x, electrons of the pixels hit, by file name.
    dead, hot, warm : ndarray of int, shape (n, 2)
        (y, x) of bad pixels.
    reality : Reality or None
        What real nights have besides; None on a clean night.
    photometry : dict or None
        ``zero_points`` and ``extinction`` by filter, and ``magnitudes`` of the standards, of a night whose
        plan names standards.
    """

    seed: int
    size: int
    gain: float
    fwhm_pix: float
    sky_rate: float
    frames: Mapping[str, FrameTruth]
    fields: Mapping[str, Scene]
    cosmic_rays: Mapping[str, NDArray[np.float64]]
    dead: NDArray[np.int64]
    hot: NDArray[np.int64]
    warm: NDArray[np.int64]
    reality: Reality | None = None
    photometry: Mapping[str, Any] | None = None

    def names(self, kind: str) -> list[str]:
        """List the frames of a kind, in the order of their names."""
        return sorted(name for name, frame in self.frames.items() if frame.kind == kind)

    def positions(self, name: str) -> NDArray[np.float64]:
        """Return where the stars of an on-sky frame are.

        Parameters
        ----------
        name : str
            File name.

        Returns
        -------
        ndarray, shape (n, 3)
            x, y (0-based pixels of the frame, with its distortion) and flux in e-/s through that frame's
            transparency.
        """
        frame = self.frames[name]
        key = frame.scene if frame.scene in self.fields else frame.kind
        table = self.fields[key].table if key in self.fields else np.empty((0, 3))
        x, y = frame.motion(self.size).apply(table[:, 0], table[:, 1])
        if frame.reality is not None and frame.reality.distortion:
            x, y = distort(x, y, frame.reality.distortion, (self.size - 1) / 2)
        return np.stack([x, y, table[:, 2] * frame.transparency], axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return it as what is written to ``truth.json``."""
        return {
            "layout": _LAYOUT,
            **{name: getattr(self, name) for name in _NUMBERS},
            "std_flux": self.fields["std"].stars[0].flux,
            "frames": {name: _frame_to_dict(frame) for name, frame in self.frames.items()},
            "stars": self.fields["target"].table.tolist(),
            "fields": {name: _scene_to_dict(scene) for name, scene in self.fields.items()},
            "cosmic_rays": {name: hits.tolist() for name, hits in self.cosmic_rays.items()},
            **{name: getattr(self, name).tolist() for name in _BAD_PIXELS},
            **({} if self.reality is None else {"reality": asdict(self.reality)}),
            **({} if self.photometry is None else {"photometry": dict(self.photometry)}),
        }

    def write(self, path: str | PathLike[str]) -> None:
        """Write it as JSON.

        Raises
        ------
        StorageError
            If the file cannot be written.
        """
        with storage_faults("The truth of a night cannot be written", path):
            Path(path).write_text(json.dumps(self.to_dict(), separators=(",", ":")), encoding="utf-8")


def read_truth(path: str | PathLike[str]) -> Truth:
    """Read the truth of a night.

    Parameters
    ----------
    path : path-like
        ``truth.json``, or the folder that holds it.

    Returns
    -------
    Truth

    Raises
    ------
    InputError
        If there is no such file.
    DataError
        If it was not written by this simulator, or by another version of it.
    """
    path = Path(path)
    path = path / TRUTH_NAME if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError("There is no truth of a simulated night", file=path, found=str(error)) from error
    try:
        return _from_dict(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "This is not the truth of a night of this simulator",
            file=path,
            found=repr(error),
            expected=f"layout {_LAYOUT}",
        ) from error


def _from_dict(raw: dict[str, Any]) -> Truth:
    if raw["layout"] != _LAYOUT:
        raise ValueError(f"layout {raw['layout']}")
    values: dict[str, Any] = {name: raw[name] for name in _NUMBERS}
    values |= {name: np.array(raw[name], np.int64).reshape(-1, 2) for name in _BAD_PIXELS}
    return Truth(
        **values,
        frames={name: _frame_from_dict(frame) for name, frame in raw["frames"].items()},
        fields={name: _scene_from_dict(scene) for name, scene in raw["fields"].items()},
        cosmic_rays={name: np.array(hits, float).reshape(-1, 3) for name, hits in raw["cosmic_rays"].items()},
        reality=Reality(**raw["reality"]) if "reality" in raw else None,
        photometry=raw.get("photometry"),
    )


def _frame_to_dict(frame: FrameTruth) -> dict[str, Any]:
    written = asdict(frame)
    if frame.reality is None:
        del written["reality"]
    if not frame.scene:
        del written["scene"]
    return written


def _frame_from_dict(raw: dict[str, Any]) -> FrameTruth:
    rest = {name: value for name, value in raw.items() if name != "reality"}
    if "reality" not in raw:
        return FrameTruth(**rest)
    reality = {name: _tuples(value) for name, value in raw["reality"].items()}
    return FrameTruth(**rest, reality=FrameReality(**reality))


def _tuples(value: Any) -> Any:
    """Turn the lists of JSON back into tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list | tuple) else value


def _scene_to_dict(scene: Scene) -> dict[str, Any]:
    return {
        "wcs": asdict(scene.wcs),
        "stars": scene.table.tolist(),
        "galaxy": None if scene.galaxy is None else asdict(scene.galaxy),
    }


def _scene_from_dict(raw: dict[str, Any]) -> Scene:
    return Scene(
        TangentWcs(**{name: tuple(values) for name, values in raw["wcs"].items()}),
        tuple(Star(*values) for values in raw["stars"]),
        None if raw["galaxy"] is None else Galaxy(**raw["galaxy"]),
    )
