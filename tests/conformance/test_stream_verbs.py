"""The typed verbs of `streams/`, one by one: what each step does, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from taking import KEYS, take

from streamworker.delivery import Lease, Outgoing
from streamworker.errors import ServerError
from streamworker.streams import groups, inspecting, publishing, reading, settling
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.streams.reading import Page, Room, Taken

pytestmark = pytest.mark.matrix


async def fill(link: Link, rooms: list[Room], **limits: int) -> tuple[list[Taken], dict[str, ServerError]]:
    """Read as `me`, with memory for all of it unless told otherwise."""
    fresh, refused = await reading.fill(link, "billing", "me", rooms, **{"most_bytes": 2**30, "expected_bytes": 100, **limits})
    return [one for of_key in fresh for one in of_key.as_taken()], refused


async def reclaim(link: Link, consumer: str = "me", *, lease_ms: int = 0) -> list[Taken]:
    """Take over what has been idle for so long, at whatever time."""
    page, _ = await reading.reclaim(
        link, "orders", "billing", consumer, lease_ms=lease_ms, cursor="0-0", count=10, most_bytes=2**30, not_after_ms=2**52
    )
    assert page is not None
    return page.taken


async def reconcile(
    link: Link, *, died: bool, held: Sequence[str] = (), most_bytes: int = 2**30, cursor: str = "-"
) -> tuple[Page, bool]:
    """Look for what is pending as `me`, with memory for all of it unless told otherwise."""
    return await reading.reconcile(link, "orders", "billing", "me", cursor=cursor, held=held, died=died, most_bytes=most_bytes)


async def pending_ids(link: Link) -> list[str]:
    return [row.id for row in await inspecting.pending(link, "orders", "billing", count=100)]


async def test_a_group_is_made_once(link: Link) -> None:
    """Making it again says so, and is no error."""
    assert await groups.create(link, "clicks", "counts", "0")
    assert not await groups.create(link, "clicks", "counts", "0")


async def test_a_missing_stream_has_no_groups(link: Link) -> None:
    """It is no error either."""
    assert [] == await groups.describe(link, "nowhere")
    assert await groups.find(link, "nowhere", "billing") is None


async def test_filling_stays_within_the_room_and_reads_the_first_stream_first(link: Link) -> None:
    """Two streams share a room of three: what is in the first comes first, and no more than three come."""
    for stream, count in ((KEYS.retry, 2), ("orders", 5)):
        await asyncio.gather(*(publishing.add(link, Outgoing(stream, [b"n", b"%d" % number])) for number in range(count)))

    taken, refused = await fill(link, [Room((KEYS.retry, "orders"), 3)])

    assert [KEYS.retry, KEYS.retry, "orders"] == [one.key for one in taken]
    assert {} == refused


async def test_an_error_of_one_stream_hides_nothing_of_another(link: Link) -> None:
    """A stream without the group is reported beside what the others gave."""
    await publishing.add(link, Outgoing("orders", [b"n", b"1"]))

    taken, refused = await fill(link, [Room(("orders", "nowhere"), 5)])

    assert ["orders"] == [one.key for one in taken]
    assert ["nowhere"] == list(refused)
    assert "NOGROUP" == refused["nowhere"].code


async def test_a_retry_waits_with_its_envelope_and_comes_back_when_it_is_due(link: Link) -> None:
    """Parked: off the pending list. Promoted: in the retry stream, and nothing is left of it elsewhere."""
    [lease] = await take(link, "a")

    ours = await settling.retry_later(
        link, "billing", KEYS, lease, delay_ms=0, original_id=lease.entry_id, envelope=b"the envelope"
    )
    waiting = await inspecting.waiting(link, KEYS.due)
    promotion = await settling.promote(link, KEYS, limit=10)
    [entry] = await inspecting.entries(link, KEYS.retry)

    assert ours
    assert 1 == waiting
    assert [] == await pending_ids(link)
    assert (1, 0, None) == (promotion.moved, promotion.hollow, promotion.next_due_ms)
    assert [b"delivery", b"the envelope"] == entry.fields
    assert 0 == await inspecting.waiting(link, KEYS.due)


async def test_what_is_not_due_yet_is_not_promoted_and_its_time_is_told(link: Link) -> None:
    """So that nobody asks again before."""
    [lease] = await take(link, "a")
    await settling.retry_later(link, "billing", KEYS, lease, delay_ms=60_000, original_id=lease.entry_id, envelope=b"e")

    promotion = await settling.promote(link, KEYS, limit=10)

    assert 0 == promotion.moved
    assert promotion.next_due_ms is not None
    assert 50_000 < promotion.next_due_ms <= 60_000


@pytest.mark.parametrize("owner", ["nobody", "another", "us, delivered anew"])
async def test_no_step_touches_an_entry_that_is_not_ours_any_more(link: Link, owner: str) -> None:
    """Acknowledged, taken over, or delivered to us a second time under a new count: every fenced step answers false and writes nothing."""
    [lease] = await take(link, "a")
    if owner == "nobody":
        await link.call("XACK", "orders", "billing", lease.entry_id)
    else:
        await link.call("XCLAIM", "orders", "billing", "thief" if owner == "another" else "me", 0, lease.entry_id)

    answers = [
        await settling.retry_later(link, "billing", KEYS, lease, delay_ms=0, original_id=lease.entry_id, envelope=b"e"),
        await settling.release(link, "billing", KEYS, lease, envelope=b"e"),
        await settling.dead_letter(link, "billing", KEYS, lease, fields=[b"a", b"b"], keep_last=None),
    ]
    lost = await settling.renew(link, "billing", [lease])

    assert [False, False, False] == answers
    assert {lease.entry_id} == lost
    assert [0, 0] == [await inspecting.length(link, key) for key in (KEYS.retry, KEYS.dead_letters)]
    assert 0 == await inspecting.waiting(link, KEYS.due)


async def test_whoever_finishes_first_commits(link: Link) -> None:
    """A worker that lost the entry but ends first publishes and acknowledges; the second one publishes nothing."""
    [lease] = await take(link, "a")
    await link.call("XCLAIM", "orders", "billing", "thief", 0, lease.entry_id)
    publishes = [Outgoing("invoices", [b"n", b"1"])]

    first = await settling.commit(link, "billing", KEYS, lease, publishes)
    second = await settling.commit(link, "billing", KEYS, Lease("orders", lease.entry_id, "thief", 2, 0.0), publishes)

    assert (True, False) == (first, second)
    assert 1 == await inspecting.length(link, "invoices")


async def test_a_commit_writes_nothing_when_one_target_cannot_be_written(link: Link) -> None:
    """Neither the first publish nor the acknowledgement."""
    [lease] = await take(link, "a")
    await link.call("SET", "audit", "a string")

    with pytest.raises(ServerError) as refused:
        await settling.commit(link, "billing", KEYS, lease, [Outgoing("invoices", [b"n", b"1"]), Outgoing("audit", [b"n", b"1"])])

    assert "WRONGTYPE" == refused.value.code
    assert 0 == await inspecting.length(link, "invoices")
    assert [lease.entry_id] == await pending_ids(link)


async def test_a_consumer_with_anything_pending_is_not_forgotten(link: Link) -> None:
    """Removing it would drop what is pending under its name."""
    [lease] = await take(link, "a")

    before = await groups.forget_consumer(link, "orders", "billing", "me")
    await settling.ack(link, "billing", [lease])
    after = await groups.forget_consumer(link, "orders", "billing", "me")

    assert (False, True) == (before, after)


async def test_reconciling_gives_what_we_do_not_hold_and_counts_nothing(link: Link) -> None:
    """The body comes with it. Where its owner is dead it waits from then on to be run alone, however often one looks."""
    held, ghost = await take(link, "a", "b")

    page, left = await reconcile(link, held=[held.entry_id], died=False)
    after_a_death = [await reconcile(link, held=[held.entry_id], died=True) for _ in range(2)]

    assert not left
    assert [(ghost.entry_id, [b"note", b"b"], 1)] == [(one.entry.id, one.entry.fields, one.count) for one in page.taken]
    assert [2, 4] == [one.count for page, _ in after_a_death for one in page.taken]


@pytest.mark.parametrize("died", [False, True])
async def test_reconciling_ends_with_the_entry_that_fills_the_memory(link: Link, died: bool) -> None:
    """What is left stays as idle as it was; that its owner died is written down for it, too, and only once."""
    leases = await take(link, *("x" * 1_000 for _ in range(5)))
    before = await inspecting.pending(link, "orders", "billing", count=10)

    page, left = await reconcile(link, died=died, most_bytes=1_500)
    counts = [row.count for row in await inspecting.pending(link, "orders", "billing", count=10)]
    rest, left_again = await reconcile(link, died=False, held=[one.entry.id for one in page.taken])

    assert (True, False) == (left, left_again)
    assert [lease.entry_id for lease in leases] == [one.entry.id for one in (*page.taken, *rest.taken)]
    assert 2 == len(page.taken)
    assert [2 if died else 1] * 5 == counts
    assert [1] * 5 == [row.count for row in before]


async def test_reclaiming_ends_with_the_entry_that_fills_the_memory(link: Link) -> None:
    """And goes on behind it."""
    leases = await take(link, *("x" * 1_000 for _ in range(5)))

    found, cursor = [], "0-0"
    while cursor is not None:
        page, _ = await reading.reclaim(
            link, "orders", "billing", "you", lease_ms=0, cursor=cursor, count=10, most_bytes=1_500, not_after_ms=2**52
        )
        assert page is not None
        found.append([one.entry.id for one in page.taken])
        cursor = page.following

    assert [lease.entry_id for lease in leases] == [entry_id for ids in found for entry_id in ids]
    assert [2, 2, 1] == [len(ids) for ids in found]


async def test_what_is_held_without_a_lease_is_not_taken_back_by_a_sweep_of_our_own(link: Link) -> None:
    """Its idle time goes on, and with it the way to another worker, who counts the crash."""
    [lease] = await take(link, "a")
    await link.call("XCLAIM", "orders", "billing", "me", 0, lease.entry_id, "IDLE", 60_000, "RETRYCOUNT", 1, "JUSTID")

    page, _ = await reading.reclaim(
        link, "orders", "billing", "me", lease_ms=30_000, cursor="0-0", count=10, most_bytes=2**30, not_after_ms=2**52,
        lost=[lease.entry_id],
    )  # fmt: skip
    [left] = await inspecting.pending(link, "orders", "billing", count=10)
    [taken] = await reclaim(link, "you", lease_ms=30_000)

    assert page is not None
    assert [] == page.taken
    assert ("me", 1) == (left.consumer, left.count)
    assert 60_000 <= left.idle_ms
    assert 2 == taken.count


@pytest.mark.parametrize("step", ["commit", "retry", "release", "dead letter"])
async def test_a_full_server_refuses_what_takes_memory(private_server, server_kind: str, step: str) -> None:
    """Though a script's first write, which tries the right to acknowledge, is one that it takes; nothing is written."""
    server = private_server(server_kind)
    link = Link(Endpoint(server.url))
    for key in (KEYS.stream, KEYS.retry):
        await groups.create(link, key, "billing", "0")
    [lease] = await take(link, "a")
    steps = {
        "commit": lambda: settling.commit(link, "billing", KEYS, lease, [Outgoing("invoices", [b"n", b"1"])]),
        "retry": lambda: settling.retry_later(link, "billing", KEYS, lease, delay_ms=0, original_id=lease.entry_id, envelope=b"e"),
        "release": lambda: settling.release(link, "billing", KEYS, lease, envelope=b"e"),
        "dead letter": lambda: settling.dead_letter(link, "billing", KEYS, lease, fields=[b"n", b"1"], keep_last=None),
    }

    await link.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await link.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ServerError) as refused:
        await steps[step]()
    counted = await settling.recount(link, "billing", KEYS, lease, 3)
    await link.call("CONFIG", "SET", "maxmemory", "0")
    lengths = [await inspecting.length(link, key) for key in ("invoices", KEYS.retry, KEYS.dead_letters)]
    await link.close()

    assert "OOM" == refused.value.code
    assert counted
    assert [0, 0, 0] == lengths


