"""The json codec, and what is common to all codecs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from streamworker.codecs import Codec, Decoder, FieldsCodec, JsonCodec, codec_named, read_headers
from streamworker.delivery import Fields
from streamworker.errors import DecodeError, EncodeError, SetupError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


class Line(BaseModel):
    sku: str
    price: Decimal = Decimal(1)


class Order(BaseModel):
    order_id: int = Field(alias="orderId")
    note: str | None = None
    lines: list[Line] = []
    weight: float = 0.0


class Renamed(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False)
    cents: int = Field(alias="amount")


@dataclass
class Point:
    x: int
    y: float = 0.0


ORDERS = st.builds(
    Order,
    orderId=st.integers(),
    note=st.none() | TEXT,
    lines=st.lists(st.builds(Line, sku=TEXT, price=st.decimals(allow_nan=False, allow_infinity=False)), max_size=3),
    weight=st.floats(allow_nan=False, allow_infinity=False),
)


def outcome(decode: Decoder, fields: Fields) -> object:
    """The body, or the DecodeError; anything else fails the test."""
    try:
        return decode(fields)
    except DecodeError as error:
        return error


@settings(deadline=None)
@given(ORDERS)
def test_a_model_comes_back_equal(order: Order) -> None:
    """Aliases, nesting and None survive."""
    codec = JsonCodec()

    assert order == codec.decoder(Order)(codec.encode(order, {}))


@pytest.mark.parametrize(
    ("annotation", "body"),
    [
        (Point, Point(1, 2.5)),
        (dict[str, str], {"a": "1"}),
        (dict[str, Any], {"a": [1, None, {"b": True}]}),
        (list[int], [1, 2]),
        (int, 7),
        (str, "seven"),
        (bool, False),
        (int | None, None),
        (Renamed, Renamed.model_construct(cents=5)),
        (Order | Point, Point(3)),
    ],
)
def test_other_bodies_come_back_equal(annotation: Any, body: object) -> None:
    """Anything that has a JSON form can be a body."""
    codec = JsonCodec()

    assert body == codec.decoder(annotation)(codec.encode(body, {}))


def test_the_body_is_compact_json_in_one_field_and_headers_follow() -> None:
    """Any language can read the entry."""
    fields = JsonCodec("payload").encode(Order(orderId=7), {"tenant": "acme"})

    assert [b"payload", b'{"orderId":7,"note":null,"lines":[],"weight":0.0}', b"_tenant", b"acme"] == fields
    assert {"tenant": "acme"} == read_headers(fields)


def test_of_repeated_fields_the_last_is_read() -> None:
    """As everywhere with repeated names."""
    decode = JsonCodec().decoder(int)

    assert 2 == decode([b"data", b"1", b"data", b"2", b"other", b"3"])


def test_raw_handlers_get_the_whole_entry() -> None:
    """`dict[bytes, bytes]` is the entry itself under every codec."""
    decode = JsonCodec().decoder(dict[bytes, bytes])

    assert {b"data": b"\xff", b"_tenant": b"acme"} == decode([b"data", b"\xff", b"_tenant", b"acme"])


def test_a_missing_field_is_named_with_those_that_are_there() -> None:
    """The names are escaped and capped, because anybody can choose them."""
    decode = JsonCodec().decoder(Order)

    with pytest.raises(DecodeError) as caught:
        decode([b"order_id", b"7", b"\x1b[31m", b"x", b"n" * 1_000_000, b"x"])

    assert f"the entry has no field 'data': it holds 'order_id', '\\\\x1b[31m', '{'n' * 60}…'" == str(caught.value)


def test_many_names_are_counted_after_the_first_ten() -> None:
    """4,500 fields make no long sentence."""
    decode = JsonCodec().decoder(Order)

    with pytest.raises(DecodeError, match="and 4490 more"):
        decode([part for number in range(4_500) for part in (b"f%d" % number, b"x")])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"null",
        b"[" * 100_000,
        b'{"orderId":' + b"[" * 100_000,
        b'{"orderId":' + b"1" * 5_000 + b"}",
        b'{"orderId":NaN}',
        b'{"orderId":1,"note":"\\ud800"}',
        b'{"orderId":1,"note":"\xff"}',
        b'{"orderId":1,"lines":[' + b'{"sku":1},' * 200_000 + b"{}]}",
    ],
)
def test_a_hostile_body_is_a_decode_error(data: bytes) -> None:
    """Short, and nothing but DecodeError."""
    decode = JsonCodec().decoder(Order)

    refusal = outcome(decode, [b"data", data])

    assert isinstance(refusal, DecodeError)
    assert len(str(refusal)) <= 2_000
    assert refusal.__cause__ is None
    assert refusal.__context__ is None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_or_a_decode_error(data: bytes) -> None:
    """No other exception comes out."""
    decode = JsonCodec().decoder(dict[str, Any])

    body = outcome(decode, [b"data", data])

    assert isinstance(body, dict) or (isinstance(body, DecodeError) and len(str(body)) <= 2_000)


@pytest.mark.parametrize(
    "body",
    [
        float("nan"),
        float("-inf"),
        {"a": [float("nan")]},
        Order(orderId=1, weight=float("nan")),
        Point(1, float("inf")),
        object(),
        {"a": object()},
        "\ud800",
        {"a": b"\xff"},
        Order.model_construct(order_id="SECRET"),
    ],
)
def test_a_body_without_a_json_form_is_refused(body: object) -> None:
    """Before anything is sent, and without quoting the value."""
    with pytest.raises(EncodeError) as caught:
        JsonCodec().encode(body, {})

    assert "SECRET" not in str(caught.value)


def test_text_that_mentions_nan_is_no_nan() -> None:
    """The words may stand in any text."""
    assert [b"data", b'{"a":"NaN null Infinity","b":null}'] == JsonCodec().encode({"a": "NaN null Infinity", "b": None}, {})


@pytest.mark.parametrize("annotation", [Callable[[], int], object(), "Unknown", None, lambda: 0])
def test_an_annotation_that_no_entry_can_hold_is_refused_at_registration(annotation: Any) -> None:
    """The sentence names what to use instead."""
    with pytest.raises(SetupError, match=r"cannot be a body: .*Annotate the handler's first parameter with"):
        JsonCodec().decoder(annotation)


@pytest.mark.parametrize("field", ["", "_data", "traceparent", "ce_data"])
def test_the_body_field_cannot_be_a_header(field: str) -> None:
    """It would never be found again."""
    with pytest.raises(SetupError, match="choose one such as 'data'"):
        JsonCodec(field)


def test_codecs_are_found_by_name() -> None:
    """And a codec given as such is taken as it is."""
    own = JsonCodec("payload")

    assert isinstance(codec_named("fields"), FieldsCodec)
    assert isinstance(codec_named("json"), JsonCodec)
    assert own is codec_named(own)
    assert all(isinstance(codec, Codec) and codec.name == name for name in ("fields", "json") if (codec := codec_named(name)))


@pytest.mark.parametrize(
    ("codec", "repair"),
    [
        ("jsn", "did you mean 'json'?"),
        ("pickle", "use 'fields', 'json'"),
        (JsonCodec, "an instance"),
        (7, "codec=int is not a codec"),
    ],
)
def test_an_unknown_codec_is_refused_with_a_repair(codec: Any, repair: str) -> None:
    """A wrong name fails at import."""
    with pytest.raises(SetupError) as caught:
        codec_named(codec)

    assert repair in str(caught.value)
