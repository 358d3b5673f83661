"""`StreamWorker`: where a program registers its handlers, and publishes."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from secrets import token_hex
from typing import Any, Literal, TypeAlias, TypeVar, Unpack, get_args, overload

from streamworker.batching import BatchHandlers
from streamworker.codecs import Codec, codec_named
from streamworker.codecs.dead_letters import MOST_VALUES
from streamworker.codecs.replies import read_reply
from streamworker.connected import Connected
from streamworker.delivery import Outgoing, PublishOptions
from streamworker.errors import EncodeError, SetupError
from streamworker.handlers import (
    Handler,
    HandlerFunction,
    HandlerOptions,
    Middleware,
    OnGroupLost,
    is_async,
    name_of,
    read_signature,
)
from streamworker.listeners import Listeners
from streamworker.outgoing import check_stream, encode_many, encode_outgoing, encode_request, packed_many
from streamworker.pausing import Pausing
from streamworker.policies import LONGEST_DELAY, DeadLetterPolicy, RetryPolicy
from streamworker.posting import PLAIN, Posting, Posts, SendOptions, split
from streamworker.program import Program
from streamworker.registration import checked, keep, make_handler, need_stream, retain
from streamworker.retention import Retention
from streamworker.schedules import Schedules
from streamworker.settings import ONLY_OUTSIDE, Settings
from streamworker.stream import Stream
from streamworker.streams.connections import Endpoint
from streamworker.sync_publisher import SyncPublisher

Body = TypeVar("Body")
Function = TypeVar("Function", bound=HandlerFunction)
MiddlewareFunction = TypeVar("MiddlewareFunction", bound=Middleware)
Lifespan: TypeAlias = Callable[["StreamWorker"], AbstractAsyncContextManager[Mapping[str, Any] | None]]

SLICE = 200
"""Entries that are encoded before the loop is handed back."""

SHORTEST_LEASE = timedelta(milliseconds=200)


class StreamWorker(BatchHandlers, Listeners, Schedules, Pausing, Connected):
    """A program's handlers and policies, and its way to publish.

    `group` is the default consumer group of the handlers, `retry` and `dead_letter` their default policies, `lease` how long a
    delivery may go unrenewed before another worker takes it over. `on_group_lost` says where a group that has vanished is made again:
    where it was, as far as this worker knows (`"resume"`), at the first entry, at the end, or not at all, and then the worker stops.
    `retention` says, by stream, what of it is not kept. `lifespan` is an async context manager around the worker's life; what it yields
    is `ctx.state`. `redis_url` and `settings` given here win over the command line and the environment.

    Raises `SetupError` with the repair for every wrong argument.
    """

    def __init__(  # the whole of an application's configuration, by keyword
        self,
        name: str | None = None,
        *,
        redis_url: str | None = None,
        group: str | None = None,
        retry: RetryPolicy | None = None,
        dead_letter: DeadLetterPolicy | None = None,
        lease: timedelta = timedelta(seconds=30),
        on_group_lost: OnGroupLost = "resume",
        lifespan: Lifespan | None = None,
        codec: Literal["fields", "json"] | Codec = "fields",
        retention: Mapping[str, Retention] | None = None,
        settings: Settings | None = None,
    ) -> None:
        if not isinstance(lease, timedelta) or lease < SHORTEST_LEASE:
            raise SetupError(f"lease is a timedelta of at least {SHORTEST_LEASE / timedelta(milliseconds=1):.0f} ms, not {lease!r}")
        if on_group_lost not in get_args(OnGroupLost):
            raise SetupError(f"on_group_lost is one of {', '.join(map(repr, get_args(OnGroupLost)))}, not {on_group_lost!r}")
        if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
            raise SetupError("lifespan is an async context manager: decorate it with @asynccontextmanager from contextlib")
        self.codec: Codec = codec_named(codec)
        super().__init__(self.codec)
        self.name = name
        self.group = group
        self.retry: RetryPolicy = checked("retry", retry, RetryPolicy)
        self.dead_letter: DeadLetterPolicy = checked("dead_letter", dead_letter, DeadLetterPolicy)
        self.lease = lease
        self.on_group_lost: OnGroupLost = on_group_lost
        self.lifespan = lifespan
        self.handlers: list[Handler] = []
        self.middlewares: list[Middleware] = []
        self.found_at: Program | None = None
        retain(self.retentions, {} if retention is None else retention, ())
        self._arguments = _given(redis_url, settings)
        self._speak_to(lambda: Endpoint(self.settings().read_redis_url))

    def __repr__(self) -> str:
        name = "" if self.name is None else f"{self.name!r}, "
        return f"StreamWorker({name}{len(self.handlers)} handlers)"

    # ---- registration -------------------------------------------------------------------------------------------------------

    def handler(self, *streams: str, **options: Unpack[HandlerOptions]) -> Callable[[Function], Function]:
        """Register a function as the handler of one or more streams; the function itself is returned unchanged.

        Its first parameter's annotation is the body's type; a second parameter, if any, is the `Context`. `type` takes only entries
        whose `_type` header says so, and leaves the rest to a handler without one. `concurrency` is how many run at once in one process,
        `timeout` how long one may run. Entries of one `ordering_key` (a field of the body, a header such as `"_key"`, or a function of
        the body) run in order, one at a time. `idempotency` runs it once per key, `writes_to` names its transactions' keys. `start` is
        where a *new* group begins. `executor` says where it runs: an `async def` on the loop, a `def` in a thread or, with `"process"`,
        in a process of its own. `rate_limit` bounds how many start in all processes together, `kill_switch` stops the handler while
        too much fails, and `priorities` weighs its streams. Raises `SetupError` with the repair.
        """

        def register(function: Function) -> Function:
            keep(make_handler(function, read_signature(function), streams, options, self), self.handlers)
            return function

        need_stream("handler", streams)
        return register

    @overload
    def stream(self, name: str, body_type: type[Body], *, retention: Retention | None = None) -> Stream[Body]: ...
    @overload
    def stream(self, name: str, body_type: Any, *, retention: Retention | None = None) -> Stream[Any]: ...
    def stream(self, name: str, body_type: Any, *, retention: Retention | None = None) -> Stream[Any]:
        """A stream and the type of its bodies, to publish to and to register handlers of, checked by type checkers.

        `retention` says what of it is not kept. Raises `SetupError` where the type cannot be a body.
        """
        self.codec.decoder(body_type)
        made: Stream[Any] = Stream(self, name, body_type)
        if retention is not None:
            retain(self.retentions, {name: retention}, [listener.stream for listener in self.listeners])
        return made

    def middleware(self, function: MiddlewareFunction) -> MiddlewareFunction:
        """Register `async def m(ctx, call_next)` around every handler; the first registered is outermost."""
        if not is_async(function):
            raise SetupError(
                f"middleware {name_of(function)!r} is not async: write `async def {name_of(function)}(ctx, call_next)`"
            )
        self.middlewares.append(function)
        return function

    # ---- publishing ---------------------------------------------------------------------------------------------------------

    async def publish(self, stream: str, body: Any, **options: Unpack[SendOptions]) -> str:
        """Add an entry to `stream` and return its id. It is not part of any delivery; in a handler, `ctx.publish` is.

        With `delay` or `at` it is added then, and the answer is a handle for `cancel`. Raises `EncodeError` (nothing was sent),
        `ServerError` (refused), `NotConfirmed` (written, but not as durably as asked for), or `ConnectionLost` (its `may_have_run` says
        whether it may have been written). Without a `dedupe_id` it is never sent a second time, because that could write it twice.
        """
        if not options:
            return await self._publisher.publish(PLAIN.of(encode_outgoing(self.codec, stream, body)))
        entry, ways = split(options)
        return await self._publisher.publish(Posts(**ways).of(encode_outgoing(self.codec, stream, body, **entry)))

    async def publish_many(
        self, stream: str, bodies: Iterable[Any], *, dedupe_ids: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> list[str]:
        """Add many entries in order, pipelined; all are encoded before the first is sent. Returns their ids.

        `dedupe_ids` has one for each body. Raises as `publish` does; where some were not added, `PublishFailed` that names them.
        """
        entry, ways = split(options)
        if dedupe_ids is None and not ways:
            commands: list[bytes] = []
            for command in packed_many(self.codec, stream, bodies, entry):
                commands.append(command)
                if len(commands) % SLICE == 0:
                    await asyncio.sleep(0)
            return await self._publisher.publish_packed(stream, commands)
        postings: list[Posting] = []
        for posting in encode_many(self.codec, stream, bodies, dedupe_ids, options):
            postings.append(posting)
            if len(postings) % SLICE == 0:
                await asyncio.sleep(0)
        return await self._publisher.publish_many(postings)

    async def cancel(self, stream: str, handle: str) -> bool:
        """Take back what was published with `delay` or `at`; false when it is in its stream by now, or was taken back before."""
        check_stream(stream)
        return await self._publisher.cancel(stream, handle)

    async def request(
        self,
        stream: str,
        body: Any,
        *,
        timeout: timedelta = timedelta(seconds=5),  # noqa: ASYNC109  # a duration, as everywhere here
        reply: Any = dict[str, str],
        **options: Unpack[PublishOptions],
    ) -> Any:
        """Add an entry to `stream`, and wait until its handler has finished: returns what the handler returned, read as a `reply`.

        Raises `NoReply` after `timeout` (it may still be handled), `RequestFailed` when it became a dead letter, `DecodeError` when the
        reply is of another type, and what `publish` raises. It is sent once.
        """
        if not isinstance(timeout, timedelta) or not timedelta(0) < timeout <= LONGEST_DELAY:
            raise SetupError(f"request(timeout=…) is a positive timedelta, not {timeout!r}")
        check_stream(stream)
        correlation_id = token_hex(16)
        entry = encode_request(self.codec, stream, body, self._requester.reply_to(stream), correlation_id, options)
        decode = self._requester.decoder(self.codec, reply)
        return read_reply(await self._requester.ask(entry, correlation_id, timeout), decode)

    def sync_publisher(self) -> SyncPublisher:
        """A publisher for programs without an event loop. It may be shared by threads, and used on after a fork."""
        return SyncPublisher(self.codec, lambda: self._where())  # which may be another place by then

    def encode(
        self,
        stream: str,
        body: Any,
        **options: Unpack[PublishOptions],
    ) -> Outgoing:
        """The entry that `publish` would add. Raises `EncodeError`."""
        return encode_outgoing(self.codec, stream, body, **options)

    def encode_for_commit(self, stream: str, body: Any, **options: Unpack[PublishOptions]) -> Outgoing:
        """As `encode`, for an entry that is written together with an acknowledgement, which bounds its number of fields."""
        outgoing = self.encode(stream, body, **options)
        if len(outgoing.fields) > MOST_VALUES:
            raise EncodeError(f"an entry of more than {MOST_VALUES // 2} fields cannot be published with the acknowledgement")
        return outgoing

    # ---- settings -----------------------------------------------------------------------------------------------------------

    def settings(self, flags: Mapping[str, Any] | None = None) -> Settings:
        """The settings in force: arguments of this program over `flags` over the environment over defaults. Raises `SetupError`."""
        return Settings.load(os.environ, {} if flags is None else flags, self._arguments)

    @property
    def works_without_handlers(self) -> bool:
        """Whether a worker has something to do even without any handler."""
        return bool(self.schedules or self.listeners)

    @property
    def says_where_redis_is(self) -> bool:
        """Whether the program itself names a server."""
        return "redis_url" in self._arguments


def _given(redis_url: str | None, settings: Settings | None) -> dict[str, Any]:
    """What the program itself says; only what it has set counts, so that the rest can still come from outside."""
    given = {} if settings is None else {name: getattr(settings, name) for name in settings.model_fields_set}
    for name in ONLY_OUTSIDE:
        if name in given:
            option = f"STREAMWORKER_{name.upper()}"
            raise SetupError(f"settings={name} comes too late in a program, which is imported after it is needed: set {option}")
    if redis_url is not None:
        given["redis_url"] = redis_url
    return given
