"""TLS with a server of our own and an authority of our own: who is let in, and what is said to who is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from streamworker.embedded import EmbeddedServer
from streamworker.errors import ConnectionLost, SetupError
from streamworker.streams.connections import Endpoint
from streamworker.streams.scripts import BlockingLink, Script
from streamworker.streams.wire import Wire
from tests.certificates import Authority, an_authority
from tests.command_line import started
from tests.harness import Ledger, an_app, run_burst
from tests.servers import make_server
from tests.waiting import eventually

ANSWER = Script(b"return 1", "-")


@dataclass(frozen=True)
class Site:
    """A server that speaks TLS and wants a client certificate, and who signs for it; and somebody whom it does not know."""

    server: EmbeddedServer
    port: int
    authority: Authority
    stranger: Authority

    def url(
        self, *, host: str = "localhost", ca: Path | None = None, client: tuple[Path, Path] | None = None, more: str = ""
    ) -> str:
        ca = self.authority.certificate if ca is None else ca
        return f"rediss://{host}:{self.port}/0?ssl_ca_certs={ca}{certified(*client) if client else ''}{more}"

    @property
    def client(self) -> tuple[Path, Path]:
        return self.authority.folder / "client.crt", self.authority.folder / "client.key"


def certified(certificate: Path, key: Path) -> str:
    return f"&ssl_certfile={certificate}&ssl_keyfile={key}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Shared by this module; no test changes it."""
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = an_authority(folder / "authority"), an_authority(folder / "stranger")
    certificate, key = authority.issue("server")
    authority.issue("client")
    stranger.issue("client")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {
        "--tls-port": port,
        "--tls-cert-file": certificate,
        "--tls-key-file": key,
        "--tls-ca-cert-file": authority.certificate,
    }
    server = make_server("redis", extra_args=[str(word) for option in options.items() for word in option])
    with ExitStack() as stack:
        try:
            stack.enter_context(server)
        except SetupError as error:
            pytest.skip(f"this redis-server does not speak TLS: {str(error)[-80:]}")
        yield Site(server, port, authority, stranger)


async def by_wire(url: str) -> object:
    wire = await Wire.open(Endpoint(url, client_name="test"))
    try:
        return await wire.call("PING", within=5)
    finally:
        await wire.close()


async def by_blocking_link(url: str) -> object:
    link = BlockingLink(Endpoint(url, client_name="test"), timeout=5.0)
    try:
        return await asyncio.to_thread(link.run, ANSWER, [], [])
    finally:
        link.close()


def open_files() -> int:
    """How many files and sockets this process holds."""
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture
async def closed() -> AsyncIterator[None]:
    """Waits at the end until every connection is closed: TLS takes a few turns of the loop to say goodbye."""
    before = open_files()
    yield
    await eventually(lambda: asyncio.sleep(0, open_files() <= before))


BOTH_WAYS = pytest.mark.parametrize("connect", [by_wire, by_blocking_link])


@BOTH_WAYS
async def test_the_right_authority_and_client_certificate_are_let_in(connect, site, closed):
    """With the host name checked, as it is unless somebody says otherwise."""
    assert await connect(site.url(client=site.client)) in (b"PONG", 1)


WRONG: dict[str, tuple[Callable[[Site], str], str]] = {
    "wrong authority": (
        lambda site: site.url(ca=site.stranger.certificate, client=site.client),
        "cannot be verified.*ssl_ca_certs",
    ),
    "no authority": (
        lambda site: f"rediss://localhost:{site.port}/0?{certified(*site.client)[1:]}",
        "cannot be verified.*ssl_ca_certs",
    ),
    "wrong host name": (lambda site: site.url(host="127.0.0.1", client=site.client), "not for the host name in the URL"),
    "no client certificate": (lambda site: site.url(), "client certificate.*ssl_certfile"),
    "a stranger's": (
        lambda site: site.url(client=(site.stranger.folder / "client.crt", site.stranger.folder / "client.key")),
        "client certificate.*ssl_certfile",
    ),
}


