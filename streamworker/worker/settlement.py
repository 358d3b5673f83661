"""Carries verdicts out, each in one atomic step. The only room that acknowledges.

A step that the server refuses, or whose connection breaks, leaves the entry pending under its lease and is tried again while the lease
is ours. Each step checks that first, on the server, so a repeated step does nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, assert_never

from streamworker.codecs.dead_letters import write_dead_letter
from streamworker.codecs.envelope import Envelope, pack
from streamworker.delivery import Abandon, Ack, DeadLetter, Delivery, Release, RetryLater, Verdict
from streamworker.errors import ConnectionLost, ServerError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.policies import DeadLetterPolicy
from streamworker.streams import settling
from streamworker.streams.blaming import with_its_key
from streamworker.streams.faults import sentence
from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.worker import replies
from streamworker.worker.acks import Acks
from streamworker.worker.backoff import Tries
from streamworker.worker.book import put_down, told_in
from streamworker.worker.commits import Commit
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.obituaries import obituary_of

Parked = Callable[[int], None]


class Settlement:
    """Settles the deliveries of one consumer group. `parked` is told the delay in ms of each retry that was put aside."""

    def __init__(
        self, link: Link, group: str, keys: Mapping[str, GroupKeys], leases: LeaseKeeper, log: Any, parked: Parked
    ) -> None:
        self._link = link
        self._keys = keys
        self._leases = leases
        self._log = log
        self._parked = parked
        self._troubles: dict[tuple[str, str], Trouble] = {}
        self.acks: Acks = Acks(link, group, keys, leases, self._trouble, log)
        self._patience = asyncio.Event()
        """Set when there is no time left to try again: the drain is over."""
        self.left_pending: int = 0
        """How many entries could neither be settled nor given back in the end; they come back when their lease has run out."""
        self.given_back: int = 0
        """How many were given back in the end, because they could not be settled."""

    async def settle(self, delivery: Delivery, handler: Handler | None, policy: DeadLetterPolicy, verdict: Verdict) -> bool:
        """Carry out `verdict`; it is done when this returns, but for an ack without publishes, which is gathered with others. False
        where it could not be done until the lease was lost, or the end of the drain.

        Raises `CommitRefused` when what an ack brings with it cannot be written; then nothing was, and the entry is still ours.
        """
        match verdict:
            case Ack(publishes=(), writes=()):
                self.acks.gather(delivery.lease)
                await self.acks.catch_up()
            case Ack():
                return await self._commit(delivery, verdict)
            case RetryLater():
                return await self._retry_later(delivery, verdict)
            case Release():
                return await self._release(delivery)
            case DeadLetter():
                return await self._dead_letter(delivery, handler, policy, verdict)
            case Abandon():
                self._leases.drop(delivery.lease)
            case _:
                assert_never(verdict)
        return True

    def lose_patience(self) -> None:
        """Try nothing again from now on: what the server refuses stays pending, and its lease runs out."""
        self._patience.set()

    async def _commit(self, delivery: Delivery, ack: Ack) -> bool:
        commit = Commit(self._link, self._keys[delivery.stream], delivery, ack)
        return await self._step("commit", delivery, commit.send) is not None

    async def _retry_later(self, delivery: Delivery, verdict: RetryLater) -> bool:
        envelope = pack(Envelope(delivery.id, told_in(verdict), delivery.fields))
        delay_ms = max(0, round(verdict.after / timedelta(milliseconds=1)))
        keys = self._keys[delivery.stream]

        def park() -> Awaitable[bool]:
            return settling.retry_later(
                self._link, delivery.group, keys, delivery.lease, delay_ms=delay_ms, original_id=delivery.id, envelope=envelope
            )

        parked = await self._step("retry", delivery, park)
        if parked:
            self._parked(delay_ms)
        return parked is not None

    async def _release(self, delivery: Delivery) -> bool:
        keys = self._keys[delivery.stream]
        envelope = _enveloped(delivery)
        released = await self._step(
            "release", delivery, lambda: settling.release(self._link, delivery.group, keys, delivery.lease, envelope=envelope)
        )
        return released is not None

    async def _dead_letter(
        self, delivery: Delivery, handler: Handler | None, policy: DeadLetterPolicy, verdict: DeadLetter
    ) -> bool:
        obituary = obituary_of(delivery, handler, policy, verdict)
        fields, reply = write_dead_letter(delivery, obituary), replies.failed(delivery, verdict.reason, obituary.error)
        keys = self._keys[delivery.stream]

        def set_aside() -> Awaitable[bool]:
            return settling.dead_letter(
                self._link, delivery.group, keys, delivery.lease, fields=fields, keep_last=policy.keep_last, reply=reply
            )

        return await self._step("dead_letter", delivery, set_aside) is not None

    async def _step(self, name: str, delivery: Delivery, step: Callable[[], Awaitable[bool]]) -> bool | None:
        """Do it, again and again while the lease is ours; answers whether the entry was still ours when it was done, `None` where it
        was not done."""
        tries = Tries(self._link.recovery, self._patience)
        while not self._is_hopeless(delivery):
            try:
                ours = await step()
            except (ConnectionLost, ServerError) as error:
                blamed = await with_its_key(self._link, self._keys[delivery.stream], error)
                trouble = self._trouble(name, delivery.stream)
                if blamed is not None or not trouble.lasts:  # else it is being mended, and was said
                    trouble.strikes(sentence(blamed or error))
                await tries.wait()
                continue
            self._trouble(name, delivery.stream).is_over()
            self._leases.drop(delivery.lease)
            if not ours:
                # The same step went through before and its reply was lost, or another worker has the entry by now.
                self._log.warning(f"{name}.not_pending", stream=delivery.stream, entry_id=delivery.id)
            return ours
        await self._give_up(name, delivery)
        return None

    async def _give_up(self, name: str, delivery: Delivery) -> None:
        """The step cannot be done here any more. Where only the time is over, the entry is given back, if that at least is possible."""
        if not delivery.lease.lost:
            try:
                if name == "release":
                    raise ConnectionLost("this was the last try")
                await settling.release(
                    self._link, delivery.group, self._keys[delivery.stream], delivery.lease, envelope=_enveloped(delivery)
                )
                why = f"{name} was refused until the end of the drain"
                self._log.warning("delivery.given_back", stream=delivery.stream, entry_id=delivery.id, why=why)
                self.given_back += 1
            except (ConnectionLost, ServerError):
                await self._put_down(delivery)
                self.left_pending += 1
        self._leases.drop(delivery.lease)

    async def _put_down(self, delivery: Delivery) -> None:
        """Write down that nobody has it in hand any more: this worker ends, and has not died with it. A full server takes that, too."""
        lease = delivery.lease
        lease.recounting = True  # it is no loss when a renewal meets the new turn
        with suppress(ConnectionLost, ServerError):
            await settling.recount(self._link, delivery.group, self._keys[delivery.stream], lease, put_down(lease.turn))

    def _trouble(self, step: str, stream: str) -> Trouble:
        """Each step on each stream has its own: where one goes well, another may still fail."""
        if (step, stream) not in self._troubles:
            self._troubles[step, stream] = Trouble(self._log, step, stream=stream)
        return self._troubles[step, stream]

    def _is_hopeless(self, delivery: Delivery) -> bool:
        """Whether there is no use in trying again: the entry is not ours any more, or there is no time left."""
        return delivery.lease.lost or self._patience.is_set()


def _enveloped(delivery: Delivery) -> bytes:
    """The delivery as it is given back: with its attempt unchanged."""
    return pack(Envelope(delivery.id, delivery.history, delivery.fields))
