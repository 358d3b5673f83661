"""What the settlement steps should do, in plain Python: where every entry is, and what each step answers.

The model knows nothing of Lua. It keeps, for each group, who has which entry pending under which delivery count, what waits, what is due,
what lies in the retry stream and what is a dead letter. Each method is one step: it changes the model and answers what the server should.
A step that should be refused raises `Refused` with the error's code, and has changed nothing (a refused `promote` may have mended due times
and dropped hollow ones before).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from streamworker.codecs.envelope import Envelope
from streamworker.delivery import Fields, History, Lease
from streamworker.streams.keys import GroupKeys, Removal, keys_of
from streamworker.streams.reading import turn_of

STREAM = "orders"


class Trimmed(Enum):
    """What a server does with an entry that is pending and was deleted from its stream."""

    KEPT = "every claim hands it on, and XAUTOCLAIM shows it without its id (Redis before 7.0)"
    DROPPED = "every claim drops it, and XAUTOCLAIM drops what it passes, however short its idle time (from Redis 7.0 on)"
    DROPPED_WHEN_IDLE = "every claim drops it, and XAUTOCLAIM drops it when it is idle for long enough (fakeredis)"


class Refused(Exception):
    """The server should answer with an error of this code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Pending:
    """An entry in somebody's hands. `lapsed` says that its lease has run out on the server."""

    owner: str
    count: int
    lapsed: bool = False


@dataclass
class InRetry:
    """An entry of the retry stream; its id is known when the server has been looked at."""

    envelope: Envelope
    id: str | None = None
    delivered: bool = False


@dataclass
class Letter:
    """A dead letter: the original entry's id; its own is known when the server has been looked at."""

    original_id: str
    id: str | None = None


@dataclass
class Group:
    """One consumer group on the stream."""

    name: str
    position: int = 0
    pending: dict[tuple[str, str], Pending] = field(default_factory=dict)
    parked: dict[str, Envelope] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    retry: list[InRetry] = field(default_factory=list)
    has_retry_group: bool = True
    dead: list[Letter] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)
    """The stream's entries that a step has settled and written something for."""
    witnessed: set[str] = field(default_factory=set)
    """Those that were trimmed while pending, which a step has noticed and written down; where it is not needed, nobody does."""
    removal: Removal = Removal.NEVER

    @property
    def keys(self) -> GroupKeys:
        return keys_of(STREAM, self.name, self.removal)

    def in_retry(self, entry_id: str) -> InRetry | None:
        return next((one for one in self.retry if one.id == entry_id), None)


@dataclass(frozen=True)
class Got:
    """An entry that a step should give."""

    key: str
    id: str
    fields: object
    count: int


NOW, FAR = 0.0, 1e15
"""When a retry is due as far as the model knows; the exact time is the server's, and learnt from it."""


