"""One file over HTTP: streamed, bounded, resumed where the server allows it, tried again when it may help.

What arrives is written to a private file beside its destination, never to the destination itself; the
caller checks it and renames it. A transfer that was cut leaves ``.<name>.part`` behind if the server named
the version it was sending (a strong ETag or a date of last modification), and a later call asks for the rest
with a conditional range request (RFC 9110, sections 13.1.5 and 14.2).
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from niripipe.datasets.connection import Connection, RangeRefused, Transient, as_length, check_url, open_url
from niripipe.datasets.integrity import HEAD_BYTES, Content, recognise
from niripipe.datasets.partial import Part, writing
from niripipe.errors import StorageError
from niripipe.logutils import get_logger

__all__ = ["Cancelled", "Fetched", "ServerUnreachable", "fetch", "get_json"]

_CHUNK = 1 << 16
_MIN_RATE = 256.0  # bytes/s below which a server counts as stalled
_MAX_PAUSE = 30.0  # s
_MAX_JSON = 64 << 20  # bytes; a search result of the archive is about 2 kB a file

_log = get_logger(__name__)
_Result = TypeVar("_Result")


class ServerUnreachable(StorageError):
    """The server did not answer, or not to the end, in spite of repetitions."""


class Cancelled(StorageError):
    """The transfer was given up because the caller did not want it any more."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived, under a private name; the caller renames or removes it.

    Attributes
    ----------
    path : Path
    content : str
        What it is by its first bytes; see `niripipe.datasets.integrity.recognise`.
    size : int
        Bytes.
    resumed : bool
        Part of it comes from an earlier transfer.
    """

    path: Path
    content: Content
    size: int
    resumed: bool


def fetch(
    url: str,
    folder: Path,
    name: str,
    connection: Connection,
    *,
    contents: Collection[Content],
    sizes: Collection[int] = (),
    notify: Callable[[int, int | None], None] | None = None,
    stop: threading.Event | None = None,
) -> Fetched:
    """Bring one file into a folder, under a private name.

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
    sizes : collection of int
        The sizes it may have, bytes, if they are known.
    notify : callable, optional
        Called with the bytes received so far and in all (None if the server does not say).
    stop : threading.Event, optional
        Give up when it is set.

    Returns
    -------
    Fetched

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
    part = Part.claim(folder, name, url)
    receiver = _Receiver(url, connection, part, frozenset(contents), frozenset(sizes), notify, stop)
    try:
        content = _repeat(receiver.receive, url, connection, stop)
    except (ServerUnreachable, Cancelled, KeyboardInterrupt, SystemExit):
        part.leave()
        raise
    except BaseException:
        part.discard()
        raise
    return Fetched(part.path, content, part.size, part.resumed)


def get_json(url: str, connection: Connection) -> Any:
    """Return what a server answers in JSON.

    Parameters
    ----------
    url : str
    connection : Connection

    Returns
    -------
    object
        The decoded answer.

    Raises
    ------
    InputError
        The address is not http or https, or the server does not know it.
    StorageError
        The server cannot be reached, refuses, or answers something else than JSON of at most 64 MiB.
    """
    check_url(url)

    def ask() -> bytes:
        with open_url(url, connection, {"Accept": "application/json"}) as response:
            return _read_bounded(response, url, connection)

    body = _repeat(ask, url, connection, None)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as err:
        raise StorageError(
            "the server answered something else than JSON",
            item=url,
            found=_excerpt(body),
            remedy="Look at the address in a browser: the archive may be down for maintenance",
        ) from err


