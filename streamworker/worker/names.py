"""Sees to it that no two living processes are consumers of one name: each would take the other's entries for its own lost ones.

Names that we make up are unique. One that a user gives is claimed by a key with an end, renewed with the leases, from their thread.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

from streamworker.errors import ConnectionLost, ServerError, SetupError
from streamworker.observe.troubles import Trouble
from streamworker.streams.faults import sentence
from streamworker.streams.scripts import BlockingLink, script
from streamworker.streams.wire import Link

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

    async def make(self, link: Link, stopping: asyncio.Event) -> None:
        """Wait until the name is free, which takes a while after its last owner was killed. Raises `SetupError` when somebody uses it."""
        since, longest_ms = monotonic(), self._for_ms
        said = False
        while not stopping.is_set():
            try:
                left_ms = int(await script("claim_name").run(link, [self._key], [self._token, self._for_ms]))
            except (ConnectionLost, ServerError) as error:
                self._trouble.strikes(sentence(error))
                left_ms, since = 0, monotonic()
            else:
                self._trouble.is_over()
                if left_ms == OURS:
                    return
            if not said and left_ms:
                self._log.info(
                    "consumer.name_claimed", free_in_s=round(left_ms / 1000, 1), why="its last owner did not give it back"
                )
                said = True
            # Nobody renews a claim but its owner: one that is there for longer than it can last is alive.
            if (monotonic() - since) * 1000 > longest_ms + 1000 * LOOK_SECONDS:
                raise SetupError(self._in_use())
            longest_ms = max(longest_ms, left_ms)
            await asyncio.sleep(LOOK_SECONDS)

    def renew(self, link: BlockingLink) -> None:
        """Claim it for longer; called in the leases' thread, and so is `lost`, with what is wrong."""
        if int(link.run(script("claim_name"), [self._key], [self._token, self._for_ms])) != OURS:
            self._lost(self._in_use())

    async def give_up(self, link: Link) -> None:
        """Let others have it at once."""
        await script("claim_name").run(link, [self._key], [self._token, 0])

    def _in_use(self) -> str:
        return (
            f"another living process is consumer {self._consumer!r} of group {self._group!r}: give each process a name of its own, "
            "or leave the name out and one is made up"
        )


def unique_name() -> str:
    """A consumer name that no other process has or had: two processes of one name would take each other's entries."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
