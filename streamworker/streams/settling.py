"""How entries cease to be ours: one atomic step for each verdict. Every step but the plain ack is fenced: see `scripts/fence.lua`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from streamworker.delivery import Fields, Lease, Outgoing
from streamworker.effects import Write
from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.streams.scripts import script
from streamworker.streams.wire import Argument


@dataclass(frozen=True, slots=True)
class Promotion:
    """What promoting did: retries moved, those that could not be restored, ms until the next is due (`None`: none waits), and where the
    search for lost due times goes on."""

    moved: int
    hollow: int
    next_due_ms: int | None
    cursor: int


async def ack(link: Link, group: str, leases: Sequence[Lease]) -> int:
    """Acknowledge entries of one stream; those of a retry stream are removed too. Answers how many were still pending."""
    key, entry_ids = leases[0].key, [lease.entry_id for lease in leases]
    if leases[0].of_retry:
        return int(await script("settle_ack").run(link, [key], [group, *entry_ids]))
    return int(await link.call("XACK", key, group, *entry_ids))


async def ack_ids(link: Link, group: str, key: str, entry_ids: Sequence[bytes]) -> int:
    """As `ack`, for entries that are known by their ids only, of a stream that is no retry stream."""
    return int(await link.call("XACK", key, group, *entry_ids))


async def ack_and_delete(link: Link, group: str, leases: Sequence[Lease], *, xackdel: bool) -> tuple[int, bool]:
    """As `ack`, and delete what every group has acknowledged by now. `xackdel` says whether the server may know XACKDEL; so is answered."""
    entry_ids = [lease.entry_id for lease in leases]
    acked, knows = await script("ack_and_delete").run(link, [leases[0].key], [group, int(xackdel), *entry_ids])
    return int(acked), bool(knows)


async def commit(
    link: Link, group: str, keys: GroupKeys, lease: Lease, publishes: Sequence[Outgoing], writes: Sequence[Write] = ()
) -> bool:
    """Acknowledge, publish and write together; false when somebody else has settled the entry, and then nothing was written."""
    arguments = _fence(group, keys, lease)
    for outgoing in publishes:
        if outgoing.is_reply:
            arguments += ["REPLY", len(outgoing.fields), *outgoing.fields]
            continue
        trim: tuple[Argument, ...] = () if outgoing.max_length is None else ("MAXLEN", "~", outgoing.max_length)
        arguments += ["XADD", len(trim) + 1 + len(outgoing.fields), *trim, "*", *outgoing.fields]
    for write in writes:
        arguments += [write.command, len(write.values), *write.values]
    targets = [outgoing.stream for outgoing in publishes] + [write.key for write in writes]
    return bool(await script("settle_commit").run(link, [*_fenced(keys, lease), *targets], arguments))


async def retry_later(
    link: Link, group: str, keys: GroupKeys, lease: Lease, *, delay_ms: int, original_id: str, envelope: bytes
) -> bool:
    """Park the entry until it is due; false when it is not ours any more."""
    arguments = [*_fence(group, keys, lease), delay_ms, original_id, envelope]
    return bool(await script("settle_retry").run(link, [*_fenced(keys, lease), keys.parked, keys.due], arguments))


async def release(link: Link, group: str, keys: GroupKeys, lease: Lease, *, envelope: bytes) -> bool:
    """Give the entry to whoever reads next; false when it is not ours any more."""
    arguments = [*_fence(group, keys, lease), envelope]
    return bool(await script("settle_release").run(link, [*_fenced(keys, lease), keys.retry], arguments))


async def dead_letter(
    link: Link, group: str, keys: GroupKeys, lease: Lease, *, fields: Fields, keep_last: int | None, reply: Outgoing | None = None
) -> bool:
    """Write the dead letter, and the reply if one is asked for, and acknowledge; false when the entry is not ours any more."""
    arguments = [*_fence(group, keys, lease), "" if keep_last is None else keep_last, len(fields), *fields]
    its_keys = [*_fenced(keys, lease), keys.dead_letters]
    if reply is not None:
        its_keys.append(reply.stream)
        arguments += reply.fields
    return bool(await script("settle_dead_letter").run(link, its_keys, arguments))


async def promote(link: Link, keys: GroupKeys, *, limit: int, cursor: int = 0) -> Promotion:
    """Move up to `limit` retries that are due to the retry stream."""
    its_keys = [keys.due, keys.parked, keys.retry, keys.stream]
    moved, hollow, wait, following = await script("promote").run(link, its_keys, [limit, cursor])
    return Promotion(moved, hollow, None if wait < 0 else wait, int(following))


async def renew(link: Link, group: str, leases: Sequence[Lease], witnesses: Sequence[str] = ()) -> set[str]:
    """Renew leases of one stream and consumer; answers the ids of the entries that are not ours any more."""
    return told_of(await script("renew").run(link, [leases[0].key, *witnesses], renewal(group, leases)))[0]


async def recount(
    link: Link, group: str, keys: GroupKeys, lease: Lease, turn: int, *, failed: int | None = None, outstayed: bool = False
) -> bool:
    """Set the entry's turn and how many attempts have `failed` in its place, and note that it `outstayed` its time alone; false when it
    is not ours any more."""
    arguments = [*_fence(group, keys, lease), turn, int(outstayed), lease.failed if failed is None else failed]
    return bool(await script("recount").run(link, _fenced(keys, lease), arguments))


async def pardon(link: Link, group: str, lease: Lease) -> bool:
    """Take back the death that was counted when this lease, under which the entry ran alone, was taken for that of a dead worker.

    Answers whether there was one. Said twice, because a reply was lost, it may take back two.
    """
    return bool(await script("pardon").run(link, [lease.key], [group, lease.consumer, lease.entry_id, lease.turn]))


def renewal(group: str, leases: Sequence[Lease]) -> list[Argument]:
    """The arguments with which leases of one stream and consumer are renewed."""
    tokens = [value for lease in leases for value in (lease.entry_id, lease.turn)]
    return [group, leases[0].consumer, int(leases[0].of_retry), *tokens]


def told_of(renewed: Any) -> tuple[set[str], list[str]]:
    """What a renewal answers: the entries that are not ours any more, and those of ours that were trimmed away."""
    lost, trimmed = renewed
    return {raw.decode() for raw in lost}, [raw.decode() for raw in trimmed]


def _fenced(keys: GroupKeys, lease: Lease) -> list[str]:
    """The keys that every fenced script starts with."""
    return [lease.key, keys.settled]


def _fence(group: str, keys: GroupKeys, lease: Lease) -> list[Argument]:
    """The arguments that every fenced script starts with; entries of the retry stream are removed when they are settled."""
    return [group, lease.consumer, lease.entry_id, lease.turn, 1 if lease.of_retry else int(keys.removal)]
