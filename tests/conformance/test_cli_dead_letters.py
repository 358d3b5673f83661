"""`dlq` as a user sees it, on every real server that is there."""

from __future__ import annotations

import asyncio
import os
import pty
from datetime import timedelta

import pytest
import redis

from streamworker import Reject, RetryPolicy
from streamworker.cli.replaying import interval_of
from streamworker.codecs.dead_letters import write_dead_letter
from streamworker.codecs.envelope import unpack
from streamworker.delivery import Fields, Reason
from streamworker.errors import SetupError
from tests.command_line import NOBODY, records, run, started, unsafe
from tests.factories import a_delivery, an_obituary
from tests.harness import an_app, run_burst
from tests.waiting import wait_until

DEAD = "{orders}:dlq:billing"
RETRY = "{orders}:retry:billing"
HOSTILE = "\x1b[31m\x9b2J\u202etxt\ngone\r"


@pytest.fixture
def orders(redis_client) -> redis.Redis:
    """A server with the stream `orders` and its group `billing`."""
    redis_client.xgroup_create("orders", "billing", "0", mkstream=True)
    return redis_client


def set_aside(
    client: redis.Redis,
    entry_id: str = "1-0",
    fields: Fields | None = None,
    *,
    attempt: int = 5,
    crashes: int = 0,
    group: str = "billing",
    **obituary: object,
) -> str:
    """Write a dead letter as a worker does; answers its id."""
    delivery = a_delivery(id=entry_id, fields=fields, group=group, attempt=attempt, crashes=crashes)
    values = write_dead_letter(delivery, an_obituary(**obituary))
    return client.execute_command("XADD", f"{{orders}}:dlq:{group}", "*", *values).decode()


def replayed(client: redis.Redis, key: str = RETRY) -> list[tuple[str, int, int, Fields]]:
    """What lies in the retry stream: original id, attempt, crashes, fields."""
    envelopes = [unpack(fields[b"delivery"]) for _, fields in client.xrange(key)]
    return [(one.id, one.history.attempt, one.history.crashes, one.fields) for one in envelopes]


# ---- ls ---------------------------------------------------------------------------------------------------------------------


def test_ls_tells_of_each_dead_letter_why_it_is_one(server, orders):
    """One JSON line each away from a terminal, the error by its first line."""
    first = set_aside(orders, "1-0", reason=Reason.REJECTED, error="Reject: card refused\nsecond line", attempt=1)
    second = set_aside(orders, "2-0", reason=Reason.CRASHED, error=None, handler=None, attempt=2, crashes=3)

    result = run("dlq", "ls", "orders", url=server.url)
    rows = records(result)
    assert all(0 <= row.pop("age_ms") < 60_000 for row in rows)
    common = {"damage": None}
    assert [
        common
        | {"id": first, "reason": "rejected", "error": "Reject: card refused", "attempts": 1, "crashes": 0}
        | {"original_id": "1-0", "handler": "charge"},
        common
        | {"id": second, "reason": "crashed", "error": None, "attempts": 2, "crashes": 3}
        | {"original_id": "2-0", "handler": None},
    ] == rows
    assert "2 dead letters of group billing on orders: crashed 1, rejected 1\n" == result.stderr


def test_ls_shows_the_newest_and_says_how_to_go_on(server, orders):
    """Page after page, until nothing is left out."""
    ids = [set_aside(orders, f"{number}-0") for number in range(1, 6)]

    result = run("dlq", "ls", "orders", "-n", "2", url=server.url)
    assert ids[3:] == [row["id"] for row in records(result)]
    assert f"these are the newest 2; for older ones: --before {ids[3]}\n" == result.stderr
    result = run("dlq", "ls", "orders", "-n", "2", "--before", ids[3], url=server.url)
    assert ids[1:3] == [row["id"] for row in records(result)]
    result = run("dlq", "ls", "orders", "-n", "2", "--before", ids[1], url=server.url)
    assert ids[:1] == [row["id"] for row in records(result)]


def test_ls_finds_by_reason_and_by_error(server, orders):
    """The error's text is compared in any case; both filters may be given."""
    for number in range(600):
        set_aside(orders, f"{number}-1", error="ValueError: no")
    rejected = set_aside(orders, "1-0", reason=Reason.REJECTED, error="Reject: card refused")
    timed_out = set_aside(orders, "2-0", error="ConnectTimeout: pay.example")
    for number in range(600):
        set_aside(orders, f"{number}-1", error="ValueError: no")

    def found(*words: str) -> list[str]:
        return [row["id"] for row in records(run("dlq", "ls", "orders", *words, url=server.url))]

    assert [rejected] == found("--reason", "rejected")
    assert [timed_out] == found("--error", "connecttimeout")
    assert [] == found("--reason", "rejected", "--error", "connecttimeout")


