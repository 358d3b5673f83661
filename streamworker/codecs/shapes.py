"""What an annotation asks of an entry, read once from its JSON schema. Pure.

A `Node` is one place in the JSON schema: a whole body, one of its fields, or something nested in a field. Properties are named as
in Python; the names on the wire stand beside them under `x-reads` and `x-writes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from inspect import isroutine
from typing import Annotated, Any, TypeAlias, get_args, get_origin

from pydantic import PydanticUserError, TypeAdapter
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticOmit, SchemaError

from streamworker.codecs.reasons import shown
from streamworker.errors import SetupError

Node: TypeAlias = dict[str, Any]
_RAW_FORMATS = frozenset({"binary", "base64", "base64url"})
_MAPPINGS = frozenset({dict, Mapping, MutableMapping})


class Takes(Flag):
    """The kinds of value that a place takes."""

    NULL = auto()
    TEXT = auto()  # free text
    WORD = auto()  # text of a certain form: a date, a UUID, one of a list
    BLANK = auto()  # the empty text
    SCALAR = auto()  # number or boolean
    RAW = auto()  # bytes
    STRUCTURE = auto()  # list or object
    ANY = auto()  # not specified


class _Describer(GenerateJsonSchema):
    """JSON schema that keeps what decides how a field is read, and never gives up on a type without a JSON form."""

    def bytes_schema(self, schema: Any) -> Node:  # noqa: ARG002  # the names are the base class's
        return {"type": "string", "format": "binary"}

    def decimal_schema(self, schema: Any) -> Node:  # noqa: ARG002
        return {"type": "number"}  # pydantic adds "or any string", which would hide that '' is no decimal

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> Node:  # noqa: ARG002
        return {"x-opaque": True}

    def emit_warning(self, kind: Any, detail: str) -> None:
        """A default without a JSON form is no concern here."""

    def model_schema(self, schema: Any) -> Node:
        return self._with_config(schema, super().model_schema(schema))

    def dataclass_schema(self, schema: Any) -> Node:
        return self._with_config(schema, super().dataclass_schema(schema))

    def typed_dict_schema(self, schema: Any) -> Node:
        return self._with_config(schema, super().typed_dict_schema(schema))

    def model_field_schema(self, schema: Any) -> Node:
        return self._with_aliases(schema, super().model_field_schema(schema))

    def dataclass_field_schema(self, schema: Any) -> Node:
        return self._with_aliases(schema, super().dataclass_field_schema(schema))

    def typed_dict_field_schema(self, schema: Any) -> Node:
        # A TypedDict's value is a plain dict, written under its keys, so aliases have no say in the writing.
        return self._with_aliases({"validation_alias": schema.get("validation_alias")}, super().typed_dict_field_schema(schema))

    @staticmethod
    def _with_config(schema: Any, node: Node) -> Node:
        config = schema.get("config", {})
        by_name = config.get("validate_by_name") or config.get("populate_by_name")
        return {**node, "x-by-name": True} if by_name else node

    @staticmethod
    def _with_aliases(schema: Any, node: Node) -> Node:
        return {**node, "x-reads": schema.get("validation_alias"), "x-writes": schema.get("serialization_alias")}


@dataclass(frozen=True, slots=True)
class Shape:
    """A JSON schema and the definitions it refers to."""

    root: Node
    definitions: Mapping[str, Node]

    def alternatives(self, *nodes: Node) -> list[Node]:
        """The plain nodes behind references and unions, each reference followed once."""
        found: list[Node] = []
        seen: set[str] = set()
        waiting = list(reversed(nodes))
        while waiting:
            node = waiting.pop()
            reference = node.get("$ref")
            parts = [part for word in ("anyOf", "oneOf", "allOf") for part in node.get(word, ())]
            if reference is not None:
                if reference not in seen:
                    seen.add(reference)
                    waiting.append(self.definitions[reference.rpartition("/")[2]])
            elif parts:
                waiting.extend(reversed(parts))
            else:
                found.append(node)
        return found

    def takes(self, *nodes: Node) -> Takes:
        """What values the place takes, over all of its alternatives."""
        kinds = Takes(0)
        for node in self.alternatives(*nodes):
            kinds |= _kinds(node)
        return kinds

    def words(self, *nodes: Node) -> list[Any]:
        """The values that the place lists one by one (enumerations and literals)."""
        return [value for node in self.alternatives(*nodes) for value in _listed(node)]


def described(annotation: Any) -> tuple[TypeAdapter[Any], Shape]:
    """The annotation's validator and its shape. Raises `SetupError` when no entry can hold such a body."""
    if isroutine(annotation):
        raise not_a_body(annotation, "it is a function")  # pydantic would take it as a call to be validated
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        root = adapter.json_schema(by_alias=False, schema_generator=_Describer)
    except (PydanticUserError, PydanticUndefinedAnnotation, PydanticOmit, SchemaError, TypeError, NameError, ValueError) as error:
        raise not_a_body(annotation, str(error).partition("\n")[0]) from error
    shape = Shape(root, root.get("$defs", {}))
    if root.get("x-opaque") or shape.takes(root) is Takes.NULL:
        raise not_a_body(annotation, "no entry can hold such a value")
    return adapter, shape


