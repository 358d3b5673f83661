"""Several faults at once, in an order that the seed decides: what no single one shows."""

from __future__ import annotations

from tests.torture.faults import processes, servers
from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.faults.network import cut
from tests.torture.scene import DEAD, DUE, PARKED, Scene

STRIKES: tuple[Strike, ...] = (
    processes.kill,
    processes.kill,
    processes.stop_and_continue,
    processes.roll,
    servers.kill_the_server,
    servers.kill_clients,
    servers.pause_clients,
    servers.flush_scripts,
    servers.fill_the_memory,
    servers.switch_the_user_off,
    servers.of_wrong_type(DUE),
    servers.of_wrong_type(PARKED),
    servers.of_wrong_type(DEAD),
    cut,
)


def any_of_them(scene: Scene) -> None:
    """Whatever comes next."""
    scene.random.choice(STRIKES)(scene)


FAULTS = (
    Fault(
        "mixed",
        again_and_again(any_of_them, 0.4, least=8),
        durable=True,
        proxied="all",
        seconds=6.0,
        # Some seeds hardly kill, but all cut: what was on its way then is found again.
        events=one_of("entries.reclaimed", "entries.found_again"),
    ),
)
