"""The least rights of each role, as rules."""

from __future__ import annotations

import json

import pytest

from streamworker.admin.acl import COMMANDS, Role, Server, least_user
from streamworker.errors import SetupError
from tests.command_line import run


def keys_of_rules(role: Role, *streams: str, groups: tuple[str, ...] = (), **options: object) -> list[str]:
    """The rules about keys."""
    return [rule for rule in least_user(role, streams, groups, **options).rules if rule[0] in "~%"]  # type: ignore[arg-type]


def test_a_worker_has_its_groups_keys_and_what_it_publishes_to() -> None:
    """Not the keys of another group, nor of another stream. (EVAL needs both rights to each key that a script is given.)"""
    assert [
        "~orders",
        "~{orders}:due:billing",
        "~{orders}:parked:billing",
        "~{orders}:retry:billing",
        "~{orders}:dlq:billing",
        "~{orders}:sw:sweep:billing",
        "~{orders}:sw:settled:billing",
        "~{orders}:sw:known:billing",
        "~{orders}:sw:paused:billing",
        "~{orders}:scheduled",
        "~{orders}:scheduled:entries",
        "~invoices",
        "~{invoices}:scheduled",
        "~{invoices}:scheduled:entries",
        "~{orders}:sw:name:billing:*",
        "~{orders}:sw:done:billing:*",
        "~{orders}:sw:rate:billing:*",
        "~{orders}:sw:tick:*",
        "~{invoices}:sw:tick:*",
        "~{orders}:sw:reply:*",
        "~{invoices}:sw:reply:*",
        "~{invoices}:sw:once:*",
    ] == keys_of_rules(Role.WORKER, "orders", groups=("billing",), publishes_to=["invoices"])


def test_a_workers_transactions_need_their_keys_and_their_commands() -> None:
    """A name is matched as it is, a star at its end stands for any rest; who has none gets none of the commands."""
    rules = least_user(Role.WORKER, ["orders"], ["billing"], writes_to=["stock", "seen:*", "a*b"]).rules
    without = least_user(Role.WORKER, ["orders"], ["billing"]).rules

    assert ["~stock", "~seen:*", r"~a\*b"] == [rule for rule in rules if rule[0] == "~"][-3:]
    assert {"+hincrby", "+incrby", "+lpush", "+rpush", "+sadd", "+srem"} == {rule for rule in rules if rule[0] == "+"} - set(
        without
    )


def test_a_retention_needs_a_key_and_a_command_more_and_xackdel_where_it_is_known() -> None:
    """A server refuses a rule with a command that it does not know, and the worker does without."""
    without = least_user(Role.WORKER, ["orders"], ["billing"], publishes_to=["invoices"]).rules

    def more(server: Server) -> set[str]:
        return {
            *least_user(Role.WORKER, ["orders"], ["billing"], publishes_to=["invoices"], retention=True, server=server).rules
        } - {*without}

    assert {"~{orders}:sw:trim", "~{invoices}:sw:trim", "+xlen", "+xtrim"} == more(Server.REDIS_7_0) == more(Server.REDIS_6_2)
    assert {"~{orders}:sw:trim", "~{invoices}:sw:trim", "+xlen", "+xtrim", "+xackdel"} == more(Server.REDIS_8_2)
    with pytest.raises(SetupError, match="leave --retention out for a dashboard"):
        least_user(Role.DASHBOARD, ["orders"], ["billing"], retention=True)


def test_a_dashboard_only_reads_and_an_administrator_writes_dead_letters_and_retries() -> None:
    """Where the server knows the difference."""
    keys = ["%R~orders", "%R~{orders}:due:billing"]

    assert [*keys, "%R~{orders}:retry:billing", "%R~{orders}:dlq:billing", "%R~{orders}:sw:paused:billing"] == keys_of_rules(
        Role.DASHBOARD, "orders", groups=("billing",)
    )
    admins = [*keys, "~{orders}:retry:billing", "~{orders}:dlq:billing", "~{orders}:sw:paused:billing"]
    assert admins == keys_of_rules(Role.ADMIN, "orders", groups=("billing",))


def test_several_streams_and_groups_are_all_combined() -> None:
    """Each stream with what is scheduled for it, ticks and replies once, and eleven keys for each group on it."""
    keys = keys_of_rules(Role.WORKER, "orders", "clicks", groups=("billing", "search"))

    assert 2 * 5 + 2 * 2 * 11 == len(keys) == len(set(keys))


