"""A URL is shown without its secrets, however wrong it is, and a file that gives it is read anew."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamworker import StreamWorker
from streamworker.errors import ConnectionLost, SetupError, StreamWorkerError
from streamworker.settings import Settings
from streamworker.streams.connections import Endpoint
from streamworker.streams.urls import holds_secret, redacted
from streamworker.streams.wire import Wire

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:s3cr3t@localhost:6379/0", "redis://***@localhost:6379/0"),
        ("rediss://:s3cr3t@redis.internal/1?ssl_password=s3cr3t", "rediss://***@redis.internal/1"),
        ("redis://localhost/0?password=s3cr3t&username=me", "redis://localhost/0"),
        ("redis://:p@s3cr3t@localhost", "redis://***@localhost"),
        ("redis://:12/s3cr3t@localhost", "redis://***"),
        ("redis://:12?s3cr3t@localhost", "redis://***"),
        ("redis://:12#s3cr3t@localhost", "redis://***"),
        ("redis://localhost:s3cr3t", "<unreadable URL>"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://[s3cr3t", "<unreadable URL>"),
        ("redis://localhost:6379/s3cr3t", "redis://localhost:6379"),
        ("redis:user:s3cr3t@localhost", "<unreadable URL>"),
        ("user:s3cr3t@localhost:6379", "<unreadable URL>"),
        ("s3cr3t", "<unreadable URL>"),
        ("", "<unreadable URL>"),
        ("http://user:s3cr3t@localhost", "<unreadable URL>"),
        ("unix:///run/redis.sock?password=s3cr3t", "unix:///run/redis.sock"),
        ("unix://me:s3cr3t@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("unix://me:s3cr3t@run/redis.sock", "unix://***"),
        ("redis://local\x1bhost/0", "redis://***"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """Where a part may hold some of the password, it is not shown either."""
    assert shown == redacted(url)
    assert SECRET not in shown


def renderings(url: str) -> str:
    """Everything that is said of a URL by whoever meets it: settings, application, endpoint, and each exception with its traceback."""
    settings = Settings.load({"REDIS_URL": url}, {}, {})
    endpoint = Endpoint(settings.read_redis_url, client_name="x")
    app = StreamWorker(redis_url=url, settings=settings)
    texts = [repr(settings), str(settings), settings.model_dump_json(), repr(endpoint), str(endpoint), f"{app!r}{app.settings()!r}"]
    for made in (Endpoint(url).connection, lambda: Endpoint(url).blocking_connection(0.1)):
        try:
            made()
        except StreamWorkerError as error:
            texts += traceback.format_exception(error)
    texts += traceback.format_exception(asyncio.run(trouble_of(url)))
    return "\n".join(texts)


async def trouble_of(url: str) -> BaseException | None:
    try:
        wire = await Wire.open(Endpoint(url))
    except StreamWorkerError as error:
        return error
    await wire.close()
    return None


BEGINNING, END = "Zq", "Xw"
PASSWORDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20).map(
    lambda middle: f"{BEGINNING}{middle}{END}"
)
FORMS = [
    "redis://user:{}@127.0.0.1:1/0",
    "redis://:{}@127.0.0.1:1",
    "rediss://:{}@127.0.0.1:1/0?ssl_cert_reqs=none",
    "redis://127.0.0.1:1/0?username=user&password={}",
    "redis://127.0.0.1:{}/0",
    "unix://user:{}@/no/such/socket",
    "unix:///no/such/socket?password={}",
    "redis://user:{}@127.0.0.1:1/0?nonsense=1",
    "redis://user:{}@127.0.0.1:1/0?db=x",
    "redis://user:{}@127.0.0.1:wrong/0",
    "http://user:{}@127.0.0.1:1/0",
    "user:{}@127.0.0.1:1",
]


@given(st.sampled_from(FORMS), PASSWORDS, st.booleans())
@example("redis://user:{}@127.0.0.1:1/0", "Zq1/2?3#4Xw", False)
@example("redis://:12/{}@127.0.0.1:1/0", "ZqXw", False)
@example("redis://user:{}@127.0.0.1:1/0", "Zq@1:%40Xw", True)
@example("redis://127.0.0.1:{}/0", "Zq@%Xw", False)
def test_nothing_that_is_said_of_a_url_holds_the_password(form: str, password: str, encoded: bool) -> None:
    """Written as it is, or percent-encoded as it should be; in every form of URL, right or wrong."""
    written = quote(password, safe="") if encoded else password
    said = renderings(form.format(written))

    assert BEGINNING not in said
    assert END not in said


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", False),
        ("redis://user@localhost", False),
        ("redis://user:x@localhost", True),
        ("redis://:x@localhost", True),
        ("redis://localhost?password=x", True),
        ("redis://localhost?db=1&password=x", True),
        ("rediss://localhost?ssl_ca_certs=/etc/ca.pem", False),
        ("rediss://localhost?ssl_password=x", True),
    ],
)
def test_it_is_known_whether_a_url_holds_a_password(url: str, expected: bool) -> None:
    """The command line warns of it among the arguments."""
    assert expected == holds_secret(url)


# ---- a URL from a file -----------------------------------------------------------------------------------------------------------


def a_file(path: Path, url: str) -> Settings:
    path.write_text(f"{url}\n")
    return Settings.load({"REDIS_URL_FILE": str(path)}, {}, {})


def test_a_file_is_read_anew_for_each_connection(tmp_path: Path) -> None:
    """So that a rotated password is taken up."""
    settings = a_file(tmp_path / "url", "redis://:one@localhost")
    endpoint = Endpoint(settings.read_redis_url)
    first = endpoint.connection()
    (tmp_path / "url").write_text("redis://:two@localhost")
    second = endpoint.blocking_connection(1.0)

    assert ("one", "two") == (first.password, second.password)


@pytest.mark.parametrize("change", ["gone", "empty", "nonsense", "half"])
def test_while_the_file_is_of_no_use_the_last_good_url_stands(change: str, tmp_path: Path) -> None:
    """Somebody may be writing it just now; a worker does not stop for it."""
    file = tmp_path / "url"
    endpoint = Endpoint(a_file(file, "redis://:one@localhost").read_redis_url)
    endpoint.connection()
    file.unlink() if change == "gone" else file.write_text(
        {"empty": "", "nonsense": "s3cr3t", "half": "redis://:tw@host:pa"}[change]
    )

    assert "one" == endpoint.connection().password
    file.write_text("redis://:two@localhost")
    assert "two" == endpoint.connection().password


def test_a_file_of_no_use_from_the_beginning_is_wrong_setup(tmp_path: Path) -> None:
    """There is no last good one."""
    with pytest.raises(SetupError, match="cannot use"):
        Endpoint(a_file(tmp_path / "url", "nonsense").read_redis_url).connection()


def test_what_wins_over_the_file_is_not_read_from_it(tmp_path: Path) -> None:
    """A flag and an argument of the program do."""
    file = tmp_path / "url"
    file.write_text("redis://file")

    assert "redis://flag" == Settings.load({"REDIS_URL_FILE": str(file)}, {"redis_url": "redis://flag"}, {}).read_redis_url()
    assert "redis://ours" == Settings.load({"REDIS_URL_FILE": str(file)}, {}, {"redis_url": "redis://ours"}).read_redis_url()


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis://localhost:6379/1x", "redis://localhost:6379 as Redis URL: its database is not a number"),
        ("redis://localhost:6379/x", "its database is not a number"),
        ("localhost:6379", "it does not begin with redis://"),
        ("redis://localhost:6379/1/2", "its database is not a number"),
        ("redis://localhost:6379?db=abc", "its database is not a number"),
        ("redis://localhost:6379?db=", "its database is not a number"),
        ("redis://localhost:6379/1?db=2", "it names two databases"),
        ("unix:///run/redis.sock?db=abc", "its database is not a number: write it as \\?db=1"),
        ("redis://localhost:99999/0", "redis://localhost:99999/0 as Redis URL: its port 99999 is none"),
        ("redis://localhost:0/0", "its port 0 is none"),
        ("redis://:12?s3cr3t@localhost", "in a password, write"),
        ("redis://:12/s3cr3t@localhost", "in a password, write"),
    ],
)
def test_what_would_lead_elsewhere_is_refused(url: str, fault: str) -> None:
    """Not taken for database 0 or another port: what is wrong is named."""
    with pytest.raises(SetupError, match=fault):
        Endpoint(url).connection()


@pytest.mark.parametrize(
    ("url", "database"), [("redis://h", 0), ("redis://h/", 0), ("redis://h/3", 3), ("redis://h/3/", 3), ("redis://h?db=4", 4)]
)
def test_a_database_is_a_number(url: str, database: int) -> None:
    """In the path, or in the query."""
    assert database == Endpoint(url).connection().db


@pytest.mark.parametrize(
    "option",
    [
        "host=other",
        "port=7",
        "path=/s",
        "connection_class=x",
        "credential_provider=x",
        "parser_class=x",
        "encoding=utf-16",
        "nonsense=1",
        "retry=x",
    ],
)
def test_an_option_that_is_not_known_is_refused(option: str) -> None:
    """And not handed on to a library that would fall over it in the middle of connecting."""
    with pytest.raises(SetupError, match="an option that is not known"):
        Endpoint(f"redis://localhost/0?{option}").connection()


@pytest.mark.parametrize("option", ["decode_responses=yes", "protocol=3", "socket_timeout=0.001", "max_connections=1"])
def test_an_option_that_would_change_how_we_read_is_left_out(option: str) -> None:
    """Replies are bytes in RESP2 shape, and every wait is ours."""
    connection = Endpoint(f"redis://localhost/0?{option}").connection()

    assert (2, None, False) == (connection.protocol, connection.socket_timeout, connection.encoder.decode_responses)


def test_a_consumers_name_is_made_fit_for_the_server() -> None:
    """CLIENT SETNAME takes visible ASCII only, and a refusal would keep the worker out."""
    assert "streamworker:w_rker__1" == Endpoint("redis://localhost", client_name="streamworker:wörker\n 1").connection().client_name


def test_our_errors_have_no_cause_that_quotes_the_url() -> None:
    """The library's text may."""
    with pytest.raises(SetupError) as caught:
        Endpoint("redis://host:s3cr3t/0").connection()

    assert caught.value.__suppress_context__
    assert not isinstance(caught.value, ConnectionLost)