class Model:
    """The stream, its groups and what was published elsewhere."""

    def __init__(self, groups: Iterable[str], trimmed: Trimmed, removal: Removal = Removal.NEVER) -> None:
        self.groups = {name: Group(name, removal=removal) for name in groups}
        self._removal = removal
        self.published: list[str] = []
        self.entries: dict[str, Fields] = {}
        self.targets: dict[str, list[Fields]] = {"invoices": [], "letters": []}
        self.spoiled: set[str] = set()
        self.retries_without_envelope: set[tuple[str, str]] = set()
        """Retries whose envelope and entry are both gone, when that was found out."""
        self._trimmed = trimmed

    # ---- coming in --------------------------------------------------------------------------------------------------------

    def publish(self, entry_id: str, fields: Fields) -> None:
        self.published.append(entry_id)
        self.entries[entry_id] = fields

    def undelivered(self, group: Group) -> list[str]:
        return [entry_id for entry_id in self.published[group.position :] if entry_id in self.entries]

    def read(self, group: Group, consumer: str, room: int, *, of_each: bool = False) -> tuple[list[Got], set[str]]:
        """New entries, the retry stream's first, `room` together or `of_each`; and the streams that cannot be read."""
        got: list[Got] = []
        refused = set() if self.refusal(group) is None else {group.keys.retry}
        if not refused:
            for one in [one for one in group.retry if not one.delivered][:room]:
                one.delivered = True
                assert one.id is not None
                got.append(self._give(group, group.keys.retry, one.id, Pending(consumer, 1)))
        for entry_id in self.undelivered(group)[: room if of_each else room - len(got)]:
            group.position = self.published.index(entry_id) + 1
            got.append(self._give(group, STREAM, entry_id, Pending(consumer, 1)))
        return got, refused

    def refusal(self, group: Group) -> str | None:
        """The code with which the retry stream cannot be read, if so."""
        if group.keys.retry in self.spoiled:
            return "WRONGTYPE"
        return None if group.has_retry_group else "NOGROUP"

    def reclaim(self, group: Group, key: str, consumer: str) -> tuple[list[Got], set[str]]:
        """What has lapsed becomes ours: a death for what may have been running alone with another, none for what only waited or is ours."""
        self._see_group(group, key)
        got: list[Got] = []
        gone: set[str] = set()
        for entry_id, pending in self._pending_of(group, key):
            is_gone = self._is_trimmed(key, entry_id)
            if not pending.lapsed and not (is_gone and self._trimmed is Trimmed.DROPPED):
                continue
            if is_gone:
                gone.add(entry_id)
                self._drop(group, key, entry_id)
            else:
                count = pending.count if pending.owner == consumer else _after_a_death(pending.count)
                got.append(self._give(group, key, entry_id, Pending(consumer, count)))
        if gone and self._trimmed is Trimmed.KEPT:
            # Whoever is given one without its id looks at all that it has.
            for entry_id, pending in self._pending_of(group, key):
                if pending.owner == consumer and self._is_trimmed(key, entry_id):
                    gone.add(entry_id)
                    self._drop(group, key, entry_id)
        return got, gone

    def reconcile(self, group: Group, key: str, consumer: str, held: Collection[str], *, died: bool) -> tuple[list[Got], set[str]]:
        """What is pending under our name and not held: nothing is counted unless its owner died."""
        self._see_group(group, key)
        got: list[Got] = []
        gone: set[str] = set()
        for entry_id, pending in self._pending_of(group, key):
            if pending.owner != consumer or entry_id in held:
                continue
            if self._is_trimmed(key, entry_id):
                gone.add(entry_id)
                self._drop(group, key, entry_id)
            else:
                count = _after_a_death(pending.count) if died else pending.count
                got.append(self._give(group, key, entry_id, Pending(consumer, count)))
        return got, gone

    # ---- while it is ours -------------------------------------------------------------------------------------------------

    def renew(self, group: Group, leases: Sequence[Lease]) -> set[str]:
        """The ids that are not ours any more; the leases of the others begin anew."""
        self._see_group(group, leases[0].key)
        lost = set()
        for lease in leases:
            pending = group.pending.get((lease.key, lease.entry_id))
            if pending is not None and (pending.owner, turn_of(pending.count)) == (lease.consumer, lease.turn):
                self._claim(group, lease, pending.count)
            elif not self._is_beyond(group, lease) or not self._is_known_as_trimmed(group, lease):
                lost.add(lease.entry_id)
        return lost

    def recount(self, group: Group, lease: Lease, turn: int, *, outstayed: bool = False) -> bool:
        self._see_source(group, lease)
        pending = group.pending.get((lease.key, lease.entry_id))
        if pending is None:
            return self._goes_on(group, lease)
        found = turn_of(pending.count)
        if pending.owner != lease.consumer or found not in (lease.turn, turn):
            return False
        self._claim(group, lease, pending.count - found + turn + (1_000_000 if outstayed and found != turn else 0))
        return True

    def pardon(self, group: Group, lease: Lease) -> bool:
        """A death is taken back where somebody has the entry after us."""
        self._see_group(group, lease.key)
        pending = group.pending.get((lease.key, lease.entry_id))
        if pending is None or pending.owner == lease.consumer or turn_of(pending.count) <= lease.turn:
            return False
        if pending.count // 1_000 % 1_000 == 0 or self._is_trimmed(lease.key, lease.entry_id):
            return False
        pending.count -= 1_000
        return True

    def lapse(self, group: Group, key: str, entry_id: str) -> None:
        """Its lease runs out."""
        pending = group.pending[key, entry_id]
        pending.lapsed = True
        if self._is_dropped(key, entry_id):
            del group.pending[key, entry_id]  # by nobody of ours, so it is not witnessed

    # ---- going out --------------------------------------------------------------------------------------------------------

    def ack(self, group: Group, leases: Sequence[Lease]) -> list[str]:
        """Whoever has them: the ids that were still pending. Entries of the retry stream are removed."""
        if leases[0].key in self.spoiled:
            raise Refused("WRONGTYPE")
        acked = [lease.entry_id for lease in leases if (lease.key, lease.entry_id) in group.pending]
        for lease in leases:
            self._finish(group, lease)
        return acked

    def is_needed(self, entry_id: str) -> bool:
        """Whether some group has still to be given it, or has it pending."""
        return any(
            (STREAM, entry_id) in group.pending or self.published.index(entry_id) >= group.position
            for group in self.groups.values()
        )

    def commit(self, group: Group, lease: Lease, publishes: Sequence[tuple[str, Fields]]) -> bool:
        self._see_source(group, lease)
        if (lease.key, lease.entry_id) not in group.pending and not self._goes_on(group, lease):
            return False
        self._see_type(*(target for target, _ in publishes))
        for target, fields in publishes:
            self.targets[target].append(fields)
        self._settle(group, lease)
        return True

    def retry_later(self, group: Group, lease: Lease, envelope: Envelope, due: float) -> bool:
        if not self._is_ours(group, lease):
            return False
        self._see_type(group.keys.due, group.keys.parked)
        group.parked[envelope.id] = envelope
        group.due[envelope.id] = due
        self._settle(group, lease)
        return True

    def release(self, group: Group, lease: Lease, envelope: Envelope) -> bool:
        if not self._is_ours(group, lease):
            return False
        self._see_type(group.keys.retry)
        group.retry.append(InRetry(envelope))
        self._settle(group, lease)
        return True

    def dead_letter(self, group: Group, lease: Lease, original_id: str) -> bool:
        if not self._is_ours(group, lease):
            return False
        self._see_type(group.keys.dead_letters)
        group.dead.append(Letter(original_id))
        self._settle(group, lease)
        return True

    def promote(self, group: Group, limit: int) -> tuple[int, int, bool | None]:
        """How many moved, how many were hollow, and whether the next one is due now (`None`: none waits)."""
        self._see_type(group.keys.parked, group.keys.due)
        if self.has_lost_due_times(group):
            for original_id in group.parked:
                group.due.setdefault(original_id, NOW)
        ready = sorted((when, original_id) for original_id, when in group.due.items() if when < FAR)
        moved = hollow = 0
        for _, original_id in ready[:limit]:
            envelope = group.parked.get(original_id)
            if envelope is None and original_id in self.entries:
                envelope = Envelope(original_id, History(), self.entries[original_id])
            if envelope is None:
                hollow += 1
                self.retries_without_envelope.add((group.name, original_id))
            else:
                self._see_type(group.keys.retry)
                group.retry.append(InRetry(envelope))
                group.parked.pop(original_id, None)
                moved += 1
            del group.due[original_id]
        following = min(group.due.values(), default=None)
        return moved, hollow, None if following is None else following < FAR

    def replay(self, group: Group, letter_id: str, envelope: Envelope) -> bool:
        self._see_type(group.keys.dead_letters)
        letter = next((letter for letter in group.dead if letter.id == letter_id), None)
        if letter is None:
            return False
        self._see_type(group.keys.retry)
        group.retry.append(InRetry(envelope))
        group.dead.remove(letter)
        return True

    # ---- groups and accidents ---------------------------------------------------------------------------------------------

    def forget_consumer(self, group: Group, key: str, consumer: str) -> bool:
        self._see_group(group, key)
        return all(pending.owner != consumer for _, pending in self._pending_of(group, key))

    def is_finished(self, group: Group) -> bool:
        nothing_waits = not group.due and not group.parked
        nothing_in_retry = group.has_retry_group and all(one.delivered for one in group.retry)
        return nothing_waits and nothing_in_retry and not group.pending and not self.undelivered(group)

    def has_lost_due_times(self, group: Group) -> bool:
        return len(group.parked) > len(group.due)

    def trim(self, entry_id: str) -> None:
        del self.entries[entry_id]

    def lose_retry_stream(self, group: Group) -> None:
        group.retry.clear()
        group.has_retry_group = False
        for key, entry_id in [place for place in group.pending if place[0] == group.keys.retry]:
            del group.pending[key, entry_id]

    def originals_alive(self, group: Group) -> set[str]:
        """The original ids of what is anywhere in this group and not finished."""
        return {
            *self.undelivered(group),
            *(entry_id for key, entry_id in group.pending if key == STREAM),
            *(one.envelope.id for one in group.retry),
            *group.parked,
            *(original_id for original_id in group.due if original_id in group.parked or original_id in self.entries),
            *(letter.original_id for letter in group.dead),
        }

    # ---- what the steps have in common ------------------------------------------------------------------------------------

    def _is_ours(self, group: Group, lease: Lease) -> bool:
        self._see_source(group, lease)
        pending = group.pending.get((lease.key, lease.entry_id))
        if pending is None:
            return self._goes_on(group, lease)
        return (pending.owner, turn_of(pending.count)) == (lease.consumer, lease.turn)

    def _goes_on(self, group: Group, lease: Lease) -> bool:
        """It was trimmed away, and nobody is known to have settled it: whoever still has it in memory goes on."""
        return self._is_beyond(group, lease) and lease.entry_id not in group.settled and self._is_known_as_trimmed(group, lease)

    def _is_known_as_trimmed(self, group: Group, lease: Lease) -> bool:
        """Where we remove entries ourselves, that it is gone does not tell."""
        return not self._removal or lease.entry_id in group.witnessed

    def _is_beyond(self, group: Group, lease: Lease) -> bool:
        """Nobody has it and nobody can get it."""
        return (lease.key, lease.entry_id) not in group.pending and self._is_trimmed(lease.key, lease.entry_id)

    def _is_trimmed(self, key: str, entry_id: str) -> bool:
        return key == STREAM and entry_id not in self.entries

    def _see_source(self, group: Group, lease: Lease) -> None:
        self._see_group(group, lease.key)

    def _see_group(self, group: Group, key: str) -> None:
        self._see_type(key)
        if key == group.keys.retry and not group.has_retry_group:
            raise Refused("NOGROUP")

    def _see_type(self, *keys: str) -> None:
        if not self.spoiled.isdisjoint(keys):
            raise Refused("WRONGTYPE")

    def _pending_of(self, group: Group, key: str) -> list[tuple[str, Pending]]:
        found = [(entry_id, pending) for (where, entry_id), pending in group.pending.items() if where == key]
        return sorted(found, key=lambda one: _order_of(one[0]))

    def _give(self, group: Group, key: str, entry_id: str, pending: Pending) -> Got:
        group.pending[key, entry_id] = pending
        if key == STREAM:
            return Got(key, entry_id, self.entries[entry_id], pending.count)
        one = group.in_retry(entry_id)
        assert one is not None
        return Got(key, entry_id, one.envelope, pending.count)

    def _claim(self, group: Group, lease: Lease, count: int) -> None:
        group.pending[lease.key, lease.entry_id] = Pending(lease.consumer, count)
        if self._is_dropped(lease.key, lease.entry_id):
            self._drop(group, lease.key, lease.entry_id)

    def _is_dropped(self, key: str, entry_id: str) -> bool:
        """Whether the server takes it off the pending list when it is claimed."""
        return self._is_trimmed(key, entry_id) and self._trimmed is not Trimmed.KEPT

    def _drop(self, group: Group, key: str, entry_id: str) -> None:
        del group.pending[key, entry_id]
        if self._removal:
            group.witnessed.add(entry_id)

    def _settle(self, group: Group, lease: Lease) -> None:
        """The end of a step that has written something."""
        self._finish(group, lease)
        if not lease.of_retry:
            group.settled.add(lease.entry_id)

    def _finish(self, group: Group, lease: Lease) -> None:
        group.pending.pop((lease.key, lease.entry_id), None)
        if lease.of_retry:
            group.retry = [one for one in group.retry if one.id != lease.entry_id]
        elif self._removal is Removal.WHEN_ACKED and not self.is_needed(lease.entry_id):
            self.entries.pop(lease.entry_id, None)


def _after_a_death(count: int) -> int:
    """An odd turn may have been running, in company at first and alone after that; an even one only waited."""
    turn = turn_of(count)
    ran_alone = turn % 2 == 1 and turn > 1
    return count + (1 if turn % 2 or not turn else 2) + (1_000 if ran_alone else 0)


def _order_of(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))
