"""What a program may register, and the sentence for everything that it may not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial, wraps
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from streamworker.app import StreamWorker
from streamworker.batching import BatchContext
from streamworker.codecs import JsonCodec
from streamworker.effects import Idempotency
from streamworker.errors import DecodeError, SetupError
from streamworker.handlers import CallNext, Context, Signature, choose_executor, read_signature
from streamworker.policies import BatchLimits, DeadLetterPolicy, RetryPolicy


class Order(BaseModel):
    order_id: str


class Charger:
    """Handlers of every shape that an object can have."""

    async def charge(self, order: Order, ctx: Context) -> None:
        """A method."""

    def __call__(self, order: Order) -> None:
        """A plain function."""

    @staticmethod
    async def refund(order: Order) -> None:
        """A function that happens to live in a class."""


class AsyncCharger:
    """An object whose call is a coroutine."""

    async def __call__(self, order: Order, ctx: Context) -> None:
        """What it is called for."""


def an_app(**options: Any) -> StreamWorker:
    """A program with a default group."""
    return StreamWorker(**{"group": "billing", **options})


async def charge(order: Order) -> None:
    """The plainest handler."""


# ---- decorators ----------------------------------------------------------------------------------------------------------------


def test_a_handler_stays_the_function_that_it_was() -> None:
    """So it can be called in a plain test."""
    app = an_app()

    assert charge is app.handler("orders")(charge)
    assert charge is app.handlers[0].function


@pytest.mark.parametrize(
    ("executor", "runs"),
    [(None, ("async", "thread")), ("async", ("async", None)), ("thread", (None, "thread")), ("process", (None, "process"))],
)
def test_a_handler_runs_where_it_says_or_where_its_kind_does(executor: Any, runs: tuple[str | None, str | None]) -> None:
    """An `async def` on the loop, a `def` in a thread or a process; anything else is refused with a sentence, and not kept."""

    def plain(body: dict[str, str]) -> None: ...

    for function, kind, expected in zip((charge, plain), ("an `async def`", "a plain `def`"), runs, strict=True):
        app = an_app()
        if expected is None:
            with pytest.raises(SetupError, match=f"is {kind}, which .*, or leave executor= out"):
                app.handler("orders", executor=executor)(function)
            assert [] == app.handlers
        else:
            app.handler("orders", executor=executor)(function)
            assert [expected] == [handler.executor for handler in app.handlers]


def test_there_are_three_executors() -> None:
    """And they are named."""
    with pytest.raises(SetupError, match="executor is 'async', 'thread' or 'process', not 'fork'"):
        an_app().handler("orders", executor="fork")(charge)  # type: ignore[arg-type]


def test_a_middleware_stays_the_function_that_it_was() -> None:
    """In the order of registration."""
    app = an_app()

    async def first(ctx: Context, call_next: CallNext) -> Any:
        return await call_next(ctx)

    async def second(ctx: Context, call_next: CallNext) -> Any:
        return await call_next(ctx)

    assert first is app.middleware(first)
    assert second is app.middleware(second)
    assert [first, second] == app.middlewares


def test_a_handler_has_the_defaults_of_its_program() -> None:
    """Group, policies and codec; the worker's setting decides about concurrency."""
    retry, dead_letter = RetryPolicy(max_attempts=2), DeadLetterPolicy(keep_last=3)
    app = an_app(retry=retry, dead_letter=dead_letter, codec="json")

    app.handler("orders")(charge)

    [handler] = app.handlers
    assert ("charge", ("orders",), "billing", None, None, None) == (
        handler.name,
        handler.streams,
        handler.group,
        handler.type,
        handler.concurrency,
        handler.timeout,
    )
    assert (retry, dead_letter, "json", "earliest", "async") == (
        handler.retry,
        handler.dead_letter,
        handler.codec.name,
        handler.start,
        handler.executor,
    )


def test_a_handler_has_what_its_decorator_says() -> None:
    """Before what the program says."""
    retry, dead_letter, codec = RetryPolicy(max_attempts=2), DeadLetterPolicy(keep_last=3), JsonCodec()
    app = an_app()

    app.handler(
        "orders",
        "refunds",
        group="mail",
        type="order",
        concurrency=7,
        timeout=timedelta(seconds=1),
        retry=retry,
        dead_letter=dead_letter,
        codec=codec,
        start="latest",
        name="mailer",
    )(charge)

    [handler] = app.handlers
    assert ("mailer", ("orders", "refunds"), "mail", "order", 7, timedelta(seconds=1)) == (
        handler.name,
        handler.streams,
        handler.group,
        handler.type,
        handler.concurrency,
        handler.timeout,
    )
    assert (retry, dead_letter, codec, "latest") == (handler.retry, handler.dead_letter, handler.codec, handler.start)