def test_redis_6_2_gets_no_rule_that_it_does_not_know() -> None:
    """It has no patterns for reading or writing alone."""
    for role in Role:
        groups = () if role is Role.PUBLISHER else ("billing",)
        rules = least_user(role, ["orders"], groups, server=Server.REDIS_6_2).rules

        assert [] == [rule for rule in rules if rule.startswith("%")]


@pytest.mark.parametrize(
    ("stream", "pattern"),
    [
        ("shop:{eu}:orders", "shop:{eu}:orders"),
        ("a*b?c[d]e\\f", r"a\*b\?c\[d\]e\\f"),
        ("two words", "two[^!-~]words"),
        ("café-^-!", "café-^-!"),
    ],
)
def test_a_name_is_matched_as_it_is(stream: str, pattern: str) -> None:
    """What a glob would understand is escaped; a space cannot stand in a rule."""
    assert f"%W~{pattern}" == keys_of_rules(Role.PUBLISHER, stream)[0]


@pytest.mark.parametrize(
    ("role", "streams", "groups", "options", "says"),
    [
        (Role.WORKER, ["orders"], [], {}, "--group"),
        (Role.PUBLISHER, ["orders"], ["billing"], {}, "leave --group out"),
        (Role.DASHBOARD, ["orders"], ["billing"], {"publishes_to": ["x"]}, "only a worker"),
        (Role.PUBLISHER, ["orders"], [], {"writes_to": ["x"]}, "leave --writes-to out for a publisher"),
        (Role.WORKER, ["orders"], ["billing"], {"writes_to": [""]}, "a name is empty"),
        (Role.WORKER, ["or\nders"], ["billing"], {}, "rename it"),
        (Role.WORKER, ["orders"], ["bil\x00ling"], {}, "rename it"),
        (Role.WORKER, ["orders"], ["billing"], {"publishes_to": ["a\rb"]}, "rename it"),
        (Role.WORKER, ["orders"], ["\ud800"], {}, "rename it"),
        (Role.WORKER, [""], ["billing"], {}, "empty"),
        (Role.WORKER, ["a}b"], ["billing"], {}, "hash tag"),
        (Role.PUBLISHER, ["a}b"], [], {}, "hash tag"),
        (Role.WORKER, [], ["billing"], {}, "--stream"),
        (Role.WORKER, ["orders"], ["billing"], {"name": "two words"}, "--user"),
        (Role.WORKER, ["orders"], ["billing"], {"name": ""}, "--user"),
    ],
)
def test_what_cannot_be_is_refused_with_the_repair(role, streams, groups, options, says) -> None:
    """In one sentence."""
    with pytest.raises(SetupError, match=says) as caught:
        least_user(role, streams, groups, **options)

    assert "\n" not in str(caught.value)


def test_nobody_may_do_what_nobody_needs() -> None:
    """The dangerous ones, and whole groups of commands."""
    granted = {command for commands in COMMANDS.values() for command in commands}

    assert set() == granted & {
        "flushall",
        "flushdb",
        "keys",
        "config",
        "del",
        "unlink",
        "xgroup|destroy",
        "xgroup|setid",
        "acl",
        "client",
    }
    assert [] == [command for command in granted if command.startswith("@")]


# ---- the command ---------------------------------------------------------------------------------------------------------------


def test_the_command_prints_one_line_for_redis_cli_and_no_password() -> None:
    """The rest goes to standard error."""
    result = run("acl", "--role", "publisher", "--stream", "orders")

    keys = "%W~orders ~{orders}:scheduled ~{orders}:scheduled:entries ~{orders}:sw:reply:* ~{orders}:sw:once:*"
    commands = (
        "+client|setname +eval +evalsha +exists +get +hdel +hget +hset +pexpire +ping +pttl +select +set +time +type +wait "
        "+xadd +xread +zadd +zrem"
    )
    expected = f"ACL SETUSER streamworker-publisher reset on >PASSWORD resetchannels {keys} -@all {commands}"
    assert f"{expected}\n" == result.stdout
    assert "write the password" in result.stderr


def test_the_command_prints_the_rules_as_json() -> None:
    """For programs that make users."""
    record = json.loads(run("acl", "--role", "worker", "--stream", "a b", "--group", "g", "--user", "w", "-o", "json").stdout)

    assert ("w", "worker", ["reset", "on", ">PASSWORD"]) == (record["user"], record["role"], record["rules"][:3])
    assert "~a[^!-~]b" in record["rules"]


def test_the_command_refuses_in_one_sentence() -> None:
    """With the exit code of wrong usage."""
    result = run("acl", "--role", "worker", "--stream", "or\x1b[2Jders", "--group", "g")

    assert (2, "") == (result.exit_code, result.stdout)
    assert "\x1b" not in result.stderr
    assert result.stderr.startswith("Error: ")
