"""Writing models and dataclasses as fields: everything about the class is worked out once. Pure."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from streamworker.codecs.reasons import shown
from streamworker.codecs.shapes import Node, Shape, Takes, described, written_name
from streamworker.codecs.texts import UNWRITABLE, Writer, bytes_of, guarded_text_of, json_of, text_of
from streamworker.entries import Fields, is_header
from streamworker.errors import EncodeError, SetupError


class _Place(NamedTuple):
    """How one declared field is written. `none` is what stands for None: nothing at all, these bytes, or no way to say it."""

    wire: bytes
    write: Writer
    none: bytes | None
    none_is_lost: bool


class RecordWriter:
    """Writes the instances of one class. Raises `EncodeError` when the class has no JSON form."""

    def __init__(self, kind: type) -> None:
        try:
            self._adapter, shape = described(kind)
        except SetupError as error:
            raise EncodeError(f"a {shown(kind.__name__)} cannot be written: {error}") from None
        # Below the adapter, whose own method only hands on fifteen arguments for each entry.
        self._serialize = self._adapter.serializer.to_python
        members = [node for node in shape.alternatives(shape.root) if "properties" in node]
        self.is_record: bool = bool(members)
        self._names: list[str] = []
        self._places: dict[str, _Place] = {}
        self._raw: dict[str, str] = {}
        for member in members:
            for name, prop in member["properties"].items():
                wire = written_name(name, prop)
                self._names.append(name)
                self._places[wire] = _place(wire, shape, prop, required=name in member.get("required", ()))
                if Takes.RAW in shape.takes(prop):
                    self._raw[name] = wire

    def fields(self, dumped: dict[str, Any]) -> Fields:
        """The fields of an instance that was dumped, in the order of their declaration."""
        fields: Fields = []
        places = self._places
        for name, value in dumped.items():
            place = places.get(name)
            if place is None:
                place = _undeclared(name)
            if value is not None:
                wire, write, _, _ = place
                try:
                    # Most values are plain text, and a call for each would cost as much as the rest of its field.
                    fields += (wire, value.encode() if write is text_of and type(value) is str else write(value))
                except UNWRITABLE:
                    raise EncodeError(
                        f"field {shown(name)!r} holds what JSON cannot: NaN, infinity or half a surrogate pair"
                    ) from None
            elif place.none_is_lost:
                raise EncodeError(
                    f"field {shown(name)!r} is None, which would come back as its default; make that None, or use codec='json'"
                )
            elif place.none is not None:
                fields += (place.wire, place.none)
        return fields

    def dumped(self, body: object) -> Any:
        """The instance as plain JSON values by alias, its bytes fields as they are."""
        try:
            if not self._raw:
                return self._serialize(body, mode="json", by_alias=True, round_trip=True, warnings="error")
            values = self._dump(body, exclude=set(self._raw))
            raw = self._dump(body, include=set(self._raw), mode="python")
        except UNWRITABLE:
            raise EncodeError(self._culprit(body)) from None
        if not isinstance(values, dict):
            return values
        values |= {wire: raw[wire] for wire in self._raw.values() if wire in raw}
        order = {wire: position for position, wire in enumerate(self._places)}
        return dict(sorted(values.items(), key=lambda item: order.get(item[0], len(order))))

    def _dump(self, body: object, *, mode: Literal["json", "python"] = "json", **which: Any) -> Any:
        # A value that does not fit its field would only become a dead letter, so it is refused here.
        return self._adapter.dump_python(body, mode=mode, by_alias=True, round_trip=True, warnings="error", **which)

    def _culprit(self, body: object) -> str:
        """Which field cannot be written; not its value, because this text may end in a dead letter."""
        for name in self._names:
            try:
                self._dump(body, include={name}, mode="python" if name in self._raw else "json")
            except UNWRITABLE:
                return f"field {shown(name)!r} of {shown(type(body).__name__)} does not hold what it declares, or has no JSON form"
        return f"this {shown(type(body).__name__)} has no JSON form"


def _place(wire: str, shape: Shape, prop: Node, *, required: bool) -> _Place:
    takes = shape.takes(prop)
    default_is_none = required or prop.get("default", "") is None
    if Takes.ANY in takes:
        return _Place(wire.encode(), json_of, b"null" if required or not default_is_none else None, none_is_lost=False)
    write = text_of
    if Takes.RAW in takes:
        write = bytes_of
    elif Takes.STRUCTURE in takes and takes & ~(Takes.STRUCTURE | Takes.NULL):
        write = guarded_text_of
    if default_is_none or Takes.NULL not in takes:
        return _Place(wire.encode(), write, None, none_is_lost=False)
    # Left out, None would come back as the default; '' comes back as None where '' can be nothing else.
    blank = Takes.BLANK in takes
    return _Place(wire.encode(), write, None if blank else b"", none_is_lost=blank)


def _undeclared(name: str) -> _Place:
    if is_header(name.encode()):
        raise EncodeError(f"field {shown(name)!r} would be read as a header; declare it, or give it as a header")
    return _Place(name.encode(), text_of, None, none_is_lost=False)
