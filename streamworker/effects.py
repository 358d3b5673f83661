"""What a handler does to Redis together with the acknowledgement, beside publishing: plain writes, gathered now and applied then.

Imports nothing of ours but the errors. Everything that can be found wrong with a write is found when it is gathered; what only the
server knows (what a key holds) is looked at there, before anything is written: see `streams/scripts/settle_commit.lua`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from streamworker.errors import EncodeError, SetupError

Value: TypeAlias = str | bytes | int | float
"""What a write can hold; a number is written as text, as Redis keeps it."""

COMMANDS = frozenset({"HDEL", "HINCRBY", "HSET", "INCRBY", "LPUSH", "PEXPIRE", "RPUSH", "SADD", "SET", "SREM", "ZADD", "ZREM"})
"""The commands that a transaction is made of. A key is deleted by PEXPIRE 0."""

MOST_VALUES = 7_000
"""A Lua script can hand at most some 8,000 values to a command; a dead letter with more is kept packed in one field."""

LONGEST_TTL = timedelta(days=3650)
LARGEST = 2**63


@dataclass(frozen=True, slots=True)
class Write:
    """A command on one key; `values` are what follows the key."""

    command: str
    key: str
    values: tuple[bytes, ...]


class Transaction:
    """Writes to plain Redis keys that happen when, and only if, this delivery is acknowledged: all in one atomic step, or none.

    Each method gathers one write and returns at once; nothing is sent before the handler has returned. They are applied in the order in
    which they were gathered. Raises `EncodeError` for what cannot be written. `own` are keys that it must leave alone, `allowed` the
    names and patterns (a `*` at the end) of those that it may write to; `None`: all.
    """

    __slots__ = ("_allowed", "_own", "_writes")

    def __init__(self, own: Collection[str] = (), allowed: Collection[str] | None = None) -> None:
        self._own = own
        self._allowed = allowed
        self._writes: list[Write] = []

    @property
    def writes(self) -> tuple[Write, ...]:
        """What was gathered so far."""
        return tuple(self._writes)

    def set(self, key: str, value: Value, *, ttl: timedelta | None = None) -> None:
        """Set a key to a value, whatever it held; with `ttl` it vanishes after that, without it never."""
        self._gather("SET", key, value, *(() if ttl is None else ("PX", _milliseconds(ttl))))

    def delete(self, *keys: str) -> None:
        """Delete keys, whatever they hold; one that is not there stays so."""
        for key in keys:
            self._gather("PEXPIRE", key, 0)

    def expire(self, key: str, ttl: timedelta) -> None:
        """Let a key vanish after `ttl`; nothing happens to one that is not there."""
        self._gather("PEXPIRE", key, _milliseconds(ttl))

    def incrby(self, key: str, amount: int = 1) -> None:
        """Add to the whole number that a key holds; one that is not there holds 0."""
        self._gather("INCRBY", key, _whole(amount))

    def hset(self, key: str, mapping: Mapping[str, Value] | Mapping[bytes, Value]) -> None:
        """Set fields of a hash."""
        self._gather("HSET", key, *(part for pair in mapping.items() for part in pair))

    def hdel(self, key: str, *fields: str | bytes) -> None:
        """Remove fields of a hash."""
        self._gather("HDEL", key, *fields)

    def hincrby(self, key: str, field: str | bytes, amount: int = 1) -> None:
        """Add to the whole number in a field of a hash; one that is not there holds 0."""
        self._gather("HINCRBY", key, field, _whole(amount))

    def zadd(self, key: str, mapping: Mapping[str, float] | Mapping[bytes, float]) -> None:
        """Give members of a sorted set their scores."""
        self._gather("ZADD", key, *(part for member, score in mapping.items() for part in (_score(score), member)))

    def zrem(self, key: str, *members: Value) -> None:
        """Remove members of a sorted set."""
        self._gather("ZREM", key, *members)

    def sadd(self, key: str, *members: Value) -> None:
        """Add members to a set."""
        self._gather("SADD", key, *members)

    def srem(self, key: str, *members: Value) -> None:
        """Remove members of a set."""
        self._gather("SREM", key, *members)

    def rpush(self, key: str, *values: Value) -> None:
        """Append values to a list."""
        self._gather("RPUSH", key, *values)

    def lpush(self, key: str, *values: Value) -> None:
        """Put values in front of a list, one after the other."""
        self._gather("LPUSH", key, *values)

    def _gather(self, command: str, key: str, *values: Value) -> None:
        if not isinstance(key, str) or not key:
            raise EncodeError(f"a key is a non-empty string, not a {type(key).__name__}")
        if key in self._own:
            raise EncodeError(f"{key!r} belongs to the delivery itself: a transaction writes to keys of your own")
        if self._allowed is not None and not any(is_within(key, pattern) for pattern in self._allowed):
            raise EncodeError(
                f"{key!r} is not among the keys of writes_to=: add it, or a pattern for it, where the handler is registered"
            )
        if not values:
            raise EncodeError(f"{command} {key!r} has nothing to write: leave it out, or give it a value")
        if len(values) > MOST_VALUES:
            raise EncodeError(f"{command} {key!r} has more than {MOST_VALUES:,} values: split it into several")
        _bytes(key)
        self._writes.append(Write(command, key, tuple(map(_bytes, values))))


def take_over(transaction: Transaction, writes: Iterable[Write]) -> None:
    """Add writes to a transaction that another one has gathered, and checked, for it."""
    transaction._writes.extend(writes)  # noqa: SLF001  # of this module


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Run a handler once per key within `ttl`: what has been done is marked with its acknowledgement, and looked for before each run.

    `key` is a function of the body, for producers that may publish the same thing twice; without it the key is the id of the entry.
    """

    ttl: timedelta
    key: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.ttl, timedelta) or not timedelta(seconds=1) <= self.ttl <= LONGEST_TTL:
            bounds = f"from a second to {LONGEST_TTL.days:,} days, for example timedelta(days=1)"
            raise SetupError(f"Idempotency(ttl=…) is a timedelta {bounds}, not {self.ttl!r}")
        if self.key is not None and not callable(self.key):
            raise SetupError(f"Idempotency(key=…) is a function of the body that gives a text, not {self.key!r}")


def is_within(key: str, pattern: str) -> bool:
    """Whether a key is the one named, or begins as a pattern with `*` at its end does."""
    return key.startswith(pattern[:-1]) if pattern.endswith("*") else key == pattern


def _milliseconds(ttl: timedelta) -> int:
    if not isinstance(ttl, timedelta) or not timedelta(milliseconds=1) <= ttl <= LONGEST_TTL:
        raise EncodeError(f"ttl is a timedelta from a millisecond to {LONGEST_TTL.days:,} days, not {ttl!r}")
    return ttl // timedelta(milliseconds=1)


def _whole(amount: int) -> int:
    if not isinstance(amount, int) or isinstance(amount, bool) or not -LARGEST < amount < LARGEST:
        raise EncodeError("amount is a whole number of at most 64 bits")
    return amount


def _score(score: float) -> float:
    if not isinstance(score, (int, float)) or isinstance(score, bool) or math.isnan(score):
        raise EncodeError("a score is a number")
    return float(score)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise EncodeError("a text cannot be written as UTF-8: it holds half a surrogate pair") from None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value).encode()
    raise EncodeError(f"a transaction writes text, bytes and numbers, not a {type(value).__name__}: turn it into one of them")
