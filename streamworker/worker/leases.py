"""Keeps what is in flight ours, from a thread with its own connection, so that a handler that blocks the event loop keeps its leases.

Only code that holds the interpreter's lock for the rest of a lease can starve this thread. Another one gives up what has lapsed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from random import uniform
from time import monotonic
from typing import Any

from streamworker.delivery import Lease
from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import Remedy, remedy_for, sentence
from streamworker.streams.scripts import BlockingLink, script
from streamworker.streams.settling import renewal, told_of
from streamworker.worker.ghosts import Ghosts
from streamworker.worker.holdings import Holdings
from streamworker.worker.lots import Done, Lot
from streamworker.worker.names import NameClaim

BATCH = 500
"""Leases per renewal: one script of this size takes the server a few milliseconds."""

RENEW_AT, TRY_FOR, TRY_AGAIN, GIVE_UP_AT = 1 / 3, 1 / 10, 1 / 20, 3 / 4
"""Shares of a lease: renew at a third; a try may take a tenth to connect and a tenth for the reply, and the next follows soon. What is
not renewed at three quarters is given up, so that even a try that begins just before that ends before another worker may take it."""


class LeaseKeeper:
    """The leases of one consumer group in this process, renewed at a third of their length.

    A lease counts from the moment its last good renewal was *sent*. One that was taken over, or that could not be renewed in time, is
    marked lost, once, and `on_lost` is called with it in the keeper's thread; so is `on_recovered` when renewing has become possible
    again. `on_dropped` is called whenever one is held no longer. The `claim` of a given consumer name is renewed along with them.
    `witnesses` is where it is written down, for each stream that needs it, what was trimmed while it was pending.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        group: str,
        lease: timedelta,
        on_lost: Callable[[Lease], None],
        on_recovered: Callable[[], None],
        on_dropped: Callable[[], None],
        ghosts: Ghosts,
        log: Any,
        claim: NameClaim | None = None,
        witnesses: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._group = group
        self._seconds = lease.total_seconds()
        self._on_lost = on_lost
        self._on_recovered = on_recovered
        self._on_dropped = on_dropped
        self._ghosts = ghosts
        self._claim = claim
        self._witnesses = {} if witnesses is None else witnesses
        self._log = log
        self._trouble = Trouble(log, "leases", group=group)
        self._claim_trouble = Trouble(log, "claiming_name", group=group)
        self.holdings: Holdings = Holdings()
        """What the leases are of."""
        self._stopping = threading.Event()
        self._link = BlockingLink(endpoint, timeout=self._seconds * TRY_FOR)
        self._thread = threading.Thread(target=self._run, name=f"streamworker-leases-{group}", daemon=True)
        self._watch = threading.Thread(target=self._watch_lapses, name=f"streamworker-lapses-{group}", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        self._watch.start()

    def stop(self) -> None:
        """End the threads; bounded by the time of one renewal."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(self._seconds)

    def hold(self, lease: Lease) -> Lease:
        """Keep this lease until it is dropped; where the entry is held already, answers under which, and changes nothing."""
        return self.holdings.hold(lease)

    def find(self, key: str, entry_id: str) -> Lease | None:
        """The lease of an entry that we hold."""
        return self.holdings.find(key, entry_id)

    def entry_ids(self, key: str) -> list[str]:
        """What we hold of this stream."""
        return self.holdings.entry_ids(key)

    def lost_ids(self, key: str) -> list[str]:
        """Of this stream, what we hold though it is lost: its handler has not ended yet."""
        return self.holdings.lost_ids(key)

    def drop(self, *leases: Lease) -> None:
        """Stop keeping them: they were settled, or are not ours."""
        self.holdings.drop(leases)
        self._on_dropped()

    def drop_done(self, done: Sequence[Done]) -> None:
        """Stop keeping these parts of lots, which were acknowledged."""
        self.holdings.drop_done(done)
        self._on_dropped()

    def lose(self, lease: Lease, why: str) -> None:
        """Give it up, as if it had been taken over."""
        self._lose([lease], why)

    @property
    def count(self) -> int:
        """How many entries we hold."""
        return self.holdings.count

    def good_for(self, lot: Lot) -> float:
        """For how many seconds entries of this lot may be begun yet."""
        return lot.renewed_at + self._seconds * GIVE_UP_AT - monotonic()

    def is_good(self, lease: Lease) -> bool:
        """Whether it may be begun under this lease. One that has lapsed unnoticed, because nothing here could run, is lost with that."""
        if lease.renewed_at < monotonic() - self._seconds * GIVE_UP_AT:
            self._lose([lease], "it waited here for longer than it could be renewed")
        return not lease.lost

    def any_unfit(self, leases: Sequence[Lease]) -> bool:
        """What `is_good` says, for many at once: whether one of them is lost, now if not before."""
        latest = monotonic() - self._seconds * GIVE_UP_AT
        lapsed = [lease for lease in leases if lease.renewed_at < latest]
        if lapsed:
            self._lose(lapsed, "they waited here for longer than they could be renewed")
        return any(lease.lost for lease in leases)

    @property
    def can_renew(self) -> bool:
        """Whether the last try to renew went well. Until then there is no use in taking entries over that may run for long."""
        return not self._trouble.lasts

    def _run(self) -> None:
        while not self._stopping.wait(self._pause()):
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  # whatever it was: without this thread all leases would lapse
                with suppress(Exception):  # such as a log that cannot be written
                    self._trouble.strikes(f"{type(error).__name__} in the thread that renews")
        self._link.close()

    def _watch_lapses(self) -> None:
        """Beside the renewing, which may take its time: a try has a timeout, but for what finds the server's address by its name."""
        while not self._stopping.wait(self._seconds * TRY_AGAIN):
            with suppress(Exception):  # such as a log that cannot be written
                self._give_up_lapsed()

    def _turn(self) -> None:
        failed = self._trouble.lasts
        if not self._renew_all() and failed:
            self._check()
        self._renew_claim()
        if failed and not self._trouble.lasts:
            self._on_recovered()

    def _pause(self) -> float:
        share = TRY_AGAIN if self._trouble.lasts else RENEW_AT
        return self._seconds * share * uniform(0.9, 1.0)  # noqa: S311  # spreads renewals, guards nothing

    def _renew_all(self) -> bool:
        """Renew what is older than a sixth of a lease; younger ones have another turn well before they run out. False: there was none."""
        now = monotonic()
        by_key: dict[str, list[Lease]] = defaultdict(list)
        for lease in self.holdings.older_than(now - self._seconds / 6):
            if not lease.lost and not lease.recounting:
                by_key[lease.key].append(lease)
        for key, leases in by_key.items():
            for start in range(0, len(leases), BATCH):
                if not self._renew(key, leases[start : start + BATCH]):
                    return True
        return bool(by_key)

    def _check(self) -> None:
        """There is nothing to renew that would show whether it is possible again."""
        try:
            self._link.check()
        except (ConnectionLost, ServerError) as error:
            self._trouble.strikes(sentence(error))
        else:
            self._trouble.is_over()

    def _renew_claim(self) -> None:
        try:
            if self._claim is not None:
                self._claim.renew(self._link)
        except (ConnectionLost, ServerError) as error:
            self._claim_trouble.strikes(sentence(error))
        else:
            self._claim_trouble.is_over()

    def _renew(self, key: str, leases: list[Lease]) -> bool:
        """Renew leases of one stream; false when the server cannot be reached, so that there is no use in going on."""
        sent_at = monotonic()
        turns = [lease.turn for lease in leases]
        keys = [key, *self._witnesses.get(key, ())]
        try:
            lost, trimmed = told_of(self._link.run(script("renew"), keys, renewal(self._group, leases)))
        except (ConnectionLost, ServerError) as error:
            # A group that has vanished is no trouble of renewing: its reader notices, and makes it again or gives up.
            if isinstance(error, ConnectionLost) or remedy_for(error) is not Remedy.MAKE_GROUP:
                self._trouble.strikes(sentence(error))
            return isinstance(error, ServerError)
        self._trouble.is_over()
        for lease in leases:
            if lease.entry_id not in lost:
                lease.renewed_at = sent_at
        taken_over = [
            lease
            for lease, turn in zip(leases, turns, strict=True)
            # One whose turn we have changed ourselves meanwhile is ours; its next renewal says so.
            if lease.entry_id in lost and lease.turn == turn and not lease.recounting
        ]
        self._lose(
            taken_over, "the server says so: they are with another consumer, were settled already, or their group has vanished"
        )
        self._ghosts.of_ours(key, trimmed)
        return True

    def _give_up_lapsed(self) -> None:
        """What could not be renewed is given up before another worker may take it."""
        lapsed = self.holdings.older_than(monotonic() - self._seconds * GIVE_UP_AT)
        self._lose(lapsed, "they could not be renewed in time")

    def _lose(self, leases: list[Lease], why: str) -> None:
        lost = self.holdings.lose(leases)
        if not lost:
            return
        for lease in lost:
            self._on_lost(lease)
        self._log.warning("lease.lost", stream=lost[0].key, entries=len(lost), first=lost[0].entry_id, why=why)