# ---- signatures ----------------------------------------------------------------------------------------------------------------


async def with_strings(order: Order, ctx: Context) -> None:
    """Annotations as strings, twice over."""


async def with_any_names(body: Order, anything: Context) -> None:
    """The context goes by position, not by name."""


async def with_a_bare_context(order: Order, ctx) -> None:  # type: ignore[no-untyped-def]
    """The second parameter is a context also without annotation."""


async def without_annotations(order, ctx) -> None:  # type: ignore[no-untyped-def]
    """Whatever the fields are."""


async def with_options(order: Order, dry_run: bool = False, *, verbose: bool = False) -> None:
    """For those who call it themselves."""


async def with_an_optional_context(order: Order, ctx: Context = None) -> None:  # type: ignore[assignment]
    """It gets one all the same."""


async def with_the_rest(order: Order, *args: Any, **kwargs: Any) -> None:
    """They stay empty."""


async def with_everything(order: Order, ctx: Context, rate: int, *, pay: Any) -> None:
    """Needs more than a worker gives."""


def logged(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A decorator as many write it: a plain function around an async one."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[None]:
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("function", "body_type", "wants_context"),
    [
        (charge, Order, False),
        (with_strings, Order, True),
        (with_any_names, Order, True),
        (with_a_bare_context, Order, True),
        (without_annotations, dict[str, str], True),
        (lambda order: None, dict[str, str], False),
        (with_options, Order, False),
        (with_an_optional_context, Order, True),
        (with_the_rest, Order, False),
        (Charger(), Order, False),
        (AsyncCharger(), Order, True),
        (Charger().charge, Order, True),
        (Charger.refund, Order, False),
        (partial(with_everything, rate=1, pay=None), Order, True),
        (partial(partial(with_everything, rate=1), pay=None), Order, True),
        (partial(AsyncCharger()), Order, True),
        (partial(Charger().charge), Order, True),
        (logged(with_strings), Order, True),
    ],
)
def test_a_signature_is_read(function: Callable[..., Any], body_type: Any, wants_context: bool) -> None:
    """The first parameter is the body, a second one without default is the context."""
    assert Signature(body_type, wants_context) == read_signature(function)


async def needs_a_keyword(order: Order, *, pay: Any) -> None:
    """A worker calls by position."""


async def takes_the_context_by_keyword(order: Order, *, ctx: Context) -> None:
    """A worker calls by position."""


async def takes_only_a_context(ctx: Context) -> None:
    """Has no body."""


async def takes_two_bodies(order: Order, other: Order) -> None:
    """There is only one."""


async def takes_keywords_only(*, order: Order) -> None:
    """A worker calls by position."""


