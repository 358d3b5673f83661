"""The server that all contenders of a run meet, the entries that lie there, and the processes that come and take them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, cast

import redis

from tests import servers
from tests.benchmarks.contenders.orders import order
from tests.benchmarks.places import CONTENDERS, Setup

SLOWEST = 180.0
"""Seconds after which a contender has failed."""
ACKNOWLEDGED_WITHIN = 5.0
STARTED_WITHIN = 20.0
LOT = 500
FILL = """
local width = tonumber(ARGV[1])
for first = 2, #ARGV, width do redis.call('XADD', KEYS[1], '*', unpack(ARGV, first, first + width - 1)) end
"""
OWN_COMMANDS = (
    "cmdstat_info",
    "cmdstat_config|resetstat",
    "cmdstat_xinfo|groups",
    "cmdstat_xinfo|stream",
    "cmdstat_xinfo|consumers",
)


def _wait(condition: Callable[[], bool], within: float, trouble: str) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{trouble} after {within:.0f} s")
        time.sleep(0.005)


def _flat(body: Mapping[str, Any], codec: str) -> Iterator[Any]:
    if codec == "json":
        return iter(("data", json.dumps(body, separators=(",", ":"))))
    return (word for pair in body.items() for word in pair)


class Failed(Exception):
    """A contender did not do its work; the text ends with what it wrote."""


class Stage:
    """One server, and who is run against it. The server has the first core and contenders the others, where there are two and `pinned`."""

    def __init__(self, server: servers.EmbeddedServer, pinned: bool) -> None:
        self.url = server.url
        self.port = server.port
        self.name = server.name
        self.client = redis.Redis.from_url(server.url)
        self._numbers = count()
        self._cores: set[int] | None = None
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if pinned and len(cores) > 1:
            self._servers_cores, self._cores = set(cores[:1]), set(cores[1:])
            os.sched_setaffinity(server.pid, self._servers_cores)

    def take_place(self) -> None:
        """Move the calling process to where contenders run."""
        if self._cores is not None:
            os.sched_setaffinity(0, self._cores)

    def clear(self, database: int = 0) -> None:
        """Forget everything in a database."""
        with redis.Redis(port=self.port, db=database) as client:
            client.flushdb()

    def take_servers_place(self) -> None:
        """Move the calling process to the server's core."""
        if self._cores is not None:
            os.sched_setaffinity(0, self._servers_cores)

    def stock(self, codec: str, number: int, name: str = "orders") -> str:
        """The name of a stream that holds so many orders."""
        stream = f"{name}-{codec}-{number}"
        if not self.client.exists(stream):
            self.fill(stream, codec, number)
        return stream

    def fill(self, stream: str, codec: str, number: int, first: int = 0) -> None:
        """Add so many orders, many in one command."""
        add = self.client.register_script(FILL)
        for start in range(0, number, LOT):
            lot = [list(_flat(order(first + start % 10_000 + offset), codec)) for offset in range(min(LOT, number - start))]
            add(keys=[stream], args=[len(lot[0]), *(word for body in lot for word in body)])

    @contextmanager
    def group(self, *streams: str) -> Iterator[str]:
        """A consumer group that has read nothing of the streams yet."""
        group = f"group-{next(self._numbers)}"
        for stream in streams:
            self.client.xgroup_create(stream, group, "0", mkstream=True)
        yield group
        for stream in streams:
            self.client.xgroup_destroy(stream, group)

    @contextmanager
    def sender(self, setup: Setup, asked: Mapping[str, Any]) -> Iterator[Contender]:
        """A process that sends `count` entries at a `pace`, on the server's side of the machine's cores."""
        with self.contender([str(setup.python), str(CONTENDERS / "sending.py")], asked, place=self.take_servers_place) as sender:
            yield sender

    def wait_for_acknowledgements(self, streams: Sequence[str], group: str) -> None:
        """Wait until nothing is pending. Raises `Failed`."""
        for stream in streams:
            _wait(lambda: self._state(stream, group)["pending"] == 0, ACKNOWLEDGED_WITHIN, "entries stay pending")  # noqa: B023

    def wait_until_all_is_done(self, stream: str, group: str) -> None:
        """Wait until the group has read all and nothing is pending. Raises `Failed`."""

        def is_done() -> bool:
            state = self._state(stream, group)
            return state["last-delivered-id"] == last and state["pending"] == 0

        last = cast("Mapping[str, Any]", self.client.xinfo_stream(stream))["last-generated-id"]
        _wait(is_done, SLOWEST, "it is not done")

    def wait_for_reader(self) -> None:
        """Wait until somebody waits for entries. Raises `Failed`."""
        _wait(lambda: cast("Mapping[str, int]", self.client.info("clients"))["blocked_clients"] > 0, STARTED_WITHIN, "nobody reads")

    def wait_for_client(self) -> None:
        """Wait until somebody else is connected. Raises `Failed`."""
        _wait(
            lambda: cast("Mapping[str, int]", self.client.info("clients"))["connected_clients"] > 1, STARTED_WITHIN, "nobody comes"
        )

    def _state(self, stream: str, group: str) -> Mapping[str, Any]:
        rows = cast("Sequence[Mapping[str, Any]]", self.client.xinfo_groups(stream))
        return next(row for row in rows if row["name"] == group.encode())

    def watch(self) -> Watch:
        """Look at the server's and the machine's CPU from now on."""
        return Watch(self)

    def server_cpu(self) -> float:
        """Seconds of CPU that the server has used."""
        used = cast("Mapping[str, float]", self.client.info("cpu"))
        return used["used_cpu_user"] + used["used_cpu_sys"]

    def commands(self) -> int:
        """How many commands the server has carried out since `forget_commands`, but for the suite's own."""
        stats = cast("Mapping[str, Mapping[str, int]]", self.client.info("commandstats"))
        return sum(of["calls"] for name, of in stats.items() if name not in OWN_COMMANDS)

    @contextmanager
    def contender(
        self,
        command: Sequence[str],
        asked: Mapping[str, Any],
        path: Sequence[Path] = (),
        extra: Mapping[str, str] | None = None,
        place: Callable[[], None] | None = None,
    ) -> Iterator[Contender]:
        """A running process that was told what is `asked`, with `path` before its own imports; stopped with the `with` block.

        `extra` are further variables of its environment; `place` moves it to its cores.
        """
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            pipe = Path(folder) / "report"
            os.mkfifo(pipe)
            words = {"url": self.url, "port": self.port, "report": str(pipe), **asked}
            environment = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMWORKER_", "REDIS_"))}
            environment["PYTHONPATH"] = os.pathsep.join(map(str, (*path, CONTENDERS)))
            environment |= {} if extra is None else extra
            environment["BENCHMARK"] = json.dumps(words)
            with (Path(folder) / "output").open("w+") as output:
                process = subprocess.Popen(
                    list(command),
                    env=environment,
                    cwd=folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=self.take_place if place is None else place,
                )
                contender = Contender(process, pipe, Path(output.name))
                try:
                    yield contender
                finally:
                    contender.stop()


