"""Whether a registration makes sense, by itself and beside the others. Pure; every complaint says the repair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from itertools import product
from typing import Any, Protocol, TypeVar

from streamworker.codecs import Codec, codec_named
from streamworker.effects import Idempotency
from streamworker.errors import SetupError
from streamworker.flow import KillSwitch, RateLimit
from streamworker.handlers import Handler, HandlerFunction, HandlerOptions, Signature, choose_executor, may_answer, name_of
from streamworker.policies import LONGEST_DELAY, BatchLimits, DeadLetterPolicy, RetryPolicy
from streamworker.retention import Retention
from streamworker.streams.keys import has_tag, hashed_part, tag

Policy = TypeVar("Policy")

MOST_WEIGHT = 1_000
"""The greatest weight of a stream: more would say "never" of the others."""


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
    """The handler that a program registers, with its program's defaults where it says nothing itself.

    Raises `SetupError` for an option that there is not.
    """
    _check_options(name_of(function), options)
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
        rate_limit=options.get("rate_limit"),
        kill_switch=options.get("kill_switch"),
        priorities=options.get("priorities"),
    )


def _check_options(name: str, options: HandlerOptions) -> None:
    known = HandlerOptions.__annotations__
    for option in options.keys() - known.keys():
        near = get_close_matches(option, known, n=1)
        hint = f"did you mean {near[0]}=?" if near else f"there are {', '.join(sorted(known))}"
        if option in RetryPolicy.__dataclass_fields__:
            hint = f"write retry=RetryPolicy({option}=…)"
        raise SetupError(f"handler {name!r}: there is no option {option}=; {hint}")


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
    _check_flow(handler)
    _check_priorities(handler)


def _check_priorities(handler: Handler) -> None:
    """See that weights are such, and of streams that the handler has."""
    name, weights = handler.name, handler.priorities
    if weights is None:
        return
    if not isinstance(weights, Mapping) or not weights:
        raise SetupError(f"handler {name!r}: priorities says the weight of streams, such as {{'orders': 1}}, not {weights!r}")
    if len(handler.streams) == 1:
        raise SetupError(f"handler {name!r} has one stream, and nothing to weigh it against: leave priorities= out, or name more")
    for stream, weight in weights.items():
        if stream not in handler.streams:
            raise SetupError(
                f"handler {name!r}: priorities weighs {stream!r}, which is none of its streams: add it, or leave it out"
            )
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= MOST_WEIGHT:
            raise SetupError(
                f"handler {name!r}: the weight of {stream!r} is a whole number from 1 to {MOST_WEIGHT}, not {weight!r}; "
                "to stop a stream, pause its handler"
            )


def _check_flow(handler: Handler) -> None:
    """See that a handler's limits are such, and that what it takes together may start together."""
    name, limit = handler.name, handler.rate_limit
    if limit is not None and not isinstance(limit, RateLimit):
        raise SetupError(
            f"handler {name!r}: rate_limit is a RateLimit, for example RateLimit(100, per=timedelta(seconds=1)), not {limit!r}"
        )
    if handler.kill_switch is not None and not isinstance(handler.kill_switch, KillSwitch):
        raise SetupError(f"handler {name!r}: kill_switch is a KillSwitch(after=…, share=…, rest=…), not {handler.kill_switch!r}")
    if limit is not None and handler.batch is not None and handler.batch.max_size > limit.timing.most_at_once:
        raise SetupError(
            f"batch handler {name!r} takes up to {handler.batch.max_size} entries at once, but its rate_limit lets "
            f"{limit.timing.most_at_once} start together: give it a smaller max_size= or a larger burst="
        )


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
        for stream in sorted(shared):
            if other.weight_of(stream) != handler.weight_of(stream):
                raise SetupError(
                    f"{other.name!r} and {handler.name!r} share group {handler.group!r} of {stream!r} but not its weight: "
                    "say the same in priorities= of both"
                )
        if other.start != handler.start:
            raise SetupError(f"{other.name!r} and {handler.name!r} share group {handler.group!r} of {stream!r} but not start=")


def retain(retentions: dict[str, Retention], wanted: Mapping[str, Retention], heard: Iterable[str]) -> None:
    """Add what is `wanted` of streams to what was said of others before; `heard` are the streams that have listeners."""
    if not isinstance(wanted, Mapping):
        raise SetupError(f'retention has one for each stream, {{"orders": Retention(…)}}, and is not {wanted!r}')
    for stream, retention in wanted.items():
        if not isinstance(stream, str) or not stream:
            raise SetupError(f"retention: a stream's name is a non-empty string, not {stream!r}")
        tag(stream)
        if not isinstance(retention, Retention):
            raise SetupError(f"retention of {stream!r} is a Retention(…), not {retention!r}")
        if retentions.get(stream, retention) != retention:
            raise SetupError(f"stream {stream!r} has two retentions: say it in one place")
        check_heard(stream, retention, heard)
        retentions[stream] = retention


def check_heard(stream: str, retention: Retention | None, heard: Iterable[str]) -> None:
    """See that what listeners are to hear is not gone before: they have no group, so nobody waits for them."""
    if retention is not None and retention.delete_when_acked and stream in heard:
        raise SetupError(
            f"stream {stream!r} has a listener, which may find entries gone with delete_when_acked: say how long they stay instead, "
            "Retention(max_age=…)"
        )


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


_EXAMPLES: Mapping[type[object], str] = {
    RetryPolicy: "RetryPolicy(max_attempts=3)",
    DeadLetterPolicy: "DeadLetterPolicy(keep_last=10_000)",
}


def checked(name: str, value: Any, kind: type[Policy]) -> Policy:
    """The policy that was given, or the default one where none was."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise SetupError(f"{name} is a {kind.__name__}, such as {_EXAMPLES[kind]}, not {value!r}")
    return value