async def names_nothing_known(order: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Its annotation cannot be resolved."""


async def names_no_attribute(order: timedelta.nowhere) -> None:  # type: ignore[name-defined]
    """Its annotation cannot be resolved."""


async def names_no_expression(order: "an order") -> None:  # type: ignore[syntax]  # noqa: F722
    """Its annotation cannot be parsed."""


def gives_pieces(order: Order) -> Any:
    """A generator."""
    yield order


async def gives_pieces_later(order: Order) -> Any:
    """An asynchronous generator."""
    yield order


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: None, "takes no body: its first parameter is the body"),
        (takes_only_a_context, "takes no body"),
        (takes_keywords_only, "takes no body"),
        (with_everything, "needs 'rate'"),
        (needs_a_keyword, "needs 'pay'"),
        (takes_the_context_by_keyword, "needs 'ctx', but it is called with the body and a Context only, by position"),
        (takes_two_bodies, "'other' is a Context, or has a default"),
        (Charger.charge, "needs 'ctx', but it is called with the body and a Context only"),
        (names_nothing_known, "'Nowhere', which its module does not know: define it at module level"),
        (names_no_attribute, "annotations cannot be read"),
        (names_no_expression, "annotations cannot be read"),
        (gives_pieces, "is a generator"),
        (gives_pieces_later, "is a generator"),
        (partial(gives_pieces), "is a generator"),
        (Order, "is no function"),
        (5, "is no function"),
        (max, "parameters cannot be read"),
    ],
)
def test_a_function_that_a_worker_could_not_call_is_refused(function: Any, says: str) -> None:
    """At import, not at the first entry in production."""
    app = an_app()

    with pytest.raises(SetupError) as caught:
        app.handler("orders")(function)

    assert says in str(caught.value)
    assert [] == app.handlers


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (charge, "async"),
        (partial(charge), "async"),
        (AsyncCharger(), "async"),
        (Charger().charge, "async"),
        (Charger(), "thread"),
        (lambda order: None, "thread"),
        (logged(charge), "thread"),
    ],
)
def test_a_coroutine_runs_on_the_loop_and_the_rest_in_a_thread(function: Callable[..., Any], expected: str) -> None:
    """Unless told otherwise, which can only say the same."""
    assert expected == choose_executor(function)


# ---- wrong registrations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("streams", "options", "says"),
    [
        ((), {}, 'has no stream: write @app.handler("orders")'),
        (("",), {}, "a stream's name is a non-empty string"),
        ((["orders", "refunds"],), {}, "a stream's name is a non-empty string"),
        ((b"orders",), {}, "a stream's name is a non-empty string"),
        (("orders", "orders"), {}, "names a stream twice"),
        (("a}b",), {}, "hash tag: rename it"),
        (("orders",), {"group": ""}, "has no group: give it group="),
        (("orders",), {"group": 5}, "has no group: give it group="),
        (("orders",), {"type": ""}, "type is a non-empty string"),
        (("orders",), {"type": Order}, "type is a non-empty string"),
        (("orders",), {"concurrency": 0}, "concurrency is a whole number of at least 1"),
        (("orders",), {"concurrency": "5"}, "concurrency is a whole number of at least 1"),
        (("orders",), {"concurrency": 2.5}, "concurrency is a whole number of at least 1"),
        (("orders",), {"timeout": 20}, "timeout is a positive timedelta"),
        (("orders",), {"timeout": timedelta(0)}, "timeout is a positive timedelta"),
        (("orders",), {"timeout": timedelta.max}, "timeout is a positive timedelta of at most 365 days"),
        (("orders",), {"retry": 5}, "retry is a RetryPolicy, such as"),
        (("orders",), {"max_attempts": 5}, "there is no option max_attempts=; write retry=RetryPolicy"),
        (("orders",), {"dead_letter": "orders-dlq"}, "dead_letter is a DeadLetterPolicy"),
        (("orders",), {"start": "now"}, "start is 'earliest' or 'latest'"),
        (("orders",), {"codec": "jsno"}, "did you mean 'json'?"),
        (("orders",), {"codec": JsonCodec}, "an instance with name, encode and decoder"),
        (("orders",), {"name": ""}, "a handler's name is a non-empty string"),
        (("orders",), {"name": 5}, "a handler's name is a non-empty string"),
    ],
)
def test_a_wrong_registration_fails_with_a_sentence(streams: tuple[Any, ...], options: dict[str, Any], says: str) -> None:
    """And leaves nothing behind."""
    app = an_app()

    with pytest.raises(SetupError) as caught:
        app.handler(*streams, **options)(charge)

    assert says in str(caught.value)
    assert [] == app.handlers


def test_a_decorator_without_its_call_is_refused() -> None:
    """`@app.handler` names no stream."""
    with pytest.raises(SetupError, match=r"write @app\.handler\(\"stream\"\)"):
        an_app().handler(charge)  # type: ignore[arg-type]


def test_a_handler_without_any_group_is_refused() -> None:
    """The sentence names both places where one can be given."""
    with pytest.raises(SetupError, match=r"group=, or give one to StreamWorker\(group=…\)"):
        StreamWorker().handler("orders")(charge)


@pytest.mark.parametrize("codec", ["fields", "json"])
def test_the_constraints_of_an_annotated_body_hold(codec: Literal["fields", "json"]) -> None:
    """What `Annotated` says is part of the type."""

    def handle(amount: Annotated[int, Field(gt=10)]) -> None:
        """Take more than ten."""

    app = an_app()
    app.handler("orders", codec=codec)(handle)
    [handler] = app.handlers

    assert 11 == handler.decode(handler.codec.encode(11, {}))
    with pytest.raises(DecodeError, match="greater_than"):
        handler.decode(handler.codec.encode(5, {}))


def test_a_lifespan_without_its_decorator_is_refused() -> None:
    """An async generator alone is no context manager, and would fail only when the worker starts."""

    async def lifespan(app: StreamWorker) -> AsyncIterator[None]:
        yield None

    with pytest.raises(SetupError, match="@asynccontextmanager"):
        StreamWorker(lifespan=lifespan)  # type: ignore[arg-type]


def test_a_middleware_that_is_not_async_is_refused() -> None:
    """Its answer could not be awaited."""

    def measure(ctx: Context, call_next: CallNext) -> Any:
        return call_next(ctx)

    with pytest.raises(SetupError, match=r"async def measure\(ctx, call_next\)"):
        an_app().middleware(measure)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lease": 30}, "lease is a timedelta of at least 200 ms"),
        ({"lease": timedelta(milliseconds=199)}, "lease is a timedelta of at least 200 ms"),
        ({"retry": 5}, "retry is a RetryPolicy"),
        ({"dead_letter": 10_000}, "dead_letter is a DeadLetterPolicy"),
        ({"codec": "pickle"}, "there is no codec 'pickle'"),
        ({"codec": None}, "is not a codec"),
    ],
)
def test_a_wrong_program_fails_with_a_sentence(options: dict[str, Any], says: str) -> None:
    """Where it is made."""
    with pytest.raises(SetupError) as caught:
        an_app(**options)

    assert says in str(caught.value)


# ---- several handlers ----------------------------------------------------------------------------------------------------------


def test_handlers_of_several_types_share_a_stream() -> None:
    """One without a type takes the rest."""
    app = an_app()

    for name, of_type in (("orders", "order"), ("refunds", "refund"), ("rest", None)):
        app.handler("orders", type=of_type, name=name)(charge)

    assert ["order", "refund", None] == [handler.type for handler in app.handlers]


def test_handlers_of_several_groups_share_a_stream() -> None:
    """Each group sees every entry."""
    app = an_app()

    app.handler("orders", name="one")(charge)
    app.handler("orders", name="other", group="mail")(charge)

    assert ["billing", "mail"] == [handler.group for handler in app.handlers]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"name": "one"}, {"name": "one", "streams": ("other",)}, "two handlers are called 'one': rename one"),
        ({}, {}, "both take entries without a type from stream 'orders' in group 'billing': tell them apart with type="),
        ({"type": "order"}, {"type": "order"}, "both take entries of type 'order'"),
        ({"streams": ("a", "b")}, {"streams": ("c", "b")}, "from stream 'b'"),
        ({"type": "order"}, {"start": "latest"}, "share group 'billing' of 'orders' but not start="),
    ],
)
def test_handlers_that_contradict_one_another_are_refused(first: dict[str, Any], second: dict[str, Any], says: str) -> None:
    """The second one fails, and is not kept."""
    app = an_app()

    def register(name: str, *, streams: tuple[str, ...] = ("orders",), **options: Any) -> None:
        app.handler(*streams, **{"name": name, **options})(charge)

    register(**{"name": "first", **first})
    with pytest.raises(SetupError) as caught:
        register(**{"name": "second", **second})

    assert says in str(caught.value)
    assert 1 == len(app.handlers)


# ---- batches -------------------------------------------------------------------------------------------------------------------


async def charge_many(orders: list[Order], ctx: BatchContext) -> None:
    """The plainest handler of batches that has a context."""


def test_a_batch_handler_takes_a_list_and_says_how_long_it_may_be() -> None:
    """Its body's type is that of one entry; the function stays what it was."""
    app = an_app()

    assert charge_many is app.batch_handler("orders", max_size=5, max_wait=timedelta(seconds=2), max_bytes=1_000)(charge_many)
    [handler] = app.handlers
    assert (Order, True) == (handler.body_type, handler.wants_context)
    assert BatchLimits(5, timedelta(seconds=2), 1_000) == handler.batch


def test_a_batch_has_a_hundred_entries_in_a_second_where_nothing_else_is_said() -> None:
    """And no limit of bytes; a context is not needed."""
    app = an_app()

    @app.batch_handler("orders", type="order", concurrency=2)
    def charge_all(orders: list[dict[str, str]]) -> None:
        """In a thread."""

    [handler] = app.handlers
    assert BatchLimits(100, timedelta(seconds=1)) == handler.batch
    assert ("thread", 2, False) == (handler.executor, handler.concurrency, handler.wants_context)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_size": 0}, "max_size is a whole number of at least 1, not 0"),
        ({"max_size": 1.5}, "max_size is a whole number of at least 1, not 1.5"),
        ({"max_wait": timedelta(seconds=-1)}, "max_wait is a timedelta of at least 0"),
        ({"max_wait": 2}, "max_wait is a timedelta of at least 0"),
        ({"max_bytes": 0}, "max_bytes is a whole number of at least 1, not 0"),
        ({"ordering_key": "customer"}, "cannot have ordering_key=: a batch holds entries of many keys at once"),
        ({"idempotency": Idempotency(timedelta(hours=1))}, "cannot have idempotency=: its mark is one entry's"),
        ({"writes_to": ["{orders}:done"]}, "cannot have writes_to=: a batch has no transaction"),
        ({"executor": "process"}, "cannot have executor=:"),
        ({"max_age": 1}, "there is no option max_age="),
        ({"concurrency": 0}, "concurrency is a whole number of at least 1"),
    ],
)
def test_a_batch_handler_with_a_wrong_option_fails_with_a_sentence(options: dict[str, Any], says: str) -> None:
    """When it is registered, and is not kept."""
    app = an_app()

    with pytest.raises(SetupError) as caught:
        app.batch_handler("orders", **options)(charge_many)

    assert says in str(caught.value)
    assert [] == app.handlers


