"""The names of our own keys. Pure.

All of them carry the stream's name as hash tag, so in a cluster they lie in the stream's slot
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags). They are part of the contract:
an operator may look at them with redis-cli.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from streamworker.errors import SetupError


class Removal(IntEnum):
    """What of ours removes entries of a stream, in the numbers of `scripts/fence.lua`. Where anything does, that an entry is gone does not
    tell that somebody has trimmed it while it was pending."""

    NEVER = 0
    TRIMMED = 2
    WHEN_ACKED = 3


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """The keys of one consumer group on one stream, and what removes entries of that."""

    stream: str
    due: str
    parked: str
    retry: str
    dead_letters: str
    sweep: str
    settled: str
    known: str
    paused: str
    removal: Removal = Removal.NEVER

    def witnesses(self, key: str) -> list[str]:
        """Where it is written down that an entry of this one of the two streams was trimmed while it was pending, if that is needed."""
        return [self.settled] if self.removal and key == self.stream else []

    @property
    def all(self) -> tuple[str, ...]:
        """Every one of them."""
        return (
            self.stream, self.due, self.parked, self.retry, self.dead_letters, self.sweep, self.settled, self.known,
            self.paused,
        )  # fmt: skip


def keys_of(stream: str, group: str, removal: Removal = Removal.NEVER) -> GroupKeys:
    """The keys that belong to `group` on `stream`."""
    tagged = tag(stream)
    return GroupKeys(
        stream=stream,
        due=f"{tagged}:due:{group}",
        parked=f"{tagged}:parked:{group}",
        retry=f"{tagged}:retry:{group}",
        dead_letters=f"{tagged}:dlq:{group}",
        sweep=f"{tagged}:sw:sweep:{group}",
        settled=f"{tagged}:sw:settled:{group}",
        known=f"{tagged}:sw:known:{group}",
        paused=f"{tagged}:sw:paused:{group}",
        removal=removal,
    )


def name_claim(stream: str, group: str, consumer: str) -> str:
    """The key that says that a consumer's given name is in use."""
    return f"{tag(stream)}:sw:name:{group}:{consumer}"


def rate_key(stream: str, group: str, handler: str) -> str:
    """The key that says when the next delivery of a handler with a `rate_limit` may start; `stream` is its first one."""
    return f"{tag(stream)}:sw:rate:{group}:{handler}"


def done_marker(stream: str, group: str, handler: str, key: str) -> str:
    """The key that says that a handler with an `Idempotency` has done what this key of it names."""
    return f"{tag(stream)}:sw:done:{group}:{handler}:{key}"


def schedule_keys(stream: str) -> tuple[str, str]:
    """The sorted set of the due times of what is scheduled for a stream, and the hash of its entries."""
    tagged = tag(stream)
    return f"{tagged}:scheduled", f"{tagged}:scheduled:entries"


def trim_key(stream: str) -> str:
    """The key that says that a worker has lately looked what of the stream can go."""
    return f"{tag(stream)}:sw:trim"


def tick_key(stream: str, name: str) -> str:
    """The key that holds the last tick of a schedule that publishes to this stream."""
    return f"{tag(stream)}:sw:tick:{name}"


def reply_key(stream: str, requester: str) -> str:
    """The stream of the replies to what one process has asked of `stream`."""
    return f"{tag(stream)}:sw:reply:{requester}"


def once_key(stream: str, dedupe_id: str) -> str:
    """The key that remembers what was published under a dedupe id."""
    return f"{tag(stream)}:sw:once:{dedupe_id}"


def tag(stream: str) -> str:
    """The stream's name as hash tag: `orders` → `{orders}`; a name that already has a tag keeps it.

    A name with a brace that makes no valid tag (`a}b`, `{}x`) cannot be co-located by any tag, so it is refused.
    """
    if has_tag(stream):
        return stream
    if "}" in stream:
        raise SetupError(f"stream {stream!r} has a closing brace but no hash tag: rename it, or give it one like '{{orders}}:eu'")
    return f"{{{stream}}}"


def hashed_part(name: str) -> str:
    """The part of a name that a Redis cluster hashes: what its tag holds, or all of it. Keys that agree in it share a slot."""
    if not has_tag(name):
        return name
    opening = name.find("{")
    return name[opening + 1 : name.find("}", opening + 1)]


def has_tag(name: str) -> bool:
    """Whether a Redis cluster would hash only a part of this name: the first `{` followed by at least one character and a `}`."""
    opening = name.find("{")
    return opening >= 0 and name.find("}", opening + 1) > opening + 1
