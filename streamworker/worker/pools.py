"""Streams that share handlers share their room: whatever is read from one of them takes a place that the others have not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streamworker.worker.bindings import Binding
from streamworker.worker.lanes import Lanes
from streamworker.worker.pace import Pace
from streamworker.worker.trips import Trip

SURPLUS_SECONDS = 1.0
"""For how long more may wait here than is worked off in a moment, before it is given back: to wait a little is cheaper than that."""


@dataclass(eq=False, slots=True)
class Pool:
    """The bindings whose handlers overlap, and the lanes of those handlers by name. `break_up` puts what waits in lots into the lines."""

    bindings: Sequence[Binding]
    lanes: Lanes[Trip]
    pace: Pace = field(default_factory=Pace)
    break_up: Callable[[], None] | None = None
    _surplus_since: float | None = None
    _has_several_handlers: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._has_several_handlers = len({handler.name for binding in self.bindings for handler in binding.handlers}) > 1

    @property
    def room(self) -> int:
        """How many more deliveries could start soon."""
        return self.lanes.room

    @property
    def is_worth_reading(self) -> bool:
        """Whether one of its streams can be read, and there is room worth reading for."""
        return self.lanes.worthwhile_room > 0 and any(binding.ready for binding in self.bindings)

    def part_with_room(self) -> PartOfPool | None:
        """The streams whose handlers all have places though others' lines fill the pool: a flood on one stream, or a handler that does
        not end, must not keep the others from theirs."""
        if (
            not self._has_several_handlers
        ):  # asked whenever a delivery ends while room is waited for, of pools with many streams too
            return None
        free = {handler.name: self.lanes.free(handler.name) for binding in self.bindings for handler in binding.handlers}
        names_of = [(binding, [handler.name for handler in binding.handlers]) for binding in self.bindings if binding.ready]
        some = [(binding, names) for binding, names in names_of if all(free[name] > 0 for name in names)]
        if not some:
            return None
        least = min(free[name] for _, names in some for name in names)
        return PartOfPool([binding for binding, _ in some], self.lanes, whole=self, free=least)

    @property
    def width(self) -> int:
        """How many keys `ready_keys` has."""
        return 2 * sum(binding.ready for binding in self.bindings)

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
        self.lanes.ahead = self.pace.ahead(self.lanes.ended, max(0, self.lanes.places), now)

    def ready_keys(self, turn: int = 0) -> tuple[str, ...]:
        """The streams to read: all retry streams, because what is in them has waited longest, then the streams themselves.

        Each turn another one comes first, so that a flood on one stream takes no room for good from the others.
        """
        ready = [binding.keys for binding in self.bindings if binding.ready]
        first = turn % len(ready) if ready else 0
        ready = ready[first:] + ready[:first]
        return (*(keys.retry for keys in ready), *(keys.stream for keys in ready))


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
    return Pool(bindings, Lanes({name: limits[name] for name in sorted(handlers) if name not in batched}, beside))