def test_ls_of_nothing_says_so(server, orders):
    """Exit code 0: no dead letters is good news."""
    result = run("dlq", "ls", "orders", url=server.url)

    assert (0, "", "no dead letters of group billing on orders\n") == (result.exit_code, result.stdout, result.stderr)


def test_ls_is_not_disturbed_by_what_others_have_written_there(server, orders):
    """A stranger's entry, a damaged one and one with strange numbers are listed, and it is said what is wrong with them."""
    orders.xadd(DEAD, {"by": "hand"}, id="1-0")
    orders.xadd(DEAD, {"_dlq_packed": b"99:x", "_dlq_reason": "exhausted", "_dlq_id": "5-0"}, id="2-0")
    orders.xadd(DEAD, {"_dlq_reason": b"\xff", "_dlq_attempts": "many", "_dlq_crashes": "9" * 30}, id="3-0")
    orders.xadd(DEAD, {"_dlq_reason": "exhausted", "_dlq_group": "search", "_dlq_id": "5-0"}, id="4-0")
    sound = set_aside(orders)

    rows = {row["id"]: row["damage"] for row in records(run("dlq", "ls", "orders", url=server.url))}
    assert {
        "1-0": "it was not written by streamworker",
        "2-0": "its original fields are packed, and damaged",
        "3-0": "it does not say which entry it was",
        "4-0": "it is a dead letter of another group, 'search'",
        sound: None,
    } == rows
    for dead_letter_id in rows:
        assert 0 == run("dlq", "show", "orders", dead_letter_id, "-o", "text", url=server.url).exit_code


def test_the_table_fits_80_columns_and_keeps_ids_whole(server, orders):
    """A long error loses its end, and nothing in it can steer the terminal."""
    dead_letter_id = set_aside(orders, error=HOSTILE + "x" * 500, handler="charge" + HOSTILE, crashes=2)

    result = run("dlq", "ls", "orders", "-o", "table", url=server.url)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert f"{dead_letter_id}  exhausted  5 + 2 crashes" in result.stdout
    assert r"\x1b[31m" in result.stdout
    assert [] == unsafe(result.output)


# ---- show -------------------------------------------------------------------------------------------------------------------


def test_show_tells_all_of_one(server, orders):
    """Notes, headers, fields and traceback, each in its place."""
    fields = [b"order_id", b"7", b"_tenant", b"acme", b"a", b"1", b"a", b"2"]
    dead_letter_id = set_aside(orders, "1795369183485-0", fields, error="ValueError: no\nmore", traceback="Traceback:\n\tdeep")

    shown = run("dlq", "show", "orders", dead_letter_id, "-o", "text", url=server.url).stdout
    assert (
        f"dead letter {dead_letter_id} of group billing on orders\n"
        "  reason        exhausted\n"
        "  error         ValueError: no\n"
        "                more\n"
        "  handler       charge\n"
        "  attempts      5\n"
        "  crashes       0\n"
        "  original id   1795369183485-0, added 2026-11-22 17:39:43.485Z\n"
        "  first failed  2030-01-02 03:04:05.000Z\n"
        "  failed        2030-01-02 03:04:05.000Z\n"
        "  consumer      worker-1\n"
        "  version       1.2.3\n"
        "headers\n"
        "  tenant = acme\n"
        "fields\n"
        "  order_id = 7\n"
        "  _tenant = acme\n"
        "  a = 1\n"
        "  a = 2\n"
        "traceback\n"
        "  Traceback:\n"
        "          deep\n"
    ) == shown


def test_show_as_json_is_one_line_with_everything(server, orders):
    """For jq."""
    dead_letter_id = set_aside(orders, "7-0", [b"order_id", b"7", b"_tenant", b"acme"])

    [record] = records(run("dlq", "show", "orders", dead_letter_id, url=server.url))
    assert dead_letter_id == record["id"]
    assert ("7-0", "exhausted", 5, {"tenant": "acme"}) == tuple(record[n] for n in ("original_id", "reason", "attempts", "headers"))
    assert {"order_id": "7", "_tenant": "acme"} == record["fields"]
    assert "Traceback (most recent call last):\nValueError: no" == record["traceback"]


