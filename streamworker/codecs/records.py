"""Reading entries as bodies: everything about the annotation is worked out once, so that an entry costs one dict, one validation.

Pure. Whatever an entry holds, the answer is a body or `DecodeError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from streamworker.codecs.paths import fold
from streamworker.codecs.readers import Reader, reader_for, reader_for_extra
from streamworker.codecs.reasons import names_in, refused, unreadable
from streamworker.codecs.shapes import Node, Shape, Takes, has_path, read_names, written_name
from streamworker.entries import Fields, is_header
from streamworker.errors import DecodeError

_RAW_VALUE = b"_raw"
"""Where Spring puts a simple value; a header by its name."""

_WHOLE_BODY = frozenset({b"data", b"payload", b"body", b"message", b"value", b"json", _RAW_VALUE})
"""The names under which other programs put a whole body as JSON."""

_STRUCTURE: Node = {"type": "object"}


class _Plan(NamedTuple):
    """How entries with exactly these names, in this order, are read: producers seldom change what they write."""

    names: list[bytes]
    places: list[int] | None
    """Where in the entry the body's values are; `None`: all of them are."""
    keys: list[str]
    readers: list[Reader] | None
    """`None`: all of them are plain text."""
    absent: list[str]
    """What the writer left out because it was None."""


class RecordReader:
    """Reads a model, dataclass, TypedDict, mapping, or a union of them: one field of the entry for each of its fields."""

    def __init__(self, adapter: TypeAdapter[Any], shape: Shape, *, strict_fields: bool) -> None:
        members = [node for node in shape.alternatives(shape.root) if node.get("type") != "null"]
        self._adapter = adapter
        self._shape = shape
        self._nodes = _nodes_by_wire_name(members)
        self._places = {name.encode(): (key, reader_for(shape, *nodes)) for name, (key, nodes) in self._nodes.items()}
        self._structured = {key: {"anyOf": nodes} for key, nodes in self._nodes.values() if Takes.STRUCTURE in shape.takes(*nodes)}
        self._extra = _extra_reader(shape, members)
        self._absent_is_none = [_required_nullable(shape, member) for member in members]
        required = any(member.get("required") for member in members)
        # A body that keeps extra fields and asks for none takes a lone `data` as one of them.
        self._whole_body = not strict_fields and (required or self._extra is None)
        # Text cannot keep the types apart that a strict model wants to tell apart, so it is read in lax mode.
        self._validate = adapter.validator.validate_python
        self._plan: _Plan | None = None

    def __call__(self, fields: Fields) -> Any:
        """The body. Raises `DecodeError`."""
        plan = self._plan
        if plan is None or plan.names != fields[::2]:
            self._plan = self._plan_for(fields)
            return self._read(fields)
        values = fields[1::2] if plan.places is None else [fields[place] for place in plan.places]
        try:
            if plan.readers is None:
                body: dict[str, Any] = dict(zip(plan.keys, map(bytes.decode, values)))  # noqa: B905  # as many as keys
            else:
                body = {key: read(value) for key, read, value in zip(plan.keys, plan.readers, values, strict=True)}
        except ValueError:
            return self._read(fields)  # says which of them it is
        for key in plan.absent:
            body[key] = None
        try:
            return self._validate(body, strict=False, by_alias=True)
        except MemoryError:
            raise  # as in `validated`, of which each call costs
        except Exception as error:  # noqa: BLE001
            refusal = refused(error)
        raise refusal

    def _plan_for(self, fields: Fields) -> _Plan | None:
        """A plan where there is one: every field is one of the body's, each once, or a header."""
        names = fields[::2]
        found = [(number, self._places[name]) for number, name in enumerate(names) if name in self._places]
        others = [name for name in names if name not in self._places]
        keys = [key for _, (key, _) in found]
        simple = all(is_header(name) and name != _RAW_VALUE for name in others) and len(set(keys)) == len(keys)
        if not simple or len(self._absent_is_none) != 1:
            return None
        readers = [read for _, (_, read) in found]
        return _Plan(
            names=names,
            places=[2 * number + 1 for number, _ in found] if others else None,
            keys=keys,
            readers=None if all(read is bytes.decode for read in readers) else readers,
            absent=[key for key in self._absent_is_none[0] if key not in keys],
        )

    def _read(self, fields: Fields) -> Any:
        body: dict[str, Any] = {}
        others: Fields = []
        places = self._places
        name = b""
        try:
            for name, value in zip(fields[::2], fields[1::2], strict=True):
                place = places.get(name)
                if place is not None:
                    key, read = place
                    body[key] = read(value)
                elif name == _RAW_VALUE or not is_header(name):
                    others += (name, value)
        except ValueError as error:
            raise unreadable(name, error) from None
        if others:
            if self._whole_body and not body and _is_whole_body(others):
                return validated(self._validate_json, others[-1])
            self._add_others(body, others)
        return self._validated(body)

    def _add_others(self, body: dict[str, Any], others: Fields) -> None:
        if any(b"." in name for name in others[::2]):
            open_places = {key: node for key, node in self._structured.items() if key not in body}
            folded, others = fold(others, open_places, self._shape)
            body.update(folded)
        if self._extra is None:
            return
        for name, value in zip(others[::2], others[1::2], strict=True):
            if not is_header(name):
                try:
                    body[name.decode()] = self._extra(value)
                except ValueError as error:
                    raise unreadable(name, error) from None

    def _validated(self, body: dict[str, Any]) -> Any:
        """The body, with None for what the writer left out because it was None."""
        if len(self._absent_is_none) == 1:
            for key in self._absent_is_none[0]:
                body.setdefault(key, None)
            return validated(self._validate_lax, body)
        try:
            return validated(self._validate_lax, body)
        except DecodeError:
            # In a union, None put in too early could make pydantic choose another member.
            for keys in self._absent_is_none:
                filled = dict.fromkeys(keys) | body
                if len(filled) > len(body):
                    try:
                        return validated(self._validate_lax, filled)
                    except DecodeError:
                        continue
            raise

    def _validate_lax(self, body: dict[str, Any]) -> Any:
        return self._validate(body, strict=False, by_alias=True)

    def _validate_json(self, body: bytes) -> Any:
        return self._adapter.validate_json(body, by_alias=True)


