"""Pixel planes and tables that may still be on disk and may be shared between data sets.

A `Held` is one owner's handle on a value. Handles that were copied from each other share the value, and
the file is read at most once for all of them; whoever wants to write gets a value of its own first.
A value that was handed out for writing is copied at once when its handle is copied, because nobody
can know whether the receiver still writes into it.
"""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.astrodata.pieces import in_pieces
from niripipe.errors import StorageError

__all__ = ["ArrayPlane", "Held", "RowFunction", "Rows", "in_blocks", "restore", "row_blocks"]

_T = TypeVar("_T")
RowFunction = Callable[[NDArray[Any], slice], NDArray[Any]]
"""Takes the values of some rows of a plane, and the rows; returns the same rows of another plane."""
Rows = Callable[[slice], NDArray[Any]]
"""Takes a slice, with a positive step, and returns these rows of a plane."""


_BLOCK = 256
"""Rows to work on at a time: a quarter of a full frame. With less threads wait for the interpreter."""


def row_blocks(n_rows: int) -> list[slice]:
    """Cut rows into blocks to work on one after the other."""
    return [slice(start, min(start + _BLOCK, n_rows)) for start in range(0, n_rows, _BLOCK)]


def in_blocks(function: RowFunction, plane: NDArray[Any]) -> NDArray[np.float32]:
    """Apply a function of rows to a plane, block by block, so that what lies between stays in the cache."""
    result = np.empty(plane.shape, np.float32)
    for rows in row_blocks(len(plane)):
        result[rows] = function(plane[rows], rows)
    return result


def restore(folder: str | os.PathLike[str]) -> int:
    """Bring back into memory what waits in a scratch folder and is still needed, so that it can be removed.

    Parameters
    ----------
    folder : path-like
        The folder that was given to `ArrayPlane.park`.

    Returns
    -------
    int
        Number of arrays.
    """
    waiting = [value for value in list(_parked) if value.waits_in(Path(folder))]
    for value in waiting:
        value.load()
        value.loader = _original(value.loader)
    return len(waiting)


class _Value(Generic[_T]):
    """A value, or the means to load it, with the handles that share it."""

    def __init__(self, value: _T | None, loader: Callable[[], _T] | None) -> None:
        self.value = value
        self.loader = loader
        self.holders: weakref.WeakSet[Held[_T]] = weakref.WeakSet()
        self.lock = threading.Lock()

    def load(self) -> _T:
        # Another thread may park the value at any time: what is returned is looked at once.
        value = self.value
        if value is None:
            with self.lock:
                value = self.value
                if value is None:
                    assert self.loader is not None
                    value = self.value = self.loader()
                    if not getattr(self.loader, "can_reload", False):
                        self.loader = None
        return value

    def waits_in(self, folder: Path) -> bool:
        """Return whether the value depends on a scratch file in a folder."""
        return isinstance(self.loader, _Scratch) and self.loader.path.parent == folder

    def __getstate__(self) -> dict[str, Any]:
        # What is parked in a scratch folder, or is still to be computed, travels as pixels: the folder and
        # the function belong to one process.
        value, loader = self.value, self.loader
        if loader is not None and isinstance(loader, _Scratch | _Computed | _Surrounded):
            return {"value": loader() if value is None else value, "loader": None}
        return {"value": value, "loader": loader}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _Value.__init__(self, state["value"], state["loader"])


_last = threading.local()
_parked: weakref.WeakSet[_Value[Any]] = weakref.WeakSet()