def test_show_of_a_hostile_one_is_harmless(server, orders):
    """No field and no error can steer the terminal, nor pass for a line of the report."""
    fields = [HOSTILE.encode() + b"\xff", HOSTILE.encode()]
    dead_letter_id = set_aside(orders, "7-0", fields, error=f"no{HOSTILE}\n  reason        rejected", traceback=HOSTILE)

    shown = run("dlq", "show", "orders", dead_letter_id, "-o", "text", url=server.url).output
    assert [] == unsafe(shown)
    assert ["  reason        exhausted"] == [line for line in shown.splitlines() if line.startswith("  reason")]


@pytest.mark.parametrize("text", ["1-1", "1"])
def test_show_of_an_id_that_is_not_there_says_so(server, orders, text):
    """Exit code 1."""
    result = run("dlq", "show", "orders", text, url=server.url)

    assert 1 == result.exit_code
    assert f"no dead letter {text} of group billing on orders" in result.stderr


# ---- replay -----------------------------------------------------------------------------------------------------------------


def test_replay_gives_the_entry_back_to_its_group_as_it_was(server, orders):
    """Original id and fields byte for byte, attempts and crashes anew; the dead letter is gone."""
    fields = [b"b", b"\xff\x00", b"a", b"1", b"a", b"2", b"_dlq_reason", b"mine"]
    dead_letter_id = set_aside(orders, "7-3", fields, crashes=2)

    result = run("dlq", "replay", "orders", dead_letter_id, "-y", url=server.url)
    assert (0, "1 replayed\n") == (result.exit_code, result.stdout)
    assert [("7-3", 1, 0, fields)] == replayed(orders)
    assert 0 == orders.xlen(DEAD)


def test_replay_of_a_packed_dead_letter_unpacks_it(server, orders):
    """An entry with more fields than a script can take is kept packed."""
    fields = [b"%d" % number for number in range(9_000)]
    set_aside(orders, "7-0", fields)

    assert 0 == run("dlq", "replay", "orders", "--all", "-y", url=server.url).exit_code
    assert [("7-0", 1, 0, fields)] == replayed(orders)


def test_replay_reaches_no_other_group(server, orders):
    """Another group of the same stream sees neither the entry again nor its dead letter."""
    orders.xgroup_create("orders", "search", "0")
    set_aside(orders, "1-0")
    others = set_aside(orders, "2-0", group="search")

    assert 0 == run("dlq", "replay", "orders", "--all", "--group", "billing", "-y", url=server.url).exit_code
    assert 0 == orders.xlen("orders")
    assert not orders.exists("{orders}:retry:search")
    assert [others.encode()] == [entry_id for entry_id, _ in orders.xrange("{orders}:dlq:search")]


def test_a_replayed_entry_is_handled_again_by_a_worker(server, redis_client):
    """From the handler's refusal to its success, with the same id, first attempt."""
    app, seen, refuse = an_app(retry=RetryPolicy(max_attempts=1)), [], [True]

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx) -> None:
        seen.append((ctx.delivery.id, ctx.delivery.attempt, order))
        if refuse:
            raise Reject("card refused")

    entry_id = redis_client.xadd("orders", {"order_id": 7}).decode()
    asyncio.run(run_burst(app, server.url))
    assert ["Reject: card refused"] == [row["error"] for row in records(run("dlq", "ls", "orders", url=server.url))]

    refuse.clear()
    run("dlq", "replay", "orders", "--reason", "rejected", "-y", url=server.url)
    asyncio.run(run_burst(app, server.url))
    assert [(entry_id, 1, {"order_id": "7"})] * 2 == seen
    assert "no dead letters" in run("dlq", "ls", "orders", url=server.url).stderr


def test_replay_of_many_takes_each_once(server, orders):
    """Several pages, oldest first."""
    for number in range(1_100):
        set_aside(orders, f"{number}-1", error="Timeout" if number % 2 else "ValueError")

    result = run("dlq", "replay", "orders", "--error", "timeout", "-y", url=server.url)
    assert "550 replayed\n" == result.stdout
    assert sorted(f"{number}-1" for number in range(1, 1_100, 2)) == sorted(entry_id for entry_id, *_ in replayed(orders))
    assert 550 == orders.xlen(DEAD)


