"""From what a user types after `publish` to entries in a stream."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from streamworker.codecs import codec_named
from streamworker.codecs.headers import write_headers
from streamworker.delivery import Outgoing
from streamworker.entries import Fields, is_header
from streamworker.errors import ConnectionLost, EncodeError, ServerError, SetupError
from streamworker.observe.printing import printable
from streamworker.streams import publishing
from streamworker.streams.wire import Link

CHUNK = 500


def headers_given(texts: Sequence[str], type_: str | None) -> dict[str, str]:
    """The headers of `--header KEY=VALUE` and `--type`. Raises `SetupError`."""
    headers = dict(_pair(text, "--header ") for text in texts)
    if type_ is not None and headers.setdefault("type", type_) != type_:
        raise SetupError("--type and --header type=… say two things: leave one out")
    return headers


def entries_to_add(pairs: Sequence[str], json_text: str | None, codec: str, headers: Mapping[str, str]) -> list[Fields]:
    """The entries' fields, all of them made before the first is sent. Raises `SetupError` that names what is wrong and the repair."""
    if pairs and json_text is not None:
        raise SetupError("fields are given twice: as KEY=VALUE and with --json; leave one out")
    if json_text is not None:
        text = _stdin() if json_text == "-" else json_text
        objects = _objects(text, "stdin" if json_text == "-" else "--json")
        return [_encoded(body, codec, headers, where) for where, body in objects]
    if not pairs:
        raise SetupError("an entry needs at least one field: write KEY=VALUE, or --json '{\"order_id\": 7}'")
    given = [_pair(pair, "") for pair in pairs]
    if codec != "fields":
        return [_encoded(dict(given), codec, headers, "")]
    # Not through the codec: what is typed here is written as it is, header names and bytes included.
    fields = [os.fsencode(part) for pair in given for part in pair]
    return [fields + _written(headers)]


async def send(link: Link, entries: Sequence[Outgoing]) -> None:
    """Add them in order and print their ids. Raises `ServerError` or `ConnectionLost` that says how many were added."""
    added = 0
    for start in range(0, len(entries), CHUNK):
        replies = await publishing.add_many(link, entries[start : start + CHUNK])
        ids = [reply for reply in replies if isinstance(reply, str)]
        for entry_id in ids:
            typer.echo(printable(entry_id))
        added += len(ids)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if errors:
            raise _told(errors[0], entries[0].stream, added, len(entries))


def _told(error: Exception, stream: str, added: int, total: int) -> Exception:
    so_far = f"; {added:,} of {total:,} entries were added" if total > 1 else ""
    if isinstance(error, ServerError) and error.code == "WRONGTYPE":
        return ServerError(error.code, f"{stream!r} is not a stream: this key holds something else{so_far}")
    if isinstance(error, ServerError):
        return ServerError(error.code, f"{error}{so_far}")
    if isinstance(error, ConnectionLost):
        doubt = "what was under way may have been added or not: look with `streamworker tail` before you publish it again"
        return ConnectionLost(f"{error}{so_far}; {doubt}")
    return error


def _pair(text: str, what: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        hint = "; JSON goes with --json" if text.lstrip().startswith("{") else ""
        raise SetupError(f"{what}{text!r} is not KEY=VALUE{hint}")
    return key, value


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SetupError("stdin is not UTF-8: convert it, for example with iconv") from None


def _objects(text: str, source: str) -> list[tuple[str, dict[str, Any]]]:
    """The JSON objects of a text, with where each is from: the text as a whole, or else each of its lines."""
    try:
        return [(source, _object(text, source))]
    except SetupError:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if len(lines) < 2 or not _is_json(lines[0][1]) or _is_json(text):
            raise
    return [(f"{source}, line {number}", _object(line, f"{source}, line {number}")) for number, line in lines]


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise SetupError(f"{where} is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):
        raise SetupError(f"{where} is not JSON that can be read: a number in it is too long, or it is nested too deeply") from None
    if not isinstance(found, dict):
        hint = "write each entry as an object in a line of its own" if isinstance(found, list) else 'write it as in {"order_id": 7}'
        raise SetupError(f"{where} is not a JSON object: {hint}")
    return found


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _encoded(body: Mapping[str, Any], codec: str, headers: Mapping[str, str], where: str) -> Fields:
    if codec == "fields":
        clash = next((name for name in body if is_header(name.encode(errors="replace"))), None)
        if clash is not None:
            raise SetupError(f"{where}: {clash!r} would be read as a header: give it with --header {clash.removeprefix('_')}=…")
    try:
        return codec_named(codec).encode(body, headers)
    except EncodeError as error:
        raise SetupError(f"{where}: {error}" if where else str(error)) from None


def _written(headers: Mapping[str, str]) -> Fields:
    try:
        return write_headers(headers)
    except EncodeError as error:
        raise SetupError(str(error)) from None
