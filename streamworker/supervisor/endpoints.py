"""`/livez`, `/readyz` and `/startupz` over HTTP, from threads of their own: they answer while a handler blocks the event loop.

A request gets two seconds in all and a few kilobytes. Of those that are too many at once the oldest goes: a probe that has just come says
at once what it wants, so those that hold a place have held it in silence.
"""

from __future__ import annotations

import io
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from streamworker.addresses import format_address
from streamworker.errors import SetupError
from streamworker.supervisor.verdicts import PROBES, Seen, Verdict

WITHIN_SECONDS = 2.0
LONGEST_REQUEST = 8_192
MOST_AT_ONCE = 32


@contextmanager
def health_endpoints(address: tuple[str, int] | None, see: Callable[[], Seen], limit: timedelta, log: Any) -> Iterator[None]:
    """Answer probes at this address inside the block; `None` is nowhere. Raises `SetupError` where it cannot listen."""
    if address is None:
        yield
        return
    with _listening(address, see, limit) as server:
        host, port, *_ = server.socket.getsockname()
        log.info("health.listening", address=format_address(host, port))
        thread = threading.Thread(target=server.serve_forever, name="streamworker-health", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


def _listening(address: tuple[str, int], see: Callable[[], Seen], limit: timedelta) -> _Server:
    host, port = address
    try:
        family, *_ = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _Server(family, (host, port), see, limit)
    except OSError as error:
        reason = error.strerror if error.strerror else str(error)
        raise SetupError(
            f"cannot listen on {format_address(host, port)} for health probes: {reason}; "
            "name another place with --health-addr HOST:PORT, or none with --health-addr off"
        ) from None


class _Server(ThreadingHTTPServer):
    block_on_close = False
    request_queue_size = 128

    def __init__(self, family: int, address: tuple[str, int], see: Callable[[], Seen], limit: timedelta) -> None:
        self.address_family = family
        self.see = see
        self.limit = limit
        self._since: dict[Any, float] = {}
        """The open connections, the oldest first."""
        self._lock = threading.Lock()
        super().__init__(address, _Request)

    def server_bind(self) -> None:
        """As HTTPServer does, but without asking the DNS for our own name, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._since[request] = monotonic()
            too_many = list(self._since)[:-MOST_AT_ONCE]
        self._cut_off(too_many)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Called by the thread that accepts, twice a second at least."""
        with self._lock:
            too_old = [request for request, since in self._since.items() if monotonic() - since > WITHIN_SECONDS]
        self._cut_off(too_old)

    def _cut_off(self, requests: list[Any]) -> None:
        """Its thread sees the end of the connection, and ends."""
        for request in requests:
            with self._lock:
                self._since.pop(request, None)
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone, or never asked; nothing to say."""


class _Head(io.BufferedReader):
    """Reads a request's lines, up to a bound for all of them."""

    left = LONGEST_REQUEST

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(self.left if size is None or size < 0 else min(size, self.left))
        self.left -= len(line)
        return line


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"  # what is no request at all gets a status line too
    rbufsize = 0
    timeout = WITHIN_SECONDS

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(cast("io.RawIOBase", self.rfile))

    def do_GET(self) -> None:
        server = cast("_Server", self.server)
        status, kind, body = answer(self.command, self.path, server.see, server.limit)
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815  # names that http.server looks for

    def version_string(self) -> str:
        """Which Python this is, is nobody's business."""
        return "streamworker"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        """Probes come every few seconds."""


def answer(method: str, target: str, see: Callable[[], Seen], limit: timedelta) -> tuple[HTTPStatus, str, bytes]:
    """Status, type and body for a request."""
    with suppress(ValueError):
        url = urlsplit(target)
        judge = PROBES.get(url.path.strip("/"))
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", b"only GET and HEAD\n"
        if judge is None:
            return HTTPStatus.NOT_FOUND, "text/plain", f"there is {', '.join('/' + name for name in PROBES)}\n".encode()
        verdict = judge(see(), limit)
        status = HTTPStatus.OK if verdict.ok else HTTPStatus.SERVICE_UNAVAILABLE
        if "verbose" in parse_qs(url.query, keep_blank_values=True):
            return status, "application/json", json.dumps(_in_full(verdict)).encode() + b"\n"
        return status, "text/plain", f"{verdict.reason}\n".encode()
    return HTTPStatus.BAD_REQUEST, "text/plain", b"not a request\n"


def _in_full(verdict: Verdict) -> dict[str, Any]:
    return {
        "ok": verdict.ok,
        "reason": verdict.reason,
        "processes": [
            {
                "pid": finding.watched.pid,
                "well": finding.well,
                "reason": finding.reason,
                "silent_seconds": round(finding.watched.silent_seconds, 3),
                "status": None if finding.watched.status is None else asdict(finding.watched.status),
            }
            for finding in verdict.findings
        ],
    }
