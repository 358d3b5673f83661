"""One stream in one group: its keys, which handler takes what, and its group kept in existence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, NamedTuple

from streamworker.codecs.envelope import unpack
from streamworker.delivery import Delivery, Fields, History, Lease
from streamworker.errors import ConnectionLost, DecodeError, GroupLost, ServerError
from streamworker.handlers import Handler, OnGroupLost, Start
from streamworker.observe.troubles import Trouble
from streamworker.streams import groups
from streamworker.streams.blaming import with_its_key
from streamworker.streams.faults import concerns_all, sentence
from streamworker.streams.groups import GroupInfo, Place
from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.streams.reading import Taken

NEXT_TRY_SECONDS = 1.0
"""How long a stream whose group cannot be made is left alone, while the others go on."""


@dataclass(slots=True)
class Binding:
    """A stream that a consumer reads, and the handlers of its entries by type (`None`: those of any other type).

    `known_id` is the newest id that the group is known to have delivered. `resume_after` is where a vanished group is made again: below
    everything that was pending with anybody when this worker last looked. `ready` is false while one of its keys cannot be read.
    """

    keys: GroupKeys
    group: str
    start: Start
    routes: Mapping[str | None, Handler]
    log: Any
    on_lost: OnGroupLost = "resume"
    known_id: str | None = None
    resume_after: str | None = None
    ready: bool = False
    next_try_at: float = 0.0
    trouble: Trouble = field(init=False)
    only: Handler | None = field(init=False)
    """The handler of all its entries, where there is one."""

    def __post_init__(self) -> None:
        self.only = self.routes.get(None) if len(self.routes) == 1 else None
        self.trouble = Trouble(self.log, "stream", stream=self.keys.stream, group=self.group)

    def route(self, delivery: Delivery) -> Handler | None:
        """The handler that takes this delivery."""
        if self.only is not None:
            return self.only
        handler = self.routes.get(delivery.headers.get("type"))
        return self.routes.get(None) if handler is None else handler

    @property
    def known_types(self) -> tuple[str, ...]:
        """The types that some handler takes."""
        return tuple(sorted(kind for kind in self.routes if kind is not None))

    @property
    def handlers(self) -> list[Handler]:
        """The handlers of this stream."""
        return list(self.routes.values())

    def knows(self, entry_id: str) -> None:
        """Note that the group has delivered this entry."""
        if self.is_news(entry_id):
            self.known_id = entry_id

    def is_news(self, entry_id: str) -> bool:
        """Whether it is newer than all that the group is known to have delivered."""
        return self.known_id is None or order_of(entry_id) > order_of(self.known_id)

    def is_out_of_order(self, error: ConnectionLost | ServerError | None) -> None:
        """One of the keys cannot be read, or is just being mended (`None`); leave the stream alone for a while."""
        self.ready = False
        self.next_try_at = monotonic() + NEXT_TRY_SECONDS
        if error is not None:
            self.trouble.strikes(sentence(error))

    def is_missing(self) -> None:
        """The group has vanished: make it again at the next turn."""
        self.ready = False
        self.next_try_at = 0.0

    async def note_position(self, link: Link) -> None:
        """Look how far the group is, and what it has not finished, in case it vanishes."""
        info = await groups.find(link, self.keys.stream, self.group)
        if info is not None:
            await self._note(link, info)

    async def _note(self, link: Link, info: GroupInfo) -> None:
        self.knows(info.last_delivered_id)
        oldest = await groups.oldest_pending(link, self.keys.stream, self.group) if info.pending else None
        self.resume_after = info.last_delivered_id if oldest is None else before(oldest)
        if self.on_lost == "stop":
            await groups.remember(link, self.keys, Place(self.resume_after, info.last_delivered_id))

    async def establish(self, link: Link, held: Collection[str] = ()) -> bool:
        """See that both groups are there, and make them where they are not; answers whether the stream can be read.

        `held` are the ids that this worker holds of the stream: a group that has vanished is made again below them.

        Raises `ConnectionLost`, `GroupLost` where that is the policy, and `ServerError` for what concerns the whole server.
        """
        try:
            await self._establish_main(link, held)
            if await groups.find(link, self.keys.retry, self.group) is None:
                # What waits there is ours alone and goes when it is settled, so all of it is still to be done.
                await groups.create(link, self.keys.retry, self.group, "0")
        except ServerError as error:
            if concerns_all(error):
                raise
            blamed = await with_its_key(link, self.keys, error)
            self.is_out_of_order(error if blamed is None and not self.trouble.lasts else blamed)
            return False
        self.ready = True
        self.trouble.is_over()
        return True

    async def _establish_main(self, link: Link, held: Collection[str]) -> None:
        info = await groups.find(link, self.keys.stream, self.group)
        if info is None:
            start_id = await self._start_id(link, held)
            if await groups.create(link, self.keys.stream, self.group, start_id):
                facts = {"stream": self.keys.stream, "group": self.group, "start": start_id}
                if self.known_id is None:
                    self.log.info("group.created", **facts)
                else:
                    self.log.warning("group.made_again", **facts, why="it had vanished; entries may be handled again")
            await self.note_position(link)
        else:
            await self._note(link, info)

    async def _start_id(self, link: Link, held: Collection[str]) -> str:
        """Where to make the group: where it was lost, unless the stream began anew since; a new group where its handlers say."""
        if self.on_lost == "stop":
            await self._stop_if_known(link, held)
        if self.known_id is None:
            return "0" if self.start == "earliest" else "$"
        if self.on_lost != "resume":
            return "0" if self.on_lost == "earliest" else "$"
        if await self._began_anew(link, self.known_id):
            self.known_id = "0-0"
            return "0"
        return self._resume_after(self.known_id, held)

    def _resume_after(self, known: str, held: Collection[str]) -> str:
        """What was delivered to others since we last looked is delivered again: twice is better than never."""
        places = [before(entry_id) for entry_id in held] + [known if self.resume_after is None else self.resume_after]
        return min(places, key=order_of)

    async def _began_anew(self, link: Link, known: str) -> bool:
        newest = await groups.last_id(link, self.keys.stream)
        return newest is None or order_of(newest) < order_of(known)

    async def _stop_if_known(self, link: Link, held: Collection[str]) -> None:
        """Raises `GroupLost` where the group was there before, as this worker saw, or another one."""
        # What is noted there is the same for all workers, so that they do not name different places.
        place = await groups.remembered(link, self.keys)
        if place is None and self.known_id is not None:
            place = Place(self._resume_after(self.known_id, held), self.known_id)
        if place is None:
            return
        stream = self.keys.stream
        began_anew = await self._began_anew(link, place.last_delivered_id)
        choices = ["ID is 0: all entries again", "$: nothing of what is there"]
        if not began_anew and order_of(place.resume_after) > (0, 0):
            choices.insert(1, f"{place.resume_after}: from below what was pending, nothing is missed")
        raise GroupLost(
            f"group {self.group!r} of stream {stream!r} has vanished: make it again where it should begin, with XGROUP CREATE "
            f"{stream} {self.group} ID MKSTREAM, and start the worker again ({'; '.join(choices)})"
        )


UNTOUCHED = History()
"""Of an entry that nobody was given before."""


class Arrival(NamedTuple):
    """A delivery as it came in, and what is wrong with its envelope, if anything."""

    delivery: Delivery
    damage: DecodeError | None = None


def receive(taken: Taken, binding: Binding, consumer: str, sent_at: float) -> Arrival:
    """The delivery of an entry that was read with a command sent at `sent_at` (monotonic seconds)."""
    lease = lease_of(taken, binding, consumer, sent_at)
    entry_id, history, fields = taken.entry.id, UNTOUCHED, taken.entry.fields
    damage = None
    if lease.of_retry:
        try:
            entry_id, history, fields = unpack(_enveloped(fields))
        except DecodeError as error:
            damage = error
    history = _with_count(history, taken)
    delivery = Delivery(
        id=entry_id,
        stream=binding.keys.stream,
        group=binding.group,
        consumer=consumer,
        fields=fields,
        history=history,
        lease=lease,
        size=size_of(fields),
    )
    return Arrival(delivery, damage)


def size_of(fields: Fields) -> int:
    """The bytes of its names and values."""
    return sum(map(len, fields))


def _with_count(history: History, taken: Taken) -> History:
    """The history, and what the delivery count tells of attempts that failed and of workers that died since."""
    if taken.failed:
        history = replace(history, attempt=history.attempt + taken.failed)
    if not taken.was_in_a_crash:
        return history
    # A suspect's count has begun at 2 without a crash: see suspects.py.
    in_company = 0 if history.suspect else 1
    return replace(
        history,
        crashes=history.crashes + in_company + taken.crashes_alone,
        crashes_alone=history.crashes_alone + taken.crashes_alone,
        suspect=True,
    )


def lease_of(taken: Taken, binding: Binding, consumer: str, sent_at: float) -> Lease:
    """The lease of an entry that was taken with a command sent at `sent_at`."""
    of_retry = taken.key == binding.keys.retry
    return Lease(taken.key, taken.entry.id, consumer, taken.turn, sent_at, of_retry, outstayed=taken.outstayed, failed=taken.failed)


def order_of(entry_id: str) -> tuple[int, int]:
    """An entry id as a pair of numbers that sorts as Redis sorts ids."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def before(entry_id: str) -> str:
    """The id just before this one."""
    milliseconds, sequence = order_of(entry_id)
    if sequence > 0:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds > 0 else "0-0"


def _enveloped(fields: Fields) -> bytes:
    if len(fields) != 2 or fields[0] != b"delivery":
        raise DecodeError("an entry of the retry stream that streamworker did not write")
    return fields[1]
