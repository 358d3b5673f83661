"""The default codec: one field of the entry for each field of the body, so that any `XADD` is a producer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

from pydantic import BaseModel

from streamworker.codecs.base import Decoder
from streamworker.codecs.headers import write_headers
from streamworker.codecs.readers import read_raw
from streamworker.codecs.reasons import shown, shown_bytes
from streamworker.codecs.records import RecordReader, ScalarReader
from streamworker.codecs.shapes import Shape, Takes, described, is_raw, not_a_body
from streamworker.codecs.texts import UNWRITABLE, bytes_of, plain, text_of
from streamworker.codecs.writers import RecordWriter
from streamworker.entries import Fields, is_header
from streamworker.errors import EncodeError

_SCALAR_FIELD = b"value"


class FieldsCodec:
    """Bodies as flat fields: scalars as text, structure as JSON in its one field, None left out.

    An entry whose single body field is called `data`, `payload`, `body`, `message`, `value`, `json` or `_raw`, and holds a JSON
    object, is read as that object, unless the model knows the field; `strict_fields=True` turns this off.
    """

    name: str = "fields"

    def __init__(self, *, strict_fields: bool = False) -> None:
        self._strict_fields = strict_fields
        self._writers: dict[type, RecordWriter] = {}

    def encode(self, body: object, headers: Mapping[str, str]) -> Fields:
        """The body's fields in the order of their declaration, then the headers. Raises `EncodeError`."""
        fields = self._body_fields(body)
        if not fields:
            raise EncodeError(f"this {type(body).__name__} has no field that is not None, and an entry needs at least one field")
        if headers:
            head = write_headers(headers)
            _refuse_clash(fields, head)
            fields += head
        return fields

    def decoder(self, annotation: Any) -> Decoder:
        """What reads entries for a handler with this annotation. Raises `SetupError` when it cannot be a body."""
        if is_raw(annotation):
            return read_raw
        adapter, shape = described(annotation)
        takes = shape.takes(shape.root) & ~Takes.NULL
        if takes & Takes.STRUCTURE:
            _refuse_lists(annotation, shape, takes)
        elif takes is not Takes.ANY:
            return ScalarReader(adapter, shape)
        return RecordReader(adapter, shape, strict_fields=self._strict_fields)

    def _body_fields(self, body: object) -> Fields:
        writer = self._writers.get(type(body))
        if writer is not None:
            return self._written(writer, body)
        if isinstance(body, Mapping):
            return _mapping_fields(body)
        if not (isinstance(body, BaseModel) or is_dataclass(body)) or isinstance(body, type):
            return _scalar_fields(body)
        writer = self._writers[type(body)] = RecordWriter(type(body))
        return self._written(writer, body)

    def _written(self, writer: RecordWriter, body: object) -> Fields:
        dumped = writer.dumped(body)
        if not isinstance(dumped, dict):  # a root model: what it wraps is the body
            return _scalar_fields(dumped)
        return writer.fields(dumped) if writer.is_record else _mapping_fields(dumped)


def _mapping_fields(body: Mapping[Any, Any]) -> Fields:
    fields: Fields = []
    for name, value in body.items():
        wire = _wire_name(name)
        if value is not None:
            try:
                fields += (wire, value.encode() if isinstance(value, str) else bytes_of(value))
            except UNWRITABLE:
                raise EncodeError(
                    f"field {shown_bytes(wire)!r}: this {type(value).__name__} cannot be written as text or JSON"
                ) from None
    return fields


def _wire_name(name: object) -> bytes:
    if not isinstance(name, (str, bytes)):
        raise EncodeError(f"a field's name is of type {type(name).__name__}: make it text")
    try:
        wire = name.encode() if isinstance(name, str) else name
    except UnicodeEncodeError:
        raise EncodeError("a field's name holds half a surrogate pair, which UTF-8 cannot write") from None
    if is_header(wire):
        label = shown_bytes(wire)
        raise EncodeError(f"field {label!r} would be read as a header; give it as headers={{{label.removeprefix('_')!r}: …}}")
    return wire


def _scalar_fields(body: object) -> Fields:
    if body is None:
        raise EncodeError("None cannot be a body; an entry needs at least one field")
    if isinstance(body, (bytes, bytearray, memoryview)):
        return [_SCALAR_FIELD, bytes(body)]
    kind = shown(type(body).__name__)
    try:
        value = plain(body)
        if value is None or isinstance(value, (list, dict)):
            raise EncodeError(f"a {kind} is not one entry's fields; put it in a field of a model, or use codec='json'")
        return [_SCALAR_FIELD, text_of(value)]
    except UNWRITABLE:
        raise EncodeError(
            f"this {kind} cannot be written as text; publish a pydantic model, a dataclass, a mapping or a finite scalar"
        ) from None


def _refuse_clash(fields: Fields, head: Fields) -> None:
    """A field that a model declares under a header's name and a header of that name would be read as one another."""
    clash = set(fields[::2]) & set(head[::2])
    if clash:
        label = shown_bytes(min(clash))
        raise EncodeError(f"the body declares the field {label!r} and a header of that name is given; leave one of them out")


def _refuse_lists(annotation: Any, shape: Shape, takes: Takes) -> None:
    """Only objects can be told apart from one entry's fields."""
    kinds = {node.get("type") for node in shape.alternatives(shape.root)} - {"null"}
    if "array" in kinds:
        raise not_a_body(annotation, "one entry holds no list; use a model with a list in it, or codec='json'")
    if takes is not Takes.STRUCTURE:
        raise not_a_body(annotation, "a structure and a scalar cannot be told apart by an entry's fields; use codec='json'")
