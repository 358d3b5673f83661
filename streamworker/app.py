"""`StreamWorker`: where a program registers its handlers, and publishes."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, TypeVar, Unpack, get_args, overload

from streamworker.codecs import Codec, codec_named
from streamworker.codecs.dead_letters import MOST_VALUES
from streamworker.delivery import Outgoing, PublishOptions
from streamworker.errors import EncodeError, SetupError
from streamworker.handlers import (
    Handler,
    HandlerFunction,
    Middleware,
    OnGroupLost,
    Start,
    choose_executor,
    is_async,
    name_of,
    read_signature,
)
from streamworker.outgoing import check_stream, encode_many, encode_outgoing
from streamworker.policies import DeadLetterPolicy, RetryPolicy
from streamworker.posting import PLAIN, Posting, Posts, SendOptions, split
from streamworker.publisher import Publisher
from streamworker.registration import check_beside, check_handler, checked, group_of
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


class StreamWorker:
    """A program's handlers and policies, and its way to publish.

    `group` is the default consumer group of the handlers, `retry` and `dead_letter` their default policies, `lease` how long a
    delivery may go unrenewed before another worker takes it over. `on_group_lost` says where a group that has vanished is made again:
    where it was, as far as this worker knows (`"resume"`), at the first entry, at the end, or not at all, and then the worker stops.
    `lifespan` is an async context manager around the worker's life; what it yields is `ctx.state`. `redis_url` and `settings` given
    here win over the command line and the environment.

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
        settings: Settings | None = None,
    ) -> None:
        if not isinstance(lease, timedelta) or lease < SHORTEST_LEASE:
            raise SetupError(f"lease is a timedelta of at least {SHORTEST_LEASE / timedelta(milliseconds=1):.0f} ms, not {lease!r}")
        if on_group_lost not in get_args(OnGroupLost):
            raise SetupError(f"on_group_lost is one of {', '.join(map(repr, get_args(OnGroupLost)))}, not {on_group_lost!r}")
        if inspect.isasyncgenfunction(lifespan) or inspect.iscoroutinefunction(lifespan):
            raise SetupError("lifespan is an async context manager: decorate it with @asynccontextmanager from contextlib")
        self.name = name
        self.group = group
        self.retry: RetryPolicy = checked("retry", retry, RetryPolicy)
        self.dead_letter: DeadLetterPolicy = checked("dead_letter", dead_letter, DeadLetterPolicy)
        self.lease = lease
        self.on_group_lost: OnGroupLost = on_group_lost
        self.lifespan = lifespan
        self.handlers: list[Handler] = []
        self.middlewares: list[Middleware] = []
        self._codec = codec_named(codec)
        self._arguments = _given(redis_url, settings)
        self._where: Callable[[], Endpoint] = lambda: Endpoint(self.settings().read_redis_url)
        self._publisher = Publisher(self._where)
        self._lent = False

    def __repr__(self) -> str:
        name = "" if self.name is None else f"{self.name!r}, "
        return f"StreamWorker({name}{len(self.handlers)} handlers)"

    # ---- registration -------------------------------------------------------------------------------------------------------

    def handler(  # what a handler can say, by keyword
        self,
        *streams: str,
        group: str | None = None,
        type: str | None = None,  # noqa: A002  # the word that users know
        concurrency: int | None = None,
        timeout: timedelta | None = None,
        retry: RetryPolicy | None = None,
        dead_letter: DeadLetterPolicy | None = None,
        codec: Literal["fields", "json"] | Codec | None = None,
        start: Start = "earliest",
        name: str | None = None,
    ) -> Callable[[Function], Function]:
        """Register a function as the handler of one or more streams; the function itself is returned unchanged.

        Its first parameter's annotation is the body's type; a second parameter, if any, is the `Context`. `type` takes only entries
        whose `_type` header says so, and leaves the rest to a handler without one. `concurrency` is how many run at once in one
        process (default: the setting, 10), `timeout` how long one may run (default: no limit). `start` is where a *new* group begins:
        `"earliest"` or `"latest"`. Raises `SetupError` with the repair.
        """

        def register(function: Function) -> Function:
            chosen = self._codec if codec is None else codec_named(codec)
            signature = read_signature(function)
            handler = Handler(
                name=name_of(function) if name is None else name,
                function=function,
                body_type=signature.body_type,
                wants_context=signature.wants_context,
                decode=chosen.decoder(signature.body_type),
                streams=streams,
                group=group_of(function, group, self.group),
                type=type,
                concurrency=concurrency,
                timeout=timeout,
                retry=self.retry if retry is None else checked("retry", retry, RetryPolicy),
                dead_letter=self.dead_letter if dead_letter is None else checked("dead_letter", dead_letter, DeadLetterPolicy),
                executor=choose_executor(function),
                start=start,
                codec=chosen,
            )
            check_handler(handler)
            check_beside(handler, self.handlers)
            self.handlers.append(handler)
            return function

        if streams and callable(streams[0]):
            raise SetupError('write @app.handler("stream"), with the stream\'s name: a handler needs to know where to read')
        return register

    @overload
    def stream(self, name: str, body_type: type[Body]) -> Stream[Body]: ...
    @overload
    def stream(self, name: str, body_type: Any) -> Stream[Any]: ...
    def stream(self, name: str, body_type: Any) -> Stream[Any]:
        """A stream and the type of its bodies, to publish to and to register handlers of, checked by type checkers.

        Raises `SetupError` where the type cannot be a body.
        """
        self._codec.decoder(body_type)
        return Stream(self, name, body_type)

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
            return await self._publisher.publish(PLAIN.of(encode_outgoing(self._codec, stream, body)))
        entry, ways = split(options)
        return await self._publisher.publish(Posts(**ways).of(encode_outgoing(self._codec, stream, body, **entry)))

    async def publish_many(
        self, stream: str, bodies: Iterable[Any], *, dedupe_ids: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> list[str]:
        """Add many entries in order, pipelined; all are encoded before the first is sent. Returns their ids.

        `dedupe_ids` has one for each body. Raises as `publish` does; where some were not added, `PublishFailed` that names them.
        """
        postings: list[Posting] = []
        for posting in encode_many(self._codec, stream, bodies, dedupe_ids, options):
            postings.append(posting)
            if len(postings) % SLICE == 0:
                await asyncio.sleep(0)
        return await self._publisher.publish_many(postings)

    async def cancel(self, stream: str, handle: str) -> bool:
        """Take back what was published with `delay` or `at`; false when it is in its stream by now, or was taken back before."""
        check_stream(stream)
        return await self._publisher.cancel(stream, handle)

    def sync_publisher(self) -> SyncPublisher:
        """A publisher for programs without an event loop. It may be shared by threads, and used on after a fork."""
        return SyncPublisher(self._codec, lambda: self._where())  # which may be another place by then

    def encode(
        self,
        stream: str,
        body: Any,
        **options: Unpack[PublishOptions],
    ) -> Outgoing:
        """The entry that `publish` would add. Raises `EncodeError`."""
        return encode_outgoing(self._codec, stream, body, **options)

    def encode_for_commit(self, stream: str, body: Any, **options: Unpack[PublishOptions]) -> Outgoing:
        """As `encode`, for an entry that is written together with an acknowledgement, which bounds its number of fields."""
        outgoing = self.encode(stream, body, **options)
        if len(outgoing.fields) > MOST_VALUES:
            raise EncodeError(f"an entry of more than {MOST_VALUES // 2} fields cannot be published with the acknowledgement")
        return outgoing

    async def publish_to(self, endpoint: Endpoint) -> None:
        """Publish to this server from now on: a worker calls it with its own, which an option may have named."""
        await self._publisher.close()
        self._where = lambda: endpoint
        self._publisher = Publisher(self._where)

    @asynccontextmanager
    async def publishing_to(self, endpoint: Endpoint) -> AsyncIterator[None]:
        """Publish to this server until the block ends. Raises `SetupError` inside another one."""
        if self._lent:
            raise SetupError("this app has a TestWorker already: one at a time, or give each an app of its own")
        before, self._lent = (self._where, self._publisher), True
        try:
            await self.publish_to(endpoint)
            yield
        finally:
            await self.close()
            (self._where, self._publisher), self._lent = before, False

    async def close(self) -> None:
        """End the publishing connection; a later publish opens a new one."""
        await self._publisher.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def codec(self) -> Codec:
        """How bodies are written, and read by handlers that do not say otherwise."""
        return self._codec

    # ---- settings -----------------------------------------------------------------------------------------------------------

    def settings(self, flags: Mapping[str, Any] | None = None) -> Settings:
        """The settings in force: arguments of this program over `flags` over the environment over defaults. Raises `SetupError`."""
        return Settings.load(os.environ, {} if flags is None else flags, self._arguments)

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
