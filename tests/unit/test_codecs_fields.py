"""The fields codec: what is written, what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    RootModel,
    computed_field,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from streamworker.codecs import Decoder, FieldsCodec, read_headers
from streamworker.delivery import Fields
from streamworker.errors import DecodeError, EncodeError, SetupError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MOMENTS = st.datetimes(timezones=st.just(UTC))
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(Enum):
    HALF = 1.5
    TWO = 2
    WORD = "word"


class Address(BaseModel):
    city: str
    zip: int | None = None
    street_name: str = Field("", alias="street")


class Person(BaseModel):
    name: str
    age: int | None = None
    address: Address | None = None
    tags: list[str] = []
    atts: dict[str, int] = {}
    addresses: list[Address] = []


class Flat(BaseModel):
    order_id: str
    cents: int


class Everything(BaseModel):
    number: int
    text: str
    required_nullable: int | None
    required_text: str | None
    truth: bool = True
    ratio: float = 0.5
    price: Decimal | None = None
    moment: datetime | None = None
    day: date = date(2026, 1, 1)
    span: timedelta = timedelta(0)
    uid: UUID | None = None
    raw: bytes = b""
    raw_or_none: bytes | None = None
    colour: Colour = Colour.RED
    level: Level | None = None
    mixed: Mixed = Mixed.TWO
    listed: Literal[1, 2, "many"] = 1
    flag: Literal[True] | None = None
    numbers: list[int] = []
    table: dict[str, Decimal] = {}
    home: Address | None = None
    homes: list[Address] = []
    either: str | list[int] = ""
    unspecified: Any = None
    default_is_seven: int | None = 7
    default_is_list: list[int] | None = Field(default_factory=lambda: [1])
    aliased: int = Field(0, alias="aLias")
    one_way: int = Field(0, serialization_alias="oneWay")
    other_way: int = Field(0, validation_alias=AliasChoices("ow", "o_w"))
    klass: str = Field("", alias="_class")
    embedded: Json[list[int]] = []


EVERYTHING = st.builds(
    Everything.model_construct,
    number=st.integers(-(10**30), 10**30),
    text=TEXT,
    required_nullable=st.none() | st.integers(),
    required_text=st.none() | TEXT,
    truth=st.booleans(),
    ratio=FLOATS,
    price=st.none() | NUMBERS,
    moment=st.none() | MOMENTS,
    day=st.dates(),
    span=st.timedeltas(timedelta(-900), timedelta(900)),
    uid=st.none() | st.uuids(),
    raw=st.binary(),
    raw_or_none=st.none() | st.binary(),
    colour=st.sampled_from(Colour),
    level=st.none() | st.sampled_from(Level),
    mixed=st.sampled_from(Mixed),
    listed=st.sampled_from([1, 2, "many"]),
    flag=st.sampled_from([None, True]),
    numbers=st.lists(st.integers(), max_size=3),
    table=st.dictionaries(TEXT, NUMBERS, max_size=3),
    home=st.none() | st.builds(Address, city=TEXT, zip=st.none() | st.integers(), street=TEXT),
    homes=st.lists(st.builds(Address, city=TEXT, street=TEXT), max_size=2),
    either=TEXT | st.lists(st.integers(), max_size=3) | st.sampled_from(["[1]", '"x"', "{}", " [1]", '"', "["]),
    unspecified=ANYTHING,
    default_is_seven=st.none() | st.integers(),
    default_is_list=st.none() | st.lists(st.integers(), max_size=2),
    aliased=st.integers(),
    one_way=st.integers(),
    other_way=st.integers(),
    klass=TEXT,
    embedded=st.lists(st.integers(), max_size=3),
)


@dataclass
class Point:
    x: int
    label: str | None = None
    path: list[Address] = field(default_factory=list)
    z: Annotated[float, Field(alias="Z")] = 0.0


class Typed(TypedDict, total=False):
    x: int
    tags: list[str]
    named: Annotated[int, Field(alias="Named")]


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int | None


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    names: list[str]


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int = 0


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    x: int


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    x: int
    truth: bool
    moment: datetime


class Summed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    x: int

    @computed_field
    def double(self) -> int:
        return 2 * self.x


class Node(BaseModel):
    value: int = 0
    next: Node | None = None


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


def round_trip(annotation: Any, body: object) -> object:
    codec = FieldsCodec()
    return codec.decoder(annotation)(codec.encode(body, {"tenant": "acme"}))


def decoded(annotation: Any, *fields: bytes) -> Any:
    return FieldsCodec().decoder(annotation)(list(fields))


def outcome(decode: Decoder, fields: Fields) -> object:
    """The body, or the DecodeError; anything else fails the test."""
    try:
        return decode(fields)
    except DecodeError as error:
        return error


# ---- there and back ---------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(EVERYTHING)
def test_a_model_of_all_kinds_comes_back_equal(body: Everything) -> None:
    """Whatever a field holds, the handler gets what was published."""
    assert body == round_trip(Everything, body)


@settings(deadline=None)
@given(st.dictionaries(TEXT.filter(lambda name: {} == read_headers([name.encode(), b""])), TEXT, min_size=1))
def test_a_dict_of_text_comes_back_equal(body: dict[str, str]) -> None:
    """Text is never taken for JSON there."""
    assert body == round_trip(dict[str, str], body)


@settings(deadline=None)
@given(st.dictionaries(st.binary().filter(lambda name: {} == read_headers([name, b""])), st.binary(), min_size=1))
def test_a_raw_dict_comes_back_equal_byte_for_byte(body: dict[bytes, bytes]) -> None:
    """With the headers, which raw handlers see as fields."""
    assert body | {b"_tenant": b"acme"} == round_trip(dict[bytes, bytes], body)


@pytest.mark.parametrize(
    ("annotation", "bodies"),
    [
        (int, st.integers()),
        (str, TEXT),
        (bytes, st.binary()),
        (float, FLOATS),
        (bool, st.booleans()),
        (Decimal, NUMBERS),
        (datetime, MOMENTS),
        (date, st.dates()),
        (UUID, st.uuids()),
        (Colour, st.sampled_from(Colour)),
        (Level, st.sampled_from(Level)),
        (Mixed, st.sampled_from(Mixed)),
        (int | None, st.integers()),
    ],
)
def test_a_scalar_comes_back_equal(annotation: Any, bodies: st.SearchStrategy[object]) -> None:
    """Written as the field `value`, read from whichever field is alone."""

    @settings(deadline=None)
    @given(bodies)
    def holds(body: object) -> None:
        assert body == round_trip(annotation, body)

    holds()


@pytest.mark.parametrize(
    ("annotation", "body"),
    [
        (Point, Point(1, "a", [Address(city="Rome")], z=2.5)),
        (Point, Point(1)),
        (Typed, Typed(x=1, tags=["a"], named=3)),
        (Pet, Cat(lives=None)),
        (Pet, Dog(names=["rex"])),
        (Cat | Dog, Cat(lives=9)),
        (Cat | Dog, Cat(lives=None)),
        (Flat | Point, Point(3, "x")),
        (Cat | None, Cat(lives=None)),
        (dict[str, int], {"a": 1}),
        (dict[str, list[int]], {"a": [1, 2], "b": []}),
        (dict[str, Any], {"a": "1", "b": [1, {"c": None}], "c": '"quoted"'}),
        (dict, {"a": "1"}),
        (Any, {"a": "1"}),
        (RootModel[dict[str, int]], RootModel[dict[str, int]]({"a": 1})),
        (RootModel[int], RootModel[int](5)),
        (RootModel[Flat], RootModel[Flat](Flat(order_id="7", cents=1))),
        (Open, Open.model_validate({"x": 1, "more": "text", "list": [1]})),
        (Summed, Summed(x=4)),
    ],
)
def test_other_bodies_come_back_equal(annotation: Any, body: object) -> None:
    """Dataclasses, TypedDicts, unions, mappings and root models."""
    assert body == round_trip(annotation, body)


# ---- writing ----------------------------------------------------------------------------------------------------------------


def test_scalars_are_text_structure_is_json_and_none_is_left_out() -> None:
    """One field for each of the model's, in their order, then the headers."""
    body = Person(name="Ada", address=Address(city="Rome", street="Via"), tags=["a"], atts={"b": 1})

    fields = FieldsCodec().encode(body, {"type": "person", "traceparent": "00-1"})

    expected = [
        (b"name", b"Ada"),
        (b"address", b'{"city":"Rome","zip":null,"street":"Via"}'),
        (b"tags", b'["a"]'),
        (b"atts", b'{"b":1}'),
        (b"addresses", b"[]"),
        (b"_type", b"person"),
        (b"traceparent", b"00-1"),
    ]
    assert [part for pair in expected for part in pair] == fields


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, b"true"),
        (False, b"false"),
        (7, b"7"),
        (1.5, b"1.5"),
        ("7", b"7"),
        (b"\xff", b"\xff"),
        (Decimal("1.10"), b"1.10"),
        (Level.HIGH, b"2"),
        (Colour.RED, b"red"),
        (datetime(2026, 11, 22, 10, tzinfo=UTC), b"2026-11-22T10:00:00Z"),
        ([1, "é"], '[1,"é"]'.encode()),
        ({"a": Address(city="x")}, b'{"a":{"city":"x","zip":null,"street":""}}'),
    ],
)
def test_a_mapping_is_written_like_a_model(value: object, text: bytes) -> None:
    """A plain dict needs no class."""
    assert [b"a", text] == FieldsCodec().encode({"a": value, "b": None}, {})