async def test_filling_ends_when_the_memory_is_full(link: Link) -> None:
    """Sizes show only when entries are read, so a few at first: a hundred megabytes waiting do not arrive at once."""
    await asyncio.gather(*(publishing.add(link, Outgoing("orders", [b"blob", b"x" * 100_000])) for _ in range(100)))

    first, _ = await fill(link, [Room(("orders",), 100)], most_bytes=1_000_000)
    informed, _ = await fill(link, [Room(("orders",), 100)], most_bytes=1_000_000, expected_bytes=100_004)
    nothing, _ = await fill(link, [Room(("orders",), 100)], most_bytes=0)
    one, _ = await fill(link, [Room(("orders",), 100)], most_bytes=10, expected_bytes=100_004)

    assert 10 <= len(first) <= 16
    assert 10 == len(informed)
    assert [] == nothing
    assert 1 == len(one)


async def test_a_death_counts_for_what_may_have_been_running_alone_only(link: Link) -> None:
    """Whoever waited when its worker died is not blamed for it, and neither is whoever ran in company."""
    [lease] = await take(link, "a")

    counts = [lease.turn]
    for consumer in ("you", "me", "you"):
        [taken] = await reclaim(link, consumer)
        counts.append(taken.count)
    lease = Lease("orders", lease.entry_id, "you", counts[-1], 0.0)
    runs_alone = await settling.recount(link, "billing", KEYS, lease, 7)
    repeated = await settling.recount(link, "billing", KEYS, lease, 7)
    [taken] = await reclaim(link)

    assert [1, 2, 4, 6] == counts
    assert (True, True) == (runs_alone, repeated)
    assert (1_008, 8, 1, 0) == (taken.count, taken.turn, taken.crashes_alone, taken.outstayed)