@BOTH_WAYS
@pytest.mark.parametrize("wrong", WRONG)
async def test_who_is_not_let_in_is_told_the_repair(connect, wrong, site, closed):
    """In one sentence, whichever way it connects."""
    url_of, says = WRONG[wrong]
    if connect is by_blocking_link:
        says += "|reset by peer"  # TLS 1.3 refuses a client after it has sent its first command, and its alert may be overtaken

    with pytest.raises(ConnectionLost, match=says) as caught:
        await connect(url_of(site))

    assert "\n" not in str(caught.value)
    assert "_ssl.c" not in str(caught.value)


async def test_plain_to_a_tls_port_is_told_to_speak_tls(site, closed):
    """The server just hangs up."""
    with pytest.raises(ConnectionLost, match="rediss://"):
        await by_wire(f"redis://localhost:{site.port}/0")


async def test_tls_to_a_plain_port_is_told_to_speak_plainly(site, closed, monkeypatch):
    """The server waits for a command that never comes, so this is said when the time for connecting is over."""
    monkeypatch.setattr("streamworker.streams.wire.CONNECT_SECONDS", 0.5)

    with pytest.raises(ConnectionLost, match=r"did not answer in time; if it does not speak TLS on this port, write redis://"):
        await by_wire(f"rediss://localhost:{site.server.port}/0")


@BOTH_WAYS
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("&ssl_ca_certs=/no/such", "ssl_ca_certs .* cannot be read"),
        ("&ssl_certfile=/no/such", "ssl_certfile .* cannot be read"),
        ("&ssl_certfile={ca}", "ssl_certfile .* and its key cannot be used: .*; see that both are PEM"),
        ("&ssl_keyfile={ca}", "add ssl_certfile"),
        ("&ssl_ciphers=NONSENSE", "ssl_ciphers"),
        ("&ssl_min_version=99", "ssl_min_version .* write 771"),
        ("&ssl_cert_reqs=perhaps", "none, optional or required"),
        ("&ssl_chek_hostname=no", "not known.*ssl_check_hostname"),
    ],
)
async def test_an_option_that_cannot_be_used_is_named(connect, more, says, site, closed):
    """Before anything is sent."""
    base = f"rediss://localhost:{site.port}/0?"

    with pytest.raises(SetupError, match=says):
        await connect(base + more[1:].format(ca=site.authority.certificate))


async def test_a_worker_handles_and_renews_over_tls(site, closed):
    """Its lease keeper's own connection included."""
    ledger = Ledger()
    app = an_app(lease=timedelta(milliseconds=500))

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await asyncio.sleep(1.2)
        await ledger.note(order["n"])

    url = site.url(client=site.client)
    async with asyncio.timeout(5):
        wire = await Wire.open(Endpoint(url))
        await wire.call("XADD", "orders", "*", "n", "1", within=2)
        await wire.close()
    with structlog.testing.capture_logs() as lines:
        code = await run_burst(app, url)

    assert (0, ["1"]) == (code, ledger.seen)
    assert [] == [line for line in lines if line["event"].endswith(".failing")]


def test_a_command_says_it_in_one_line(site):
    """With the exit code of a server that cannot be reached."""
    with started(["tail", "orders"], site.url(ca=site.stranger.certificate, client=site.client)) as command:
        code, _, errors = command.end(within=20)

    assert 3 == code
    assert "name the CA that signed it" in errors
    assert 1 == errors.count("\n")


async def test_a_certificate_that_is_missing_for_a_moment_is_waited_for(site, closed, tmp_path):
    """Files are renewed under a running worker: what was good once makes a lost connection, which is tried again, and no wrong setup."""
    ca = tmp_path / "ca.crt"
    ca.write_bytes(site.authority.certificate.read_bytes())
    endpoint = Endpoint(site.url(ca=ca, client=site.client))
    await (await Wire.open(endpoint)).close()
    ca.unlink()

    with pytest.raises(ConnectionLost, match="ssl_ca_certs"):
        await Wire.open(endpoint)
    ca.write_bytes(site.authority.certificate.read_bytes())
    await (await Wire.open(endpoint)).close()