def test_replay_of_named_ids_does_the_rest_when_one_is_not_there(server, orders):
    """Exit code 1, and the missing one is named; an id given twice counts once."""
    there = set_aside(orders, "7-0")

    result = run("dlq", "replay", "orders", "1-1", there, there, "-y", url=server.url)
    assert (1, "1 replayed\n") == (result.exit_code, result.stdout)
    assert "no dead letter 1-1 of group billing on orders" in result.stderr


def test_replay_leaves_what_cannot_be_replayed_where_it_is(server, orders):
    """Exit code 1, with the reason; nothing is lost."""
    set_aside(orders, "7-0")
    orders.xadd(DEAD, {"by": "hand"}, id="9999999999999-0")

    result = run("dlq", "replay", "orders", "--all", "-y", url=server.url)
    assert (1, "1 of 2 replayed, 1 skipped, because they cannot be replayed\n") == (result.exit_code, result.stdout)
    assert "skipped 9999999999999-0: it was not written by streamworker\n" == result.stderr
    assert [(b"9999999999999-0", {b"by": b"hand"})] == orders.xrange(DEAD)


@pytest.mark.parametrize("key", [DEAD, RETRY])
def test_a_key_of_another_type_is_named_and_nothing_is_lost(server, orders, key):
    """Exit code 1."""
    dead_letter_id = set_aside(orders) if key == RETRY else "1-1"
    orders.set(key, "x")

    result = run("dlq", "replay", "orders", dead_letter_id, "-y", url=server.url)
    assert 1 == result.exit_code
    assert f"'{key}' is not a stream: it holds a string" in result.stderr
    assert (b"x", 1) == (orders.get(key), orders.exists(DEAD))


def test_a_server_that_is_full_stops_a_replay_with_its_tally(private_server):
    """What was not replayed is still a dead letter."""
    with redis.Redis.from_url(private_server("redis").url) as client:
        url = f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}"
        client.xgroup_create("orders", "billing", "0", mkstream=True)
        for number in range(3):
            set_aside(client, f"{number}-1")
        client.config_set("maxmemory", 1)

        result = run("dlq", "replay", "orders", "--all", "-y", url=url)
        assert 1 == result.exit_code
        assert "stopped: 0 of 3 replayed; the same command goes on with the rest" in result.stderr
        assert 3 == client.xlen(DEAD)


def test_a_dry_run_shows_three_and_changes_nothing(server, orders):
    """Without asking, and without --yes."""
    ids = [set_aside(orders, f"{number}-0") for number in range(1, 6)]

    result = run("dlq", "replay", "orders", "--all", "--dry-run", url=server.url)
    assert ids[:3] == [row["id"] for row in records(result)]
    assert "5 dead letters would be replayed in group billing; nothing was changed\n" == result.stderr
    assert 5 == orders.xlen(DEAD)


def test_a_rate_is_not_waited_for_after_the_last(server, orders):
    """It spares who is there between two."""
    set_aside(orders, "1-0")

    assert "1 replayed\n" == run("dlq", "replay", "orders", "--all", "-y", "--rate", "1/h", url=server.url).stdout


def test_ctrl_c_stops_between_two_and_says_how_many_were_done(server, orders):
    """Exit code 130; the rest are dead letters still."""
    for number in range(50):
        set_aside(orders, f"{number}-1")

    with started(["dlq", "replay", "orders", "--all", "-y", "--rate", "20/s"], server.url) as replay:
        wait_until(lambda: orders.xlen(RETRY) >= 3)
        replay.interrupt()
        code, out, error = replay.end()
    done = orders.xlen(RETRY)
    assert (130, "") == (code, out)
    assert f"stopped: {done} of 50 replayed; the same command goes on with the rest\n" == error
    assert 50 - done == orders.xlen(DEAD)


# ---- discard ----------------------------------------------------------------------------------------------------------------


def test_discard_deletes_those_that_are_meant_and_no_others(server, orders):
    """By id or by filter, damaged ones too; nothing goes to the retry stream."""
    kept = set_aside(orders, "1-0", reason=Reason.REJECTED)
    set_aside(orders, "2-0", reason=Reason.MALFORMED)
    orders.xadd(DEAD, {"by": "hand"}, id="9999999999999-0")

    assert "1 discarded\n" == run("dlq", "discard", "orders", "--reason", "malformed", "-y", url=server.url).stdout
    assert "1 discarded\n" == run("dlq", "discard", "orders", "9999999999999-0", "-y", url=server.url).stdout
    assert [kept.encode()] == [entry_id for entry_id, _ in orders.xrange(DEAD)]
    assert not orders.exists(RETRY)


