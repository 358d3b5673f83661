"""Sees to it that no two living processes are consumers of one name: each would take the other's entries for its own lost ones.

Names that we make up are unique. One that a user gives is claimed by a key with an end, renewed with the leases, from their thread.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any

from streamworker.errors import ConnectionLost, ServerError, SetupError
from streamworker.observe.troubles import Trouble
from streamworker.streams.faults import Remedy, concerns_all, remedy_for, sentence
from streamworker.streams.link import Link
from streamworker.streams.scripts import BlockingLink, script
from streamworker.worker.waiting import happens_within

CLAIM_FOR = 2 / 3
"""Of a lease: twice as long as from one renewal to the next, and less than it takes until its entries may be taken over."""

LOOK_SECONDS = 0.2
OURS = -1


class NameClaim:
    """One given name in one group. `key` is where the claim is written down; `lost` is called when somebody else has it by now."""

    def __init__(self, key: str, group: str, consumer: str, lease: timedelta, lost: Callable[[str], None], log: Any) -> None:
        self._key = key
        self._group = group
        self._consumer = consumer
        self._for_ms = max(1, round(lease * CLAIM_FOR / timedelta(milliseconds=1)))
        self._token = secrets.token_hex(8)
        self._lost = lost
        self._log = log
        self._trouble = Trouble(log, "claiming_name")
        self._anothers_since: float | None = None
        self._longest_ms = self._for_ms
        self._runs_out_at = 0.0
        self._is_unclaimed = False
        self.waits_for: str = ""
        """What the start of this process waits for, if it does."""

    async def take(self, link: Link) -> bool:
        """Claim the name, or claim it for longer; false while that cannot be. Raises `SetupError` when somebody uses it.

        A claim that is gone before its time was deleted: until then its owner, if it lives, claims the name again, and keeps it.
        """
        may_take = monotonic() >= self._runs_out_at
        try:
            answer = int(await script("claim_name").run(link, [self._key], [self._token, self._for_ms, int(may_take)]))
        except (ConnectionLost, ServerError) as error:
            return self._goes_on_unclaimed(error)
        self._trouble.is_over()
        if answer >= 0:
            self._is_anothers(answer)
        if answer == OURS:
            self.waits_for = ""
        return answer == OURS

    def renew(self, link: BlockingLink) -> None:
        """Claim it for longer; called in the leases' thread, and so is `lost`, with what is wrong."""
        if int(link.run(script("claim_name"), [self._key], [self._token, self._for_ms, 1])) != OURS:
            self._lost(self._in_use())

    async def give_up(self, link: Link) -> None:
        """Let others have it at once."""
        await script("give_up_name").run(link, [self._key], [self._token, self._for_ms])

    def _goes_on_unclaimed(self, error: ConnectionLost | ServerError) -> bool:
        """Whether to do without the claim for now: a full server gives out entries all the same. Raises what somebody must mend."""
        if isinstance(error, ConnectionLost) or concerns_all(error):
            self._trouble.strikes(sentence(error))
            self._anothers_since = None
            self.waits_for = f"the server, to claim the consumer name {self._consumer!r} in group {self._group!r}"
            return False
        if remedy_for(error) is Remedy.CONFIGURE:
            raise SetupError(self._cannot_claim(error)) from error
        if not self._is_unclaimed:
            self._is_unclaimed = True
            why = "nothing keeps another process of this name from running beside this one until it can be claimed"
            self._log.warning("consumer.name_unclaimed", error=sentence(error), why=why)
        self.waits_for = ""
        return True

    def _is_anothers(self, left_ms: int) -> None:
        now = monotonic()
        self._runs_out_at = now + left_ms / 1000
        self._longest_ms = max(self._longest_ms, left_ms)
        if self._anothers_since is None:
            self._anothers_since = now
        # Nobody renews a claim but its owner: one that is there for longer than it can last is alive.
        elif (now - self._anothers_since) * 1000 > self._longest_ms + 1000 * LOOK_SECONDS:
            raise SetupError(self._in_use())
        if not self.waits_for:
            why = "a process of this name lives, or was killed a moment ago: the claim runs out unless it is renewed"
            self._log.info("consumer.name_claimed", free_in_s=round(left_ms / 1000, 1), why=why)
        self.waits_for = f"the consumer name {self._consumer!r} in group {self._group!r}, which another process has claimed"

    def _in_use(self) -> str:
        return (
            f"another living process is consumer {self._consumer!r} of group {self._group!r}: give each process a name of its own, "
            "or leave the name out and one is made up"
        )

    def _cannot_claim(self, error: ServerError) -> str:
        repairs = {
            "NOPERM": "give the user the rights that `streamworker acl` prints",
            "WRONGTYPE": f"delete or rename the key {self._key!r}",
        }
        repair = repairs.get(error.code, "mend that")
        return (
            f"cannot claim the consumer name {self._consumer!r} of group {self._group!r}: {error}; "
            f"{repair}, or leave the name out and one is made up"
        )


async def claim_all(claims: Sequence[NameClaim], link: Link, stopping: asyncio.Event) -> bool:
    """Wait until all these names are free, and claim them; false when told to stop before. Raises `SetupError` when one is in use.

    One after the other, so that two processes cannot each hold what the other waits for; those made are renewed while the next one waits.
    """
    are_ours = False
    try:
        while not stopping.is_set():
            if await _take_in_order(claims, link):
                are_ours = not stopping.is_set()
                break
            await happens_within(stopping, LOOK_SECONDS)
    finally:
        if not are_ours:
            for claim in claims:
                with suppress(ConnectionLost, ServerError):
                    await claim.give_up(link)
    return are_ours


async def _take_in_order(claims: Sequence[NameClaim], link: Link) -> bool:
    for claim in claims:
        if not await claim.take(link):
            return False
    return True


def unique_name() -> str:
    """A consumer name that no other process has or had: two processes of one name would take each other's entries."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
