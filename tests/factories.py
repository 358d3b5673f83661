"""Values for tests: each factory gives a sound one, and takes by keyword what a test is about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from streamworker.codecs import codec_named
from streamworker.codecs.base import Decoder
from streamworker.codecs.dead_letters import Obituary
from streamworker.delivery import Delivery, Entry, Fields, History, Lease, Outgoing, Reason
from streamworker.handlers import Context, Handler, Middleware, choose_executor, name_of, read_signature
from streamworker.policies import DeadLetterPolicy, RetryPolicy
from streamworker.streams.keys import keys_of
from streamworker.streams.reading import Taken
from streamworker.worker.bindings import Binding
from streamworker.worker.executor import Executor

AN_ENTRY_ID = "1700000000000-0"
A_MOMENT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SOME_FIELDS = [b"order_id", b"7"]


def a_lease(**changes: Any) -> Lease:
    """A lease of an entry of `orders`, held by `worker-1`."""
    given = {"key": "orders", "entry_id": AN_ENTRY_ID, "consumer": "worker-1", "turn": 1, "renewed_at": 0.0}
    return Lease(**{**given, **changes})


def a_delivery(
    *,
    id: str = AN_ENTRY_ID,  # noqa: A002  # the delivery's own word
    stream: str = "orders",
    group: str = "billing",
    consumer: str = "worker-1",
    fields: Fields | None = None,
    lease: Lease | None = None,
    **history: Any,
) -> Delivery:
    """A delivery of `orders` to `billing`; `attempt=`, `crashes=` and the like make its history."""
    given = list(SOME_FIELDS) if fields is None else fields
    return Delivery(
        id=id,
        stream=stream,
        group=group,
        consumer=consumer,
        fields=given,
        history=History(**history),
        lease=a_lease(key=stream, entry_id=id, consumer=consumer) if lease is None else lease,
        size=sum(map(len, given)),
    )


async def do_nothing(body: dict[str, str]) -> None:
    """The handler that succeeds."""


def a_handler(function: Callable[..., Any] = do_nothing, *, decode: Decoder | None = None, **changes: Any) -> Handler:
    """A handler of `orders` in `billing` around `function`, which is read as a registration would."""
    codec = codec_named("fields")
    signature = read_signature(function)
    given = {
        "name": name_of(function),
        "function": function,
        "body_type": signature.body_type,
        "wants_context": signature.wants_context,
        "decode": codec.decoder(signature.body_type) if decode is None else decode,
        "streams": ("orders",),
        "group": "billing",
        "type": None,
        "concurrency": None,
        "timeout": None,
        "retry": RetryPolicy(),
        "dead_letter": DeadLetterPolicy(),
        "executor": choose_executor(function),
        "start": "earliest",
        "codec": codec,
    }
    return Handler(**{**given, **changes})


def a_publish(stream: str, body: Any, **options: Any) -> Outgoing:
    """What a context encodes with, without a program behind it."""
    return Outgoing(stream, codec_named("fields").encode(body, {}), options.get("max_length"))


def an_executor(*, middleware: Sequence[Middleware] = (), state: Mapping[str, Any] | None = None, threads: int = 2) -> Executor:
    """An executor that knows no program; `shut_down` ends it."""
    return Executor(middleware, {} if state is None else state, a_publish, threads)


def a_context(function: Callable[..., Awaitable[Any]] = do_nothing, **history: Any) -> Context:
    """A context as a handler gets it."""
    return Context(a_delivery(**history), a_handler(function), {}, {}, a_publish)


def a_taken(*, key: str = "orders", entry_id: str = AN_ENTRY_ID, fields: Fields | None = None, count: int = 1) -> Taken:
    """An entry as it came from the server."""
    return Taken(key, Entry(entry_id, list(SOME_FIELDS) if fields is None else fields), count)


def a_binding(stream: str = "orders", *handlers: Handler, group: str = "billing", log: Any = None) -> Binding:
    """A stream that can be read, with its handlers by type; one that does nothing where none is given."""
    chosen = handlers if handlers else (a_handler(streams=(stream,), group=group),)
    routes = {handler.type: handler for handler in chosen}
    return Binding(keys_of(stream, group), group, "earliest", routes, Recorder() if log is None else log, ready=True)


def an_obituary(**changes: Any) -> Obituary:
    """Why a delivery ended as a dead letter."""
    given = {
        "reason": Reason.EXHAUSTED,
        "handler": "charge",
        "error": "ValueError: no",
        "traceback": "Traceback (most recent call last):\nValueError: no",
        "failed_at": A_MOMENT,
        "version": "1.2.3",
    }
    return Obituary(**{**given, **changes})


class Recorder:
    """A log that keeps its lines: level, event and facts."""

    def __init__(self, lines: list[tuple[str, str, dict[str, Any]]] | None = None, **bound: Any) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = [] if lines is None else lines
        self._bound = bound

    def bind(self, **facts: Any) -> Recorder:
        return Recorder(self.lines, **{**self._bound, **facts})

    def debug(self, event: str, **facts: Any) -> None:
        self._say("debug", event, facts)

    def info(self, event: str, **facts: Any) -> None:
        self._say("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        self._say("warning", event, facts)

    def error(self, event: str, **facts: Any) -> None:
        self._say("error", event, facts)

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.lines]

    def _say(self, level: str, event: str, facts: dict[str, Any]) -> None:
        self.lines.append((level, event, {**self._bound, **facts}))


class Clock:
    """Monotonic seconds that pass only when told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by.total_seconds()


class LoopTime:
    """The running loop's time, which can be put forward: whatever is due by then happens at the loop's next turn."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._real = loop.time
        self._ahead = 0.0
        loop.time = self._now  # type: ignore[method-assign]

    def advance(self, by: timedelta) -> None:
        self._ahead += by.total_seconds()

    def _now(self) -> float:
        return self._real() + self._ahead
