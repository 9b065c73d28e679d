"""A server of the kind of the archive, on this machine, that can misbehave."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

Reply = Callable[[BaseHTTPRequestHandler], None]


def fits_bytes(seed: int = 0, size: int = 64) -> bytes:
    """A small FITS file."""
    pixels = np.random.default_rng(seed).normal(size=(size, size)).astype(np.float32)
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(pixels)]).writeto(buffer)
    return buffer.getvalue()


def send(
    body: bytes = b"",
    *,
    status: int = 200,
    length: int | None = None,
    cut: int | None = None,
    ranges: bool = False,
    **headers: str,
) -> Reply:
    """A reply; `cut` ends it early, `ranges` answers requests for the rest of a file."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        code, content, extra = status, body, dict(headers)
        wanted = request.headers.get("Range", "")
        if ranges and wanted and request.headers.get("If-Range") == headers.get("ETag"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            code, content = 206, body[start:]
            extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        request.send_response(code)
        request.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in extra.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content[:cut])

    return reply


def endless(first: bytes, *, pause: float = 0.0, block: bytes = bytes(65536)) -> Reply:
    """A reply that announces no length and does not end."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(first)
        end = time.monotonic() + 20.0
        while time.monotonic() < end:
            request.wfile.write(block)
            request.wfile.flush()
            if pause:
                time.sleep(pause)

    return reply


def silent(seconds: float) -> Reply:
    """A server that accepts the request and says nothing."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)

    return reply


@dataclass
class Archive:
    """The server: what it holds, what it has been asked."""

    url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    active: int = 0
    most_active: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, path: str, *replies: Reply) -> None:
        """Answer so, one after the other; the last one for good."""
        self.replies[path] = list(replies)

    def hold(self, name: str, body: bytes, **listing: Any) -> None:
        """Hold a file, and list it."""
        self.on(f"/file/{name}", send(body))
        self.list(name, body, **listing)

    def list(self, name: str, body: bytes, **listing: Any) -> None:
        row = {
            "name": name,
            "filename": f"{name}.bz2",
            "data_size": len(body),
            "data_md5": hashlib.md5(body).hexdigest(),
            "file_size": len(packed := bz2.compress(body)),
            "file_md5": hashlib.md5(packed).hexdigest(),
            "instrument": "NIRI",
        }
        self.on(f"/jsonfilelist/canonical/filename={name}", send(json.dumps([{**row, **listing}]).encode()))

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of the requests for a path."""
        return [headers for asked, headers in self.requests if asked == path]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.requests.append((request.path, dict(request.headers)))
            replies = self.replies.get(request.path)
            reply = send(b"no such file", status=404)
            if replies:
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        try:
            reply(request)
        finally:
            with self.lock:
                self.active -= 1


@contextlib.contextmanager
def serving() -> Iterator[Archive]:
    state = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # The client may have had enough.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                state.answer(self)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def visible(folder: Path) -> list[str]:
    """All files in a folder, hidden ones too, but for the record of checksums."""
    return sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