def test_a_scalar_is_written_as_the_field_value() -> None:
    """Some name has to be chosen."""
    assert [b"value", b"7"] == FieldsCodec().encode(7, {})


def test_none_is_written_as_the_empty_text_where_leaving_it_out_would_bring_back_another_default() -> None:
    """Left out, it would silently become 7."""

    class Seven(BaseModel):
        a: int | None = 7

    assert [b"a", b""] == FieldsCodec().encode(Seven(a=None), {})


def test_none_that_cannot_be_told_from_the_default_is_refused() -> None:
    """The empty text is a text."""

    class Texted(BaseModel):
        a: str | None = "x"

    with pytest.raises(EncodeError, match="come back as its default"):
        FieldsCodec().encode(Texted(a=None), {})


class Extended(BaseModel):
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "at least one field"),
        ({"a": None}, "at least one field"),
        (Point.__new__(Point), "has no JSON form"),
        (None, "at least one field"),
        ({"_tenant": "x"}, "headers={'tenant': …}"),
        ({b"_tenant": "x"}, "headers={'tenant': …}"),
        ({"traceparent": "x"}, "headers={'traceparent': …}"),
        (Extended.model_validate({"traceparent": "x"}), "would be read as a header"),
        ({7: "x"}, "name is of type int"),
        ({"\ud800": "x"}, "surrogate"),
        ({"a": "\ud800"}, "field 'a'"),
        ({"a": float("nan")}, "field 'a'"),
        ({"a": [float("inf")]}, "field 'a'"),
        ({"a": object()}, "field 'a'"),
        pytest.param({"a": 10**5000}, "field 'a'", id="nested digits"),
        (float("nan"), "finite scalar"),
        (Decimal("NaN"), "finite scalar"),
        pytest.param(10**5000, "cannot be written", id="digits"),
        (object(), "publish a pydantic model"),
        (Flat, "publish a pydantic model"),
        ([1], "use codec='json'"),
        ({1, 2}, "use codec='json'"),
        (RootModel[list[int]]([1]), "use codec='json'"),
        (Flat.model_construct(order_id="1", cents="SECRET"), "field 'cents' of Flat"),
        (Everything.model_construct(number=1, text="SECRET", ratio=float("nan")), "field 'ratio'"),
        (Everything.model_construct(number=1, text="\ud800"), "field 'text'"),
        pytest.param(Person(name="x", atts={"a": 10**5000}), "field 'atts'", id="digits in a model"),
    ],
)
def test_a_body_that_could_not_be_read_back_is_refused_with_a_sentence(body: object, sentence: str) -> None:
    """Before anything is sent; the sentence may end in a dead letter, so it quotes no value."""
    with pytest.raises(EncodeError) as caught:
        FieldsCodec().encode(body, {})

    assert sentence in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_circle_is_refused() -> None:
    """It has no end to be written."""
    circle: dict[str, Any] = {}
    circle["self"] = circle

    with pytest.raises(EncodeError, match="field 'self'"):
        FieldsCodec().encode(circle, {})


