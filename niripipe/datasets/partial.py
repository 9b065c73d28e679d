"""A file that has arrived in part, kept so that no two transfers write the same bytes."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from niripipe.datasets.integrity import HEAD_BYTES, digests
from niripipe.errors import StorageError

__all__ = ["Part", "writing"]


class Part:
    """What has arrived of a file, in a private place of the folder.

    Attributes
    ----------
    path : Path
        Where; a name that no other transfer uses.
    size : int
        Bytes so far.
    validator : str or None
        What identifies the version that is being sent; None if the rest cannot be asked for.
    total : int or None
        Bytes of the whole file.
    resumed : bool
        The bytes come from more than one request.
    """

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self._kept = folder / f".{name}.part"
        self._note = folder / f".{name}.part.json"
        self._url = url
        self.path = folder / f".{name}.{secrets.token_hex(6)}.part"
        self.size = 0
        self.validator: str | None = None
        self.total: int | None = None
        self.resumed = False

    @classmethod
    def claim(cls, folder: Path, name: str, url: str) -> Part:
        """Return the partial file of an earlier transfer if there is a good one, else an empty one."""
        part = cls(folder, name, url)
        try:
            # Renaming is atomic: of several claimants one succeeds, the others begin afresh.
            part._kept.rename(part.path)
        except OSError:
            part._create()
            return part
        part._adopt()
        return part

    def reset(self) -> None:
        """Forget what has arrived."""
        self.validator = self.total = None
        self.size, self.resumed = 0, False
        with writing(self.path), self.path.open("wb"):
            pass

    def append(self, block: bytes, stream: io.RawIOBase) -> None:
        """Add bytes; `stream` is `path`, open for appending without a buffer."""
        rest = memoryview(block)
        with writing(self.path):
            while rest:
                rest = rest[stream.write(rest) or 0 :]
        self.size += len(block)

    def leave(self) -> None:
        """Keep the bytes for a later transfer if they can be resumed; remove them if not."""
        if self.validator is None or self.size < HEAD_BYTES:
            self.discard()
            return
        try:
            note = {
                "url": self._url,
                "validator": self.validator,
                "total": self.total,
                "sha256": digests(self.path, ["sha256"])["sha256"],
            }
            private = self.path.with_suffix(".json")
            private.write_text(json.dumps(note), encoding="utf-8")
            private.replace(self._note)
            self.path.replace(self._kept)
        except (OSError, StorageError):
            self.discard()

    def discard(self) -> None:
        """Remove the bytes."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _create(self) -> None:
        with writing(self.path), self.path.open("xb"):
            pass

    def _adopt(self) -> None:
        # The note may belong to another partial file of that name; the digest tells.
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            good = note["url"] == self._url and note["sha256"] == digests(self.path, ["sha256"])["sha256"]
            validator, total = str(note["validator"]), note["total"]
        except (OSError, ValueError, KeyError, TypeError, StorageError):
            good = False
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)
        if good:
            self.validator, self.total, self.size = validator, total, self.path.stat().st_size
        else:
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
