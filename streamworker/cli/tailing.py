"""Shows entries by plain reads: no group, no consumer, nothing changed."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence

import typer

from streamworker.admin.groups import NoSuchStream, stream_exists
from streamworker.cli.options import Lines
from streamworker.cli.printing import print_json
from streamworker.cli.showing import entry_text, fields_record, for_people, say
from streamworker.delivery import Entry
from streamworker.errors import ConnectionLost, ServerError, SetupError
from streamworker.streams import groups, inspecting
from streamworker.streams.faults import Remedy, remedy_for
from streamworker.streams.link import Link
from streamworker.worker.backoff import Pauses
from streamworker.worker.bindings import before

PAGE = 500
BLOCK_MS = 5_000
NEXT = "$"

_ID = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_HIGHEST = 2**64 - 1


def start_id(text: str, *, follow: bool, count: int | None) -> str:
    """The id that `--from` means, complete, or `$`. Raises `SetupError` with the repair."""
    if follow and count is not None:
        raise SetupError("-f with --from shows all entries from there on: leave -n out")
    if text == NEXT:
        if not follow:
            raise SetupError("--from '$' means entries that are still to come: add -f to wait for them")
        return NEXT
    found = _ID.fullmatch(text)
    if found is None or any(int(part) > _HIGHEST for part in found.groups("0")):
        raise SetupError(f"--from {text!r} is not an entry's id: write one such as 1795369183485-0, 0 for the first entry, or $")
    return f"{found[1]}-{found[2] or 0}"


async def show_some(link: Link, stream: str, first: str | None, count: int, form: Lines) -> None:
    """Print `count` entries: the last ones, or those from `first` on. Raises `SetupError` when there is no such stream."""
    if not await stream_exists(link, stream):
        raise NoSuchStream(stream, f"there is no stream {stream!r}; to wait for its first entry, add -f")
    if first is None:
        _show(await _last(link, stream, count), form)
        return
    while count > 0:
        page = await inspecting.entries(link, stream, first=first, count=min(PAGE, count))
        _show(page, form)
        if len(page) < min(PAGE, count):
            return
        count -= len(page)
        first = f"({page[-1].id}"


async def show_and_follow(link: Link, stream: str, first: str | None, count: int, form: Lines) -> None:
    """Print the last `count` entries, or all from `first` on, and go on until cancelled."""
    newest = await groups.last_id(link, stream) if await stream_exists(link, stream) else None
    if newest is None:
        # Said after the look, and followed from the very beginning, so that an entry that comes right now is not missed.
        say(f"there is no stream {stream!r} yet: waiting for its first entry")
    if first is None:
        shown = await _last(link, stream, count)
        _show(shown, form)
        after = shown[-1].id if shown else "0-0"
    elif first == NEXT:
        after = "0-0" if newest is None else newest
    else:
        after = before(first)
    await _follow(link, stream, after, form)


async def _follow(link: Link, stream: str, after: str, form: Lines) -> None:
    pauses, lost = Pauses(), False
    while True:
        try:
            if lost:
                await link.connect()
                say("connected again")
                lost = False
            entries = await inspecting.follow(link, stream, after=after, count=PAGE, block_ms=BLOCK_MS)
        except (ConnectionLost, ServerError) as error:
            if isinstance(error, ServerError) and remedy_for(error) is Remedy.CONFIGURE:
                raise
            if not lost:
                say(f"the connection to {link.endpoint} was lost; trying again until it is back")
            lost = True
            await asyncio.sleep(pauses.next())
            continue
        pauses.reset()
        if entries:
            _show(entries, form)
            after = entries[-1].id


async def _last(link: Link, stream: str, count: int) -> list[Entry]:
    """The last entries, oldest first, read in pages from the end."""
    found: list[Entry] = []
    last = "+"
    while len(found) < count:
        page = await inspecting.newest(link, stream, min(PAGE, count - len(found)), last=last)
        if not page:
            break
        found[:0] = page
        last = f"({page[0].id}"
    return found


def _show(entries: Sequence[Entry], form: Lines) -> None:
    as_text = for_people(form)
    for entry in entries:
        if as_text:
            typer.echo(entry_text(entry))
        else:
            print_json({"id": entry.id, "fields": fields_record(entry.fields)})
    sys.stdout.flush()
