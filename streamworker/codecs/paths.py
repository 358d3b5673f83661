"""Dotted field names folded back to structure: `address.city`, `tags.[0]`, `atts.[eye-color]`, as Spring writes objects. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from streamworker.codecs.readers import reader_for, reader_for_extra
from streamworker.codecs.reasons import shown, unreadable
from streamworker.codecs.shapes import Node, Shape, read_names, written_name
from streamworker.delivery import Fields
from streamworker.errors import DecodeError

Path: TypeAlias = list[str | int]

_STEP = re.compile(r"\.(?:\[([^\[\]]*)\]|([^.\[\]]+))")
_MAX_STEPS = 32  # no class nests deeper on purpose, and pydantic's own limit is reached later
_MAX_DIGITS = 6


class _Branch(dict[str | int, Any]):
    """Structure that is being put together, to be told from a value that was read as a dict."""


def fold(fields: Fields, places: Mapping[str, Node], shape: Shape) -> tuple[dict[str, Any], Fields]:
    """What the dotted names among `fields` amount to, by the name of the place they are in, and the fields that are no such names.

    `places` are the declared fields that the entry does not hold whole. A name is dotted only when its whole path is declared.
    """
    tree = _Branch()
    others: Fields = []
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        found = _declared(name, places, shape) if b"." in name else None
        if found is None:
            others += (name, value)
            continue
        path, nodes = found
        try:
            _put(tree, path, _leaf(shape, nodes, value))
        except ValueError as error:
            raise unreadable(name, error) from None
    return {str(place): _whole(branch, str(place)) for place, branch in tree.items()}, others


def _declared(name: bytes, places: Mapping[str, Node], shape: Shape) -> tuple[Path, list[Node]] | None:
    """The path that the name spells and the nodes at its end, if the model has such a nested field."""
    try:
        place, _, _ = (text := name.decode()).partition(".")
    except UnicodeDecodeError:
        return None
    if place not in places:
        return None
    path: Path = [place]
    nodes = [places[place]]
    at = len(place)
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None or len(path) > _MAX_STEPS:
            return None
        key, nodes = _descend(shape, nodes, step)
        if not nodes:
            return None
        path.append(key)
        at = step.end()
    return path, nodes


def _descend(shape: Shape, nodes: Iterable[Node], step: re.Match[str]) -> tuple[str | int, list[Node]]:
    """One step into what the nodes hold: its key for pydantic, and the nodes there (none when it is not declared)."""
    bracketed, named = step.groups()
    alternatives = shape.alternatives(*nodes)
    if bracketed is None:
        return _property(alternatives, named)
    if bracketed.isascii() and bracketed.isdigit() and len(bracketed) <= _MAX_DIGITS:
        items = [_item(node, int(bracketed)) for node in alternatives if node.get("type") == "array"]
        if items:
            return int(bracketed), items
    values = [node.get("additionalProperties", False) for node in alternatives]
    return bracketed, [value if isinstance(value, dict) else {} for value in values if value is not False]


def _property(alternatives: Iterable[Node], wire: str) -> tuple[str, list[Node]]:
    for node in alternatives:
        for name, prop in node.get("properties", {}).items():
            keys = read_names(name, prop)
            if wire in keys:
                return wire, [prop]
            if wire == written_name(name, prop):
                return keys[0], [prop]
    return wire, []


def _item(node: Node, index: int) -> Node:
    firsts = node.get("prefixItems", [])
    item = firsts[index] if index < len(firsts) else node.get("items", {})
    return item if isinstance(item, dict) else {}


def _leaf(shape: Shape, nodes: list[Node], value: bytes) -> Any:
    read = reader_for_extra(shape, nodes[0]) if nodes == [{}] else reader_for(shape, *nodes)
    return read(value)


def _put(tree: _Branch, path: Path, value: Any) -> None:
    for step in path[:-1]:
        deeper = tree.get(step)
        if not isinstance(deeper, _Branch):  # of a value and a path into it, the later wins
            deeper = tree[step] = _Branch()
        tree = deeper
    tree[path[-1]] = value


def _whole(value: Any, place: str) -> Any:
    if not isinstance(value, _Branch):
        return value
    done = {key: _whole(inner, place) for key, inner in value.items()}
    if not all(isinstance(key, int) for key in done):
        return {str(key): inner for key, inner in done.items()}
    if max(done) != len(done) - 1:  # the order on the wire may be 0, 1, 10, 2; a gap would move what follows
        raise DecodeError(f"field {shown(place)!r}: its list entries are not numbered from 0 without a gap")
    return [done[index] for index in range(len(done))]