async def takes_one(order: Order) -> None:
    """No list."""


async def takes_anything(orders) -> None:  # type: ignore[no-untyped-def]
    """Nobody knows what."""


async def takes_a_bare_list(orders: list, ctx: BatchContext) -> None:  # type: ignore[type-arg]
    """A list of nobody knows what."""


async def takes_the_wrong_context(orders: list[Order], ctx: Context) -> None:
    """That of a single entry."""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (takes_one, "does not take a list: annotate its first parameter, such as `orders: list[OrderPlaced]`"),
        (takes_anything, "does not take a list"),
        (takes_a_bare_list, "does not take a list"),
        (takes_the_wrong_context, "its second parameter 'ctx' is a BatchContext, or has a default"),
    ],
)
def test_a_function_that_takes_no_batch_is_refused(function: Callable[..., Any], says: str) -> None:
    """By its annotations."""
    with pytest.raises(SetupError, match=re.escape(says)):
        an_app().batch_handler("orders")(function)


def test_a_single_handler_is_given_no_context_of_batches() -> None:
    """The sentence names the one that it is given."""
    with pytest.raises(SetupError, match="its second parameter 'ctx' is a Context"):
        an_app().handler("orders")(charge_many)


def test_a_bare_decorator_says_what_to_write() -> None:
    """With the stream's name."""
    with pytest.raises(SetupError, match=re.escape('write @app.batch_handler("stream")')):
        an_app().batch_handler(charge_many)  # type: ignore[arg-type]


