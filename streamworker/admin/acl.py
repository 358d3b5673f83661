"""The least that each role's user may do, as rules of ACL SETUSER (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).

Pure: no server is asked. A test compares the commands with those that the code sends, and runs each role under exactly its user.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from streamworker.effects import COMMANDS as TRANSACTION_COMMANDS
from streamworker.errors import SetupError
from streamworker.streams.keys import (
    GroupKeys,
    done_marker,
    keys_of,
    name_claim,
    once_key,
    rate_key,
    reply_key,
    schedule_keys,
    tag,
    tick_key,
    trim_key,
)


class Role(StrEnum):
    """Who connects."""

    WORKER = "worker"
    PUBLISHER = "publisher"
    DASHBOARD = "dashboard"
    ADMIN = "admin"


class Server(StrEnum):
    """What the server knows: 6.2 has no patterns for reading or writing alone, from 8.2 on Redis has XACKDEL."""

    REDIS_6_2 = "6.2"
    REDIS_7_0 = "7.0"
    REDIS_8_2 = "8.2"


PLACEHOLDER = ">PASSWORD"
"""Stands where the password belongs: no password is ever taken or printed."""

_LOGIN = ("client|setname", "ping", "select")
_SCRIPTS = ("eval", "evalsha")
_LOOK = (
    "exists", "hgetall", "time", "type", "xinfo|consumers", "xinfo|groups", "xinfo|stream", "xlen", "xpending", "xrange", "xread",
    "xrevrange", "zcard",
)  # fmt: skip

WRITES: Sequence[str] = tuple(sorted({"get", "hget", *(command.lower() for command in TRANSACTION_COMMANDS)}))
"""What `ctx.transaction` needs on its keys: its commands, and to see whether a number is one."""

TRIMS: Sequence[str] = ("xackdel", "xlen", "xtrim")
"""What a worker needs where its program has a `Retention`; it does without XACKDEL where the server does not know it."""

COMMANDS: Mapping[Role, tuple[str, ...]] = {
    Role.WORKER: (
        *_LOGIN, *_SCRIPTS, "client|id", "client|unblock", "exists", "get", "hdel", "hget", "hgetall", "hlen", "hrandfield", "hscan",
        "hset", "pexpire", "pttl", "set", "time", "type", "xack", "xadd", "xautoclaim", "xclaim", "xdel", "xgroup|create",
        "xgroup|delconsumer",
        "xinfo|consumers", "xinfo|groups", "xinfo|stream", "xpending", "xrange", "xread", "xreadgroup", "zadd", "zcard", "zrange",
        "zrangebyscore", "zrem", "zremrangebyrank", "zscore",
    ),
    Role.PUBLISHER: (
        *_LOGIN, *_SCRIPTS, "exists", "get", "hdel", "hget", "hset", "pexpire", "pttl", "set", "time", "type", "wait", "xadd", "xread",
        "zadd", "zrem",
    ),
    Role.DASHBOARD: (*_LOGIN, *_LOOK),
    Role.ADMIN: (*_LOGIN, *_SCRIPTS, *_LOOK, "hdel", "hset", "xadd", "xdel"),
}  # fmt: skip
"""The commands of each role, those inside its scripts included, by their names in ACL rules."""


@dataclass(frozen=True, slots=True)
class User:
    """A user and its rules, in the order in which ACL SETUSER takes them; the password is a placeholder."""

    name: str
    role: Role
    rules: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command for redis-cli, quoted as redis-cli reads it."""
        return " ".join(["ACL SETUSER", *map(_quoted, (self.name, *self.rules))])


def least_user(
    role: Role,
    streams: Sequence[str],
    groups: Sequence[str],
    *,
    name: str | None = None,
    publishes_to: Sequence[str] = (),
    writes_to: Sequence[str] = (),
    retention: bool = False,
    server: Server = Server.REDIS_7_0,
) -> User:
    """The user of `role` with the least rights on these streams and groups. Raises `SetupError` with the repair.

    `writes_to` are the keys of a worker's transactions, as at a handler: names, or beginnings that end in `*`. `retention` says that its
    program has a `Retention`.
    """
    if not streams:
        raise SetupError("name at least one stream: --stream orders")
    if role is not Role.PUBLISHER and not groups:
        raise SetupError(f"a {role} works in a group: name it with --group")
    if role is Role.PUBLISHER and groups:
        raise SetupError("a publisher knows no group: leave --group out")
    if publishes_to and role is not Role.WORKER:
        raise SetupError(
            f"only a worker has streams that it publishes to: leave --publishes-to out, or name them for a {role} with --stream"
        )
    if writes_to and role is not Role.WORKER:
        raise SetupError(f"only a worker's handlers have transactions: leave --writes-to out for a {role}")
    if retention and role is not Role.WORKER:
        raise SetupError(f"only a worker trims streams: leave --retention out for a {role}")
    for what in (*streams, *groups, *publishes_to, *writes_to):
        _check(what)
    user = f"streamworker-{role}" if name is None else name
    if not user or any(character.isspace() or _is_control(character) for character in user):
        raise SetupError(f"--user {user!r}: a user's name has no spaces")
    rights = _key_rights(role, streams, groups, publishes_to)
    keys = [_pattern(key, right, server) for key, right in rights.items()]
    keys += _families(role, streams, groups, publishes_to, server)
    # What a transaction writes to is given to a script, and EVAL needs both rights to each key.
    keys += [_pattern_of_any(key, server) for key in writes_to]
    if retention:
        keys += [_pattern(trim_key(stream), "RW", server) for stream in dict.fromkeys((*streams, *publishes_to))]
    commands = [f"+{command}" for command in sorted({*COMMANDS[role], *_for(writes_to, retention, server)})]
    return User(user, role, ("reset", "on", PLACEHOLDER, "resetchannels", *keys, "-@all", *commands))


