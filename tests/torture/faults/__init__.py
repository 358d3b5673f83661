"""All faults, by name."""

from __future__ import annotations

from tests.torture.faults import handlers, mixed, network, processes, servers, supervised
from tests.torture.faults.base import Fault

ALL: tuple[Fault, ...] = (
    *processes.FAULTS,
    *supervised.FAULTS,
    *servers.FAULTS,
    *network.FAULTS,
    *handlers.FAULTS,
    *mixed.FAULTS,
)


def named(name: str) -> Fault:
    """The fault of that name."""
    return next(fault for fault in ALL if fault.name == name)
