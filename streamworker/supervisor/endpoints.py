"""`/livez`, `/readyz` and `/startupz` over HTTP, from threads of their own: they answer while a handler blocks the event loop.

Smaller than http.server on purpose: a request is a few lines, gets two seconds in all, and can neither hang a thread nor fill memory.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from http import HTTPStatus
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


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, family: int, address: tuple[str, int], see: Callable[[], Seen], limit: timedelta) -> None:
        self.address_family = family
        self.see = see
        self.limit = limit
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(address, _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone, or never asked; nothing to say."""


class _Request(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server = cast("_Server", self.server)
        head = self._head()
        method, target, *_ = [*head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", ""]
        status, kind, body = answer(method, target, server.see, server.limit)
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        text = "\r\n".join([*lines, "", ""]).encode()
        self.request.sendall(text if method == "HEAD" else text + body)

    def _head(self) -> bytes:
        """What came before the empty line. Raises `TimeoutError` when it takes too long in all."""
        deadline = monotonic() + WITHIN_SECONDS
        head = b""
        while b"\r\n\r\n" not in head and len(head) < LONGEST_REQUEST:
            self.request.settimeout(max(0.001, deadline - monotonic()))
            chunk = self.request.recv(LONGEST_REQUEST - len(head))
            if not chunk:
                break
            head += chunk
        self.request.settimeout(WITHIN_SECONDS)
        return head


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
