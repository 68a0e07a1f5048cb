"""This file serves the review page and its blobs to this machine alone.

Who asks must know a random token, which is a part of the address, and must be the page itself: a request by another
site is refused, and so is one that another name was made to lead here (DNS rebinding). Only the page and the blobs of
a fixed list can be reached; no part of a request is ever made into the name of a file.
"""

from __future__ import annotations

import hmac
import secrets
import shutil
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from medseg.errors import MedsegError

ADDRESS = "127.0.0.1"
"""Of this machine: nothing listens to the network."""
TOKEN_BYTES = 32
"""Random bytes of the token: none is ever guessed."""
_PATIENCE_SECONDS = 30
"""How long a silent connection is kept."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HTML, _BLOB = "text/html; charset=utf-8", "application/octet-stream"


class ReviewServer(ThreadingHTTPServer):
    """Serves one review; `with` it, and `serve_forever` until a key or `shutdown` ends it.

    Args:
        page: the file of the page.
        blobs: file of each blob by its name.
        policy: Content-Security-Policy of the page.
        port: to listen at; 0 takes a free one.

    Raises:
        MedsegError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, page: Path, blobs: Mapping[str, Path], *, policy: str, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.policy = policy
        self.files = {"": (page, _HTML)} | {f"blob/{quote(name)}": (path, _BLOB) for name, path in blobs.items()}
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise MedsegError(f"--port must be a free port, got {port} ({error}); choose another or none") from error

    @property
    def url(self) -> str:
        """Where the page is, token and all."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What the page may call this machine."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version, sys_version = "medseg", ""
    timeout = _PATIENCE_SECONDS

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _refuse_method(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse_method

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is written down: the address holds the token."""

    def _answer(self, *, with_body: bool) -> None:
        if not self._is_own():
            return self._refuse(HTTPStatus.FORBIDDEN)
        token, _, name = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._refuse(HTTPStatus.FORBIDDEN)
        if name not in self.server.files:  # as it was sent: nothing is decoded, joined or shortened
            return self._refuse(HTTPStatus.NOT_FOUND)
        path, kind = self.server.files[name]
        try:
            stream = path.open("rb")
        except OSError:
            return self._refuse(HTTPStatus.GONE)
        with stream:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(path.stat().st_size))
            self._send_headers()
            if with_body:
                try:
                    shutil.copyfileobj(stream, self.wfile)
                except (BrokenPipeError, ConnectionResetError, TimeoutError):  # the reader went on to something else
                    self.close_connection = True
        return None

    def _is_own(self) -> bool:
        """Whether the request was made by the page, or by a person who typed its address."""
        hosts = self.headers.get_all("Host") or []
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        return (
            len(hosts) == 1
            and hosts[0] in self.server.hosts
            and origin in (None, f"http://{hosts[0]}")
            and site in (None, "same-origin", "none")
        )

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self._send_headers()

    def _send_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", f"{self.server.policy}; frame-ancestors 'none'")
        self.end_headers()
