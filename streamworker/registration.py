"""Whether a registration makes sense, by itself and beside the others. Pure; every complaint says the repair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import product
from typing import Any, Protocol, TypeVar

from streamworker.codecs import Codec, codec_named
from streamworker.effects import Idempotency
from streamworker.errors import SetupError
from streamworker.handlers import Handler, HandlerFunction, HandlerOptions, Signature, choose_executor, may_answer, name_of
from streamworker.policies import LONGEST_DELAY, BatchLimits, DeadLetterPolicy, RetryPolicy
from streamworker.streams.keys import has_tag, hashed_part, tag

Policy = TypeVar("Policy")


def need_stream(decorator: str, streams: Sequence[object]) -> None:
    """See that the decorator was called with streams, and not put bare above a function."""
    if streams and callable(streams[0]):
        raise SetupError(f'write @app.{decorator}("stream"), with the stream\'s name: a handler needs to know where to read')


class Defaults(Protocol):
    """What a program says of all its handlers."""

    group: str | None
    codec: Codec
    retry: RetryPolicy
    dead_letter: DeadLetterPolicy


class Registry(Defaults, Protocol):
    """A program that keeps its handlers."""

    handlers: list[Handler]


def make_handler(
    function: HandlerFunction,
    signature: Signature,
    streams: tuple[str, ...],
    options: HandlerOptions,
    defaults: Defaults,
    batch: BatchLimits | None = None,
) -> Handler:
    """The handler that a program registers, with its program's defaults where it says nothing itself."""
    codec, name = options.get("codec"), options.get("name")
    retry, dead_letter = options.get("retry"), options.get("dead_letter")
    chosen = defaults.codec if codec is None else codec_named(codec)
    return Handler(
        name=name_of(function) if name is None else name,
        function=function,
        body_type=signature.body_type,
        wants_context=signature.wants_context,
        decode=chosen.decoder(signature.body_type),
        streams=streams,
        group=group_of(function, options.get("group"), defaults.group),
        type=options.get("type"),
        concurrency=options.get("concurrency"),
        timeout=options.get("timeout"),
        retry=defaults.retry if retry is None else checked("retry", retry, RetryPolicy),
        dead_letter=defaults.dead_letter if dead_letter is None else checked("dead_letter", dead_letter, DeadLetterPolicy),
        executor=choose_executor(function, options.get("executor")),
        start=options.get("start", "earliest"),
        codec=chosen,
        idempotency=options.get("idempotency"),
        writes_to=keys_given(options.get("writes_to")),
        ordering_key=options.get("ordering_key"),
        # What a batch handler returns says which entries have failed.
        answers=batch is None and may_answer(function),
        batch=batch,
    )


def keep(handler: Handler, others: list[Handler]) -> None:
    """Put it beside the others of its program, where it makes sense by itself and beside them."""
    check_handler(handler)
    check_beside(handler, others)
    others.append(handler)


def check_handler(handler: Handler) -> None:
    """See that one registration makes sense by itself."""
    name = handler.name
    if not isinstance(name, str) or not name:
        raise SetupError(f"a handler's name is a non-empty string, not {name!r}")
    if not handler.streams:
        raise SetupError(f'handler {name!r} has no stream: write @app.handler("orders")')
    for stream in handler.streams:
        if not isinstance(stream, str) or not stream:
            raise SetupError(f"handler {name!r}: a stream's name is a non-empty string, not {stream!r}")
        tag(stream)
    if len(set(handler.streams)) < len(handler.streams):
        raise SetupError(f"handler {name!r} names a stream twice")
    if handler.concurrency is not None and (not isinstance(handler.concurrency, int) or handler.concurrency < 1):
        raise SetupError(f"handler {name!r}: concurrency is a whole number of at least 1, not {handler.concurrency!r}")
    if handler.timeout is not None and not (
        isinstance(handler.timeout, timedelta) and timedelta(0) < handler.timeout <= LONGEST_DELAY
    ):
        raise SetupError(
            f"handler {name!r}: timeout is a positive timedelta of at most {LONGEST_DELAY.days} days, not {handler.timeout!r}"
        )
    if handler.start not in ("earliest", "latest"):
        raise SetupError(f"handler {name!r}: start is 'earliest' or 'latest', not {handler.start!r}")
    if handler.type is not None and (not isinstance(handler.type, str) or not handler.type):
        raise SetupError(f"handler {name!r}: type is a non-empty string, not {handler.type!r}")
    _check_effects(handler)


def _check_effects(handler: Handler) -> None:
    """See that the keys that a handler says it writes to lie in its streams' slots, where there are slots."""
    if handler.idempotency is not None and not isinstance(handler.idempotency, Idempotency):
        raise SetupError(f"handler {handler.name!r}: idempotency is an Idempotency(ttl=…), not {handler.idempotency!r}")
    for key, stream in product(() if handler.writes_to is None else handler.writes_to, handler.streams):
        if not isinstance(key, str) or not key:
            raise SetupError(f"handler {handler.name!r}: writes_to holds keys, non-empty strings, not {key!r}")
        fixed = key.removesuffix("*")
        known = has_tag(fixed) or fixed == key
        if not known or hashed_part(fixed) != hashed_part(stream):
            raise SetupError(
                f"handler {handler.name!r} could not write to {key!r} together with an acknowledgement in {stream!r} in a cluster, where "
                f"they are in different slots: call it '{tag(stream)}:{key}', or leave writes_to= out where there is no cluster"
            )


def check_beside(handler: Handler, others: Iterable[Handler]) -> None:
    """See that a registration does not contradict an earlier one."""
    for other in others:
        if other.name == handler.name:
            raise SetupError(f"two handlers are called {handler.name!r}: rename one, or give it name=")
        for stream, twin in product(handler.streams, other.streams):
            if stream != twin and tag(stream) == tag(twin) and handler.group == other.group:
                raise SetupError(
                    f"streams {twin!r} and {stream!r} would share all their keys in group {handler.group!r}: rename one"
                )
        shared = set(other.streams) & set(handler.streams)
        if not shared or other.group != handler.group:
            continue
        stream = min(shared)
        if other.type == handler.type:
            which = "without a type" if handler.type is None else f"of type {handler.type!r}"
            raise SetupError(
                f"{other.name!r} and {handler.name!r} both take entries {which} from stream {stream!r} in group {handler.group!r}: "
                "tell them apart with type=, or give one another group"
            )
        if other.start != handler.start:
            raise SetupError(f"{other.name!r} and {handler.name!r} share group {handler.group!r} of {stream!r} but not start=")


def group_of(function: HandlerFunction, group: str | None, default: str | None) -> str:
    """The handler's group: its own, or the application's."""
    chosen = default if group is None else group
    if not isinstance(chosen, str) or not chosen:
        raise SetupError(
            f"handler {name_of(function)!r} has no group: give it group=, or give one to StreamWorker(group=…) for all"
        )
    return chosen


def keys_given(keys: Iterable[str] | None) -> tuple[str, ...] | None:
    """The keys of `writes_to=`; one may be written without brackets."""
    return None if keys is None else (keys,) if isinstance(keys, str) else tuple(keys)


def checked(name: str, value: Any, kind: type[Policy]) -> Policy:
    """The policy that was given, or the default one where none was."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise SetupError(f"{name} is a {kind.__name__}, not {value!r}")
    return value
