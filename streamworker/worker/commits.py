"""One commit: what a handler has gathered, written together with the acknowledgement; and which refusals of it are its own fault."""

from __future__ import annotations

from streamworker.delivery import Ack, Delivery
from streamworker.errors import CommitRefused, ConnectionLost, ServerError
from streamworker.streams import settling
from streamworker.streams.faults import sentence
from streamworker.streams.inspecting import is_there
from streamworker.streams.keys import GroupKeys, hashed_part
from streamworker.streams.link import Link
from streamworker.streams.reading import READ_MARGIN_SECONDS

MOST_COMMANDS = 10_000
MOST_VALUES_IN_ALL = 200_000
MOST_BYTES = 64 * 2**20
"""A commit holds the server for as long as it takes, a few milliseconds for the largest; what is larger belongs into several entries."""

LIES_IN_THE_COMMIT = frozenset({"WRONGTYPE", "ERR", "OVERSIZED", "CROSSSLOT"})
"""Codes with which the server refuses what is to be written, and not us: to try it again would only hold the place of others."""

LEAST_LIMIT_OF_A_SERVER = 2**20
"""No server can be told to refuse values smaller than that many bytes (proto-max-bulk-len)."""

HANGS_UP_AT_MOST = 3
"""After so many times, what is sent is the cause."""


class Commit:
    """What a delivery's acknowledgement brings with it. Raises `CommitRefused` where it is larger than any commit may be."""

    def __init__(self, link: Link, keys: GroupKeys, delivery: Delivery, ack: Ack) -> None:
        self._link = link
        self._keys = keys
        self._delivery = delivery
        self._ack = ack
        sizes = [len(value) for outgoing in ack.publishes for value in outgoing.fields]
        sizes += [len(value) for write in ack.writes for value in write.values]
        self._largest = max(sizes)
        self._hung_up = 0
        commands = len(ack.publishes) + len(ack.writes)
        if commands > MOST_COMMANDS or len(sizes) > MOST_VALUES_IN_ALL or sum(sizes) > MOST_BYTES:
            raise CommitRefused(
                f"a handler gave {commands:,} writes of {len(sizes):,} values and {sum(sizes):,} bytes to one acknowledgement, which "
                f"takes {MOST_COMMANDS:,} of {MOST_VALUES_IN_ALL:,} and {MOST_BYTES:,}: divide the work into several entries"
            )

    async def send(self) -> bool:
        """Commit, once; false when somebody else has settled the entry.

        A server that is sent more than it takes hangs up in the midst of it, and its answer is seldom heard. So one that answers again
        at once, and hangs up each time on this commit alone, has refused it.
        """
        delivery, ack = self._delivery, self._ack
        try:
            return await settling.commit(self._link, delivery.group, self._keys, delivery.lease, ack.publishes, ack.writes)
        except ServerError as error:
            if error.code == "NOPERM":
                raise ServerError(error.code, f"{error}; {self._rights}") from error
            if error.code not in LIES_IN_THE_COMMIT:
                raise
            raise CommitRefused(self._why(error)) from error
        except ConnectionLost as lost:
            if self._largest < LEAST_LIMIT_OF_A_SERVER or not await is_there(self._link, within=READ_MARGIN_SECONDS):
                raise
            self._hung_up += 1
            if self._hung_up < HANGS_UP_AT_MOST:
                raise
            refusal = ServerError("OVERSIZED", f"the server hangs up on a publish of {self._largest} bytes")
            raise CommitRefused(sentence(refusal)) from lost

    @property
    def _rights(self) -> str:
        """The options of `streamworker acl` that give the rights for this commit."""
        targets = sorted({outgoing.stream for outgoing in self._ack.publishes if not outgoing.is_reply})
        writes = sorted({write.key for write in self._ack.writes})
        options = [f"--publishes-to {stream}" for stream in targets[:3]] + [f"--writes-to {key}" for key in writes[:3]]
        return f"this commit takes those of {' '.join(options)}" if options else "this commit sends a reply"

    def _why(self, error: ServerError) -> str:
        """The refusal with its repair; where it is that of a slot, with the key that it is about, and what to call that."""
        if error.code == "WRONGTYPE":
            return f"{error} (nothing was written: mend the key, or the handler)"
        if error.code != "CROSSSLOT":
            return sentence(error)
        stream = self._keys.stream
        ours = hashed_part(stream)
        keys = [outgoing.stream for outgoing in self._ack.publishes] + [write.key for write in self._ack.writes]
        key = next((key for key in keys if hashed_part(key) != ours), "a key")
        return (
            f"{key!r} is in another slot of the cluster than {stream!r}, so they cannot be written in one step: "
            f"give its name the hash tag {{{ours}}}"
        )