# ---- priorities ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priorities", "says"),
    [
        ({"orders": 0}, "the weight of 'orders' is a whole number from 1 to 1000, not 0"),
        ({"orders": 1_001}, "the weight of 'orders' is a whole number from 1 to 1000, not 1001"),
        ({"orders": 1.5}, "the weight of 'orders' is a whole number"),
        ({"orders": True}, "the weight of 'orders' is a whole number"),
        ({"order": 2}, "priorities weighs 'order', which is none of its streams"),
        ({}, "priorities says the weight of streams"),
        (["orders"], "priorities says the weight of streams"),
    ],
)
def test_wrong_weights_fail_with_a_sentence(priorities: Any, says: str) -> None:
    """When the handler is registered, and it is not kept."""
    app = an_app()

    with pytest.raises(SetupError) as caught:
        app.handler("orders", "orders-vip", priorities=priorities)(charge)

    assert says in str(caught.value)
    assert [] == app.handlers


def test_one_stream_has_nothing_to_be_weighed_against() -> None:
    """Which says that something else was meant."""
    with pytest.raises(SetupError, match="has one stream, and nothing to weigh it against"):
        an_app().handler("orders", priorities={"orders": 2})(charge)


def test_handlers_that_share_streams_have_the_same_weights() -> None:
    """What is read from a stream is for all of them."""
    app = an_app()
    app.handler("orders", "orders-vip", priorities={"orders-vip": 3})(charge)

    with pytest.raises(SetupError, match="share group 'billing' of 'orders-vip' but not its weight"):
        app.handler("orders-vip", type="refund", name="refund")(charge)


def test_an_option_that_there_is_not_is_refused_with_the_one_that_was_meant() -> None:
    """At run time too, where no type checker has looked."""
    options: Any = {"concurency": 3}

    with pytest.raises(SetupError, match="there is no option concurency=; did you mean concurrency="):
        an_app().handler("orders", **options)(charge)
