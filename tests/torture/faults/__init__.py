"""All faults, by name."""

from __future__ import annotations

from functools import cache

from tests.torture import features
from tests.torture.faults import handlers, mixed, network, processes, servers, supervised
from tests.torture.faults.base import Fault


@cache
def everything() -> tuple[Fault, ...]:
    """All faults, the features' own last."""
    return (
        *processes.FAULTS,
        *supervised.FAULTS,
        *servers.FAULTS,
        *network.FAULTS,
        *handlers.FAULTS,
        *mixed.FAULTS,
        *(fault for feature in features.everything() for fault in feature.faults),
    )


def named(name: str) -> Fault:
    """The fault of that name."""
    return next(fault for fault in everything() if fault.name == name)