# ---- asking -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code", "left"), [(b"y\n", 0, 0), (b"n\n", 1, 2), (b"\n", 1, 2), (b"\x04", 1, 2)])
def test_on_a_terminal_it_asks_first_and_names_the_count(server, orders, answer, code, left):
    """No is the default."""
    set_aside(orders, "1-0")
    set_aside(orders, "2-0")
    ours, theirs = pty.openpty()
    try:
        with started(["dlq", "discard", "orders", "--all"], server.url, stdin=theirs, stderr=theirs) as discard:
            asked = b""
            while b"[y/N]" not in asked:
                asked += os.read(ours, 1_024)
            os.write(ours, answer)
            assert code == discard.process.wait(10)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"Delete 2 dead letters of group billing for good? [y/N]" in asked
    assert left == orders.xlen(DEAD)


@pytest.mark.parametrize("command", ["replay", "discard"])
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--all"], "there is no terminal to ask on: add --yes"),
        ([], "say which dead letters: their ids, --reason, --error, or --all"),
        (["1-0", "--all"], "leave one of them out"),
        (["1-0", "--reason", "rejected"], "leave one of them out"),
        (["1-0x", "-y"], "'1-0x' is not a dead letter's id"),
        (["--reason", "rejectd", "-y"], "--reason 'rejectd' is no reason: did you mean 'rejected'?"),
        (["--error", "", "-y"], "--error is empty"),
        (["--all", "-y", "--rate", "50"], "write it as 50/s"),
        (["--all", "-y", "--rate", "0/s"], "write it as 50/s"),
    ],
)
def test_an_unclear_order_is_refused_with_its_repair(server, orders, command, words, says):
    """Exit code 2, nothing changed."""
    set_aside(orders)

    result = run("dlq", command, "orders", *words, url=server.url)
    assert 2 == result.exit_code
    assert says in result.stderr
    assert 1 == orders.xlen(DEAD)


@pytest.mark.parametrize(("rate", "expected"), [("50/s", timedelta(milliseconds=20)), ("30/m", timedelta(seconds=2))])
def test_a_rate_is_so_many_in_a_unit_of_time(rate, expected):
    """Seconds, minutes or hours."""
    assert expected == interval_of(rate)
    with pytest.raises(SetupError, match="is not a rate"):
        interval_of(rate[:-2])


# ---- which group ------------------------------------------------------------------------------------------------------------


def test_dead_letters_outlive_their_group_and_their_stream(server, orders):
    """With the group's name they can still be seen; without it, it is said what is gone."""
    dead_letter_id = set_aside(orders)
    orders.delete("orders")

    gone = run("dlq", "ls", "orders", url=server.url)
    assert 2 == gone.exit_code
    assert "there is no stream 'orders'; if it had a group whose dead letters are still there, name it with --group" in gone.stderr
    listed = run("dlq", "ls", "orders", "--group", "billing", url=server.url)
    assert [dead_letter_id] == [row["id"] for row in records(listed)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ls", "orders", "--group", "biling"], "stream 'orders' has no group 'biling': did you mean 'billing'?"),
        (["ls", "orders", "--group", "xyz"], "stream 'orders' has no group 'xyz': it has 'billing', 'search'"),
        (["ls", "orders"], "has several groups: name one with --group, such as 'billing', 'search'"),
        (["ls", "nope"], "there is no stream 'nope'"),
        (["ls", "a}b", "--group", "billing"], "has a closing brace but no hash tag"),
        (["ls", ""], "a name is empty"),
    ],
)
def test_a_group_or_stream_that_is_not_there_is_named_with_those_that_are(server, orders, words, says):
    """Exit code 2."""
    orders.xgroup_create("orders", "search", "0")

    result = run("dlq", *words, url=server.url)
    assert 2 == result.exit_code
    assert says in result.stderr


@pytest.mark.parametrize("words", [["ls", "orders"], ["show", "orders", "1-0"], ["replay", "orders", "--all", "-y"]])
def test_without_a_server_the_sentence_names_the_url(words):
    """Exit code 3, and no password in it."""
    result = run("dlq", *words, url=NOBODY)

    assert 3 == result.exit_code
    assert "cannot reach Redis at redis://***@127.0.0.1:1/0" in result.stderr
    assert "secret" not in result.output
