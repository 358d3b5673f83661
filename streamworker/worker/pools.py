"""Streams that share handlers share their room: whatever is read from one of them takes a place that the others have not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streamworker.streams.reading import Fresh
from streamworker.worker.bindings import Binding
from streamworker.worker.lanes import LaneGate, Lanes
from streamworker.worker.pace import Pace
from streamworker.worker.shares import Shares
from streamworker.worker.trips import Trip

SURPLUS_SECONDS = 1.0
"""For how long more may wait here than is worked off in a moment, before it is given back: to wait a little is cheaper than that."""


@dataclass(eq=False, slots=True)
class Pool:
    """The bindings whose handlers overlap, and the lanes of those handlers by name. `break_up` puts what waits in lots into the lines."""

    bindings: Sequence[Binding]
    lanes: Lanes[Trip]
    pace: Pace = field(default_factory=Pace)
    shares: Shares | None = None
    """Whose turn it is, where its streams have different weights."""
    break_up: Callable[[], None] | None = None
    in_lots: bool = False
    """Whether its streams are read in lots, some at least."""
    _surplus_since: float | None = None
    _names: frozenset[str] = field(init=False, default=frozenset())

    def __post_init__(self) -> None:
        self._names = frozenset(handler.name for binding in self.bindings for handler in binding.handlers)

    @property
    def room(self) -> int:
        """How many more deliveries could start soon."""
        return self._room_behind(self.lanes.gates) if self.lanes.gates else self.lanes.room

    @property
    def readable(self) -> list[Binding]:
        """The streams that can be read, and one of whose handlers could start something soon."""
        gates = self.lanes.gates
        if not gates:
            return [binding for binding in self.bindings if binding.ready]
        return [binding for binding in self.bindings if binding.ready and not is_shut(binding, gates)]

    @property
    def is_worth_reading(self) -> bool:
        """Whether one of its streams can be read, and there is room worth reading for."""
        if self.lanes.worthwhile_room == 0:
            return False
        if not self.lanes.gates:
            return any(binding.ready for binding in self.bindings)
        return bool(self.readable) and self.room > (0 if self.lanes.shared is None else self.lanes.ahead // 2)

    def part_with_room(self) -> PartOfPool | None:
        """The streams whose handlers all have places though others' lines fill the pool: a flood on one stream, or a handler that does
        not end, must not keep the others from theirs."""
        if len(self._names) < 2:  # asked whenever a delivery ends while room is waited for, of pools with many streams too
            return None
        free = {handler.name: self.lanes.free(handler.name) for binding in self.bindings for handler in binding.handlers}
        names_of = [(binding, [handler.name for handler in binding.handlers]) for binding in self.readable]
        some = [(binding, names) for binding, names in names_of if all(free[name] > 0 for name in names)]
        if not some:
            return None
        least = min(free[name] for _, names in some for name in names)
        return PartOfPool([binding for binding, _ in some], self.lanes, whole=self, free=least)

    @property
    def is_read(self) -> bool:
        """Whether any of its streams is read, with what waits here and runs here now."""
        return self.is_worth_reading or self.part_with_room() is not None

    @property
    def width(self) -> int:
        """How many keys `ready_keys` has."""
        return 2 * len(self.readable)

    def surplus(self, now: float) -> list[tuple[str, Trip]]:
        """Take out what waits beyond what may, once that has lasted."""
        if not self.lanes.has_surplus:
            self._surplus_since = None
        elif self._surplus_since is None:
            self._surplus_since = now
        elif now - self._surplus_since >= SURPLUS_SECONDS:
            if self.break_up is not None:
                self.break_up()
            return self.lanes.surplus()
        return []

    def look(self, now: float) -> None:
        """Take note of how fast deliveries end, which says how far ahead to read."""
        self.lanes.ahead = self.pace.ahead(self.lanes.ended, max(0, self.lanes.places), now, far=self.in_lots)

    def ready_keys(self, turn: int = 0) -> tuple[str, ...]:
        """The streams to read: all retry streams, because what is in them has waited longest, then the streams themselves.

        Each turn another one comes first, so that a flood on one stream takes no room for good from the others. Where they have weights,
        these say whose turn it is, and what is retried counts with its stream.
        """
        ready = [binding.keys for binding in self.readable]
        if self.shares is not None:
            keys_of = {keys.stream: keys for keys in ready}
            return tuple(key for stream in self.shares.order(keys_of) for key in (keys_of[stream].retry, stream))
        first = turn % len(ready) if ready else 0
        ready = ready[first:] + ready[:first]
        return (*(keys.retry for keys in ready), *(keys.stream for keys in ready))

    def _room_behind(self, gates: Mapping[str, LaneGate]) -> int:
        """The room, without the places of handlers that are shut; where all have gates, no more than these let through soon."""
        own = [(name, gates[name]) for name in self._names if name in gates]
        room = max(0, self.lanes.room - sum(self.lanes.idle(name) for name, gate in own if gate.is_shut))
        return room if len(own) < len(self._names) else min(room, sum(gate.room for _, gate in own))


@dataclass(eq=False, slots=True)
class PartOfPool(Pool):
    """Some streams of the `whole` pool, for one read of as many entries as are `free` for them."""

    whole: Pool | None = None
    free: int = 0

    @property
    def room(self) -> int:
        """As many as are free."""
        return self.free

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartOfPool) and (self.bindings, self.free) == (other.bindings, other.free)

    def __hash__(self) -> int:
        return hash(self.free)


def note_taken(pools: Sequence[Pool], fresh: Sequence[Fresh]) -> None:
    """These came from the streams of these pools, which were asked in the order of their keys."""
    for pool in pools:
        if pool.shares is not None:
            stream_of = {key: b.keys.stream for b in pool.bindings for key in (b.keys.stream, b.keys.retry)}
            counts = Counter[str]()
            for key, entries in fresh:
                if key in stream_of:
                    counts[stream_of[key]] += len(entries)
            pool.shares.took(counts)


def is_shut(binding: Binding, gates: Mapping[str, LaneGate]) -> bool:
    """Whether nothing of any handler of this stream can start soon."""
    return all(handler.name in gates and gates[handler.name].is_shut for handler in binding.handlers)


def pools_of(bindings: Sequence[Binding], limits: Mapping[str, int]) -> list[Pool]:
    """Sort bindings into pools: two belong together when a handler takes entries of both, directly or through a third."""
    clusters: list[tuple[set[str], list[Binding]]] = []
    for binding in bindings:
        names = {handler.name for handler in binding.handlers}
        members = [binding]
        apart = []
        for cluster_names, cluster in clusters:
            if cluster_names & names:
                names |= cluster_names
                members = [*cluster, *members]
            else:
                apart.append((cluster_names, cluster))
        clusters = [*apart, (names, members)]
    return [_pool(members, limits) for _, members in clusters]


def _pool(bindings: Sequence[Binding], limits: Mapping[str, int]) -> Pool:
    """A handler of batches has room for as many entries as all its batches at once can hold, and no lane: they have a line of their own."""
    handlers = {handler.name: handler for binding in bindings for handler in binding.handlers}
    batched = {name: handler.batch for name, handler in handlers.items() if handler.batch is not None}
    beside = sum(limits[name] * of.max_size for name, of in batched.items())
    weights = {b.keys.stream: max(handler.weight_of(b.keys.stream) for handler in b.handlers) for b in bindings}
    shares = Shares(weights) if len(set(weights.values())) > 1 else None
    return Pool(bindings, Lanes({name: limits[name] for name in sorted(handlers) if name not in batched}, beside), shares=shares)
