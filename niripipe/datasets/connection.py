"""HTTP requests to one server: settings, redirections, repetition, faults sorted by whether they may pass."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from niripipe import __version__
from niripipe.errors import InputError, ParameterError, StorageError
from niripipe.logutils import get_logger

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = [
    "Cancelled",
    "Connection",
    "ServerUnreachable",
    "TransferOptions",
    "Transient",
    "as_length",
    "blocks",
    "check_url",
    "excerpt",
    "get_json",
    "opened",
    "repeated",
]

_MAX_REDIRECTS = 5
_MAX_PAUSE = 30.0  # s
_MIN_RATE = 256.0  # bytes/s below which a server counts as stalled
_CHUNK = 1 << 16
_MAX_JSON = 64 << 20  # bytes; a search result of the archive is about 2 kB a file
_TRANSIENT_STATUS = frozenset({408, 416, 425, 429, 500, 502, 503, 504})
# Without blanks and control characters, which would end the request line.
_URL = re.compile(r"https?://([!-.0-~]+@)?([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?([/?#][!-~]*)?", re.ASCII)
_COOKIE = "gemini_archive_session"

_log = get_logger(__name__)
_Result = TypeVar("_Result")


class ServerUnreachable(StorageError):
    """The server did not answer, or not to the end, in spite of repetitions."""


class Cancelled(StorageError):
    """The transfer was given up because the caller did not want it any more."""


class Transient(Exception):
    """A fault that may pass.

    Parameters
    ----------
    what : str
    status : int
        The HTTP status, if it was one.
    pause : float
        How long the server asks to wait, s.
    """

    def __init__(self, what: str, *, status: int = 0, pause: float = 0.0) -> None:
        self.status = status
        self.pause = pause
        super().__init__(what)


class TransferOptions(TypedDict, total=False):
    """How to talk to a server; the keyword arguments that all functions using the network share.

    Attributes
    ----------
    timeout : float
        Seconds to wait for a connection or for further data (default 30). A server that sends less than
        256 bytes/s over that time counts as stalled.
    retries : int
        How often to try again after a fault that may pass: no connection, a cut, a stall, status 408, 425,
        429 or 5xx (default 3).
    backoff : float
        Seconds to wait before the first repetition, doubled each time, at most 30 (default 0.5). A longer
        ``Retry-After`` of the server is obeyed up to the same limit.
    max_bytes : int
        Refuse larger files (default 4 GiB).
    session : str
        The archive's ``gemini_archive_session`` cookie, for proprietary data of your own. It is sent to
        the server that was named and to no other, also after a redirection.
    proxy : str
        Address of a proxy. The environment is not consulted.
    """

    timeout: float
    retries: int
    backoff: float
    max_bytes: int
    session: str | None
    proxy: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """`TransferOptions` with their defaults, checked.

    Raises
    ------
    ParameterError
        A value is out of range.
    InputError
        The proxy is not an http or https address.
    """

    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    max_bytes: int = 4 << 30
    # Secrets, which must not reach a log or a traceback; the proxy may hold a password.
    session: str | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, lowest in (("timeout", 1e-3), ("retries", 0), ("backoff", 0), ("max_bytes", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value < 1e15:
                raise ParameterError(
                    "a setting of the connection is out of range",
                    item=name,
                    found=value,
                    expected=f"a number, at least {lowest:g}",
                )
        if self.session is not None and re.fullmatch(r"[!#-+\--:<-\[\]-~]+", self.session) is None:
            raise ParameterError("this cannot be the value of a cookie", item="session")
        if self.proxy is not None:
            check_url(self.proxy)


def check_url(url: str) -> None:
    """Refuse an address that is not http or https (InputError)."""
    if _URL.fullmatch(url) is None:
        raise InputError(
            "this address cannot be used", item="url", found=repr(url), expected="http://... or https://..."
        )


@contextlib.contextmanager
def opened(url: str, connection: Connection, headers: dict[str, str]) -> Iterator[BaseHTTPResponse]:
    """Open an address for reading, following redirections.

    Parameters
    ----------
    url : str
    connection : Connection
    headers : dict
        Headers of the request.

    Yields
    ------
    urllib3.BaseHTTPResponse
        With a status of success; read it with `blocks`.

    Raises
    ------
    Transient
        A fault that may pass.
    InputError
        The server has no such file.
    StorageError
        The server refuses, or redirects to an address that is not followed; ``urllib3`` is not installed.
    """
    urllib3 = _urllib3()
    headers = {"User-Agent": f"niripipe/{__version__}", "Accept-Encoding": "identity", **headers}
    proxy = connection.proxy
    with urllib3.PoolManager() if proxy is None else urllib3.ProxyManager(proxy) as manager:
        address = url
        # Redirections are followed here: urllib3 would go from https back to http, and would read the body
        # of a redirection, which may be endless.
        for _ in range(_MAX_REDIRECTS + 1):
            cookie = {}
            if connection.session is not None and _same_server(url, address):
                cookie = {"Cookie": f"{_COOKIE}={connection.session}"}
            try:
                response = manager.request(
                    "GET",
                    address,
                    headers=headers | cookie,
                    timeout=connection.timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            except urllib3.exceptions.HTTPError as err:
                cause = err.args[0] if err.args else None
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise StorageError(
                        "the server's certificate cannot be verified", item=url, found=cause.verify_message
                    ) from err
                raise Transient(f"no connection: {_reason(err)}") from err
            with response:
                location = response.get_redirect_location()
                if not location:
                    _check_status(response, url, connection)
                    yield response
                    return
                address = _redirected(address, location)
        raise StorageError(
            "the server cannot deliver the file", item=url, found=f"over {_MAX_REDIRECTS} redirections"
        )


def blocks(response: BaseHTTPResponse, connection: Connection) -> Iterator[bytes]:
    """Return what a server sends, block by block, as it arrives.

    Raises
    ------
    Transient
        The transfer was cut, or the server stalls.
    """
    urllib3 = _urllib3()
    total = response.headers.get("Content-Length", "an unknown number of")
    received = in_period = 0
    began = time.monotonic()
    while True:
        try:
            # Not `read`, which waits until the block is full: a server that trickles would never be noticed,
            # since each byte resets the time-out of the socket.
            block = response.read1(_CHUNK)
        except urllib3.exceptions.HTTPError as err:
            raise Transient(f"the transfer ended after {received} of {total} bytes: {_reason(err)}") from err
        if not block:
            return
        yield block
        received += len(block)
        in_period += len(block)
        elapsed = time.monotonic() - began
        if elapsed >= connection.timeout:
            if in_period < _MIN_RATE * elapsed:
                raise Transient(f"the server stalled: {in_period} bytes in {elapsed:.1f} s")
            began, in_period = time.monotonic(), 0


def repeated(
    attempt: Callable[[], _Result], url: str, connection: Connection, stop: threading.Event | None = None
) -> _Result:
    """Call `attempt` until it succeeds or fails for good.

    Raises
    ------
    ServerUnreachable
        The last permitted attempt raised `Transient`.
    Cancelled
        `stop` was set while waiting for the next attempt.
    """
    for count in range(connection.retries):
        try:
            return attempt()
        except Transient as fault:
            pause = min(max(connection.backoff * 2**count, fault.pause), _MAX_PAUSE)
            _log.fullinfo("%s: %s; trying again in %.1f s", url, fault, pause)
        if (stop or threading.Event()).wait(pause):
            raise Cancelled("the transfer was given up", item=url)
    try:
        return attempt()
    except Transient as fault:
        raise ServerUnreachable(
            "the server did not deliver",
            item=url,
            found=f"{fault}, after {connection.retries + 1} attempts",
            remedy="Try again later; files that have arrived stay",
        ) from fault


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
        body = bytearray()
        with opened(url, connection, {"Accept": "application/json"}) as response:
            for block in blocks(response, connection):
                body += block
                if len(body) > _MAX_JSON:
                    raise StorageError(
                        "the server does not stop sending", item=url, expected=f"at most {_MAX_JSON} bytes"
                    )
        return bytes(body)

    body = repeated(ask, url, connection)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as err:
        raise StorageError(
            "the server answered something else than JSON",
            item=url,
            found=excerpt(body),
            remedy="Look at the address in a browser: the archive may be down for maintenance",
        ) from err


def as_length(text: str | None) -> int | None:
    """Return a number of bytes given in a header; None if there is none that can be read."""
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text.strip()) else None


def excerpt(head: bytes) -> str:
    """Return the beginning of an answer that was not expected, for a message."""
    text = " ".join(head[:200].decode("latin-1").split())
    return repr(text[:80]) if text else "nothing"


def _urllib3() -> ModuleType:
    try:
        import urllib3
    except ImportError as err:
        raise StorageError(
            "the library for downloads, urllib3, is not installed",
            remedy='Install it with: pip install "niripipe[archive]"',
        ) from err
    return urllib3


def _redirected(address: str, location: str) -> str:
    """Return where a redirection leads: neither to another scheme nor back from https to http."""
    target = urllib.parse.urljoin(address, location)
    if _URL.fullmatch(target) is None or (address.startswith("https:") and target.startswith("http:")):
        raise StorageError(
            "the server redirects to an address that is not followed",
            item=address,
            found=location,
            expected="http or https, and not from https to http",
        )
    return target


def _same_server(first: str, second: str) -> bool:
    a, b = urllib.parse.urlsplit(first), urllib.parse.urlsplit(second)
    # An upgrade to https is the same server: the archive answers http that way.
    return a.hostname == b.hostname and (a.port == b.port or (a.scheme, b.scheme) == ("http", "https"))


def _check_status(response: BaseHTTPResponse, url: str, connection: Connection) -> None:
    status = f"HTTP status {response.status} {response.reason}".strip()
    if response.status in (404, 410):
        raise InputError(
            "the server has no such file",
            item=url,
            found=status,
            remedy="Check the name, or search with find()",
        )
    if response.status in (401, 403):
        remedy = "Proprietary data need a login: pass the cookie of yours as session=..."
        if connection.session is not None:
            remedy = "The session given does not grant access: it may have expired, or be another user's"
        raise StorageError(
            "the server refuses access: the data may still be proprietary",
            item=url,
            found=status,
            remedy=remedy,
        )
    if response.status in _TRANSIENT_STATUS:
        # Retry-After may also be a date; the usual pause serves then.
        pause = float(as_length(response.headers.get("Retry-After")) or 0)
        raise Transient(status, status=response.status, pause=pause)
    if response.status >= 300:
        raise StorageError("the server cannot deliver the file", item=url, found=status)


def _reason(err: Exception) -> str:
    """Return what happened to a connection, without the address that urllib3 puts before it."""
    return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", str(err.args[0] if err.args else err))
