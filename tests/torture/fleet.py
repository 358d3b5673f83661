"""Worker processes, as a user starts them: started, killed, paused, told to drain, and started again when they die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from tests.torture import children
from tests.torture.history import Footprint, Life, Run

ROOT = Path(__file__).parents[2]
APP = "tests.torture.fleet_app:app"
LOOK = 0.02
RESTART_PAUSE = 0.1


@dataclass(frozen=True)
class Recipe:
    """How a worker is started: where its server is, with which options and environment, and from which folder's copy of the package."""

    url: str
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    package_root: Path = ROOT

    @property
    def processes(self) -> int:
        """How many handle entries: the children of a supervisor, or itself."""
        return int(self.options[self.options.index("--workers") + 1]) if "--workers" in self.options else 1


class Worker:
    """One `streamworker run`: a process, or a supervisor with its children."""

    def __init__(self, recipe: Recipe, log: Path, environment: Mapping[str, str]) -> None:
        self.recipe = recipe
        self.log = log
        self.started = time.monotonic()
        self.ended: float | None = None
        self.ordered: str | None = None
        self.ordered_at: float | None = None
        self.killed: dict[int, float] = {}
        """The children that were killed, and when."""
        command = [sys.executable, "-m", "streamworker", "run", APP, "--log-format", "json"]
        # Not among the arguments, where everybody on the machine can read the password.
        environment = {**environment, "STREAMWORKER_REDIS_URL": recipe.url, **recipe.environment}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *recipe.options],
                stdout=output,
                stderr=output,
                env=environment,
                cwd=recipe.package_root,
            )
        self.pid = self._process.pid

    def signal(self, number: signal.Signals, order: str | None = None) -> None:
        """Send a signal; `order` says that it is to end of it."""
        if order is not None and self.ordered is None:
            self.ordered, self.ordered_at = order, time.monotonic()
        self._process.send_signal(number)

    def is_ready(self) -> bool:
        """Whether it, or each of its first children, says that it reads."""
        return self.log.read_bytes().count(b'"worker.ready"') >= self.recipe.processes

    def consumers(self) -> dict[int, str]:
        """Each process that reads, or did, and its name."""
        return {line["pid"]: line["consumer"] for line in children.logged(self.log, "worker.ready")}

    def children(self) -> list[int]:
        """The processes under it that read and live, as far as is known."""
        gone = {line["pid"] for line in children.logged(self.log, "child.exited")} | set(self.killed)
        return [pid for pid in self.consumers() if pid != self.pid and pid not in gone]

    def pids(self) -> frozenset[int]:
        """Its process and all that it has started."""
        return frozenset({self.pid, *(line["pid"] for line in children.logged(self.log, "child.started"))})

    def kill_child(self, pid: int) -> None:
        """SIGKILL for one."""
        self.killed[pid] = time.monotonic()
        children.send(pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL for it and its children, as when their container ends."""
        self.signal(signal.SIGKILL, "kill")
        self.is_alive()
        for pid in children.left(self.log):
            self.kill_child(pid)

    def freeze(self, stop: bool) -> None:
        """SIGSTOP or SIGCONT for it and its children."""
        for pid in (self.pid, *children.left(self.log)):
            children.send(pid, signal.SIGSTOP if stop else signal.SIGCONT)

    def orphans(self) -> list[int]:
        """The children that live on without it."""
        return [] if self.is_alive() else [pid for pid in children.left(self.log) if not children.is_gone(pid)]

    def is_alive(self) -> bool:
        """Whether it runs; notes its end when it does not."""
        if self._process.poll() is None:
            return True
        if self.ended is None:
            self.ended = time.monotonic()
        return False

    def lives(self) -> tuple[Life, ...]:
        """What is known of it and of its children."""
        own = Life(self.pid, self.started, self.ended, self._process.returncode, self.ordered, self.ordered_at, self.is_ready())
        return (own, *children.lives(self.log, self.killed, self.ordered_at))

    def footprints(self) -> dict[str, Footprint]:
        """What each of its processes has open now, by the consumer's name; those that are gone are left out."""
        consumers = self.consumers()
        names = {pid: consumers.get(pid, "") for pid in (self.pid, *self.children())}
        found = {name: footprint_of(pid, "worker" if name else "supervisor") for pid, name in names.items()}
        return {name: one for name, one in found.items() if one is not None}


class Fleet:
    """The workers of a run. While it is kept up, one that dies is followed by another of the same recipe."""

    def __init__(self, folder: Path, lease: float) -> None:
        self.folder = folder
        """Where all that its processes note lies."""
        self._environment = os.environ | {
            "TORTURE_LEDGER": str(folder),
            "TORTURE_LEASE_MS": str(round(lease * 1000)),
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.workers: list[Worker] = []
        self.alive: list[Worker] = []
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name="torture-fleet", daemon=True)

    def start(self, recipe: Recipe, *, ready: bool = True, kept_up: bool = True, within: float = 30.0) -> Worker:
        """Start a worker, and wait until it reads. One that is not `kept_up` is not followed by another."""
        with self._lock:
            worker = Worker(recipe, self.folder / f"worker-{len(self.workers)}.log", self._environment)
            self.workers.append(worker)
            if kept_up:
                self.alive.append(worker)
        deadline = time.monotonic() + within
        while ready and not worker.is_ready():
            if time.monotonic() > deadline or not worker.is_alive():
                raise AssertionError(f"a worker did not get ready: {worker.log.read_text()[-2000:]}")
            time.sleep(LOOK)
        return worker

    def start_all(self, recipes: Sequence[Recipe]) -> None:
        """Start one of each at the same time, wait for all, and keep them up from now on."""
        started = [self.start(recipe, ready=False) for recipe in recipes]
        self.wait_ready(started)
        self._keeper.start()

    def wait_ready(self, workers: Sequence[Worker], within: float = 40.0) -> None:
        """Wait until these read."""
        deadline = time.monotonic() + within
        while not all(worker.is_ready() for worker in workers):
            if time.monotonic() > deadline or not all(worker.is_alive() for worker in workers):
                raise AssertionError(f"workers did not get ready: {[worker.log.read_text()[-1500:] for worker in workers]}")
            time.sleep(LOOK)

    def ready_ones(self) -> list[Worker]:
        """Those that read at the moment, as far as is known."""
        with self._lock:
            return [worker for worker in self.alive if worker.ordered is None and worker.is_alive() and worker.is_ready()]

    def any_ready(self, random: Random, within: float = 30.0) -> Worker:
        """One of those that read; waits for one."""
        deadline = time.monotonic() + within
        while not (ready := self.ready_ones()):
            if time.monotonic() > deadline:
                raise AssertionError("no worker gets ready")
            time.sleep(LOOK)
        return random.choice(ready)

    def kill(self, worker: Worker) -> None:
        """SIGKILL, for a supervisor's children too."""
        worker.kill_all()

    def retire(self, worker: Worker, within: float = 30.0) -> None:
        """Tell it to drain, and wait for its end. It is not followed by another."""
        with self._lock:
            if worker in self.alive:
                self.alive.remove(worker)
        worker.signal(signal.SIGTERM, "term")
        deadline = time.monotonic() + within
        while worker.is_alive() and time.monotonic() < deadline:
            time.sleep(LOOK)

    def replace(self, worker: Worker, recipe: Recipe | None = None) -> Worker:
        """As a rolling deploy does: the new one first, then the old one drains."""
        successor = self.start(worker.recipe if recipe is None else recipe)
        self.retire(worker)
        return successor

    def retire_all(self) -> None:
        """Tell all to drain, and wait for their ends."""
        self._over.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        with self._lock:
            rest = [worker for worker in self.alive if worker.is_alive()]
            self.alive.clear()
        for worker in rest:
            worker.signal(signal.SIGTERM, "term")
        deadline = time.monotonic() + 40
        while any(worker.is_alive() or worker.orphans() for worker in self.workers) and time.monotonic() < deadline:
            time.sleep(LOOK)

    def end(self) -> None:
        """Whatever still runs is killed."""
        self._over.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        for worker in self.workers:
            if worker.is_alive() or worker.orphans():
                worker.kill_all()
        for worker in self.workers:
            while worker.is_alive() or worker.orphans():
                time.sleep(LOOK)

    def _keep_up(self) -> None:
        while not self._over.wait(LOOK):
            with self._lock:
                dead = [worker for worker in self.alive if not worker.is_alive()]
                self.alive = [worker for worker in self.alive if worker not in dead]
            if dead:
                self._over.wait(RESTART_PAUSE)
            for worker in dead:
                if not self._over.is_set():
                    self.start(worker.recipe, ready=False)

    # ---- what they noted ----------------------------------------------------------------------------------------------------

    def runs(self) -> tuple[Run, ...]:
        """The handlers' own account."""
        runs: list[Run] = []
        for file in self.folder.glob("*.jsonl"):
            runs += runs_in(file.read_bytes(), int(file.stem))
        return tuple(sorted(runs, key=lambda run: run.started))

    def log_lines(self) -> Iterator[str]:
        """What all of them logged."""
        for worker in self.workers:
            yield from worker.log.read_text(errors="replace").splitlines()


def footprint_of(pid: int, what: str) -> Footprint | None:
    """What a process has open now; None when it is gone."""
    proc = Path("/proc") / str(pid)
    try:
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        files = len(list((proc / "fd").iterdir()))
        return Footprint(f"{what} {pid}", files, int(status["Threads"]), int(status["VmRSS"].split()[0]))
    except (OSError, KeyError):
        return None  # a process that has ended and is still listed has no memory


def runs_in(ledger: bytes, pid: int) -> list[Run]:
    """The runs that one process noted. A last line without its end was cut off by a kill, or is being written."""
    whole, _, _ = ledger.rpartition(b"\n")
    open_runs: dict[tuple[str, int], list[int]] = {}
    runs: list[Run] = []
    for line in whole.splitlines():
        noted = json.loads(line)
        at, key = noted["at"] / 1e9, (noted["id"], noted["attempt"])
        if noted["event"] == "started":
            open_runs.setdefault(key, []).append(len(runs))
            runs.append(Run(noted["number"], noted["id"], pid, noted["attempt"], noted["crashes"], at))
        elif noted["event"] == "crashed" and not open_runs.get(key):
            # It died before it could note its start, or after its end.
            runs.append(Run(noted["number"], noted["id"], pid, noted["attempt"], noted["crashes"], at, at, "crashed"))
        else:
            position = open_runs[key].pop(0)
            runs[position] = replace(runs[position], ended=at, end=noted["event"])
    return runs


@contextmanager
def a_fleet(folder: Path, lease: float) -> Iterator[Fleet]:
    """A fleet that is gone at the end of the block."""
    fleet = Fleet(folder, lease)
    try:
        yield fleet
    finally:
        fleet.end()


def until(fact: Callable[[], object], within: float, what: str) -> None:
    """Look until it holds."""
    deadline = time.monotonic() + within
    while not fact():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within:g} s: {what}")
        time.sleep(LOOK)