def test_a_header_cannot_take_the_place_of_a_declared_field() -> None:
    """Either would be read as the other."""
    body = Everything(number=1, text="", required_nullable=None, required_text=None, _class="a")

    with pytest.raises(EncodeError, match="leave one of them out"):
        FieldsCodec().encode(body, {"class": "b"})


# ---- reading ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cents", [b"990", b"990.0", b" 990 "])
def test_what_redis_cli_writes_is_read(cents: bytes) -> None:
    """`XADD orders * order_id 7 cents 990` from any language is valid input; unknown fields are ignored."""
    body = decoded(Flat, b"order_id", b"7", b"cents", cents, b"more", b"\xff", b"\xff", b"x", b"_type", b"\xff")

    assert Flat(order_id="7", cents=990) == body


def test_of_repeated_fields_the_last_wins() -> None:
    """As in every client that makes a dict of an entry."""
    assert 2 == decoded(Flat, b"order_id", b"7", b"cents", b"1", b"cents", b"2").cents


def test_a_strict_model_is_read_from_text() -> None:
    """Text cannot keep types apart."""
    body = decoded(Strict, b"x", b"1", b"truth", b"yes", b"moment", b"2026-11-22T10:00:00Z")

    assert Strict(x=1, truth=True, moment=datetime(2026, 11, 22, 10, tzinfo=UTC)) == body


