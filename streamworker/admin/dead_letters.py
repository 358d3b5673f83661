"""The dead letters of one group on one stream: look at them, give them back to the group, delete them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from streamworker.codecs.dead_letters import DeadLetterRecord, read_dead_letter
from streamworker.codecs.envelope import Envelope, pack
from streamworker.delivery import Entry, Fields, History, Reason
from streamworker.errors import DecodeError
from streamworker.streams import dead_letters, inspecting
from streamworker.streams.keys import GroupKeys, keys_of
from streamworker.streams.link import Link

PAGE = 500
"""Dead letters per read."""

_PACKED = b"_dlq_packed"
_ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class DeadLetterEntry:
    """A dead letter as it lies in its stream; every note may be missing, because anybody can write there.

    `id` is its own, `original_id` that of the entry that it was. `damage` says why it cannot be replayed, if so.
    """

    id: str
    fields: Fields = field(repr=False)
    notes: Mapping[str, str] = field(repr=False)
    damage: str | None

    @property
    def reason(self) -> str | None:
        """Why it was set aside: a `Reason`, or what another version wrote."""
        return self.notes.get("reason")

    @property
    def error(self) -> str | None:
        """What the handler or the decoder said last."""
        return self.notes.get("error")

    @property
    def error_line(self) -> str | None:
        """The first line of the error."""
        lines = "" if self.error is None else self.error.strip()
        return lines.splitlines()[0] if lines else None

    @property
    def original_id(self) -> str | None:
        """The id of the entry that it was."""
        return self.notes.get("id")

    @property
    def handler(self) -> str | None:
        """The handler that failed."""
        return self.notes.get("handler")

    @property
    def attempts(self) -> int | None:
        """How often a handler was started for it, with a counted end."""
        return self._number("attempts")

    @property
    def crashes(self) -> int | None:
        """How many of its deliveries ended with their worker."""
        return self._number("crashes")

    def _number(self, name: str) -> int | None:
        text = self.notes.get(name, "")
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: all, or those of a reason, or those whose error contains a text in any case."""

    reason: Reason | None = None
    error: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether nothing narrows it down."""
        return self.reason is None and self.error is None

    def takes(self, letter: DeadLetterEntry) -> bool:
        """Whether this one is meant."""
        if self.reason is not None and letter.reason != self.reason.value:
            return False
        return self.error is None or self.error.casefold() in ("" if letter.error is None else letter.error).casefold()


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """Some dead letters, the newest first; `before` is where the next page begins (`None`: there are no more)."""

    letters: list[DeadLetterEntry]
    before: str | None


class DeadLetters:
    """The dead letters of `group` on `stream`."""

    def __init__(self, link: Link, stream: str, group: str) -> None:
        self.stream = stream
        self.group = group
        self.keys: GroupKeys = keys_of(stream, group)
        self._link = link

    async def page(self, wanted: Wanted, *, limit: int, before: str | None = None) -> DeadLetterPage:
        """The newest `limit` that are meant, of those before the dead letter `before`."""
        found: list[DeadLetterEntry] = []
        last = "+" if before is None else f"({before}"
        size = min(PAGE, limit + 1) if wanted.is_all else PAGE
        while len(found) <= limit:  # one more tells whether there are more
            raw = await inspecting.newest(self._link, self.keys.dead_letters, size, last=last)
            found += [letter for letter in map(self._read, reversed(raw)) if wanted.takes(letter)]
            if len(raw) < size:
                break
            last = f"({raw[0].id}"
        return DeadLetterPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def find(self, dead_letter_id: str) -> DeadLetterEntry | None:
        """One by its own id, if it is there."""
        entry = await inspecting.entry(self._link, self.keys.dead_letters, dead_letter_id)
        return None if entry is None else self._read(entry)

    async def newest_id(self) -> str | None:
        """The id of the newest one: where a walk ends that must not meet what it has itself caused."""
        newest = await inspecting.newest(self._link, self.keys.dead_letters, 1)
        return newest[0].id if newest else None

    async def walk(self, wanted: Wanted, *, until: str) -> AsyncIterator[list[DeadLetterEntry]]:
        """All that are meant up to the id `until`, oldest first, in pages; what is removed on the way does not disturb it."""
        first, full = "-", True
        while full:
            raw = await inspecting.entries(self._link, self.keys.dead_letters, first=first, last=until, count=PAGE)
            found = [letter for letter in map(self._read, raw) if wanted.takes(letter)]
            if found:
                yield found
            full = len(raw) == PAGE
            if full:
                first = f"({raw[-1].id}"

    async def count(self, wanted: Wanted, *, until: str) -> int:
        """How many are meant, up to the id `until`."""
        if wanted.is_all:
            return await inspecting.length(self._link, self.keys.dead_letters)
        return sum([len(found) async for found in self.walk(wanted, until=until)])

    async def replay(self, letter: DeadLetterEntry) -> bool:
        """Give it back to its group, and to no other, with all its attempts before it; false when it was not there any more.

        Raises `DecodeError` when it is damaged, `ServerError` or `ConnectionLost`; in all three cases nothing is lost.
        """
        original_id = letter.original_id
        if letter.damage is not None or original_id is None:
            raise DecodeError(str(letter.damage))
        # Attempts, crashes and the last error begin anew; when it failed first stays true.
        history = History(first_failed_at=_moment(letter.notes.get("first_failed_at")))
        return await dead_letters.replay(self._link, self.keys, letter.id, pack(Envelope(original_id, history, letter.fields)))

    async def discard(self, letter: DeadLetterEntry) -> bool:
        """Delete it for good; false when it was not there any more."""
        return await dead_letters.discard(self._link, self.keys, [letter.id]) > 0

    def _read(self, entry: Entry) -> DeadLetterEntry:
        record = read_dead_letter(entry.fields)
        return DeadLetterEntry(entry.id, record.fields, record.notes, self._damage(entry, record))

    def _damage(self, entry: Entry, record: DeadLetterRecord) -> str | None:
        notes = record.notes
        if not notes:
            return "it was not written by streamworker"
        if record.fields[:1] == [_PACKED] and record.fields == entry.fields[:2]:
            return "its original fields are packed, and damaged"  # else reading would have unpacked them
        if notes.get("group", self.group) != self.group:
            return f"it is a dead letter of another group, {notes['group']!r}"
        if _ENTRY_ID.fullmatch(notes.get("id", "")) is None:
            return "it does not say which entry it was"
        return None


def reason_named(text: str) -> Reason | None:
    """The reason of this name, if there is one."""
    return next((reason for reason in Reason if reason.value == text), None)


def counted_by_reason(letters: Iterable[DeadLetterEntry]) -> dict[str, int]:
    """How many there are of each reason, the most frequent first."""
    counts: dict[str, int] = {}
    for letter in letters:
        name = "unknown" if letter.reason is None else letter.reason
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _moment(text: str | None) -> datetime | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment is None or moment.tzinfo is None else moment