@dataclass(slots=True)
class _Receiver:
    """One transfer: what is asked for and what is acceptable."""

    url: str
    connection: Connection
    part: Part
    contents: frozenset[Content]
    sizes: frozenset[int]
    notify: Callable[[int, int | None], None] | None
    stop: threading.Event | None

    def receive(self) -> Content:
        """Try once to receive the file, or the rest of it."""
        headers = {}
        if self.part.size and self.part.validator:
            headers = {"Range": f"bytes={self.part.size}-", "If-Range": self.part.validator}
        elif self.part.size:
            self.part.reset()
        with self._ask(headers) as response:
            total = self._begin(response)
            self._check_total(total)
            self._copy(response, total)
        if total is not None and self.part.size < total:
            raise Transient(f"the transfer ended after {self.part.size} of {total} bytes")
        if self.sizes and self.part.size not in self.sizes:
            # Only a server that did not announce a length comes here.
            raise Transient(f"the transfer ended after {self.part.size} bytes, not {_either(self.sizes)}")
        with self.part.path.open("rb") as stream:
            return self._check_head(stream.read(HEAD_BYTES))

    def _ask(self, headers: dict[str, str]) -> http.client.HTTPResponse:
        try:
            return open_url(self.url, self.connection, headers)
        except RangeRefused as err:
            # What is here is longer than what the server has.
            self.part.reset()
            raise Transient("the server has no such part of the file") from err

    def _begin(self, response: http.client.HTTPResponse) -> int | None:
        """Take note of what the server is about to send; return the size of the whole file if known."""
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise self._refusal("the server sends the file in an encoding that was not asked for", encoding)
        length = as_length(response.headers.get("Content-Length"))
        if response.status == 206:
            start, total = _content_range(response.headers.get("Content-Range", ""))
            if total is None and length is not None:
                total = start + length
            if not self.part.size or start != self.part.size or total != self.part.total:
                self.part.reset()
                raise Transient("the server sent another part of the file than was asked for")
            _log.debug("%s resumed at %d bytes", self.url, start)
            self.part.resumed = True
            return total
        if self.part.size:
            self.part.reset()
        self.part.validator, self.part.total = _validator(response), length
        return length

    def _check_total(self, total: int | None) -> None:
        if total is None:
            return
        if self.sizes and total not in self.sizes:
            raise self._refusal(
                "the file has another size than it should have", f"{total} bytes", _either(self.sizes)
            )
        if total > self.connection.max_bytes:
            raise self._refusal("the file is too large", f"{total} bytes", self._at_most())

    def _copy(self, response: http.client.HTTPResponse, total: int | None) -> None:
        limit = max(self.sizes, default=self.connection.max_bytes) if total is None else total
        pace = _Pace(self.connection.timeout)
        head = b"" if not self.part.size else None
        with writing(self.part.path):
            stream = self.part.path.open("ab", buffering=0)
        with stream:
            while block := _next_block(response):
                if self.stop is not None and self.stop.is_set():
                    raise Cancelled("the transfer was given up", item=self.url)
                if self.part.size + len(block) > limit:
                    raise self._refusal(
                        "the server does not stop sending", f"over {limit} bytes", self._at_most()
                    )
                if head is not None:
                    head += block[: HEAD_BYTES - len(head)]
                    if len(head) == HEAD_BYTES:
                        self._check_head(head)
                        head = None
                self.part.append(block, stream)
                pace.count(len(block))
                if self.notify is not None:
                    self.notify(self.part.size, total)

    def _check_head(self, head: bytes) -> Content:
        content = recognise(head)
        if content not in self.contents:
            raise self._refusal(
                "the server sent something else than the file",
                _excerpt(head),
                " or ".join(sorted(self.contents)),
                "Look at the address in a browser: it may be a page about an error or a login",
            )
        return content

    def _at_most(self) -> str:
        return f"at most {max(self.sizes, default=self.connection.max_bytes)} bytes"

    def _refusal(
        self, problem: str, found: str, expected: str | None = None, remedy: str | None = None
    ) -> StorageError:
        return StorageError(problem, item=self.url, found=found, expected=expected, remedy=remedy)


class _Pace:
    """Notices a server that trickles: each byte resets the time-out of the socket."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._began = time.monotonic()
        self._bytes = 0

    def count(self, received: int) -> None:
        self._bytes += received
        elapsed = time.monotonic() - self._began
        if elapsed < self._window:
            return
        if self._bytes < _MIN_RATE * elapsed:
            raise Transient(f"the server stalled: {self._bytes} bytes in {elapsed:.1f} s")
        self._began, self._bytes = time.monotonic(), 0


def _repeat(
    attempt: Callable[[], _Result], url: str, connection: Connection, stop: threading.Event | None
) -> _Result:
    """Call `attempt` until it succeeds or fails for good."""
    wait = threading.Event() if stop is None else stop
    for count in range(connection.retries + 1):
        try:
            return attempt()
        except Transient as fault:
            if count == connection.retries:
                raise ServerUnreachable(
                    "the server did not deliver",
                    item=url,
                    found=f"{fault.what}, after {count + 1} attempts",
                    remedy="Try again later; files that have arrived stay",
                ) from fault
            pause = min(max(connection.backoff * 2**count, fault.pause), _MAX_PAUSE)
            _log.fullinfo("%s: %s; trying again in %.1f s", url, fault.what, pause)
            if wait.wait(pause):
                raise Cancelled("the transfer was given up", item=url) from fault
    raise AssertionError("unreachable")


def _next_block(response: http.client.HTTPResponse) -> bytes:
    try:
        # Not `read`, which waits until the block is full: a trickle would never be noticed.
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as err:
        raise Transient(f"the transfer was cut: {err or type(err).__name__}") from err


def _read_bounded(response: http.client.HTTPResponse, url: str, connection: Connection) -> bytes:
    body = bytearray()
    expected = as_length(response.headers.get("Content-Length"))
    pace = _Pace(connection.timeout)
    while block := _next_block(response):
        body += block
        pace.count(len(block))
        if len(body) > _MAX_JSON:
            raise StorageError(
                "the server does not stop sending", item=url, expected=f"at most {_MAX_JSON} bytes"
            )
    if expected is not None and len(body) < expected:
        raise Transient(f"the answer ended after {len(body)} of {expected} bytes")
    return bytes(body)


def _validator(response: http.client.HTTPResponse) -> str | None:
    """Return what identifies the version of a file that the server sends; None if it cannot be resumed."""
    if response.headers.get("Accept-Ranges", "").strip().lower() == "none":
        return None
    etag = response.headers.get("ETag", "").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]*"', etag):  # weak ones (W/"...") do not identify bytes
        return etag
    modified = response.headers.get("Last-Modified", "").strip()
    return modified if re.fullmatch(r"[\x20-\x7e]{1,64}", modified) else None


def _content_range(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text.strip())
    if match is None:
        return -1, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _either(sizes: Collection[int]) -> str:
    return " or ".join(map(str, sorted(sizes))) + " bytes"


def _excerpt(head: bytes) -> str:
    text = " ".join(head[:200].decode("latin-1").split())
    return repr(text[:80]) if text else "nothing"