def test_the_empty_text_is_none_where_no_text_can_stand() -> None:
    """ioredis and go-redis write null so."""
    fields = [
        b"number",
        b"1",
        b"text",
        b"",
        b"required_text",
        b"",
        b"required_nullable",
        b"",
        b"price",
        b"",
        b"home",
        b"",
        b"uid",
        b"",
    ]

    body = decoded(Everything, *fields, b"moment", b"", b"level", b"", b"flag", b"")

    assert ["", ""] == [body.text, body.required_text]
    assert [None] * 7 == [body.required_nullable, body.price, body.home, body.uid, body.moment, body.level, body.flag]


def test_the_empty_text_stays_where_none_cannot_stand() -> None:
    """Then it is an error of the entry."""
    with pytest.raises(DecodeError, match="cents: int_parsing"):
        decoded(Flat, b"order_id", b"7", b"cents", b"")


def test_a_nullable_field_without_default_may_be_absent() -> None:
    """None is left out in writing."""
    assert Cat(lives=None) == decoded(Cat, b"kind", b"cat")


def test_text_or_structure_is_structure_only_when_it_begins_like_it() -> None:
    """`5` stays text."""
    fields = [b"number", b"1", b"text", b"", b"either"]

    assert ["5", [5], "[5", "true"] == [decoded(Everything, *fields, text).either for text in (b"5", b"[5]", b"[5", b"true")]


def test_a_field_of_any_type_is_json_or_else_text() -> None:
    """Other programs do not quote."""
    fields = [b"number", b"1", b"text", b"", b"unspecified"]

    assert [5, "abc", {"a": 1}, "NaN"] == [
        decoded(Everything, *fields, text).unspecified for text in (b"5", b"abc", b'{"a":1}', b"NaN")
    ]


def test_a_list_written_with_commas_reaches_the_models_own_validator() -> None:
    """Text that cannot be meant as JSON is handed on."""

    class Split(BaseModel):
        tags: Annotated[list[str], BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)]

    assert ["a", "b"] == decoded(Split, b"tags", b"a,b").tags
    assert ["a", "b"] == decoded(Split, b"tags", b' ["a","b"]').tags


def test_aliases_of_both_directions_are_read() -> None:
    """So that what a model writes under one name and reads under another comes back."""

    class Pathed(BaseModel):
        a: int = Field(validation_alias=AliasChoices("aa", AliasPath("deep", "a")))
        b: int = Field(alias="B", default=0)

    class Named(Pathed):
        model_config = ConfigDict(validate_by_name=True)

    assert [1, 2] == [decoded(Pathed, b"aa", b"1").a, decoded(Pathed, b"deep", b'{"a":2}').a]
    assert [3, 0] == [decoded(Named, b"aa", b"1", b"b", b"3").b, decoded(Pathed, b"aa", b"1", b"b", b"3").b]
    assert 4 == decoded(Everything, b"number", b"1", b"text", b"", b"oneWay", b"4").one_way
    assert 5 == decoded(Everything, b"number", b"1", b"text", b"", b"o_w", b"5").other_way


def test_a_declared_field_with_a_headers_name_is_body() -> None:
    """The model's word counts."""
    assert "x.Y" == decoded(Everything, b"number", b"1", b"text", b"", b"_class", b"x.Y").klass


