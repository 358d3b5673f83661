"""Streams that share handlers share their room: whatever is read from one of them takes a place that the others have not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamworker.delivery import Delivery
from streamworker.handlers import Handler
from streamworker.worker.bindings import Binding
from streamworker.worker.lanes import Lanes


@dataclass(frozen=True, eq=False, slots=True)
class Pool:
    """The bindings whose handlers overlap, and the lanes of those handlers by name."""

    bindings: Sequence[Binding]
    lanes: Lanes[tuple[Delivery, Handler]]

    @property
    def room(self) -> int:
        """How many more deliveries could start soon."""
        return self.lanes.room

    @property
    def ready_keys(self) -> tuple[str, ...]:
        """The streams to read, what waits longest first: all retry streams, then the streams themselves."""
        ready = [binding.keys for binding in self.bindings if binding.ready]
        return (*(keys.retry for keys in ready), *(keys.stream for keys in ready))


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
    return [Pool(members, Lanes({name: limits[name] for name in sorted(names)})) for names, members in clusters]
