"""What a user registers, read once and checked at registration, and what a handler is given when it runs."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack, get_type_hints, overload

import structlog

from streamworker.codecs import Codec, Decoder
from streamworker.delivery import Delivery, Outgoing, PublishOptions
from streamworker.destination import Destination, name_of_stream
from streamworker.effects import Idempotency, Transaction, Write
from streamworker.errors import SetupError
from streamworker.flow import KillSwitch, RateLimit
from streamworker.ordering import KeyReader, OrderingKey, key_reader
from streamworker.policies import BatchLimits, DeadLetterPolicy, RetryPolicy
from streamworker.streams.keys import keys_of

Body = TypeVar("Body")
HandlerFunction: TypeAlias = Callable[..., Any]
Start: TypeAlias = Literal["earliest", "latest"]
OnGroupLost: TypeAlias = Literal["resume", "earliest", "latest", "stop"]
Executor: TypeAlias = Literal["async", "thread"]
Publish: TypeAlias = Callable[..., Outgoing]


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered handler: its function, where its entries come from, and its policies.

    `concurrency` is `None` where the worker's setting decides. `type` is the `_type` header it takes; `None` takes the rest.
    `writes_to` are the keys that its transactions may write to, by name or with a `*` at the end; `None`: any. `key_of` reads what
    `ordering_key` names, if anything is named. `batch` is when its batches are closed; `None`: it takes entries singly.
    """

    name: str
    function: HandlerFunction
    body_type: Any
    wants_context: bool
    decode: Decoder
    streams: tuple[str, ...]
    group: str
    type: str | None
    concurrency: int | None
    timeout: timedelta | None
    retry: RetryPolicy
    dead_letter: DeadLetterPolicy
    executor: Executor
    start: Start
    codec: Codec
    idempotency: Idempotency | None = None
    writes_to: tuple[str, ...] | None = None
    ordering_key: OrderingKey | None = None
    answers: bool = False
    """Whether what it returns may be a reply: it is not declared to return nothing."""
    batch: BatchLimits | None = None
    rate_limit: RateLimit | None = None
    kill_switch: KillSwitch | None = None
    priorities: Mapping[str, int] | None = None
    """The weight of each of its streams; `None`: all the same."""
    key_of: KeyReader | None = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.priorities, Mapping):
            object.__setattr__(self, "priorities", dict(self.priorities))
        object.__setattr__(self, "key_of", key_reader(self.ordering_key, self.name, self.body_type, self.decode))

    def weight_of(self, stream: str) -> int:
        """How much of what is taken is to come from this stream, beside the weights of the others."""
        return 1 if self.priorities is None else self.priorities.get(stream, 1)


class HandlerOptions(TypedDict, total=False):
    """What can be said of any handler; `StreamWorker.handler` explains each."""

    group: str | None
    type: str | None
    concurrency: int | None
    timeout: timedelta | None
    retry: RetryPolicy | None
    dead_letter: DeadLetterPolicy | None
    ordering_key: OrderingKey | None
    codec: Literal["fields", "json"] | Codec | None
    start: Start
    name: str | None
    idempotency: Idempotency | None
    writes_to: Iterable[str] | None
    rate_limit: RateLimit | None
    kill_switch: KillSwitch | None
    priorities: Mapping[str, int] | None


@dataclass(frozen=True, slots=True)
class Signature:
    """What a handler's parameters say: the body's type, and whether it wants a context as second argument."""

    body_type: Any
    wants_context: bool


