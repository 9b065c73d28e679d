"""Pixel planes and tables: in memory or still in a file, shared between data sets until one of them writes.

A `Held` is one owner's handle on a value. Copies of a handle share the value, and a file is read at most
once for all of them; who wants to write gets a copy first. A value that was handed out for writing is
copied at once when its handle is copied, because the receiver may still write into it.
"""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from niripipe.errors import StorageError

__all__ = ["Held", "PixelSource", "Plane", "ScratchFolder", "row_blocks"]

_T = TypeVar("_T")
_BLOCK_ROWS = 256
"""Rows to work on at a time: the temporary arrays of a block of a full frame stay in the cache."""


def row_blocks(n_rows: int) -> list[slice]:
    """Cut rows into blocks to work on one after the other."""
    return [slice(start, min(start + _BLOCK_ROWS, n_rows)) for start in range(0, n_rows, _BLOCK_ROWS)]


class PixelSource(Protocol):
    """Pixels in a file."""

    @property
    def by_rows(self) -> bool:
        """Whether single rows can be read, as often as they are wanted, without reading all of them."""
        ...

    def read_rows(self, rows: slice) -> NDArray[Any]:
        """Return some rows, in native byte order, in their own memory."""
        ...

    def __call__(self) -> NDArray[Any]:
        """Return all of the array."""
        ...


class _Shared(Generic[_T]):
    """A value, or the means to load it, with the handles that share it."""

    def __init__(self, value: _T | None, loader: Callable[[], _T] | None) -> None:
        self.value = value
        self.loader = loader
        self.holders: weakref.WeakSet[Held[_T]] = weakref.WeakSet()
        self.lock = threading.Lock()

    def load(self) -> _T:
        # Another thread may move the value to a scratch file at any time: it is looked at once.
        value = self.value
        if value is None:
            with self.lock:
                value = self.value
                if value is None:
                    assert self.loader is not None
                    value = self.value = self.loader()
                    if not getattr(self.loader, "by_rows", False):
                        self.loader = None
        return value

    def __getstate__(self) -> dict[str, Any]:
        # Scratch files belong to one process: their pixels are pickled instead.
        if isinstance(self.loader, _ScratchFile):
            return {"value": self.load(), "loader": None}
        return {"value": self.value, "loader": self.loader}

    def __setstate__(self, state: dict[str, Any]) -> None:
        _Shared.__init__(self, state["value"], state["loader"])


