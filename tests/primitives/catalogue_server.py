"""A VizieR of one's own: answers on localhost, with what a test puts into it."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

from astropy.table import Table


def votable(table: Table) -> bytes:
    """Return a table as VizieR sends it."""
    body = BytesIO()
    with warnings.catch_warnings():
        # Names like 2MASS are no XML identifiers, which astropy repairs and mentions.
        warnings.simplefilter("ignore")
        table.write(body, format="votable")
    return body.getvalue()


class Answers:
    """What the server says, and what it was asked."""

    def __init__(self, body: bytes | Callable[[dict[str, list[str]]], bytes], status: int = 200) -> None:
        self.body, self.status = body, status
        self.endless = self.slow = False
        self.queries: list[dict[str, list[str]]] = []
        self.address = ""


@contextmanager
def serving(answers: Answers) -> Iterator[Answers]:
    """Serve on a free port of this machine while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            answers.queries.append(query)
            body = answers.body(query) if callable(answers.body) else answers.body
            self.send_response(answers.status)
            self.end_headers()
            try:
                self.wfile.write(body)
                while answers.endless or answers.slow:
                    self.wfile.write(b" " * (1 << 16 if answers.endless else 1))
                    self.wfile.flush()
                    time.sleep(0.05 if answers.slow else 0)
            except OSError:
                pass

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    answers.address = f"http://127.0.0.1:{server.server_address[1]}/votable"
    try:
        yield answers
    finally:
        answers.endless = answers.slow = False
        server.shutdown()
        thread.join()
        server.server_close()
