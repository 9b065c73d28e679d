"""Talking HTTP to one server: settings, redirections, and faults sorted by whether they may pass."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import IO, TypedDict

from niripipe.errors import InputError, ParameterError, StorageError

__all__ = [
    "Connection",
    "RangeRefused",
    "TransferOptions",
    "Transient",
    "as_length",
    "check_url",
    "open_url",
]

_MAX_REDIRECTS = 5
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_COOKIE = "gemini_archive_session"


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
    """

    timeout: float = 30.0
    retries: int = 3
    backoff: float = 0.5
    max_bytes: int = 4 << 30
    session: str | None = None
    proxy: str | None = None

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

    def __repr__(self) -> str:
        # The session is a secret: it must not reach a log or a traceback.
        session = None if self.session is None else "..."
        return f"Connection(timeout={self.timeout}, retries={self.retries}, session={session})"


class Transient(Exception):
    """A fault that may pass."""

    def __init__(self, what: str, pause: float = 0.0) -> None:
        self.what = what
        self.pause = pause
        super().__init__(what)


class RangeRefused(Exception):
    """The server does not have the part of the file that was asked for."""


def check_url(url: str) -> None:
    """Refuse an address that is not http or https (InputError)."""
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    # Blanks and control characters would end the request line.
    if not usable or re.search(r"[^\x21-\x7e]", url):
        raise InputError(
            "this address cannot be used", item="url", found=repr(url), expected="http://... or https://..."
        )


def open_url(url: str, connection: Connection, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Open an address, with faults sorted into those that may pass and those that will not."""
    request = urllib.request.Request(
        url, headers={"User-Agent": _user_agent(), "Accept-Encoding": "identity", **headers}
    )
    if connection.session is not None:
        request.add_header("Cookie", f"{_COOKIE}={connection.session}")
    try:
        response = _opener(connection).open(request, timeout=connection.timeout)
    except urllib.error.HTTPError as err:
        err.close()
        raise _refused(err, url, connection) from err
    except urllib.error.URLError as err:
        if isinstance(err.reason, ssl.SSLCertVerificationError):
            raise StorageError(
                "the server's certificate cannot be verified", item=url, found=err.reason.verify_message
            ) from err
        raise Transient(f"no connection: {err.reason}") from err
    except (OSError, http.client.HTTPException) as err:
        raise Transient(f"no connection: {err or type(err).__name__}") from err
    if not isinstance(response, http.client.HTTPResponse):
        raise StorageError("the server cannot be spoken to", item=url)
    return response


def as_length(text: str | None) -> int | None:
    """Return a number of bytes given in a header; None if there is none that can be read."""
    return int(text) if text is not None and re.fullmatch(r"\d{1,18}", text.strip()) else None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but neither to another scheme nor back from https, and with no foreign cookie."""

    max_redirections = _MAX_REDIRECTS

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        fp.close()  # or the body, which may be endless, would be read
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise StorageError(
                "the server redirects to an address that is not followed",
                item=req.full_url,
                found=newurl,
                expected="http or https, and not from https to http",
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and not _same_server(req.full_url, newurl):
            request.remove_header("Cookie")
        return request


class _Proxy(urllib.request.BaseHandler):
    """Sends every request through one proxy, without asking the environment for exceptions."""

    handler_order = 100  # before the Host header is set

    def __init__(self, url: str) -> None:
        check_url(url)
        self._parts = urllib.parse.urlsplit(url)

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        request.set_proxy(self._parts.netloc, self._parts.scheme)
        return request

    https_request = http_request


def _same_server(first: str, second: str) -> bool:
    a, b = urllib.parse.urlsplit(first), urllib.parse.urlsplit(second)
    # An upgrade to https is the same server: the archive answers http that way.
    return a.hostname == b.hostname and (a.port == b.port or (a.scheme, b.scheme) == ("http", "https"))


def _opener(connection: Connection) -> urllib.request.OpenerDirector:
    # Assembled by hand: the ready-made one also opens ftp, file and data addresses and takes its proxies
    # from the environment.
    opener = urllib.request.OpenerDirector()
    if connection.proxy is not None:
        opener.add_handler(_Proxy(connection.proxy))
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _refused(err: urllib.error.HTTPError, url: str, connection: Connection) -> Exception:
    status = " ".join(f"HTTP status {err.code} {err.reason}".split())
    if err.code in (404, 410):
        return InputError(
            "the server has no such file",
            item=url,
            found=status,
            remedy="Check the name, or search with find()",
        )
    if err.code in (401, 403):
        remedy = "Proprietary data need a login: pass the cookie of yours as session=..."
        if connection.session is not None:
            remedy = "The session given does not grant access: it may have expired, or be another user's"
        return StorageError(
            "the server refuses access: the data may still be proprietary",
            item=url,
            found=status,
            remedy=remedy,
        )
    if err.code == 416:
        return RangeRefused(status)
    if err.code in _TRANSIENT_STATUS:
        return Transient(status, _retry_after(err))
    return StorageError("the server cannot deliver the file", item=url, found=status)


def _retry_after(err: urllib.error.HTTPError) -> float:
    # A date is allowed too; the usual back-off serves then.
    seconds = as_length(err.headers.get("Retry-After") if err.headers else None)
    return 0.0 if seconds is None else float(min(seconds, 3600))


def _user_agent() -> str:
    try:
        return f"niripipe/{version('niripipe')}"
    except PackageNotFoundError:
        return "niripipe"
