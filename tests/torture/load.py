"""What is published: a mix of entries that a seed decides, and the publisher that notes what became of each XADD."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from random import Random

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionBroke
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TookTooLong
from redis.retry import Retry

from tests.torture import features
from tests.torture.history import Plan, Published

STREAM, GROUP = "orders", "billing"
PAYLOAD = "a-customers-own-words"
"""In every entry, and so in no log line."""

Mix = Mapping[str, float]
"""How likely each kind of entry is."""

PLAIN: Mix = {"ok": 60, "long": 5, "commit": 15, "fails-once": 7, "always-fails": 3, "reject": 3, "snooze": 3, "thread": 4}
TYPES = {"hang": "hang", "thread": "thread", "new": "new"}
"""The `_type` header of kinds that have a handler of their own."""

RAISING = (
    "base-exception", "system-exit", "keyboard-interrupt", "generator-exit", "stop-iteration", "exception-group", "own-cancel",
    "recursion", "memory", "unsayable",
)  # fmt: skip


def a_moment(random: Random) -> float:
    """How long a handler works that has no reason to take long."""
    return random.choice((0.0, 0.002, 0.005, 0.02, 0.1))


def a_plan(mix: Mix, lease: float, random: Random) -> Plan:
    """What the next entry asks for."""
    kind = random.choices([*mix], [*mix.values()])[0]
    feature = features.of_kind(kind)
    return feature.kinds[kind](lease, random) if feature else _of_ours(kind, lease, random)


def _of_ours(kind: str, lease: float, random: Random) -> Plan:
    short = a_moment(random)
    match kind:
        case "long":
            return Plan("ok", lease * random.uniform(1.2, 2.5))
        case "fails-once":
            return Plan("fails", short, failures=1)
        case "always-fails":
            return Plan("fails", short, failures=99, ends="exhausted")
        case "reject":
            return Plan(kind, short, ends="rejected")
        case "hang":
            return Plan(kind, failures=1)
        case "hang-always":
            return Plan("hang", failures=99, ends="exhausted")
        case "block":
            return Plan(kind, lease * random.uniform(1.2, 1.6))
        case _ if kind.startswith("poison"):
            return Plan(kind, 0.05, ends="crashed", kills=True)
        case _ if kind in RAISING:
            return Plan(kind, short, **random.choice(({"failures": 1}, {"failures": 99, "ends": "exhausted"})))
        case _:
            return Plan(kind, short)


def fields_of(number: int, plan: Plan) -> dict[str, str]:
    """The entry as any producer would write it."""
    fields = {"number": str(number), "kind": plan.kind, "seconds": f"{plan.seconds:.4f}", "failures": str(plan.failures)}
    fields["payload"] = f"{PAYLOAD}-{number}"
    feature = features.of_kind(plan.kind)
    return fields | ({"_type": TYPES[plan.kind]} if plan.kind in TYPES else {}) | (feature.fields(number, plan) if feature else {})


class Loader:
    """Publishes until `count` entries are acknowledged, about evenly over `seconds`, in a thread of its own; then more while told to."""

    def __init__(self, url: str, mix: Mix, lease: float, seed: int) -> None:
        self._client = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=8, socket_connect_timeout=2)
        self._mix = mix
        self._lease = lease
        self._random = Random(f"load {seed}")
        self.published: list[Published] = []
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self.finished = threading.Event()

    def publish(self, plan: Plan) -> Published:
        """Publish one, and note what came of it."""
        number = next(self._numbers)
        invoked = time.monotonic()
        entry_id = None
        try:
            entry_id = self._client.xadd(STREAM, fields_of(number, plan)).decode()
            answer = "acked"
        except ResponseError:
            answer = "refused"
        except (ConnectionBroke, TookTooLong) as error:
            answer = "refused" if "connecting to" in str(error) or "loading" in str(error).lower() else "unknown"
        entry = Published(number, plan, answer, entry_id, invoked, time.monotonic())
        self.published.append(entry)
        return entry

    def start(self, count: int, seconds: float, within: float) -> None:
        """Begin; give up after `within` seconds."""
        self._thread = threading.Thread(target=self._run, args=(count, seconds, time.monotonic() + within), daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until all is published."""
        self._thread.join()

    def stop(self) -> None:
        """Publish nothing more."""
        self._stopping.set()

    @property
    def acked(self) -> int:
        """How many were acknowledged."""
        return sum(entry.answer == "acked" for entry in self.published)

    def _run(self, count: int, seconds: float, deadline: float) -> None:
        acked, pause = 0, seconds / count
        due = time.monotonic()
        while acked < count and time.monotonic() < deadline and not self._stopping.is_set():
            entry = self.publish(a_plan(self._mix, self._lease, self._random))
            acked += entry.answer == "acked"
            due = max(due + pause, time.monotonic() - 1)  # a second's arrears are made up for, no more
            self._stopping.wait(max(0.02 if entry.answer != "acked" else 0.0, due - time.monotonic()))
        self.finished.set()