def test_extra_fields_follow_the_model() -> None:
    """Kept, or refused by name; headers are never extra."""
    kept = decoded(Open, b"x", b"1", b"more", b"text", b"list", b"[1]", b"_type", b"t")

    assert {"more": "text", "list": [1]} == kept.model_extra
    with pytest.raises(DecodeError, match="more: extra_forbidden"):
        decoded(Closed, b"x", b"1", b"more", b"SECRET")
    assert Closed(x=1) == decoded(Closed, b"x", b"1", b"_type", b"t")


def test_text_that_is_not_utf8_is_refused_by_the_fields_name() -> None:
    """Never replaced in silence."""
    for annotation in (dict[str, str], dict[str, Any], Person, Any):
        with pytest.raises(DecodeError, match="field 'name' is not UTF-8"):
            decoded(annotation, b"name", b"\xff")
    with pytest.raises(DecodeError, match=r"field '\\\\xff' is not UTF-8"):
        decoded(dict[str, str], b"\xff", b"x")


def test_broken_json_is_refused_by_the_fields_name() -> None:
    """With the position, without the text."""
    with pytest.raises(DecodeError) as caught:
        decoded(Person, b"name", b"x", b"address", b'{"city": SECRET')

    assert "field 'address' is not valid JSON: expected value at line 1 column 10" == str(caught.value)


def test_a_scalar_is_read_from_the_only_field_whatever_its_name() -> None:
    """Headers do not count, and Spring's simple value is in `_raw`."""
    assert [5, 6] == [decoded(int, b"n", b"5", b"_type", b"t"), decoded(int, b"_class", b"x", b"_raw", b"6")]
    assert decoded(int | None, b"n", b"") is None


def test_a_scalar_among_other_fields_is_refused_with_their_names() -> None:
    """Which one would it be?"""
    with pytest.raises(DecodeError, match="this one has 2: it holds 'a', 'b'"):
        decoded(int, b"a", b"5", b"b", b"6")
    with pytest.raises(DecodeError, match="this one has 0: it holds '_type'"):
        decoded(int, b"_type", b"t")


# ---- dotted names -----------------------------------------------------------------------------------------------------------


def test_dotted_names_are_folded_back() -> None:
    """Spring flattens objects so; list entries may come in any order."""
    body = decoded(
        Person,
        *(b"name", b"Ada", b"address.city", b"Rome", b"address.zip", b"", b"address.street", b"Via"),
        *(b"tags.[1]", b"b", b"tags.[0]", b"a", b"atts.[eye.color]", b"3"),
        *(b"addresses.[0].city", b"Bonn", b"addresses.[1].city", b"Pisa", b"addresses.[0].zip", b"5"),
    )

    expected = Person(
        name="Ada",
        address=Address(city="Rome", street="Via"),
        tags=["a", "b"],
        atts={"eye.color": 3},
        addresses=[Address(city="Bonn", zip=5), Address(city="Pisa")],
    )
    assert expected == body


@pytest.mark.parametrize(
    "name",
    [b"address.planet", b"name.first", b"tags.x", b"tags.[x]", b"tags.[\xc2\xb2]", b"address..city", b"address.", b"address.city.x",
     b"nothing.x", b".", b"..", b"address.[city", b"\xff.x", b"tags.[9999999]", b"addresses.[0].planet"],
)  # fmt: skip
def test_a_dotted_name_that_the_model_does_not_have_is_an_unknown_field(name: bytes) -> None:
    """It follows the model's setting for extra fields."""
    assert Person(name="Ada") == decoded(Person, b"name", b"Ada", name, b"1")


def test_a_whole_field_goes_before_dotted_ones() -> None:
    """Two programs wrote it, or somebody is up to something."""
    assert ["a"] == decoded(Person, b"name", b"Ada", b"tags", b'["a"]', b"tags.[0]", b"b").tags


def test_a_gap_in_a_dotted_list_is_refused() -> None:
    """Closing it would move what follows; and a high number must not make a long list."""
    with pytest.raises(DecodeError, match="field 'tags': its list entries are not numbered from 0"):
        decoded(Person, b"name", b"Ada", b"tags.[999999]", b"a")


def test_a_dotted_name_nests_no_deeper_than_32() -> None:
    """A name of a megabyte builds no tower."""
    reached = decoded(Node, b"next.next.value", b"5")

    assert Node(next=Node(next=Node(value=5))) == reached
    assert Node() == decoded(Node, b"next" + b".next" * 200_000 + b".value", b"5")


