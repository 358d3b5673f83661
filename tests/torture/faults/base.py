"""What a fault is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.torture.load import PLAIN, Mix
from tests.torture.scene import Scene

Strike = Callable[[Scene], None]


@dataclass(frozen=True)
class Fault:
    """One kind of trouble, and the stage that it needs.

    `inject` does it for as long as entries come in, ends it, and counts on the scene how often it fired. `rules` are what the checker is
    told beside its defaults; of each set in `events` one must show in the workers' logs. `proxied` says which workers are behind the proxy.
    """

    name: str
    inject: Strike
    mix: Mix = field(default_factory=lambda: PLAIN)
    workers: int = 3
    seconds: float = 3.0
    """How long the load lasts at least."""
    options: tuple[str, ...] = ()
    environments: tuple[Mapping[str, str], ...] = ()
    """What the workers are told, in turn."""
    durable: bool = False
    proxied: Literal["all", "one"] | None = None
    events: tuple[frozenset[str], ...] = ()
    rules: Mapping[str, Any] = field(default_factory=dict)


def one_of(*events: str) -> tuple[frozenset[str], ...]:
    """For `events`: at least one of these."""
    return (frozenset(events),)


def again_and_again(strike: Strike, apart: float, least: int = 2) -> Strike:
    """Strike while entries come in."""

    def inject(scene: Scene) -> None:
        for _ in scene.while_loaded(apart, least):
            scene.until_busy()
            strike(scene)

    return inject
