"""One child's share of the settings that all children are started with. Pure."""

from __future__ import annotations

from math import ceil

from streamworker.settings import Settings

SPREAD = 0.1
"""How much earlier than its limit a child may recycle, so that not all do at once."""


def share_of(settings: Settings, number: int, random: float) -> Settings:
    """The settings of child `number`: a consumer name of its own, and limits up to a tenth below those given."""
    part = 1 - SPREAD * random
    own: dict[str, object] = {}
    if settings.consumer is not None:
        own["consumer"] = f"{settings.consumer}-{number}"
    if settings.max_deliveries is not None:
        own["max_deliveries"] = ceil(settings.max_deliveries * part)
    if settings.max_runtime is not None:
        own["max_runtime"] = settings.max_runtime * part
    if settings.max_memory is not None:
        own["max_memory"] = ceil(settings.max_memory * part)
    return settings.model_copy(update=own)
