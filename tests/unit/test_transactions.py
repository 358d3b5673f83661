"""What a transaction takes, and what is wrong with what it does not take; and how an `Idempotency` and `writes_to` are registered."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamworker import Idempotency, StreamWorker, Transaction
from streamworker.effects import COMMANDS, MOST_VALUES, Write
from streamworker.errors import EncodeError, SetupError
from streamworker.streams.keys import done_marker, hashed_part
from tests.factories import a_context

HOUR = timedelta(hours=1)


def test_what_is_gathered_keeps_its_order_and_is_bytes() -> None:
    """Text as UTF-8, numbers as text."""
    tx = Transaction()
    tx.set("k", "é", ttl=HOUR)
    tx.hset("h", {"a": 1, b"b": 0.5})
    tx.zadd("z", {"m": 1})
    tx.delete("k", "h")

    assert (
        Write("SET", "k", ("é".encode(), b"PX", b"3600000")),
        Write("HSET", "h", (b"a", b"1", b"b", b"0.5")),
        Write("ZADD", "z", (b"1.0", b"m")),
        Write("PEXPIRE", "k", (b"0",)),
        Write("PEXPIRE", "h", (b"0",)),
    ) == tx.writes


WRONG = {
    "no key": (lambda tx: tx.set("", 1), "a key is a non-empty string"),
    "a key that is no text": (lambda tx: tx.incrby(7), "a key is a non-empty string, not a int"),
    "a key of half a pair": (lambda tx: tx.incrby("\ud800"), "half a surrogate pair"),
    "a value of another kind": (lambda tx: tx.set("k", {}), "text, bytes and numbers, not a dict"),
    "a truth": (lambda tx: tx.set("k", True), "text, bytes and numbers, not a bool"),
    "no value": (lambda tx: tx.set("k", None), "text, bytes and numbers, not a NoneType"),
    "a text of half a pair": (lambda tx: tx.sadd("k", "\ud800"), "half a surrogate pair"),
    "nothing to add": (lambda tx: tx.sadd("k"), "SADD 'k' has nothing to write"),
    "an empty mapping": (lambda tx: tx.hset("k", {}), "HSET 'k' has nothing to write"),
    "too many at once": (lambda tx: tx.rpush("k", *range(MOST_VALUES + 1)), "more than 7,000 values: split it"),
    "half an amount": (lambda tx: tx.incrby("k", 0.5), "amount is a whole number"),
    "an amount too large": (lambda tx: tx.hincrby("k", "f", 2**63), "amount is a whole number of at most 64 bits"),
    "no number": (lambda tx: tx.zadd("k", {"m": float("nan")}), "a score is a number"),
    "a text for a score": (lambda tx: tx.zadd("k", {"m": "1"}), "a score is a number"),
    "seconds": (lambda tx: tx.expire("k", 60), "ttl is a timedelta"),
    "no time": (lambda tx: tx.set("k", 1, ttl=timedelta(0)), "ttl is a timedelta from a millisecond"),
    "longer than the server can": (lambda tx: tx.expire("k", timedelta.max), "ttl is a timedelta"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_written_is_refused_when_it_is_gathered(case: str) -> None:
    """With one sentence, and nothing is kept of it."""
    tx = Transaction()
    with pytest.raises(EncodeError, match=WRONG[case][1]):
        WRONG[case][0](tx)

    assert () == tx.writes


@pytest.mark.parametrize("key", ["orders", "{orders}:due:billing", "{orders}:sw:settled:billing"])
def test_the_deliverys_own_keys_are_left_alone(key: str) -> None:
    """A handler that deletes its stream would lose what is in it."""
    with pytest.raises(EncodeError, match="belongs to the delivery itself"):
        a_context().transaction.delete(key)


def test_keys_that_a_handler_did_not_name_are_refused() -> None:
    """Where it names any."""
    tx = Transaction(allowed=("{orders}:stock", "{orders}:seen:*"))
    tx.incrby("{orders}:stock")
    tx.set("{orders}:seen:7", 1)

    with pytest.raises(EncodeError, match=r"'\{orders\}:stocks' is not among the keys of writes_to="):
        tx.incrby("{orders}:stocks")


def test_what_was_gathered_can_be_dropped() -> None:
    """For a middleware that starts the handler a second time."""
    context = a_context()
    context.transaction.incrby("n")
    context.publish("invoices", {"n": "1"})
    gathered = len(context.writes), len(context.publishes)
    context.forget_effects()

    assert (1, 1) == gathered
    assert ((), ()) == (context.writes, context.publishes)


def test_each_method_has_its_command() -> None:
    """And there is no other: the script and the rights know these."""
    methods = {name for name in vars(Transaction) if not name.startswith("_")} - {"writes"}

    assert {
        "set",
        "delete",
        "expire",
        "incrby",
        "hset",
        "hdel",
        "hincrby",
        "zadd",
        "zrem",
        "sadd",
        "srem",
        "rpush",
        "lpush",
    } == methods
    assert {name.upper() for name in methods} - {"DELETE", "EXPIRE"} | {"PEXPIRE"} == COMMANDS


# ---- registration ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes_to", [("{orders}:stock",), ("{orders}:*", "orders"), "{orders}:n", ()])
def test_keys_in_the_streams_slot_may_be_named(writes_to) -> None:
    """Names, or what they begin with."""
    app = StreamWorker(group="billing")

    @app.handler("orders", writes_to=writes_to)
    async def charge(order: dict[str, str]) -> None: ...

    assert ((writes_to,) if isinstance(writes_to, str) else writes_to) == app.handlers[0].writes_to


@pytest.mark.parametrize(
    ("streams", "key", "repair"),
    [
        (("orders",), "stock", "call it '{orders}:stock'"),
        (("orders",), "*", "call it '{orders}:*'"),
        (("orders",), "orders*", "call it '{orders}:orders*'"),
        (("shop:{eu}:orders",), "{us}:stock", "call it 'shop:{eu}:orders:{us}:stock'"),
        (("{eu}:a", "{us}:b"), "{eu}:stock", "together with an acknowledgement in '{us}:b'"),
    ],
)
def test_keys_in_another_slot_are_refused_with_what_to_call_them(streams, key, repair) -> None:
    """When the handler is registered."""
    app = StreamWorker(group="billing")

    with pytest.raises(SetupError, match="in a cluster") as refused:

        @app.handler(*streams, writes_to=[key])
        async def charge(order: dict[str, str]) -> None: ...

    assert repair in str(refused.value)


def test_an_empty_key_is_no_key() -> None:
    """Nor is a number."""
    for key in ("", 7):
        with pytest.raises(SetupError, match="writes_to holds keys"):
            StreamWorker(group="billing").handler("orders", writes_to=[key])(a_context().handler.function)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Idempotency(ttl=86_400), "timedelta from a second to 3,650 days"),
        (lambda: Idempotency(ttl=timedelta(0)), "timedelta from a second"),
        (lambda: Idempotency(ttl=timedelta.max), "to 3,650 days"),
        (lambda: Idempotency(ttl=HOUR, key="order_id"), "a function of the body"),
        (
            lambda: StreamWorker(group="g").handler("orders", idempotency=HOUR)(a_context().handler.function),
            "idempotency is an Idempotency",
        ),
    ],
)
def test_an_idempotency_that_makes_no_sense_says_so(make, says) -> None:
    """When it is written down."""
    with pytest.raises(SetupError, match=says):
        make()


@pytest.mark.parametrize(
    ("name", "part"),
    [("orders", "orders"), ("{orders}:x", "orders"), ("shop:{eu}:orders", "eu"), ("{}x", "{}x"), ("a{b", "a{b"), ("{a}{b}", "a")],
)
def test_the_part_of_a_name_that_a_cluster_hashes(name, part) -> None:
    """The first tag, or all of it."""
    assert part == hashed_part(name)


def test_a_marker_lies_in_the_streams_slot() -> None:
    """With the stream's own tag."""
    assert "{orders}:sw:done:billing:charge:k" == done_marker("orders", "billing", "charge", "k")
