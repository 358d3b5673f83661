"""What may be an ordering key, and the sentence for everything that may not; what is read from a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from streamworker.app import StreamWorker
from streamworker.errors import DecodeError, SetupError
from tests.factories import a_delivery, a_handler


class Order(BaseModel):
    order_id: str
    customer: str | None = None
    secret: str = "the secret"

    @property
    def region(self) -> str:
        return self.order_id[:1]


@dataclass
class Plain:
    order_id: str


class Typed(TypedDict):
    order_id: str


async def of_model(order: Order) -> None: ...


async def of_dataclass(order: Plain) -> None: ...


async def of_typed_dict(order: Typed) -> None: ...


async def of_texts(order: dict[str, str]) -> None: ...


async def of_bytes(order: dict[bytes, bytes]) -> None: ...


async def of_number(order: int) -> None: ...


FIELDS = [b"order_id", b"a7", b"_key", b"k", b"_tenant", b"eu"]


@pytest.mark.parametrize(
    ("function", "given", "key"),
    [
        (of_model, "order_id", "a7"),
        (of_model, "customer", None),
        (of_model, "region", "a"),
        (of_model, lambda order: (order.region, 1), ("a", 1)),
        (of_dataclass, "order_id", "a7"),
        (of_typed_dict, "order_id", "a7"),
        (of_texts, "order_id", "a7"),
        (of_bytes, "order_id", b"a7"),
        (of_model, "_key", "k"),
        (of_number, "_tenant", "eu"),
        (of_model, "_nothing", None),
    ],
)
def test_a_key_is_read_from_a_field_a_header_or_by_a_function(function: Any, given: Any, key: Any) -> None:
    """Whatever the body's type; a header needs no body that can be read."""
    handler = a_handler(function, ordering_key=given)

    assert handler.key_of is not None
    assert key == handler.key_of(a_delivery(fields=FIELDS))


def _raises(_: Any) -> str:
    raise SystemExit("the secret")


@pytest.mark.parametrize(
    ("function", "given", "fields", "why"),
    [
        (of_texts, "customer", FIELDS, "no field 'customer', which is its ordering key"),
        (of_model, "order_id", [b"x", b"y"], "order_id"),
        (of_model, lambda order: {}[order.secret], FIELDS, "cannot be told: KeyError$"),
        (of_model, lambda order: [order.secret], FIELDS, "cannot be told: TypeError$"),
        (of_model, _raises, FIELDS, "cannot be told: SystemExit$"),
    ],
    ids=["missing", "malformed", "raises", "unhashable", "rude"],
)
def test_a_key_that_cannot_be_told_says_why_and_nothing_of_the_body(function: Any, given: Any, fields: Any, why: str) -> None:
    """Nothing but a DecodeError, so the entry is set aside, and its worker goes on."""
    key_of = a_handler(function, ordering_key=given).key_of

    assert key_of is not None
    with pytest.raises(DecodeError, match=why) as caught:
        key_of(a_delivery(fields=fields))
    assert "the secret" not in str(caught.value)


async def later(order: Order) -> str:
    return order.order_id


@pytest.mark.parametrize(
    ("function", "given", "why"),
    [
        (of_model, "customr", "names no field of Order: it has customer, order_id, region, secret; a header .* such as '_key'"),
        (of_dataclass, "customer", "names no field of Plain: it has order_id"),
        (of_typed_dict, "customer", "names no field of Typed: it has order_id"),
        (of_number, "customer", "names no field of int: it has no fields"),
        (of_model, "", "names no field"),
        (of_model, "_", "names no field"),
        (of_model, 7, "the name of a field, the name of a header such as '_key', or a function of the body, not 7"),
        (of_model, Order, "or a function of the body"),
        (of_model, later, "is async, and would give no key: write a plain function of the body"),
    ],
)
def test_a_wrong_key_is_refused_at_registration(function: Any, given: Any, why: str) -> None:
    """With the handler's name and the repair."""
    app = StreamWorker(group="billing")

    with pytest.raises(SetupError, match=why) as caught:
        app.handler("orders", ordering_key=given)(function)
    assert function.__name__ in str(caught.value)


def test_a_handler_without_a_key_has_no_order() -> None:
    """As most have none."""
    assert a_handler(of_model).key_of is None