def reads_aliases(part: Any) -> bool:
    """Whether pydantic reads the names of this core schema as aliases without being told to, which it does unless a model forbids it."""
    if isinstance(part, Mapping):
        return part.get("validate_by_alias") is not False and all(map(reads_aliases, part.values()))
    return not isinstance(part, list | tuple) or all(map(reads_aliases, part))


def not_a_body(annotation: Any, why: str) -> SetupError:
    """The error for an annotation that cannot be a body."""
    plain = isinstance(annotation, type) and not get_args(annotation)
    name = shown(annotation.__name__ if plain else repr(annotation), 120)
    return SetupError(
        f"{name} cannot be a body: {shown(why, 300).rstrip('.')}. "
        "Annotate the handler's first parameter with a pydantic model, a dataclass, a TypedDict, dict[str, str], "
        "dict[bytes, bytes], or a scalar such as str or int"
    )


def is_raw(annotation: Any) -> bool:
    """Whether the annotation is `dict[bytes, bytes]`: the entry byte for byte, headers and all."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return get_origin(plain) in _MAPPINGS and get_args(plain) == (bytes, bytes)


def read_names(name: str, prop: Node) -> list[str]:
    """The names under which pydantic looks for a field, the best first; of a path into another field, that field's name."""
    alias = prop.get("x-reads")
    if alias is None:
        return [name]
    if isinstance(alias, str):
        return [alias]
    paths: Sequence[Sequence[str | int]] = alias if isinstance(alias[0], list) else [alias]
    return [str(path[0]) for path in paths]


def has_path(prop: Node) -> bool:
    """Whether the field is looked for inside another field, so that this other one must hold JSON."""
    alias = prop.get("x-reads")
    paths = alias if isinstance(alias, list) and isinstance(alias[0], list) else [alias]
    return any(isinstance(path, list) and len(path) > 1 for path in paths)


def written_name(name: str, prop: Node) -> str:
    """The name under which the field is written."""
    alias = prop.get("x-writes")
    return name if alias is None else str(alias)


def _listed(node: Node) -> Iterator[Any]:
    if "const" in node:
        yield node["const"]
    yield from node.get("enum", ())


def _kinds(node: Node) -> Takes:
    """What one node without references or unions takes."""
    if node.get("x-opaque"):
        return Takes.TEXT | Takes.BLANK | Takes.STRUCTURE
    if "const" in node or "enum" in node:
        kinds = Takes(0)
        for value in _listed(node):
            kinds |= _kind_of_word(value)
        return kinds
    match node.get("type"):
        case "null":
            return Takes.NULL
        case "string":
            return _kinds_of_text(node)
        case "number" | "integer" | "boolean":
            return Takes.SCALAR
        case "object" | "array":
            return Takes.STRUCTURE
        case _:
            return Takes.ANY


def _kind_of_word(value: object) -> Takes:
    if value is None:
        return Takes.NULL
    if isinstance(value, str):
        return Takes.WORD if value else Takes.WORD | Takes.BLANK
    return Takes.SCALAR


def _kinds_of_text(node: Node) -> Takes:
    form = node.get("format")
    if form in _RAW_FORMATS:
        return Takes.RAW | Takes.BLANK
    if "contentMediaType" in node or form not in (None, "password"):
        return Takes.WORD
    return Takes.TEXT | Takes.BLANK if _takes_blank(node) else Takes.TEXT


def _takes_blank(node: Node) -> bool:
    if node.get("minLength", 0) > 0:
        return False
    try:
        return re.search(node.get("pattern", ""), "") is not None
    except re.error:
        return True  # a pattern of Rust's dialect; pydantic will judge the text
