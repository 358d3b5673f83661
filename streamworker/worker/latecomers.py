"""Entries whose reply was long on its way: who knows whose they are by now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from time import monotonic

from streamworker.streams import settling
from streamworker.streams.link import Link
from streamworker.streams.reading import Taken
from streamworker.worker.bindings import Binding, lease_of
from streamworker.worker.plan import Plan


async def still_ours(
    link: Link, plan: Plan, binding_of: Mapping[str, Binding], taken: Sequence[Taken]
) -> tuple[Sequence[Taken], float]:
    """Those that nobody has taken over meanwhile, and when that was asked (monotonic seconds)."""
    by_key: dict[str, list[Taken]] = defaultdict(list)
    for one in taken:
        by_key[one.key].append(one)
    sent_at = monotonic()
    kept: list[Taken] = []
    for key, ones in by_key.items():
        leases = [lease_of(one, binding_of[key], plan.consumer, sent_at) for one in ones]
        lost = await settling.renew(link, plan.group, leases)
        kept += [one for one in ones if one.entry.id not in lost]
    return kept, sent_at