class ScalarReader:
    """Reads a scalar from the only body field of the entry, whatever its name."""

    def __init__(self, adapter: TypeAdapter[Any], shape: Shape) -> None:
        self._adapter = adapter
        self._read = reader_for(shape, shape.root)

    def __call__(self, fields: Fields) -> Any:
        """The body. Raises `DecodeError`."""
        given = dict(zip(fields[::2], fields[1::2], strict=True))
        found = {name: value for name, value in given.items() if not is_header(name)}
        if not found and _RAW_VALUE in given:
            found = {_RAW_VALUE: given[_RAW_VALUE]}
        if len(found) != 1:
            held = f"it holds {names_in(fields)}" if fields else "it is empty"
            raise DecodeError(f"a scalar is read from the only body field of an entry, and this one has {len(found)}: {held}")
        [(name, value)] = found.items()
        try:
            text = self._read(value)
        except ValueError as error:
            raise unreadable(name, error) from None
        return validated(self._validate, text)

    def _validate(self, value: Any) -> Any:
        return self._adapter.validate_python(value, strict=False)


def validated(validate: Any, value: Any) -> Any:
    """What `validate` makes of the value. Raises `DecodeError`, without the value in its traceback."""
    try:
        return validate(value)
    except MemoryError:
        raise  # says something about this process, nothing about the entry
    except Exception as error:  # noqa: BLE001 - validators are the user's code; whatever they raise refuses this entry
        refusal = refused(error)
    raise refusal


def _is_whole_body(others: Fields) -> bool:
    names = set(others[::2])
    return len(names) == 1 and names <= _WHOLE_BODY and others[-1].lstrip().startswith(b"{")


def _nodes_by_wire_name(members: Iterable[Node]) -> dict[str, tuple[str, list[Node]]]:
    """For each name on the wire: the key that pydantic looks for, and what the members of a union declare there."""
    found: dict[str, tuple[str, list[Node]]] = {}
    second: list[tuple[str, str, Node]] = []
    for member in members:
        for name, prop in member.get("properties", {}).items():
            names = read_names(name, prop)
            node = {"anyOf": [_STRUCTURE, prop]} if has_path(prop) else prop
            for wire in [*names, *([name] if member.get("x-by-name") else [])]:
                found.setdefault(wire, (wire, []))[1].append(node)
            if not has_path(prop):
                second.append((written_name(name, prop), names[0], node))
    # What is written under another name than it is read by must come back too, unless that name means another field.
    for wire, key, node in second:
        found.setdefault(wire, (key, [node]))
    return found


def _required_nullable(shape: Shape, member: Node) -> list[str]:
    """The keys that must be there and may be None: None is left out in writing, so absent means None."""
    properties: Mapping[str, Node] = member.get("properties", {})
    return [
        read_names(name, properties[name])[0]
        for name in member.get("required", ())
        if name in properties and Takes.NULL in shape.takes(properties[name]) and not has_path(properties[name])
    ]


def _extra_reader(shape: Shape, members: Iterable[Node]) -> Reader | None:
    """The reader for undeclared fields, or None when every member ignores them."""
    forbidden = False
    for member in members:
        values = [*member.get("patternProperties", {}).values(), member.get("additionalProperties")]
        extra = next((value for value in values if value is not None), None)
        if extra is False:
            forbidden = True
        elif extra is not None:
            return reader_for_extra(shape, extra)
        elif member.get("properties") is None and member.get("type") != "object":
            return reader_for_extra(shape, True)
    return _unread if forbidden else None


def _unread(_value: bytes) -> None:
    """For a model that forbids extra fields: it is the name that it will refuse."""