class Held(Generic[_T]):
    """A handle on a value that may be shared or not loaded yet.

    Parameters
    ----------
    value : object, optional
        The value; the handle takes ownership.
    loader : callable, optional
        Called without arguments for the value on first use, when `value` is not given.
    """

    def __init__(self, value: _T | None = None, loader: Callable[[], _T] | None = None) -> None:
        self._shared: _Shared[_T] = _Shared(value, loader)
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
        """Return the value for changing in place; a shared value is copied first."""
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

    def copy(self) -> Self:
        """Return a handle on the same value."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._exposed = False
        if self._exposed:
            twin._shared = _Shared(self._duplicate(self.read()), None)
        twin._shared.holders.add(twin)
        return twin

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shared.holders.add(self)

    def _replace(self, value: _T) -> None:
        self._shared.holders.discard(self)
        self._shared = _Shared(value, None)
        self._shared.holders.add(self)
        self._exposed = False

    @staticmethod
    def _duplicate(value: _T) -> _T:
        return cast("_T", value.copy())  # type: ignore[attr-defined]


class Plane(Held[NDArray[Any]]):
    """A handle on an image plane; shape and dtype are known before it is loaded.

    ``plane[rows]`` and ``plane[rows, columns]`` give a part of it for reading, from wherever it is.

    Parameters
    ----------
    array : numpy.ndarray, optional
        The array, native byte order; the plane takes ownership.
    loader : PixelSource, optional
        Where the array is.
    shape, dtype : optional
        Those of the array in the file.
    """

    def __init__(
        self,
        array: NDArray[Any] | None = None,
        *,
        loader: PixelSource | None = None,
        shape: tuple[int, ...] = (),
        dtype: Any = np.float32,
    ) -> None:
        super().__init__(array, loader)
        self.shape: tuple[int, ...] = shape if array is None else array.shape
        """Shape of the array."""
        self.dtype: np.dtype[Any] = np.dtype(dtype) if array is None else array.dtype
        """Dtype of the array."""

    @property
    def identity(self) -> int:
        """A number that planes have in common as long as they share their array."""
        return id(self._shared)

    @property
    def nbytes(self) -> int:
        """Bytes in memory; 0 while the array is on disk only."""
        value = self._shared.value
        return 0 if value is None else value.nbytes

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

    def __getitem__(self, section: slice | tuple[slice, slice], /) -> NDArray[Any]:
        """Return rows, or rows and columns, for reading only; a plane that is in a file stays there."""
        loader = self._shared.loader
        if self._shared.value is not None or loader is None or not getattr(loader, "by_rows", False):
            return self.view()[section]
        rows, *columns = section if isinstance(section, tuple) else (section,)
        block = cast("PixelSource", loader).read_rows(rows)
        return block[:, columns[0]] if columns else block

    def move_to_disk(self, folder: ScratchFolder) -> int:
        """Move the array from memory to disk, for all handles that share it; it comes back when it is used.

        An array that did not change since it was read from a file is only dropped; any other is written to a
        scratch file, which is deleted with the last handle. An array that was handed out for writing
        stays: the receiver may still write into it.

        Returns
        -------
        int
            Bytes freed, unless the array is held elsewhere.

        Raises
        ------
        StorageError
            The scratch file cannot be written.
        """
        shared = self._shared
        with shared.lock:
            array = shared.value
            if array is None or any(holder._exposed for holder in shared.holders):
                return 0
            if shared.loader is None:
                shared.loader = _ScratchFile(folder, array)
                folder.moved.add(shared)
            shared.value = None
            return array.nbytes


class ScratchFolder:
    """A folder for planes that are moved out of memory.

    A file that no plane needs any more is written anew for the next plane: that takes a tenth of the time of
    a new file, for which the system has to find memory and room on the disk.

    Parameters
    ----------
    path : pathlib.Path
        The folder, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.moved: weakref.WeakSet[_Shared[Any]] = weakref.WeakSet()
        self.free: dict[int, list[Path]] = {}
        """Files that may be written anew, by their size in bytes."""

    def restore(self) -> None:
        """Bring all planes that still exist back into memory, so that the folder can be removed."""
        for shared in list(self.moved):
            if isinstance(shared.loader, _ScratchFile):
                shared.load()
                shared.loader = None


class _ScratchFile:
    """An array in a scratch file, which is free for another array when this object is deleted."""

    by_rows = True

    def __init__(self, folder: ScratchFolder, array: NDArray[Any]) -> None:
        free = folder.free.setdefault(array.nbytes, [])
        self.path = free.pop() if free else folder.path / f"plane-{uuid.uuid4().hex}.raw"
        self.shape, self.dtype = array.shape, array.dtype
        try:
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                array.tofile(file)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise StorageError(
                "a plane cannot be moved to the scratch folder",
                file=self.path,
                found=str(error),
                remedy=f"Give a scratch folder with at least {array.nbytes} bytes of free space.",
            ) from error
        weakref.finalize(self, free.append, self.path)

    def __call__(self) -> NDArray[Any]:
        return self.read_rows(slice(None))

    def read_rows(self, rows: slice) -> NDArray[Any]:
        """Read some rows."""
        first, last, step = rows.indices(self.shape[0])
        shape = (max(last - first, 0), *self.shape[1:])
        per_row = int(np.prod(self.shape[1:], dtype=np.intp))
        count = shape[0] * per_row
        try:
            block = np.fromfile(self.path, self.dtype, count, offset=first * per_row * self.dtype.itemsize)
        except OSError as error:
            raise self._unreadable(str(error)) from error
        if block.size != count:
            raise self._unreadable("the file has become shorter")
        return block.reshape(shape)[::step]

    def _unreadable(self, found: str) -> StorageError:
        return StorageError(
            "a plane in the scratch folder cannot be read back",
            file=self.path,
            found=found,
            remedy="Leave the scratch folder alone while a reduction runs.",
        )