async def test_what_outstays_its_time_alone_is_not_blamed_for_a_later_death(link: Link) -> None:
    """Others have started beside it; how often that was is counted once, however often it is said."""
    await take(link, "a")
    [taken] = await reclaim(link, "you")
    lease = Lease("orders", taken.entry.id, "you", taken.turn, 0.0)

    await settling.recount(link, "billing", KEYS, lease, 3)
    lease.turn = 3
    said = [await settling.recount(link, "billing", KEYS, lease, 4, outstayed=True) for _ in range(2)]
    [taken] = await reclaim(link)

    assert [True, True] == said
    assert (6, 0, 1) == (taken.turn, taken.crashes_alone, taken.outstayed)


async def alone_with(link: Link, consumer: str) -> Lease:
    """The lease of an entry that a worker has died with, and that runs alone with this consumer now."""
    await take(link, "a")
    [taken] = await reclaim(link, consumer)
    lease = Lease("orders", taken.entry.id, consumer, taken.turn, 0.0)
    assert await settling.recount(link, "billing", KEYS, lease, 3)
    lease.turn = 3
    return lease


async def test_who_lives_takes_the_blame_back(link: Link) -> None:
    """The new owner keeps the entry, its lease and its turn; and the next death counts again."""
    lease = await alone_with(link, "you")
    [blamed] = await reclaim(link, "me")
    its_own = Lease("orders", blamed.entry.id, "me", blamed.turn, 0.0)
    [before] = await link.call("XPENDING", "orders", "billing", "-", "+", 10)

    pardoned = await settling.pardon(link, "billing", lease)
    [after] = await link.call("XPENDING", "orders", "billing", "-", "+", 10)
    lost = await settling.renew(link, "billing", [its_own])
    again = await settling.pardon(link, "billing", lease)

    assert (1, 0) == (blamed.crashes_alone, after[3] // 1_000)
    assert (True, set(), False) == (pardoned, lost, again)
    assert [before[1], True] == [after[1], after[2] >= before[2]]


@pytest.mark.parametrize("change", ["nothing", "acknowledged", "ours again"])
async def test_there_is_nothing_to_pardon_where_nobody_has_taken_over(link: Link, change: str) -> None:
    """The entry is ours, or nobody's."""
    lease = await alone_with(link, "you")
    if change == "acknowledged":
        await settling.ack(link, "billing", [lease])
    if change == "ours again":
        await reclaim(link, "me")
        await reclaim(link, "you")

    assert not await settling.pardon(link, "billing", lease)


@pytest.mark.parametrize("step", ["renew", "recount", "release"])
async def test_an_old_lease_is_void_when_the_entry_comes_back_to_its_owner(link: Link, step: str) -> None:
    """It went to another worker and back, waiting all the time: what was sent under the first lease and comes late does nothing."""
    await take(link, "a")
    [taken] = await reclaim(link, "you")
    old = Lease("orders", taken.entry.id, "you", taken.turn, 0.0)
    await reclaim(link, "me")
    [taken] = await reclaim(link, "you")

    match step:
        case "renew":
            refused = await settling.renew(link, "billing", [old]) == {old.entry_id}
        case "recount":
            refused = not await settling.recount(link, "billing", KEYS, old, 3)
        case _:
            refused = not await settling.release(link, "billing", KEYS, old, envelope=b"")
    [(_, owner, _, count)] = await link.call("XPENDING", "orders", "billing", "-", "+", 10)

    assert refused
    assert (b"you", taken.count) == (owner, count)


async def test_a_sweep_that_wants_little_walks_a_long_pending_list_in_long_steps(link: Link) -> None:
    """Four hundred that live stand before the one that has lapsed: one step finds it."""
    *_, last = await take(link, *["note"] * 401)
    await link.call("XCLAIM", "orders", "billing", "me", 0, last.entry_id, "IDLE", 90_000, "JUSTID")

    page, _ = await reading.reclaim(
        link, "orders", "billing", "you", lease_ms=60_000, cursor="0-0", count=1, most_bytes=2**30, not_after_ms=2**52
    )

    assert page is not None
    assert [last.entry_id] == [one.entry.id for one in page.taken]


@pytest.mark.parametrize("change", ["taken over", "acknowledged"])
async def test_the_count_of_an_entry_that_is_not_ours_any_more_is_not_changed(link: Link, change: str) -> None:
    """It belongs to whoever has it."""
    [lease] = await take(link, "a")
    if change == "taken over":
        await reclaim(link, "you")
    else:
        await settling.ack(link, "billing", [lease])

    assert not await settling.recount(link, "billing", KEYS, lease, 3)


async def test_what_was_just_renewed_is_not_reclaimed(link: Link) -> None:
    """Not before a whole lease has gone by again."""
    [lease] = await take(link, "a")

    assert set() == await settling.renew(link, "billing", [lease])
    assert [] == await reclaim(link, "you", lease_ms=60_000)


async def test_a_reclaim_that_comes_too_late_takes_nothing(link: Link) -> None:
    """It says what time it is on the server, so that a jump of its clock, or a standstill, is noticed before anything is taken."""
    await take(link, "a")
    now = int((await inspecting.now(link)).timestamp() * 1000)  # rounded up, it could be the script's own time

    page, server_ms = await reading.reclaim(
        link, "orders", "billing", "you", lease_ms=0, cursor="0-0", count=10, most_bytes=2**30, not_after_ms=now - 1
    )

    assert page is None
    assert now <= server_ms <= now + 10_000
    assert ["me"] == [row.consumer for row in await inspecting.pending(link, "orders", "billing", count=10)]


async def test_a_group_is_finished_when_nothing_is_left_anywhere(link: Link) -> None:
    """Not while an entry is undelivered, pending, or waiting for its retry."""
    finished = [await groups.are_finished(link, [(KEYS, "billing")])]
    await publishing.add(link, Outgoing("orders", [b"n", b"1"]))
    finished.append(await groups.are_finished(link, [(KEYS, "billing")]))
    [taken], _ = await fill(link, [Room(("orders",), 1)])
    finished.append(await groups.are_finished(link, [(KEYS, "billing")]))
    lease = Lease("orders", taken.entry.id, "me", 1, 0.0)
    await settling.retry_later(link, "billing", KEYS, lease, delay_ms=60_000, original_id=taken.entry.id, envelope=b"e")
    finished.append(await groups.are_finished(link, [(KEYS, "billing")]))
    await link.call("DEL", KEYS.due)
    finished.append(await groups.are_finished(link, [(KEYS, "billing")]))
    await link.call("DEL", KEYS.parked)
    finished.append(await groups.are_finished(link, [(KEYS, "billing")]))

    assert [True, False, False, False, False, True] == finished


LARGEST_ID = "18446744073709551615-18446744073709551615"


async def test_what_is_no_entry_among_the_due_holds_up_no_other_retry(link: Link) -> None:
    """Somebody's own members of the set are reported like retries whose envelope is gone."""
    [lease] = await take(link, "a")
    await settling.retry_later(link, "billing", KEYS, lease, delay_ms=0, original_id=lease.entry_id, envelope=b"e")
    await link.call("ZADD", KEYS.due, 0, "junk", 0, "99999999999999999999-0")

    promotion = await settling.promote(link, KEYS, limit=10)

    assert (1, 2, None) == (promotion.moved, promotion.hollow, promotion.next_due_ms)


async def test_the_largest_id_ends_a_page_of_what_is_pending(link: Link) -> None:
    """There is nothing behind it, and the server refuses to be asked."""
    for number in range(reading.RECONCILE_PAGE - 1):
        await link.call("XADD", "orders", f"1-{number + 1}", "n", "1")
    await link.call("XADD", "orders", LARGEST_ID, "n", "1")
    await fill(link, [Room(("orders",), 100)])

    page, _ = await reconcile(link, died=False)

    assert LARGEST_ID == page.taken[-1].entry.id
    assert page.following is None


async def test_a_group_is_finished_at_the_largest_id(link: Link) -> None:
    """There is nothing behind it, and the server refuses to be asked; a program that ends when all is done would never end."""
    await link.call("XADD", "orders", LARGEST_ID, "n", "1")
    finished = [await groups.are_finished(link, [(KEYS, "billing")])]
    await fill(link, [Room(("orders",), 1)])
    await link.call("XACK", "orders", "billing", LARGEST_ID)
    finished.append(await groups.are_finished(link, [(KEYS, "billing")]))

    assert [False, True] == finished