# ---- the whole body in one field ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"data", b"payload", b"body", b"message", b"value", b"json", b"_raw"])
def test_a_lone_field_with_a_json_object_is_the_body(name: bytes) -> None:
    """The other family of producers is read too."""
    body = decoded(Flat, b"_class", b"shop.Order", name, b' {"order_id":"7","cents":990}')

    assert Flat(order_id="7", cents=990) == body


@pytest.mark.parametrize(
    "fields",
    [
        [b"other", b'{"order_id":"7","cents":990}'],
        [b"data", b'"text"'],
        [b"data", b'{"order_id":"7","cents":990}', b"more", b"x"],
        [b"data", b'{"order_id":"7","cents":990}', b"cents", b"5"],
        [b"data", b"{"],
    ],
)
def test_anything_else_is_no_whole_body(fields: Fields) -> None:
    """Another name, another value, another field beside it."""
    with pytest.raises(DecodeError):
        decoded(Flat, *fields)


def test_a_model_that_knows_the_field_keeps_it() -> None:
    """Its own `data` is a field like any other, and so is that of a body that takes any field."""

    class Own(BaseModel):
        data: dict[str, int]

    assert Own(data={"a": 1}) == decoded(Own, b"data", b'{"a":1}')
    assert {"data": {"x": 5}} == decoded(Open, b"data", b'{"x":5}').model_extra
    assert {"data": '{"x":5}'} == decoded(dict[str, str], b"data", b'{"x":5}')


def test_strict_fields_turns_it_off() -> None:
    """For those who want one way only."""
    decode = FieldsCodec(strict_fields=True).decoder(Flat)

    with pytest.raises(DecodeError, match="order_id: missing"):
        decode([b"data", b'{"order_id":"7","cents":990}'])


# ---- what cannot be a body ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (list[int], "use a model with a list in it"),
        (set, "use a model with a list in it"),
        (RootModel[list[int]], "use a model with a list in it"),
        (Flat | int, "told apart"),
        (Callable[[], int], "no entry can hold"),
        (type(None), "no entry can hold"),
        (object(), "generate pydantic-core schema"),
        ("Unknown", "not fully defined"),
        (lambda: 0, "it is a function"),
    ],
)
def test_an_annotation_that_cannot_be_a_body_is_refused_at_registration(annotation: Any, why: str) -> None:
    """A wrong registration fails at import with a sentence."""
    with pytest.raises(SetupError) as caught:
        FieldsCodec().decoder(annotation)

    assert why in str(caught.value)
    assert "Annotate the handler's first parameter with" in str(caught.value)


# ---- hostile entries ----------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t-9471"


def _quoting(value: object) -> object:
    raise ValueError(f"bad value {value}")


def _custom(value: object) -> object:
    raise PydanticCustomError("custom_kind", "bad value {value}", {"value": str(value)})


def _broken(value: object) -> object:
    raise KeyError(value)


class Checked(BaseModel):
    a: str

    @model_validator(mode="after")
    def check(self) -> Checked:
        assert self.a == "", self.a
        return self


class Leaky(BaseModel):
    number: int
    ratio: float
    truth: bool
    price: Decimal
    moment: datetime
    day: date
    span: timedelta
    uid: UUID
    colour: Colour
    mixed: Mixed
    listed: Literal[1, "x"]
    structure: list[int]
    home: Address
    table: dict[int, int]
    pet: Pet
    quoting: Annotated[str, AfterValidator(_quoting)]
    custom: Annotated[str, AfterValidator(_custom)]
    embedded: Json[int]
    pattern: Annotated[str, Field(pattern="^a$")]
    short: Annotated[str, Field(max_length=2)]


LEAKS = [SECRET, f'"{SECRET}"', f'["{SECRET}"]', f'{{"kind":"{SECRET}"}}', f'{{"city":["{SECRET}"]}}', f"[{SECRET}", f'["{SECRET}']


@pytest.mark.parametrize("text", LEAKS)
@pytest.mark.parametrize("name", list(Leaky.model_fields))
def test_no_error_quotes_the_payload(name: str, text: str) -> None:
    """Whatever pydantic or a validator says about it."""
    with pytest.raises(DecodeError) as caught:
        decoded(Leaky, name.encode(), text.encode())

    assert SECRET not in str(caught.value)
    assert f"{name}: missing" not in str(caught.value)


