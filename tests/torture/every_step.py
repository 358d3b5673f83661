"""Kills a worker at every step that it takes with its server, and looks what is left of its entry when another worker has been there.

A scenario is acted out once as it is, through the proxy, which lists every call to Redis on every connection. Then it is acted out anew
for each call and each of the proxy's phases, and the worker gets a SIGKILL exactly there: before the server has seen the call; when it
has executed it and nobody knows; when the reply is with the worker. A fresh worker, with the server itself, then drains the group.

The workers are real processes that run the `streamworker` command, but they are forked from one that has imported it, because an
interpreter takes a second to get there and there are hundreds of them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import redis

from streamworker.streams.keys import keys_of
from streamworker.streams.scripts import script
from tests.torture.proxy import Call, Cut, Effect, Phase, Proxy, nth
from tests.torture.resp import script_names
from tests.waiting import wait_until

GROUP = "billing"
LEASE_MS = 1000
DRAINED_WITHIN = 25.0
FIRES_WITHIN = 2.5
"""How long a scenario that has come to its end may take until a call of the idle worker is made, such as a blocked read's end."""

TRIES = 4
"""How often a run is repeated whose kill did not fire, or that the machine disturbed."""

ALIKE = 2
"""How many calls of one name with one answer are worth a kill in each phase; the third look at nothing is like the second."""


@dataclass(frozen=True)
class Step:
    """A place to kill: the `ordinal`-th time, from when the scenario looks, that a call of this name is in this phase."""

    name: str
    phase: Phase
    ordinal: int

    def __str__(self) -> str:
        return f"{self.phase.replace('_', ' ')} {self.name} #{self.ordinal}"


# ---- processes --------------------------------------------------------------------------------------------------------------

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["pytest", "streamworker.cli.main", "streamworker.cli.running", "streamworker.loading", "uvloop"])


