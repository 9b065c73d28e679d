"""One file over HTTP: streamed, bounded, checked, resumed where the server allows it.

What arrives is written to a private file in the folder, never to the destination itself; the caller renames
it. A transfer that was cut leaves ``.<name>.part`` behind if the server named the version it was sending (a
strong ETag or a date of last modification), and a later call asks for the rest with a conditional range
request (RFC 9110, sections 13.1.5 and 14.2).
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from niripipe.datasets.connection import (
    Cancelled,
    Connection,
    ServerUnreachable,
    Transient,
    as_length,
    blocks,
    check_url,
    excerpt,
    opened,
    repeated,
)
from niripipe.datasets.integrity import HEAD_BYTES, Content, checksum_of, recognise
from niripipe.errors import StorageError, storage_faults
from niripipe.logutils import get_logger

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["fetch"]

_log = get_logger(__name__)


def fetch(
    url: str,
    folder: Path,
    name: str,
    connection: Connection,
    *,
    contents: Collection[Content],
    check: Callable[[Path, Content], None],
    sizes: Collection[int] = (),
    notify: Callable[[int, int | None], None] | None = None,
    stop: threading.Event | None = None,
) -> tuple[Path, Content]:
    """Bring one file into a folder, under a private name; the caller renames it.

    Parameters
    ----------
    url : str
        http or https.
    folder : Path
        Where to; it must exist.
    name : str
        What the file will be called; partial transfers are found again by it.
    connection : Connection
    contents : collection of str
        What the file may be; anything else, a page of text for example, is refused at its first bytes.
    check : callable
        Called with path and type of the complete file; raises `StorageError` if it is not the right one.
    sizes : collection of int
        The sizes it may have, bytes, if they are known.
    notify : callable, optional
        Called with the bytes received so far and in all (None if the server does not say).
    stop : threading.Event, optional
        Give up when it is set.

    Returns
    -------
    path, content : Path, str
        Where it is, and what it is by its first bytes.

    Raises
    ------
    InputError
        The address is not http or https, or the server has no such file.
    ServerUnreachable
        The server did not deliver in spite of repetitions. What has arrived is kept if it can be resumed.
    StorageError
        The server refuses, sends something else, too much or too little; or the folder cannot be written.
        Nothing is left behind.
    """
    check_url(url)
    part = _Part(folder, name, url)
    receiver = _Receiver(url, connection, part, contents, sizes, notify, stop)
    try:
        content = repeated(receiver.receive, url, connection, stop)
        try:
            check(part.path, content)
        except StorageError:
            if not part.resumed:
                raise
            _log.fullinfo("%s: the parts are of different versions; fetched again", url)
            part.reset()
            content = repeated(receiver.receive, url, connection, stop)
            check(part.path, content)
    except (ServerUnreachable, Cancelled, KeyboardInterrupt, SystemExit):
        part.leave()
        raise
    except BaseException:
        part.reset()
        raise
    return part.path, content


class _Part:
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


@dataclass(slots=True)
class _Receiver:
    """One transfer: what is asked for and what is acceptable."""

    url: str
    connection: Connection
    part: _Part
    contents: Collection[Content]
    sizes: Collection[int]
    notify: Callable[[int, int | None], None] | None
    stop: threading.Event | None

    def receive(self) -> Content:
        """Try once to receive the file, or the rest of it."""
        part = self.part
        headers = {}
        if part.validator is None:
            part.reset()
        elif part.size:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        try:
            with opened(self.url, self.connection, headers) as response:
                total = self._begin(response)
                self._check_total(total)
                self._copy(response, total)
        except Transient as fault:
            if fault.status == 416:  # what has arrived is longer than what the server has
                part.reset()
            raise
        if part.size < (total or 0) or (self.sizes and part.size not in self.sizes):
            raise Transient(f"the transfer ended after {part.size} of {total or self._expected_size()} bytes")
        with part.path.open("rb") as stream:
            return self._check_head(stream.read(HEAD_BYTES))

    def _begin(self, response: BaseHTTPResponse) -> int | None:
        """Note what the server is about to send; return the size of the whole file if known."""
        part, headers = self.part, response.headers
        encoding = headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise self._refusal("the server sends the file in an encoding that was not asked for", encoding)
        length = as_length(headers.get("Content-Length"))
        if response.status != 206:
            part.reset()
            part.validator, part.total = _validator(response), length
            return length
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", ""))
        start = int(match[1]) if match else -1
        total = int(match[2]) if match and match[2] != "*" else start + (length or 0)
        if not part.size or (start, total) != (part.size, part.total):
            part.reset()
            raise Transient("the server sent another part of the file than was asked for")
        _log.debug("%s resumed at %d bytes", self.url, start)
        part.resumed = True
        return total

    def _check_total(self, total: int | None) -> None:
        if total is None:
            return
        if self.sizes and total not in self.sizes:
            raise self._refusal(
                "the file has another size than it should have",
                f"{total} bytes",
                f"{self._expected_size()} bytes",
            )
        if total > self.connection.max_bytes:
            raise self._refusal("the file is too large", f"{total} bytes", self._at_most())

    def _copy(self, response: BaseHTTPResponse, total: int | None) -> None:
        part = self.part
        limit = max(self.sizes, default=self.connection.max_bytes) if total is None else total
        head = b""
        remedy = "Name an existing folder that you may write to, on a disk with room"
        faults = storage_faults("the download cannot be written", part.path.parent, remedy=remedy)
        with faults, part.path.open("ab") as stream:
            for block in blocks(response, self.connection):
                if self.stop is not None and self.stop.is_set():
                    raise Cancelled("the transfer was given up", item=self.url)
                if part.size + len(block) > limit:
                    raise self._refusal(
                        "the server does not stop sending", f"over {limit} bytes", self._at_most()
                    )
                if part.size < HEAD_BYTES:
                    head += block
                    if len(head) >= HEAD_BYTES:
                        self._check_head(head)
                stream.write(block)
                part.size += len(block)
                if self.notify is not None:
                    self.notify(part.size, total)

    def _check_head(self, head: bytes) -> Content:
        content = recognise(head)
        if content in self.contents:
            return content
        raise self._refusal(
            "the server sent something else than the file",
            excerpt(head),
            " or ".join(sorted(self.contents)),
            "Look at the address in a browser: it may be a page about an error or a login",
        )

    def _expected_size(self) -> str:
        return " or ".join(map(str, sorted(self.sizes)))

    def _at_most(self) -> str:
        return f"at most {max(self.sizes, default=self.connection.max_bytes)} bytes"

    def _refusal(
        self, problem: str, found: str, expected: str | None = None, remedy: str | None = None
    ) -> StorageError:
        return StorageError(problem, item=self.url, found=found, expected=expected, remedy=remedy)


def _validator(response: BaseHTTPResponse) -> str | None:
    """Return what identifies the version of a file that the server sends; None if it cannot be resumed."""
    if response.headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    etag = response.headers.get("ETag", "").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):  # weak ones (W/"...") do not identify bytes
        return etag
    modified = response.headers.get("Last-Modified", "").strip()
    return modified if re.fullmatch(r"[\x20-\x7e]{1,64}", modified) else None