@pytest.mark.parametrize("annotation", [Checked, Pet, Closed, int, Colour, Annotated[str, AfterValidator(_broken)], Typed, Point])
def test_no_error_of_a_whole_body_quotes_the_payload(annotation: Any) -> None:
    """Nor does its traceback carry it."""
    text = SECRET.encode()

    with pytest.raises(DecodeError) as caught:
        decoded(annotation, *([b"a", text] if annotation not in (Pet, Typed, Point) else [b"kind", text, b"x", text]))

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_names_from_the_entry_are_escaped_and_capped() -> None:
    """They are shown on terminals and pages."""
    with pytest.raises(DecodeError) as caught:
        decoded(Closed, b"x", b"1", b"\x1b[31m\r\n\xe2\x80\xae", b"x", b"n" * 1_000_000, b"x")

    assert (
        rf"2 errors in Closed; \x1b[31m\r\n\u202e: extra_forbidden: Extra inputs are not permitted; {'n' * 60}…: "
        "extra_forbidden: Extra inputs are not permitted"
    ) == str(caught.value)


def test_two_hundred_thousand_errors_make_one_short_sentence() -> None:
    """Pydantic's own text of them would be 42 MB."""
    with pytest.raises(DecodeError) as caught:
        decoded(Person, b"name", b"x", b"atts", b'{"a":"x"}', b"tags", b"[" + b"1," * 200_000 + b"1]")

    assert "200002 errors in Person, too many to list" == str(caught.value)


def test_many_errors_are_counted_after_the_first_ten() -> None:
    """The first say enough."""
    with pytest.raises(DecodeError, match=r"30 errors in Person; tags.0: string_type.*tags.9: string_type[^;]*; and 20 more$"):
        decoded(Person, b"name", b"x", b"tags", b"[" + b"1," * 29 + b"1]")


HOSTILE = [
    b"",
    b"\xff",
    b"\x00\x1b[2J",
    b"[" * 100_000,
    b'{"next":' * 100_000,
    b'{"value":' + b"1" * 5_000 + b"}",
    b"1" * 5_000,
    b"NaN",
    b"[NaN]",
    b'"\\ud800"',
    b'{"a":1,"a":2}',
    b"1e400",
    b"null",
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_value_is_a_body_or_a_decode_error(value: bytes) -> None:
    """In every field of every kind, and nothing else comes out."""
    longest = 0
    for model in (Everything, Person, Node, Leaky, Open, Point, Typed, Pet, dict[str, Any], dict[str, int], int, str, Decimal):
        decode = FieldsCodec().decoder(model)
        for name in (*Everything.model_fields, *Person.model_fields, *Node.model_fields, *Leaky.model_fields, "data", "_class"):
            body = outcome(decode, [name.encode(), value])
            if isinstance(body, DecodeError):
                longest = max(longest, len(str(body)))

    assert 0 < longest <= 2_000


def test_an_entry_of_4500_fields_is_read() -> None:
    """And a dotted list in it is put together."""
    fields = [part for number in range(4_500) for part in (b"tags.[%d]" % number, b"x")]

    assert 4_500 == len(decoded(Person, b"name", b"Ada", *fields).tags)


NAMES = st.sampled_from(
    [name.encode() for model in (Everything, Person, Leaky) for name in model.model_fields]
    + [b"data", b"_raw", b"_class", b"address.city", b"tags.[0]", b"tags.[1]", b"atts.[x]", b"next.next.value", b"aLias", b"kind"]
)
VALUES = st.sampled_from([b"1", b"true", b"x", b"[]", b"{}", b'{"city":"x"}', b"[1]", b"2026-01-01", b"cat", *HOSTILE[:3]])


@pytest.mark.parametrize(
    "annotation", [Everything, Person, Pet, Cat | Dog, Leaky, Open, Closed, Point, Typed, Node, Any, dict[str, str], int]
)
def test_any_entry_is_a_body_or_a_decode_error(annotation: Any) -> None:
    """Nothing else, and its text is short."""
    decode = FieldsCodec().decoder(annotation)

    @settings(deadline=None)
    @given(st.lists(st.tuples(NAMES | st.binary(max_size=10), VALUES | st.binary(max_size=20)), max_size=8))
    def holds(pairs: list[tuple[bytes, bytes]]) -> None:
        body = outcome(decode, [part for pair in pairs for part in pair])

        assert not isinstance(body, DecodeError) or 0 < len(str(body)) <= 2_000

    holds()