def _for(writes_to: Sequence[str], retention: bool, server: Server) -> Iterator[str]:
    """The commands that not every program needs."""
    if writes_to:
        yield from WRITES
    if retention:
        # A server refuses a rule with a command that it does not know.
        yield from TRIMS if server is Server.REDIS_8_2 else (command for command in TRIMS if command != "xackdel")


def _key_rights(role: Role, streams: Sequence[str], groups: Sequence[str], publishes_to: Sequence[str]) -> dict[str, str]:
    """What may be done with each key: R, W or RW."""
    rights: dict[str, str] = {}
    for stream in streams:
        if role is Role.PUBLISHER:
            tag(stream)  # refuses a name that no worker could read
            _add(rights, stream, "W")
        for group in groups:
            for key, right in _group_rights(role, keys_of(stream, group)).items():
                _add(rights, key, right)
        if role in (Role.PUBLISHER, Role.WORKER):
            for key in schedule_keys(stream):
                _add(rights, key, "RW")
    for target in publishes_to:
        tag(target)
        for key in (target, *schedule_keys(target)):
            _add(rights, key, "RW")  # written by a script, and EVAL needs both rights to each key that it is given
    return rights


def _group_rights(role: Role, keys: GroupKeys) -> dict[str, str]:
    match role:
        case Role.WORKER:
            return dict.fromkeys(keys.all, "RW")
        case Role.ADMIN:
            return dict.fromkeys((keys.stream, keys.due), "R") | dict.fromkeys((keys.retry, keys.dead_letters, keys.paused), "RW")
        case _:
            return dict.fromkeys((keys.stream, keys.due, keys.retry, keys.dead_letters, keys.paused), "R")


def _add(rights: dict[str, str], key: str, right: str) -> None:
    """Both, where a key has a right already."""
    rights[key] = "".join(sorted({*rights.get(key, ""), *right}))


def _pattern(key: str, right: str, server: Server) -> str:
    """The rule for exactly this key. Patterns are globs that may hold no space, so a space is written as 'nothing visible'."""
    escaped = re.sub(r"[*?\[\]\\]", r"\\\g<0>", key)
    glob = escaped.replace(" ", "[^!-~]")
    return f"~{glob}" if right == "RW" or server is Server.REDIS_6_2 else f"%{right}~{glob}"


def _pattern_of_any(name: str, server: Server) -> str:
    """The rule for reading and writing a key, or all that begin so, where it ends in `*`."""
    return _pattern(name.removesuffix("*"), "RW", server) + ("*" if name.endswith("*") else "")


def _check(name: str) -> None:
    if not name:
        raise SetupError("a name is empty: write the stream's or group's name")
    if any(_is_control(character) for character in name):
        raise SetupError(f"the name {name!r} holds a line break or another control character, which no ACL rule can: rename it")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SetupError(f"the name {name!r} is not UTF-8") from None


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs")


def _quoted(rule: str) -> str:
    """An argument as redis-cli splits its lines: in double quotes, bytes as `\\xHH`, where it is not plain."""
    if re.fullmatch(r"[!#-&(-\[\]-~]+", rule):
        return rule
    safe = "".join(_escaped(character) for character in rule)
    return f'"{safe}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


def _families(
    role: Role, streams: Sequence[str], groups: Sequence[str], publishes_to: Sequence[str], server: Server
) -> Iterator[str]:
    """Keys whose names nobody knows beforehand: those of given names, rates, ticks, replies, dedupe ids, and of what was done."""
    targets = dict.fromkeys((*streams, *publishes_to))
    starts: list[str] = []
    if role is Role.WORKER:
        pairs = list(product(streams, groups))
        starts += [name_claim(*pair, "") for pair in pairs] + [done_marker(*pair, "", "").removesuffix(":") for pair in pairs]
        starts += [rate_key(*pair, "") for pair in pairs]
        starts += [tick_key(stream, "") for stream in targets]
    if role in (Role.WORKER, Role.PUBLISHER):
        starts += [reply_key(stream, "") for stream in targets]
        starts += [once_key(stream, "") for stream in (streams if role is Role.PUBLISHER else publishes_to)]
    return (_pattern_of_any(f"{start}*", server) for start in starts)