class Nothing:
    """An awaitable that is done already, so that `publish` works with and without `await`."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


NOTHING = Nothing()


@dataclass(slots=True, eq=False)
class Context:
    """What a handler and its middleware are given beside the body.

    `body` is the decoded body, `state` what the lifespan yielded.
    """

    delivery: Delivery
    handler: Handler
    body: Any
    state: Mapping[str, Any]
    _encode: Publish = field(repr=False)
    _began: float = field(default_factory=time, repr=False)
    _publishes: list[Outgoing] | None = field(default=None, repr=False)
    _transaction: Transaction | None = field(default=None, repr=False)
    _log: Any = field(default=None, repr=False)

    @property
    def deadline(self) -> datetime | None:
        """When the handler's timeout ends, by this machine's clock; `None`: never."""
        timeout = self.handler.timeout
        return None if timeout is None else datetime.fromtimestamp(self._began, UTC) + timeout

    @property
    def log(self) -> Any:
        """A structlog logger that knows stream, group, entry, handler and attempt."""
        if self._log is None:
            delivery = self.delivery
            self._log = structlog.get_logger("streamworker.handler").bind(
                stream=delivery.stream,
                group=delivery.group,
                entry_id=delivery.id,
                handler=self.handler.name,
                attempt=delivery.attempt,
            )
        return self._log

    @property
    def lease_lost(self) -> bool:
        """Whether the entry belongs to somebody else by now; whatever this handler still does, another one does too."""
        return self.delivery.lease.lost

    @overload
    def publish(self, stream: Destination[Body], body: Body, **options: Unpack[PublishOptions]) -> Awaitable[None]: ...
    @overload
    def publish(self, stream: str, body: object, **options: Unpack[PublishOptions]) -> Awaitable[None]: ...
    def publish(self, stream: str | Destination[Any], body: Any, **options: Unpack[PublishOptions]) -> Awaitable[None]:
        """Publish when, and only if, this delivery is acknowledged: both happen in one atomic step, or neither.

        May be awaited or not, so plain functions can call it. The entry's id is not known before the commit, so none is returned.
        Raises `EncodeError` when the body cannot be written.
        """
        outgoing = self._encode(name_of_stream(stream, body), body, **options)
        if self._publishes is None:
            self._publishes = []
        self._publishes.append(outgoing)
        return NOTHING

    @property
    def publishes(self) -> tuple[Outgoing, ...]:
        """What was published so far, waiting for the acknowledgement."""
        return () if self._publishes is None else tuple(self._publishes)

    @property
    def transaction(self) -> Transaction:
        """Writes to plain keys that happen when, and only if, this delivery is acknowledged: all in that one atomic step, or none."""
        if self._transaction is None:
            own = keys_of(self.delivery.stream, self.delivery.group)
            self._transaction = Transaction(own.all, self.handler.writes_to)
        return self._transaction

    @property
    def writes(self) -> tuple[Write, ...]:
        """What the transaction has gathered so far, waiting for the acknowledgement."""
        return () if self._transaction is None else self._transaction.writes

    def forget_effects(self) -> None:
        """Drop what was published and written so far: for a middleware that starts the handler a second time."""
        self._publishes = self._transaction = None


CallNext: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]
"""Goes on with the context that the middleware was given: a `Context`, or the `BatchContext` of a batch."""
Middleware: TypeAlias = Callable[[Context, CallNext], Awaitable[Any]]


def read_signature(function: HandlerFunction, context: type | None = None) -> Signature:
    """What `function`'s parameters ask for; `context` is what its second one may be (default: `Context`).

    Raises `SetupError` with the repair when a worker could not call it.
    """
    kind = Context if context is None else context
    name = name_of(function)
    _need_function(function, name)
    hints = _hints(function, name)
    parameters = _parameters(function, name)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not positional or hints.get(positional[0].name) is kind:
        raise SetupError(
            f"handler {name!r} takes no body: its first parameter is the body, such as `order: OrderPlaced`, then the {kind.__name__}"
        )
    given = [parameter.name for parameter in positional[:2]]
    beyond = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in given
    ]
    if beyond:
        raise SetupError(
            f"handler {name!r} needs {beyond[0].name!r}, but it is called with the body and a {kind.__name__} only, by position"
        )
    body = hints.get(positional[0].name, dict[str, str])
    second = positional[1] if len(positional) > 1 else None
    wants_context = second is not None and (hints.get(second.name) is kind or second.default is second.empty)
    if wants_context and second is not None and hints.get(second.name, kind) is not kind:
        raise SetupError(f"handler {name!r}: its second parameter {second.name!r} is a {kind.__name__}, or has a default")
    return Signature(body, wants_context)


def may_answer(function: HandlerFunction) -> bool:
    """Whether `function` is not declared to return nothing (`-> None`), so that what it returns may be a reply."""
    return _hints(function, name_of(function)).get("return") is not type(None)


def choose_executor(function: HandlerFunction) -> Executor:
    """Where a handler runs: `async def` on the loop, `def` in a thread."""
    return "async" if is_async(function) else "thread"


def is_async(function: HandlerFunction) -> bool:
    """Whether calling `function` gives a coroutine: an `async def`, or an object whose `__call__` is one."""
    return asyncio.iscoroutinefunction(function) or asyncio.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def name_of(function: HandlerFunction) -> str:
    """The name a handler goes by in logs and tables."""
    inner = _behind_partials(function)
    return getattr(inner, "__name__", None) or type(inner).__name__


def _behind_partials(function: HandlerFunction) -> HandlerFunction:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _need_function(function: HandlerFunction, name: str) -> None:
    if not callable(function) or inspect.isclass(function):
        raise SetupError(f"handler {name!r} is no function: decorate an `async def` or a `def`")
    inner = _behind_partials(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise SetupError(f"handler {name!r} is a generator, which would never run: take the `yield` out of it")


def _parameters(function: HandlerFunction, name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise SetupError(f"handler {name!r}: its parameters cannot be read: wrap it in a function of your own") from error


def _hints(function: HandlerFunction, name: str) -> dict[str, Any]:
    inner = _behind_partials(function)
    target = inner if inspect.isroutine(inner) else type(inner).__call__
    try:
        return get_type_hints(target, include_extras=True)
    except NameError as error:
        raise SetupError(
            f"handler {name!r}: its annotations name {error.name!r}, which its module does not know: define it at module level"
        ) from error
    except (TypeError, AttributeError, SyntaxError) as error:
        raise SetupError(f"handler {name!r}: its annotations cannot be read: {error}") from error
