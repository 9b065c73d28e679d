"""A file that has arrived in part, kept so that no two transfers write the same bytes."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from niripipe.datasets.integrity import HEAD_BYTES, checksum_of
from niripipe.errors import StorageError

__all__ = ["Part", "writing"]


class Part:
    """What has arrived of a file, under a private name in the folder.

    A new one continues the file that an earlier transfer has left, if there is one and it is as it was left.

    Parameters
    ----------
    folder : Path
    name : str
        What the file will be called.
    url : str
        Where it comes from; what was left of another address is not continued.

    Attributes
    ----------
    path : Path
        A name that no other transfer uses.
    size : int
        Bytes so far.
    validator : str or None
        The ETag or date that identifies the version being sent; None if the rest cannot be asked for.
    total : int or None
        Bytes of the whole file.
    resumed : bool
        The bytes come from more than one request.
    """

    size: int
    validator: str | None
    total: int | None
    resumed: bool

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self.path = folder / f".{name}.{secrets.token_hex(6)}.part"
        self._kept = folder / f".{name}.part"
        self._note = folder / f".{name}.part.json"
        self._url = url
        self.reset()
        with contextlib.suppress(OSError):
            # Renaming is atomic: of several transfers one succeeds, the others begin afresh.
            self._kept.rename(self.path)
            self._adopt()

    def reset(self) -> None:
        """Remove what has arrived."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self.validator = self.total = None
        self.size, self.resumed = 0, False

    def leave(self) -> None:
        """Keep the bytes for a later transfer if they can be resumed; remove them if not."""
        with contextlib.suppress(OSError, StorageError):
            if self.validator is not None and self.size >= HEAD_BYTES:
                note = {
                    "url": self._url,
                    "validator": self.validator,
                    "total": self.total,
                    "checksum": checksum_of(self.path),
                }
                private = self.path.with_suffix(".json")
                private.write_text(json.dumps(note), encoding="utf-8")
                private.replace(self._note)
                self.path.replace(self._kept)
        self.reset()

    def _adopt(self) -> None:
        """Continue what an earlier transfer has left, or remove it if it is not as it was left."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            # The note may belong to another partial file of that name; the checksum tells.
            good = (note["url"], note["checksum"]) == (self._url, checksum_of(self.path))
            self.validator, self.total = str(note["validator"]), note["total"]
            self.size = self.path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError, StorageError):
            good = False
        self._note.unlink(missing_ok=True)
        if not good:
            self.reset()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the faults of the disk into `StorageError`, naming the folder of `path`."""
    try:
        yield
    except OSError as err:
        raise StorageError(
            "the download cannot be written",
            file=path.parent,
            found=err.strerror or str(err),
            remedy="Name an existing folder that you may write to, on a disk with room",
        ) from err