class Watch:
    """What was used of the CPU while something was measured."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._server, self._machine, self._time = stage.server_cpu(), _busy(), time.perf_counter()

    def costs(self, entries: int, worker_cpu: float) -> dict[str, float]:
        """Of an entry, in microseconds; and what share of a core everybody else on the machine had, in percent."""
        server, wall = self._stage.server_cpu() - self._server, time.perf_counter() - self._time
        others = max(0.0, _busy() - self._machine - server - worker_cpu) / wall * 100
        return {
            "worker_us": worker_cpu / entries * 1e6,
            "server_us": server / entries * 1e6,
            "server_busy": server / wall * 100,
            "others_busy": others,
        }


def _busy() -> float:
    """Seconds of CPU that the machine has spent on anything; 0 where it does not say."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, soft = map(int, words[1:8])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


class Contender:
    """A process under measurement, and what it tells through its pipe."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: Path, output: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._output = output
        self._pipe = os.open(pipe, os.O_RDWR)  # for writing too, or its end would be seen between two reports
        self._text = b""

    def next(self, event: str, within: float = SLOWEST) -> dict[str, Any]:
        """What it tells next, which must be that event. Raises `Failed`."""
        deadline = time.monotonic() + within
        while b"\n" not in self._text:
            if self._process.poll() is not None and not select.select([self._pipe], [], [], 0)[0]:
                raise Failed(f"it ended with {self._process.returncode}: {self.output()[-1500:]}")
            if time.monotonic() > deadline:
                raise Failed(f"it has not come to its {event!r} within {within:.0f} s: {self.output()[-1500:]}")
            if select.select([self._pipe], [], [], 0.2)[0]:
                self._text += os.read(self._pipe, 1 << 20)
        line, _, self._text = self._text.partition(b"\n")
        fact = cast("dict[str, Any]", json.loads(line))
        if fact["event"] != event:
            raise Failed(f"it told {fact['event']!r} instead of {event!r}")
        return fact

    def resident_mb(self) -> float:
        """What it holds in memory, in millions of bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        words = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self, within: float) -> None:
        """Wait until it ends by itself. Raises `Failed`."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise Failed(f"it does not end within {within:.0f} s: {self.output()[-500:]}") from None

    def output(self) -> str:
        """What it has written."""
        return self._output.read_text(errors="replace")

    def stop(self) -> None:
        """Let it end in its own way, and then in ours."""
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            if self._process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
        with suppress(OSError):
            os.close(self._pipe)


@contextmanager
def stage(kind: str, pinned: bool) -> Iterator[Stage]:
    """A stage with a server of its own."""
    with servers.start(kind, extra_args=["--maxmemory-policy", "noeviction"]) as server:
        yield Stage(server, pinned)