class Held(Generic[_T]):
    """A handle on a value that may be shared or not loaded yet.

    Parameters
    ----------
    value : object, optional
        The value; the handle takes ownership.
    loader : callable, optional
        Called without arguments for the value on first use, when `value` is not given. A true
        attribute ``can_reload`` says that calling again is cheap.
    """

    def __init__(self, value: _T | None = None, loader: Callable[[], _T] | None = None) -> None:
        self._shared: _Value[_T] = _Value(value, loader)
        self._shared.holders.add(self)
        self._exposed = False

    @property
    def is_loaded(self) -> bool:
        """Whether the value is in memory."""
        return self._shared.value is not None

    @property
    def is_shared(self) -> bool:
        """Whether another handle has the same value."""
        return len(self._shared.holders) > 1

    def read(self) -> _T:
        """Return the value, for reading only."""
        return self._shared.load()

    def own(self) -> _T:
        """Return the value for changing in place; what is shared is copied first."""
        if self.is_shared:
            self._replace(self._duplicate(self.read()))
        value = self._shared.load()
        self._shared.loader = None
        return value

    def hand_out(self) -> _T:
        """Return the value for a caller that may keep it and write into it at any later time."""
        value = self.own()
        self._exposed = True
        return value

    def copy(self) -> Held[_T]:
        """Return a handle on the same value."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._exposed = False
        if self._exposed:
            twin._shared = _Value(self._duplicate(self.read()), None)
        twin._shared.holders.add(twin)
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shared.holders.add(self)

    def _replace(self, value: _T) -> None:
        self._shared.holders.discard(self)
        self._shared = _Value(value, None)
        self._shared.holders.add(self)
        self._exposed = False

    @staticmethod
    def _duplicate(value: _T) -> _T:
        return cast("_T", value.copy())  # type: ignore[attr-defined]


class ArrayPlane(Held[NDArray[Any]]):
    """A handle on an array; its shape and dtype are known before it is loaded.

    Parameters
    ----------
    array : numpy.ndarray, optional
        The array, native byte order; the plane takes ownership.
    loader : callable, optional
        Returns the array on first use.
    shape, dtype : optional
        What the loader will return.
    """

    def __init__(
        self,
        array: NDArray[Any] | None = None,
        *,
        loader: Callable[[], NDArray[Any]] | None = None,
        shape: tuple[int, ...] = (),
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(array, loader)
        self._shape = shape
        self._dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        value = self._shared.value
        return self._shape if value is None else value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        value = self._shared.value
        return self._dtype if value is None else value.dtype

    @property
    def nbytes(self) -> int:
        """Bytes in memory, of the array and of what it is made from; 0 while all that is on disk."""
        value = self._shared.value
        size = 0 if value is None else value.nbytes
        for plane in _made_from(self._shared.loader):
            size += plane.nbytes
        return size

    def view(self) -> NDArray[Any]:
        """Return a read-only view, without copying."""
        view = self.read().view()
        view.flags.writeable = False
        return view

    def is_view(self, array: Any) -> bool:
        """Return whether an array is what `view` gave out and still shows the pixels of this plane."""
        value = self._shared.value
        if value is None or not isinstance(array, np.ndarray) or array.base is not value:
            return False
        return (array.shape, array.strides, array.dtype) == (value.shape, value.strides, value.dtype)

    @classmethod
    def derived(
        cls,
        source: ArrayPlane,
        function: RowFunction,
        dtype: Any = np.float32,
        *,
        using: Sequence[ArrayPlane] = (),
    ) -> ArrayPlane:
        """Return a plane whose pixels are computed from another one's, as it is now, when they are needed.

        Parameters
        ----------
        source : ArrayPlane
            The other plane; later changes to it have no effect.
        function : callable
            Takes values of some rows of it, which it must not change, and the rows as a slice; returns the
            same rows of the new plane. Pixel by pixel.
        dtype : optional
            What the function returns.
        using : sequence of ArrayPlane
            Other planes that the function reads, by `rows`; they occupy memory as long as this plane exists.
        """
        return cls(loader=_Derived(source, function, dtype, using), shape=source.shape, dtype=dtype)

    @classmethod
    def computed(
        cls, function: Rows, shape: tuple[int, ...], dtype: Any, *, using: Sequence[ArrayPlane] = ()
    ) -> ArrayPlane:
        """Return a plane whose pixels are made, when they are needed, by a function of a slice of rows.

        Parameters
        ----------
        function : callable
            Takes a slice, returns these rows of the plane. It is called again when they are needed again.
        shape, dtype : optional
            What it makes.
        using : sequence of ArrayPlane
            Planes that the function reads, by `rows`; they occupy memory as long as this plane exists.
        """
        return cls(loader=_Computed(function, shape, dtype, using), shape=shape, dtype=dtype)

    @classmethod
    def part_of(cls, part: ArrayPlane, shape: tuple[int, ...], corner: tuple[int, int]) -> ArrayPlane:
        """Return a plane that is zero outside of a part, which alone is in memory until all of it is needed.

        Parameters
        ----------
        part : ArrayPlane
            The part; nobody else should have it.
        shape : tuple of int
            Shape of the plane.
        corner : tuple of int
            Row and column of the first pixel of the part.
        """
        return cls(loader=_Surrounded(part, shape, corner), shape=shape, dtype=part.dtype)

    @property
    def is_recipe(self) -> bool:
        """Whether the pixels can be had again, row by row, from an original file: in memory they are a copy.

        What waits in a scratch folder does not count, so that the answer does not depend on a memory limit.
        """
        loader = _original(self._shared.loader)
        return _by_rows(loader) and bool(getattr(loader, "can_reload", False))

    def derivation(self, source: ArrayPlane) -> RowFunction | None:
        """Return the function that makes this plane from another, as long as neither has changed."""
        loader = _original(self._shared.loader)
        if isinstance(loader, _Derived):
            return loader.function if loader.source._shared is source._shared else None
        return None

    def rows(self) -> NDArray[Any] | _RowsOnDemand:
        """Return what gives rows of the array: the array itself, or what reads or computes them."""
        shared = self._shared
        loader = shared.loader
        if shared.value is None and _by_rows(loader):
            return _RowsOnDemand(cast("_RowLoader", loader), self._shape, self._dtype)
        return self.view()

    def compute_once(self) -> None:
        """Compute the array, if that takes long, and keep it, in memory or in a scratch file."""
        loader = self._shared.loader
        if isinstance(loader, _Derived) and loader.is_long:
            self.read()

    def read_once(self) -> NDArray[Any]:
        """Return the array for reading only; what can be had again is not kept."""
        rows = self.rows()
        return rows if isinstance(rows, np.ndarray) else rows[:]

    def park(self, folder: str | os.PathLike[str]) -> int:
        """Move the array from memory to disk, for every data set that shares it.

        An array that can be read again from where it came from, or computed quickly, is only dropped; any
        other is written into `folder`, into a file that disappears with the last data set that needs it. An
        array that was handed out for writing stays: nobody knows whether the receiver still writes into it.

        Returns
        -------
        int
            Bytes freed, as far as nobody else holds the array.

        Raises
        ------
        StorageError
            The scratch file cannot be written.
        """
        shared = self._shared
        with shared.lock:
            array = shared.value
            inside = sum(plane.park(folder) for plane in _made_from(shared.loader))
            if array is None or any(holder._exposed for holder in shared.holders):
                return inside
            if shared.loader is None or (isinstance(shared.loader, _Derived) and shared.loader.is_long):
                shared.loader = _Scratch(Path(folder), array, shared.loader)
                _parked.add(shared)
            self._shape, self._dtype = array.shape, array.dtype
            for holder in shared.holders:
                cast("ArrayPlane", holder)._shape, cast("ArrayPlane", holder)._dtype = (
                    array.shape,
                    array.dtype,
                )
            shared.value = None
            return inside + array.nbytes


class _RowLoader(Protocol):
    """What reads or computes some rows of an array."""

    def read_rows(self, rows: slice) -> NDArray[Any]:
        """Return rows; the step is positive."""
        ...


def _original(loader: Any) -> Any:
    """Return the loader that an array had before it was moved to a scratch file."""
    return loader.original if isinstance(loader, _Scratch) else loader


def _made_from(loader: Any) -> Sequence[ArrayPlane]:
    """Return the planes, for nobody else to look after, that a loader needs."""
    return getattr(_original(loader), "using", ())


def _by_rows(loader: object) -> bool:
    """Return whether a loader gives single rows without going through all of them."""
    return bool(getattr(loader, "by_rows", False))


class _RowsOnDemand:
    """Rows of an array that is not in memory, read or computed as they are asked for.

    Each thread keeps those that it asked for last, of one plane that is computed and one on disk: a variance
    is computed from the rows of the data that were wanted just before.
    """

    def __init__(self, loader: _RowLoader, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._loader = loader
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, key: slice | tuple[slice, slice]) -> NDArray[Any]:
        if isinstance(key, tuple):
            return self[key[0]][:, key[1]]
        wanted = key.indices(self.shape[0])
        if len(range(*wanted)) > _BLOCK:
            return self._many(wanted)
        # A plane that waits on disk, such as a sky, is looked at between those that are computed with it.
        kind = "waiting" if isinstance(self._loader, _Scratch) else "computed"
        last = getattr(_last, kind, None)
        if last is not None and last[0]() is self._loader and last[1] == wanted:
            return cast("NDArray[Any]", last[2])
        if last is None or not self._needs(last[0]()):
            setattr(_last, kind, None)  # its memory can be used again
        found = self._loader.read_rows(slice(*wanted))
        setattr(_last, kind, (weakref.ref(self._loader), wanted, found))
        return found

    def _needs(self, loader: object) -> bool:
        """Return whether rows are computed from those of another loader."""
        return isinstance(self._loader, _Derived) and self._loader.source._shared.loader is loader

    def _many(self, wanted: tuple[int, int, int]) -> NDArray[Any]:
        """Fill an array in blocks, so that what lies between stays in the cache."""
        first, _, step = wanted
        array = np.empty((len(range(*wanted)), *self.shape[1:]), self.dtype)
        for block in row_blocks(len(array)):
            rows = slice(first + block.start * step, first + block.stop * step, step)
            array[block] = self._loader.read_rows(rows)
        return array


class _Computed:
    """Loader of an array that is computed row by row."""

    by_rows = True

    def __init__(
        self, function: Rows, shape: tuple[int, ...], dtype: Any, using: Sequence[ArrayPlane] = ()
    ) -> None:
        self._rows = function
        self.using = tuple(using)
        self.shape, self.dtype = shape, np.dtype(dtype)

    def read_rows(self, rows: slice) -> NDArray[Any]:
        """Compute some rows."""
        return self._rows(rows)

    @property
    def can_reload(self) -> bool:
        """Whether the array is not the only form of what it holds."""
        return True

    def __call__(self) -> NDArray[Any]:
        return _RowsOnDemand(self, self.shape, self.dtype)[:]


class _Derived(_Computed):
    """Loader of an array that is computed from another one."""

    def __init__(
        self, source: ArrayPlane, function: RowFunction, dtype: Any, using: Sequence[ArrayPlane] = ()
    ) -> None:
        # A handle of its own keeps the pixels as they are now: whoever changes them gets a copy.
        self.source = mine = cast("ArrayPlane", source.copy())
        self.function = function
        # Without a reference to itself, so that planes are freed at once, not when cycles are collected.
        super().__init__(lambda rows: function(mine.rows()[rows], rows), source.shape, dtype, using)

    @property
    def can_reload(self) -> bool:
        """Whether the array is not the only form of what it holds: its source can be had again."""
        return self.source.is_recipe

    @property
    def is_long(self) -> bool:
        """Whether computing takes longer than reading from a scratch file: all but flags, in short."""
        return bool(self.dtype.kind == "f")


class _Surrounded:
    """Loader of an array that is zero outside of a part."""

    by_rows = True

    def __init__(self, part: ArrayPlane, shape: tuple[int, ...], corner: tuple[int, int]) -> None:
        self.part, self.shape, self.corner = part, shape, corner
        self.using = (part,)

    @property
    def can_reload(self) -> bool:
        """Whether the array is not the only form of what it holds: its part can be had again."""
        return self.part.is_recipe

    def __call__(self) -> NDArray[Any]:
        return self.read_rows(slice(None))

    def read_rows(self, rows: slice) -> NDArray[Any]:
        """Put some rows together."""
        first, last, step = rows.indices(self.shape[0])
        block = np.zeros((max(last - first, 0), *self.shape[1:]), self.part.dtype)
        (top, left), (height, width) = self.corner, self.part.shape
        low, high = max(first, top), min(last, top + height)
        if low < high:
            block[low - first : high - first, left : left + width] = self.part.rows()[low - top : high - top]
        return block[::step]


def _remove(path: Path, owner: int) -> None:
    """Remove a scratch file, unless this is a copy of the process that needs it."""
    if os.getpid() == owner:
        path.unlink(missing_ok=True)


class _Scratch:
    """Loader of an array from a scratch file of its own."""

    can_reload = True
    by_rows = True

    def __init__(self, folder: Path, array: NDArray[Any], original: Any) -> None:
        self.original = original
        self.path = folder / f"plane-{uuid.uuid4().hex}.raw"
        self.shape, self.dtype = array.shape, array.dtype
        try:
            with self.path.open("wb") as file:
                for piece in in_pieces(array):
                    file.write(piece.data)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise StorageError(
                "a plane cannot be moved to the scratch folder",
                file=self.path,
                found=str(error),
                remedy=f"Give a scratch folder with at least {array.nbytes} bytes of free space.",
            ) from error
        weakref.finalize(self, _remove, self.path, os.getpid())

    def __call__(self) -> NDArray[Any]:
        return self.read_rows(slice(None))

    def read_rows(self, rows: slice) -> NDArray[Any]:
        """Read some rows."""
        first, last, step = rows.indices(self.shape[0])
        per_row = int(np.prod(self.shape[1:], dtype=np.intp))
        try:
            block = np.empty((last - first, *self.shape[1:]), self.dtype)
            wanted = block.reshape(-1).view(np.uint8)
            with self.path.open("rb", buffering=0) as file:
                file.seek(first * per_row * self.dtype.itemsize)
                while len(wanted):
                    got = file.readinto(wanted.data)
                    if not got:
                        raise OSError("the file has become shorter")
                    wanted = wanted[got:]
            return block[::step]
        except OSError as error:
            raise StorageError(
                "a plane in the scratch folder cannot be read back",
                file=self.path,
                found=str(error),
                remedy="Leave the scratch folder alone while a reduction runs.",
            ) from error
