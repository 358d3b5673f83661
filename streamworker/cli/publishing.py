"""From what a user types after `publish` to entries in a stream."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer

from streamworker.codecs import codec_named
from streamworker.codecs.headers import write_headers
from streamworker.delivery import Outgoing
from streamworker.entries import Fields, is_header
from streamworker.errors import ConnectionLost, EncodeError, PublishFailed, ServerError, SetupError
from streamworker.observe.printing import printable
from streamworker.posting import Posting, Posts
from streamworker.publisher import Publisher
from streamworker.settings import parse_duration
from streamworker.streams.connections import Endpoint


def headers_given(texts: Sequence[str], type_: str | None, key: str | None = None) -> dict[str, str]:
    """The headers of `--header KEY=VALUE`, `--type` and `--key`. Raises `SetupError`."""
    headers = dict(_pair(text, "--header ") for text in texts)
    for name, value in (("type", type_), ("key", key)):
        if value is not None and headers.setdefault(name, value) != value:
            raise SetupError(f"--{name} and --header {name}=… say two things: leave one out")
    return headers


def when(delay: str | None, at: str | None) -> dict[str, Any]:
    """`--delay` and `--at` as options of a publish. Raises `SetupError`."""
    try:
        moment = None if at is None else datetime.fromisoformat(at)
    except ValueError:
        raise SetupError(f"--at {at!r} is no time: write it as in 2026-12-24T18:00:00Z") from None
    if moment is not None and moment.utcoffset() is None:
        raise SetupError(f"--at {at!r} has no time zone: end it with Z, or with one such as +01:00")
    return {"delay": None if delay is None else parse_duration(delay), "at": moment}


def postings_of(stream: str, entries: Sequence[Fields], max_length: int | None, ways: Mapping[str, Any]) -> list[Posting]:
    """How the entries are to be written. Raises `SetupError`."""
    if ways["dedupe_id"] is not None and len(entries) > 1:
        raise SetupError("--dedupe-id is for one entry: of many, all but the first would be left out")
    try:
        posts = Posts(**ways)
        return [posts.of(Outgoing(stream, entry, max_length)) for entry in entries]
    except EncodeError as error:
        raise SetupError(str(error)) from None


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


async def send(endpoint: Endpoint, postings: Sequence[Posting]) -> None:
    """Add them in order and print their ids. Raises `ServerError` or `ConnectionLost` that says how many were added."""
    publisher = Publisher(lambda: endpoint)
    try:
        if len(postings) == 1:
            _print([await publisher.publish(postings[0])])
        else:
            _print(await publisher.publish_many(postings))
    except PublishFailed as failed:
        _print(failed.ids)
        raise _told(failed) from failed
    finally:
        await publisher.close()


def _print(ids: Sequence[str | None]) -> None:
    for entry_id in ids:
        if entry_id is not None:
            typer.echo(printable(entry_id))


def _told(failed: PublishFailed) -> Exception:
    first = failed.errors[min(failed.errors)]
    so_far = f"{first}; {len(failed.ids) - len(failed.errors):,} of {len(failed.ids):,} entries were added"
    if isinstance(first, ServerError):
        return ServerError(first.code, so_far)
    doubt = "what was under way may have been added or not: look with `streamworker tail` before you publish it again"
    return ConnectionLost(f"{so_far}; {doubt}")


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
