"""What a batch handler is given, and what its registration has to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import time
from typing import Any, TypeVar, Unpack, get_args, get_origin

import structlog

from streamworker.delivery import Delivery, Outgoing, PublishOptions
from streamworker.errors import EntryFailed, SetupError
from streamworker.handlers import NOTHING, Handler, HandlerFunction, HandlerOptions, Publish, Signature, name_of, read_signature
from streamworker.policies import LONGEST_DELAY, BatchLimits
from streamworker.registration import Registry, keep, make_handler, need_stream

Function = TypeVar("Function", bound=HandlerFunction)


@dataclass(slots=True, eq=False)
class BatchContext:
    """What a batch handler and its middleware are given beside the list of bodies.

    `body` is that list, and `deliveries` has the delivery of each of its entries at the same position; `state` is what the lifespan
    yielded. Whatever is said of one entry is said by its position in the list.
    """

    deliveries: Sequence[Delivery]
    handler: Handler
    body: list[Any]
    state: Mapping[str, Any]
    _encode: Publish = field(repr=False)
    under: object = field(default=None, repr=False)
    """By what the worker knows this run."""
    _began: float = field(default_factory=time, init=False, repr=False)
    _errors: dict[int, BaseException] = field(default_factory=dict, init=False, repr=False)
    _publishes: dict[int, list[Outgoing]] = field(default_factory=dict, init=False, repr=False)
    _log: Any = field(default=None, init=False, repr=False)

    @property
    def deadline(self) -> datetime | None:
        """When the batch's timeout ends, by this machine's clock; `None`: never."""
        timeout = self.handler.timeout
        return None if timeout is None else datetime.fromtimestamp(self._began, UTC) + timeout

    @property
    def log(self) -> Any:
        """A structlog logger that knows group, handler and how many entries there are."""
        if self._log is None:
            group, entries = self.handler.group, len(self.deliveries)
            self._log = structlog.get_logger("streamworker.handler").bind(group=group, handler=self.handler.name, entries=entries)
        return self._log

    @property
    def lost(self) -> list[int]:
        """The positions of entries that belong to somebody else by now; whatever is still done about them, another one does too."""
        return [position for position, delivery in enumerate(self.deliveries) if delivery.lease.lost]

    def fail(self, position: int, reason: str | BaseException) -> None:
        """Say that the entry at `position` failed, and no other: it is retried or set aside as if a handler of its own had raised.

        A `reason` that is an exception counts as raised, so that `Retry`, `Snooze`, `Reject` and `give_up_on` mean what they always
        do. Raises `IndexError` where the list has no such position.
        """
        self._need(position)
        self._errors[position] = reason if isinstance(reason, BaseException) else EntryFailed(reason)

    def publish(self, position: int, stream: str, body: Any, **options: Unpack[PublishOptions]) -> Awaitable[None]:
        """Publish when, and only if, the entry at `position` is acknowledged: both happen in one atomic step, or neither.

        May be awaited or not, so plain functions can call it. Raises `EncodeError` when the body cannot be written, and `IndexError`
        where the list has no such position.
        """
        self._need(position)
        self._publishes.setdefault(position, []).append(self._encode(stream, body, **options))
        return NOTHING

    def forget(self) -> None:
        """Drop what was failed and published so far: for a middleware that starts the handler a second time."""
        self._errors.clear()
        self._publishes.clear()

    def take_returned(self, returned: Any) -> None:
        """Take what the handler returned for calls of `fail`: nothing, or a mapping of positions to reasons. The worker calls it."""
        if returned is None:
            return
        if not isinstance(returned, Mapping):
            # Left unheeded, a list of what failed would be acknowledged.
            kind = type(returned).__name__
            raise TypeError(f"a batch handler returns nothing, or a mapping of positions to what failed there, not {kind}")
        for position, reason in returned.items():
            self.fail(position, reason)

    @property
    def is_all_good(self) -> bool:
        """Whether nothing was said of any single entry."""
        return not self._errors and not self._publishes

    def said_of(self, position: int) -> tuple[BaseException | None, tuple[Outgoing, ...]]:
        """With what the entry at `position` failed, if it did, and what is to be published with its acknowledgement."""
        return self._errors.get(position), tuple(self._publishes.get(position, ()))

    def _need(self, position: int) -> None:
        if not isinstance(position, int) or not 0 <= position < len(self.deliveries):
            raise IndexError(f"a batch of {len(self.deliveries)} entries has no position {position!r}: count from 0")


class BatchHandlers:
    """Registers the batch handlers of a program."""

    def batch_handler(
        self: Registry,
        *streams: str,
        max_size: int = 100,
        max_wait: timedelta = timedelta(seconds=1),
        max_bytes: int | None = None,
        **options: Unpack[HandlerOptions],
    ) -> Callable[[Function], Function]:
        """Register a function that takes a list of entries; the function itself is returned unchanged.

        Its first parameter is a `list[…]` of the body's type; a second one, if any, is the `BatchContext`. A batch is closed at
        `max_size` entries, before it would hold more than `max_bytes`, or `max_wait` after its first entry. `concurrency` counts
        batches, and `timeout` is for a whole one; the other options are those of `handler`. Raises `SetupError` with the repair.
        """
        limits = BatchLimits(max_size, max_wait, max_bytes)

        def register(function: Function) -> Function:
            check_options(name_of(function), options, frozenset(HandlerOptions.__annotations__))
            check_limits(name_of(function), limits)
            keep(make_handler(function, read_batch_signature(function), streams, options, self, limits), self.handlers)
            return function

        need_stream("batch_handler", streams)
        return register


def read_batch_signature(function: HandlerFunction) -> Signature:
    """As `read_signature`, for a function that takes a list: its `body_type` is that of one entry."""
    signature = read_signature(function, BatchContext)
    of = get_args(signature.body_type)
    if get_origin(signature.body_type) is not list or len(of) != 1:
        raise SetupError(
            f"batch handler {name_of(function)!r} does not take a list: annotate its first parameter, such as `orders: list[OrderPlaced]`"
        )
    return Signature(of[0], signature.wants_context)


def check_limits(name: str, limits: BatchLimits) -> None:
    """See that batches of these limits can be made."""
    if not isinstance(limits.max_size, int) or limits.max_size < 1:
        raise SetupError(f"batch handler {name!r}: max_size is a whole number of at least 1, not {limits.max_size!r}")
    if not isinstance(limits.max_wait, timedelta) or not timedelta(0) <= limits.max_wait <= LONGEST_DELAY:
        raise SetupError(
            f"batch handler {name!r}: max_wait is a timedelta of at least 0 and at most {LONGEST_DELAY.days} days, not {limits.max_wait!r}"
        )
    if limits.max_bytes is not None and (not isinstance(limits.max_bytes, int) or limits.max_bytes < 1):
        raise SetupError(f"batch handler {name!r}: max_bytes is a whole number of at least 1, not {limits.max_bytes!r}")


CANNOT: Mapping[str, str] = {
    "ordering_key": "a batch holds entries of many keys at once: leave it out, or take entries singly with @app.handler",
    "idempotency": "its mark is one entry's, looked for before that entry runs: leave it out, or take entries singly with @app.handler",
    "writes_to": "a batch has no transaction: leave it out, or take entries singly with @app.handler",
    "executor": "a batch handler that is async runs on the loop, and a plain one in a thread: leave it out",
}
"""What only a handler of single entries can say, and why."""


def check_options(name: str, options: Mapping[str, Any], known: frozenset[str]) -> None:
    """See that nothing was said that a batch handler cannot say."""
    for option in options:
        if option in CANNOT:
            raise SetupError(f"batch handler {name!r} cannot have {option}=: {CANNOT[option]}")
        if option not in known:
            raise SetupError(
                f"batch handler {name!r}: there is no option {option}=; there are {', '.join(sorted(known - CANNOT.keys()))}"
            )
