"""The codec for hot paths: the whole body as JSON in one field, headers as further fields. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic_core import SchemaSerializer, to_json, to_jsonable_python

from streamworker.codecs.base import Decoder
from streamworker.codecs.headers import write_headers
from streamworker.codecs.readers import read_raw
from streamworker.codecs.reasons import names_in, refused, shown
from streamworker.codecs.shapes import described, is_raw, reads_aliases
from streamworker.codecs.texts import UNWRITABLE
from streamworker.entries import Fields, is_header
from streamworker.errors import DecodeError, EncodeError, SetupError

_check_numbers = json.JSONEncoder(allow_nan=False).encode


class JsonCodec:
    """Bodies as compact JSON in one field, which `field` names."""

    name: str = "json"

    def __init__(self, field: str = "data") -> None:
        if not field or is_header(field.encode(errors="replace")):
            raise SetupError(f"JsonCodec(field={field!r}): the name is empty or a header's; choose one such as 'data'")
        self._field = field.encode()
        self._serializers: dict[type, SchemaSerializer] = {}

    def encode(self, body: object, headers: Mapping[str, str]) -> Fields:
        """The body as one field, then the headers. Raises `EncodeError`."""
        try:
            data = self._data(body)
        except (*UNWRITABLE, SetupError):
            raise EncodeError(
                f"this {shown(type(body).__name__)} cannot be written as JSON: a value has no JSON form, is not finite, "
                "or does not fit its field's type"
            ) from None
        return [self._field, data, *write_headers(headers)] if headers else [self._field, data]

    def decoder(self, annotation: Any) -> Decoder:
        """What reads entries for a handler with this annotation. Raises `SetupError` when it cannot be a body."""
        if is_raw(annotation):
            return read_raw
        # The adapter's own method looks at its options anew for each entry, and to be given one costs the validator as much as a field.
        adapter = described(annotation)[0]
        validate: Callable[..., Any] = adapter.validator.validate_json
        if not reads_aliases(adapter.core_schema):
            validate = partial(validate, by_alias=True)
        field = self._field

        def decode(fields: Fields) -> Any:
            try:
                return validate(fields[1] if len(fields) == 2 and fields[0] == field else _value_of(fields, field))
            except (MemoryError, DecodeError):
                raise  # the first says something about this process, nothing about the entry
            except Exception as error:  # noqa: BLE001 - validators are the user's code; whatever they raise refuses this entry
                refusal = refused(error)
            raise refusal

        return decode

    def _data(self, body: object) -> bytes:
        serializer = self._serializers.get(type(body))
        if serializer is None and (isinstance(body, BaseModel) or is_dataclass(body)) and not isinstance(body, type):
            serializer = self._serializers[type(body)] = described(type(body))[0].serializer
        if serializer is not None:
            # Below the adapter, whose own method only hands on fifteen arguments for each entry.
            data = serializer.to_json(body, by_alias=True, round_trip=True, warnings="error")
        else:
            data = to_json(body, by_alias=True, round_trip=True)
        if b"null" in data or b"NaN" in data or b"Infinity" in data:
            # NaN is written as one of these words, and read back as something else or not at all.
            _check_numbers(to_jsonable_python(body, by_alias=True, round_trip=True))
        return data


def _value_of(fields: Fields, field: bytes) -> bytes:
    for position in range(len(fields) - 2, -1, -2):  # backwards: of repeated names the last wins
        if fields[position] == field:
            return fields[position + 1]
    held = f"it holds {names_in(fields)}" if fields else "it is empty"
    raise DecodeError(f"the entry has no field {shown(field.decode())!r}: {held}")