def _live(arguments: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    sys.argv = ["streamworker", *arguments]
    from streamworker.cli.main import main

    main()


class Worker:
    """A worker's process. `multiprocessing` looks after its children whenever it starts another, so nobody looks in two threads at once."""

    _looking = threading.Lock()

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._process: BaseProcess = _forks.Process(target=_live, args=(arguments, environment, str(log)))
        with self._looking:
            self._process.start()
        self._pid: int = self._process.pid or 0

    @property
    def lives(self) -> bool:
        with self._looking:
            return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or `None` when it has none by then."""
        with suppress(AssertionError):
            wait_until(lambda: not self.lives, seconds)
        with self._looking:
            return self._process.exitcode

    def end(self) -> None:
        """Leave nothing of it."""
        if self.lives:
            self.send(signal.SIGKILL)
            self.wait(10)
        with self._looking:
            self._process.close()


class Life:
    """One acting out of a scenario: a database of its own, a victim behind a proxy, its successor, and what they leave."""

    def __init__(self, server_url: str, database: int, folder: Path, looks: Callable[[Life], None]) -> None:
        self.url = urlsplit(server_url)._replace(path=f"/{database}").geturl()
        self.folder = folder
        self.client = redis.Redis.from_url(self.url)
        self.client.flushdb()
        self.proxy = Proxy(self.url)
        self.victim: Worker | None = None
        self.entry_id = ""
        self._looks = looks
        self._workers: list[Worker] = []

    def start(self, handler: str, *options: str, role: str = "victim") -> Worker:
        """Start a worker that runs this handler; the victim speaks through the proxy."""
        url = self.proxy.url if role == "victim" else self.url
        arguments = [
            "run",
            "tests.torture.step_app:app",
            "--redis-url",
            url,
            "--handler",
            handler,
            "--log-format",
            "json",
            *options,
        ]
        environment = {"LEDGER": str(self.folder), "LEASE_MS": str(LEASE_MS), "ROLE": role}
        worker = Worker(arguments, environment, self.folder / f"{role}.log")
        self._workers.append(worker)
        if role == "victim":
            self.victim = worker
        return worker

    def add(self, stream: str) -> None:
        """The one entry of the scenario."""
        self.entry_id = self.client.xadd(stream, {"number": 7}).decode()

    def look(self) -> None:
        """From here on calls are listed, or counted until the one to kill at."""
        self._looks(self)

    def until(self, predicate: Callable[[], Any], within: float = 20.0) -> None:
        """Wait for it, or for the victim's end."""
        wait_until(lambda: (self.victim is not None and not self.victim.lives) or bool(predicate()), within)

    @property
    def is_parked(self) -> bool:
        """Whether the victim has said that it waits for entries."""
        return self.proxy.counts["XREADGROUP BLOCK"] > 0

    def ledger(self) -> list[dict[str, Any]]:
        """What the handlers noted."""
        lines = []
        for file in self.folder.glob("*.jsonl"):
            whole, _, _ = file.read_bytes().rpartition(b"\n")
            lines += [json.loads(line) for line in whole.splitlines()]
        return lines

    def notes(self, event: str) -> int:
        return sum(line["event"] == event for line in self.ledger())

    def left(self, stream: str) -> dict[str, int]:
        """What is not finished, by where it is."""
        keys = keys_of(stream, GROUP)
        pending = {}
        for key in (keys.stream, keys.retry):
            try:
                pending[f"pending in {key}"] = int(self.client.xpending(key, GROUP)["pending"])
            except redis.ResponseError:
                pending[f"pending in {key}, which has no group"] = 0
        return pending | {
            keys.retry: self.client.xlen(keys.retry),
            keys.due: self.client.zcard(keys.due),
            keys.parked: self.client.hlen(keys.parked),
        }

    def is_finished(self, stream: str) -> bool:
        """Whether the entry has come to its end."""
        ended = self.notes("done") or self.client.exists(keys_of(stream, GROUP).dead_letters)
        return bool(ended) and not any(self.left(stream).values())

    def was_disturbed(self) -> bool:
        """Whether a worker lost a lease that nobody took from it: the machine was too slow, and a second run is no surprise then."""
        logs = "".join(file.read_text() for file in self.folder.glob("*.log"))
        return '"lease.lost"' in logs

    def end(self) -> None:
        for worker in self._workers:
            worker.end()
        self.client.close()


@contextmanager
def a_life(server_url: str, database: int, folder: Path, looks: Callable[[Life], None]) -> Any:
    """A life of which nothing runs after the block."""
    folder.mkdir(parents=True)
    life = Life(server_url, database, folder, looks)
    try:
        with life.proxy:
            try:
                yield life
            finally:
                life.end()
    finally:
        life.client.close()


# ---- scenarios --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """What is acted out on `stream` with `handler`, and how its entry must end whatever is killed."""

    stream: str
    handler: str
    act: Callable[[Life, Scenario], None]
    end: Literal["done", "dead letter"] = "done"
    attempts: tuple[int, ...] = (1,)
    published: int = 0
    options: tuple[str, ...] = ()
    """What both workers are started with."""
    after: str | None = None
    """Kill only from the first call of this name on: what comes before is as in another scenario."""


def work(life: Life, scenario: Scenario) -> None:
    """The entry is there when the worker starts."""
    life.add(scenario.stream)
    life.look()
    life.start(scenario.handler, *scenario.options)
    life.until(lambda: life.is_finished(scenario.stream))


def work_that_comes(life: Life, scenario: Scenario) -> None:
    """The entry comes while the worker waits for it."""
    life.start(scenario.handler, *scenario.options)
    life.until(lambda: life.is_parked)
    life.look()
    life.add(scenario.stream)
    life.until(lambda: life.is_finished(scenario.stream))


def take_over(life: Life, scenario: Scenario) -> None:
    """The entry is pending with a worker that has died, for longer than a lease."""
    life.add(scenario.stream)
    life.client.xgroup_create(scenario.stream, GROUP, "0")
    life.client.xreadgroup(GROUP, "dead", {scenario.stream: ">"})
    life.client.xclaim(scenario.stream, GROUP, "dead", 0, [life.entry_id], idle=100 * LEASE_MS, justid=True)
    life.look()
    life.start(scenario.handler, *scenario.options)
    life.until(lambda: life.is_finished(scenario.stream))


def stop_in_flight(life: Life, scenario: Scenario) -> None:
    """SIGTERM without any grace while the entry is in flight: it must be released."""
    life.add(scenario.stream)
    victim = life.start(scenario.handler, "--grace", "0s")
    life.until(lambda: life.notes("started") and life.is_parked)
    life.look()
    victim.send(signal.SIGTERM)
    life.until(lambda: not victim.lives)


def stop_idle(life: Life, scenario: Scenario) -> None:
    """SIGTERM while nothing is there; the entry comes afterwards."""
    victim = life.start(scenario.handler)
    life.until(lambda: life.is_parked)
    life.look()
    victim.send(signal.SIGTERM)
    life.until(lambda: not victim.lives)
    life.add(scenario.stream)


def stop_while_one_comes(life: Life, scenario: Scenario) -> None:
    """SIGTERM, and just before the worker ends its blocked read, that read is answered with the entry."""
    victim = life.start(scenario.handler)
    life.until(lambda: life.is_parked)
    life.proxy.on("CLIENT UNBLOCK", "before_send", lambda call: life.add(scenario.stream), nth(1))
    life.look()
    victim.send(signal.SIGTERM)
    life.until(lambda: not victim.lives)


SCENARIOS = {
    "success": Scenario("success", "succeed", work),
    "publishing": Scenario("publishing", "publish", work_that_comes, published=1),
    "retry": Scenario("retrying", "succeed_the_second_time", work, attempts=(1, 2), after="fill"),
    "dead-letter": Scenario("hopeless", "fail_always", work, end="dead letter", attempts=(1, 2), after="fill"),
    "reclaim": Scenario("orphaned", "inherit", take_over),
    "restart": Scenario("success", "succeed", work, options=("--consumer", "one"), after="claim_name"),
    "shutdown-in-flight": Scenario("interrupted", "be_interrupted", stop_in_flight),
    "shutdown-idle": Scenario("idle", "wait_for_work", stop_idle),
    "shutdown-reading": Scenario("idle", "wait_for_work", stop_while_one_comes),
}


# ---- what must hold ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What was found when the successor had ended: `starts` are the attempts with which handlers were started, `letters` reason and
    attempts of each dead letter, `holders` the consumers that still have something pending. `exit_code` is `None` for one that hung.
    """

    exit_code: int | None
    starts: tuple[int, ...]
    done: int
    published: int
    letters: tuple[tuple[str, int], ...]
    left: dict[str, int]
    holders: tuple[str, ...]


def violations(facts: Facts, scenario: Scenario, kills: int = 1) -> list[str]:
    """Each invariant that does not hold, as a sentence. Pure."""
    wrong = []
    if facts.exit_code != 0:
        wrong.append(f"the successor {'hung' if facts.exit_code is None else f'ended with {facts.exit_code}'}")
    wrong += [f"{count} left in {where}" for where, count in facts.left.items() if count]
    wrong += [f"consumer {name} has something pending" for name in facts.holders]
    if scenario.end == "done":
        if facts.done == 0:
            wrong.append("lost: handled nowhere")
        if facts.letters:
            wrong.append(f"set aside as {facts.letters}")
    else:
        if facts.letters != (("exhausted", len(scenario.attempts)),):
            wrong.append(f"dead letters are {facts.letters}, not one after {len(scenario.attempts)} attempts")
        if facts.done:
            wrong.append("handled to success, though it cannot be")
    if facts.published != scenario.published:
        wrong.append(f"published {facts.published} times")
    if set(facts.starts) != set(scenario.attempts):
        wrong.append(f"attempts were {facts.starts}, not {scenario.attempts}")
    if len(facts.starts) > len(scenario.attempts) + kills:
        wrong.append(f"started {len(facts.starts)} times: {facts.starts}")
    return wrong


def _facts(life: Life, scenario: Scenario, exit_code: int | None) -> Facts:
    keys = keys_of(scenario.stream, GROUP)
    ledger = life.ledger()
    holders = []
    for key in (keys.stream, keys.retry):
        rows = life.client.xinfo_consumers(key, GROUP) if life.client.exists(key) else []
        holders += [row["name"].decode() for row in rows if row["pending"]]
    letters = [fields for _, fields in life.client.xrange(keys.dead_letters)]
    return Facts(
        exit_code=exit_code,
        starts=tuple(line["attempt"] for line in ledger if line["event"] == "started"),
        done=sum(line["event"] == "done" for line in ledger),
        published=life.client.xlen("invoices"),
        letters=tuple((fields[b"_dlq_reason"].decode(), int(fields[b"_dlq_attempts"])) for fields in letters),
        left=life.left(scenario.stream),
        holders=tuple(holders),
    )


# ---- runs -------------------------------------------------------------------------------------------------------------------


def load_scripts(url: str) -> None:
    """Have the server know every script, so that calls are the same whichever run comes first: EVALSHA, and never EVAL after it."""
    with redis.Redis.from_url(url) as client:
        for name in script_names().values():
            client.script_load(script(name).source)


def list_steps(server_url: str, database: int, folder: Path, scenario: Scenario) -> list[Step]:
    """Act the scenario out as it is, and list the places to kill."""
    seen: list[tuple[Call, Phase]] = []

    def listen(life: Life) -> None:
        for phase in get_args(Phase):
            life.proxy.on("*", phase, lambda call, phase=phase: seen.append((call, phase)))

    with a_life(server_url, database, folder, listen) as life:
        scenario.act(life, scenario)
        if life.victim is not None and life.victim.lives:
            # What an idle worker does belongs to it: a whole sweep, whose last calls look for names to forget, and one begun.
            looks = life.proxy.counts["XINFO CONSUMERS"]
            life.until(lambda: life.proxy.counts["XINFO CONSUMERS"] > looks + 2)
        events = list(seen)
    return places(events, scenario.after)


def places(events: list[tuple[Call, Phase]], after: str | None = None) -> list[Step]:
    """Which of the phases that calls were seen in are worth a kill. Pure."""
    ordinals: Counter[tuple[str, Phase]] = Counter()
    alike: Counter[tuple[str, Phase, bytes | None]] = Counter()
    begun = after is None
    found = []
    for call, phase in events:
        ordinals[call.name, phase] += 1
        begun = begun or call.name == after
        # Ids and times differ in what the server tells about groups; in a script's answer every number counts.
        plain = call.name.isupper() and call.reply is not None
        answer = re.sub(rb"\d+", b"0", call.reply) if plain and call.reply is not None else call.reply
        alike[call.name, phase, answer] += 1
        if begun and alike[call.name, phase, answer] <= ALIKE:
            found.append(Step(call.name, phase, ordinals[call.name, phase]))
    return found


@dataclass(frozen=True)
class Run:
    """One kill: what it broke, whether it happened at all, and how long after it the last of the entry's work was over."""

    step: Step
    fired: bool
    disturbed: bool
    broken: list[str]
    seconds: float
    folder: Path


def kill_at(server_url: str, database: int, folder: Path, scenario: Scenario, step: Step) -> Run:
    """Act the scenario out and kill the worker at this step; then have a fresh one drain the group. Again where it did not fire."""
    for number in range(TRIES):
        run = _kill_once(server_url, database, folder / f"try-{number}", scenario, step)
        if run.fired and not (run.disturbed and run.broken):
            break
    return run


def _kill_once(server_url: str, database: int, folder: Path, scenario: Scenario, step: Step) -> Run:
    def lay(life: Life) -> None:
        def kill(call: Call) -> Effect:
            if step.phase == "after_reply":
                time.sleep(
                    0.003
                )  # the proxy stands still meanwhile: the worker has its reply, and no further step reaches the server
            if life.victim is not None:
                life.victim.send(signal.SIGKILL)
            life.proxy.cut()
            return Cut()

        rules.append(life.proxy.on(step.name, step.phase, kill, nth(step.ordinal)))

    rules: list[Any] = []
    with a_life(server_url, database, folder, lay) as life:
        scenario.act(life, scenario)
        if life.victim is None or life.victim.wait(10 if rules[0].fired else FIRES_WITHIN) is None or not rules[0].fired:
            return Run(step, False, False, [], 0.0, folder)
        began = time.monotonic()
        successor = life.start(scenario.handler, *scenario.options, "--burst", role="successor")
        facts = _facts(life, scenario, successor.wait(DRAINED_WITHIN))
        return Run(step, True, life.was_disturbed(), violations(facts, scenario), time.monotonic() - began, folder)
