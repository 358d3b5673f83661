"""`publish`, `tail` and `pending` as a user sees them, on every real server that is there."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest
import redis

from streamworker.cli.session import repair_of
from streamworker.codecs.envelope import Envelope, pack
from streamworker.delivery import History
from tests.command_line import COMMAND, NOBODY, records, run, started, unsafe
from tests.harness import an_app, run_burst

HOSTILE = b"\x1b[31m\xc2\x9b2J\xe2\x80\xaetxt\ngone\r\x00\xff\xfe"


def fields_of(client: redis.Redis, stream: str = "orders") -> list[dict[bytes, bytes]]:
    return [fields for _, fields in client.xrange(stream)]


def add(client: redis.Redis, *numbers: int) -> list[str]:
    return [client.xadd("orders", {"order_id": number}, id=f"{number}-0").decode() for number in numbers]


# ---- publish ----------------------------------------------------------------------------------------------------------------


def test_publish_adds_the_fields_as_they_are_and_prints_the_id(server, redis_client):
    """Values are text, whatever they look like, and only the first `=` counts."""
    result = run("publish", "orders", "order_id=7", "note=a = b", "empty=", "_tenant=acme", url=server.url)

    [(entry_id, fields)] = redis_client.xrange("orders")
    assert 0 == result.exit_code
    assert f"{entry_id.decode()}\n" == result.stdout
    assert {b"order_id": b"7", b"note": b"a = b", b"empty": b"", b"_tenant": b"acme"} == fields


def test_publish_writes_headers_and_type_as_publish_of_an_app_does(server, redis_client):
    """`--type` and `--header` become the fields that a worker reads them from."""
    words = ["order_id=7", "--type", "order.placed", "--header", "tenant=acme", "--header", "traceparent=00-1"]
    assert 0 == run("publish", "orders", *words, url=server.url).exit_code

    assert [{b"order_id": b"7", b"_tenant": b"acme", b"traceparent": b"00-1", b"_type": b"order.placed"}] == fields_of(redis_client)


def test_publish_keeps_bytes_that_are_no_text(server, redis_client):
    """What the shell hands over is written, UTF-8 or not."""
    command = [*map(str.encode, COMMAND), b"publish", b"orders", b"blob=\xff", b"-u", server.url.encode()]
    subprocess.run(command, check=True, capture_output=True)

    assert [{b"blob": b"\xff"}] == fields_of(redis_client)


def test_publish_of_json_makes_each_top_level_key_a_field(server, redis_client):
    """Scalars as text, structure as compact JSON, null left out."""
    body = {"order_id": 7, "paid": True, "cents": 1.5, "note": "café", "none": None, "lines": [{"sku": "a b"}]}
    assert 0 == run("publish", "orders", "--json", json.dumps(body), url=server.url).exit_code

    expected = {b"order_id": b"7", b"paid": b"true", b"cents": b"1.5", b"note": "café".encode(), b"lines": b'[{"sku":"a b"}]'}
    assert [expected] == fields_of(redis_client)


def test_publish_with_codec_json_writes_one_field(server, redis_client):
    """`--codec json` takes an object or pairs."""
    assert 0 == run("publish", "orders", "--json", '{"order_id": 7}', "--codec", "json", url=server.url).exit_code
    assert 0 == run("publish", "orders", "order_id=7", "--codec", "json", url=server.url).exit_code

    assert [{b"data": b'{"order_id":7}'}, {b"data": b'{"order_id":"7"}'}] == fields_of(redis_client)


@pytest.mark.parametrize("text", ['{"order_id": 1}\n\n{"order_id": 2}\n', '\ufeff{"order_id": 1}\r\n{"order_id": 2}'])
def test_publish_reads_json_lines_from_stdin(server, redis_client, text):
    """One entry for each line, in order; blank lines and a byte order mark do not count."""
    result = run("publish", "orders", "--json", "-", url=server.url, stdin=text.encode())

    assert 2 == len(result.stdout.splitlines())
    assert [{b"order_id": b"1"}, {b"order_id": b"2"}] == fields_of(redis_client)


def test_publish_reads_one_object_over_several_lines_from_stdin(server, redis_client):
    """As `jq .` prints it."""
    assert 0 == run("publish", "orders", "--json", "-", url=server.url, stdin='{\n  "order_id": 1\n}\n').exit_code

    assert [{b"order_id": b"1"}] == fields_of(redis_client)


def test_publish_of_many_lines_adds_them_in_order(server, redis_client):
    """More than go into one write."""
    text = "".join(f'{{"order_id": {number}}}\n' for number in range(1_201))
    result = run("publish", "orders", "--json", "-", url=server.url, stdin=text)

    assert [b"%d" % number for number in range(1_201)] == [fields[b"order_id"] for fields in fields_of(redis_client)]
    assert [entry_id.decode() for entry_id, _ in redis_client.xrange("orders")] == result.stdout.split()


def test_a_bad_line_is_named_and_nothing_is_added(server, redis_client):
    """All lines are read before the first is sent, so that the command can be repeated."""
    result = run("publish", "orders", "--json", "-", url=server.url, stdin='{"order_id": 1}\n{"order_id": \n')

    assert 2 == result.exit_code
    assert "stdin, line 2 is not valid JSON" in result.stderr
    assert 0 == redis_client.exists("orders")


def test_publish_trims_when_it_is_told_to(server, redis_client):
    """`--max-length` is Redis's approximate MAXLEN."""
    text = "".join(f'{{"order_id": {number}}}\n' for number in range(1_000))
    run("publish", "orders", "--json", "-", "--max-length", "10", url=server.url, stdin=text)

    assert redis_client.xlen("orders") < 500


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "needs at least one field: write KEY=VALUE"),
        (["order_id"], "'order_id' is not KEY=VALUE"),
        (["=7"], "'=7' is not KEY=VALUE"),
        (['{"order_id": 7}'], "JSON goes with --json"),
        (["a=1", "--json", "{}"], "given twice"),
        (["--json", "{"], "--json is not valid JSON"),
        (["--json", "[" * 100_000], "nested too deeply"),
        (["--json", "9" * 10_000], "a number in it is too long"),
        (["--json", "[1]"], "not a JSON object: write each entry as an object in a line of its own"),
        (["--json", "7"], "not a JSON object"),
        (["--json", "{}"], "an entry needs at least one field"),
        (["--json", '{"a": NaN}'], "'a'"),
        (["--json", '{"_tenant": "acme"}'], "give it with --header tenant="),
        (["a=1", "--header", "tenant"], "--header 'tenant' is not KEY=VALUE"),
        (["a=1", "--header", "_tenant=x"], "leave out the leading underscore"),
        (["a=1", "--header", "type=x", "--type", "y"], "say two things"),
        (["a=1", "--codec", "jsn"], "did you mean 'json'?"),
    ],
)
def test_wrong_input_is_named_with_its_repair_before_anything_is_sent(words, says):
    """Exit code 2, without asking a server."""
    result = run("publish", "orders", *words, url=NOBODY)

    assert 2 == result.exit_code
    assert says in " ".join(result.stderr.split())
    assert "" == result.stdout


def test_what_is_published_by_hand_reaches_a_typed_handler(server):
    """From the shell to the handler."""
    app, seen = an_app(), []

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        seen.append(order)

    run("publish", "orders", "order_id=7", url=server.url)
    asyncio.run(run_burst(app, server.url))

    assert [{"order_id": "7"}] == seen


# ---- tail -------------------------------------------------------------------------------------------------------------------


def test_tail_shows_the_last_entries_as_json_lines_away_from_a_terminal(server, redis_client):
    """Oldest first, ten unless told."""
    add(redis_client, *range(1, 13))

    shown = records(run("tail", "orders", url=server.url))
    assert [{"id": f"{number}-0", "fields": {"order_id": str(number)}} for number in range(3, 13)] == shown
    assert ["11-0", "12-0"] == [record["id"] for record in records(run("tail", "orders", "-n", "2", url=server.url))]


@pytest.mark.parametrize(
    ("start", "expected"), [("0", ["1-0", "2-0"]), ("3", ["3-0", "4-0"]), ("4-0", ["4-0", "5-0"]), ("5-1", [])]
)
def test_tail_from_an_id_shows_the_entries_from_there_on(server, redis_client, start, expected):
    """The id itself included; it need not be there."""
    add(redis_client, *range(1, 6))

    shown = records(run("tail", "orders", "--from", start, "-n", "2", url=server.url))
    assert expected == [record["id"] for record in shown]


def test_tail_of_more_than_a_page_shows_each_entry_once(server, redis_client):
    """From either end."""
    ids = add(redis_client, *range(1, 1_202))

    assert ids[1:] == [record["id"] for record in records(run("tail", "orders", "-n", "1200", url=server.url))]
    assert ids[:1200] == [record["id"] for record in records(run("tail", "orders", "--from", "0", "-n", "1200", url=server.url))]


def test_tail_as_text_shows_id_time_and_fields(server, redis_client):
    """Values with spaces are quoted, JSON is left as it is."""
    redis_client.xadd("orders", {"order_id": 7, "note": "two words", "lines": '[{"a": 1}]', "no": ""}, id="1795369183485-0")

    result = run("tail", "orders", "-o", "text", url=server.url)
    expected = '1795369183485-0  2026-11-22 17:39:43.485Z  order_id=7 note="two words" lines=[{"a": 1}] no=""\n'
    assert expected == result.stdout


def test_a_hostile_payload_cannot_steer_the_terminal(server, redis_client):
    """Escapes, C1 controls, bidirectional marks, newlines and broken UTF-8 are shown, not sent, in names as in values."""
    redis_client.xadd("orders", {HOSTILE: HOSTILE}, id="1-0")

    text = run("tail", "orders", "-o", "text", url=server.url).stdout
    shown = r"\x1b[31m\x9b2J\u202etxt\ngone\r\x00\xff\xfe"
    assert f"1-0  -  {shown}={shown}\n" == text
    [record] = records(run("tail", "orders", url=server.url))
    assert {"\x1b[31m\x9b2J\u202etxt\ngone\r\x00\\xff\\xfe"} == set(record["fields"].values())
    assert [] == unsafe(run("tail", "orders", url=server.url).stdout)


def test_a_field_that_is_there_twice_is_shown_twice(server, redis_client):
    """Redis keeps repeated names, so JSON has them as a list."""
    redis_client.execute_command("XADD", "orders", "1-0", "a", "1", "a", "2", "b", "3")

    assert [{"id": "1-0", "fields": {"a": ["1", "2"], "b": "3"}}] == records(run("tail", "orders", url=server.url))
    assert run("tail", "orders", "-o", "text", url=server.url).stdout.endswith("a=1 a=2 b=3\n")


def test_a_huge_value_is_cut_in_text_and_whole_in_json(server, redis_client):
    """A line for people stays readable; a program gets everything."""
    redis_client.xadd("orders", {"blob": "x" * 100_000}, id="1-0")

    assert len(run("tail", "orders", "-o", "text", url=server.url).stdout) < 600
    assert "x" * 100_000 == records(run("tail", "orders", url=server.url))[0]["fields"]["blob"]


def test_tail_changes_nothing(server, redis_client):
    """No group, no consumer, no entry more or less."""
    add(redis_client, 1, 2)
    redis_client.xgroup_create("orders", "billing", "0")
    before = redis_client.xinfo_stream("orders")

    run("tail", "orders", url=server.url)
    assert before == redis_client.xinfo_stream("orders")
    assert [b"orders"] == redis_client.keys()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "$"], "add -f to wait for them"),
        (["--from", "yesterday"], "'yesterday' is not an entry's id: write one such as"),
        (["--from", "18446744073709551616"], "is not an entry's id"),
        (["--from", "0", "-n", "2", "-f"], "leave -n out"),
    ],
)
def test_a_wrong_start_is_named_with_its_repair(server, words, says):
    """Exit code 2."""
    result = run("tail", "orders", *words, url=server.url)

    assert 2 == result.exit_code
    assert says in result.stderr


def test_following_shows_new_entries_until_ctrl_c(server, redis_client):
    """What is there first, then each new one as it comes; the end is a quiet one."""
    add(redis_client, 1, 2, 3)

    with started(["tail", "orders", "-f", "-n", "1"], server.url) as tail:
        assert "3-0" == json.loads(tail.line())["id"]
        add(redis_client, 4)
        assert "4-0" == json.loads(tail.line())["id"]
        tail.interrupt()
        assert (0, "", "") == tail.end()


def test_following_from_an_id_shows_all_from_there_on(server, redis_client):
    """The id itself, what came after it, and what comes."""
    add(redis_client, *range(1, 601))

    with started(["tail", "orders", "-f", "--from", "2"], server.url) as tail:
        shown = [json.loads(tail.line())["id"] for _ in range(599)]
        add(redis_client, 601)
        assert [f"{number}-0" for number in range(2, 602)] == [*shown, json.loads(tail.line())["id"]]


def test_following_waits_for_a_stream_that_is_not_there_yet(server, redis_client):
    """And says so, because the name may be mistyped."""
    with started(["tail", "orders", "-f", "--from", "$"], server.url) as tail:
        assert "there is no stream 'orders' yet: waiting for its first entry" == tail.error_line()
        add(redis_client, 1)
        assert "1-0" == json.loads(tail.line())["id"]


def test_following_outlives_the_loss_of_its_connection(private_server):
    """The loss is said once, and its end."""
    server = private_server("redis")
    with redis.Redis.from_url(server.url) as client:
        client.xadd("orders", {"order_id": 1})
        with started(["tail", "orders", "-f"], server.url) as tail:
            assert {"order_id": "1"} == json.loads(tail.line())["fields"]
            server.kill()
            assert "was lost; trying again until it is back" in tail.error_line()
            server.restart()
            assert "connected again" == tail.error_line()
            client.xadd("orders", {"order_id": 2})
            assert {"order_id": "2"} == json.loads(tail.line())["fields"]


def test_a_reader_that_goes_away_is_a_normal_end(server, redis_client):
    """`streamworker tail … | head -1` leaves no traceback."""
    for number in range(2_000):
        redis_client.xadd("orders", {"pad": "x" * 200, "order_id": number})

    with started(["tail", "orders", "-n", "2000"], server.url) as tail:
        tail.line()
        tail.process.stdout.close()
        assert b"" == tail.process.stderr.read()


# ---- pending ----------------------------------------------------------------------------------------------------------------


def hand_out(client: redis.Redis, *numbers: int, consumer: str = "worker-1") -> None:
    add(client, *numbers)
    if not client.xinfo_groups("orders"):
        client.xgroup_create("orders", "billing", "0")
    client.xreadgroup("billing", consumer, {"orders": ">"})


def hand_out_retry(client: redis.Redis, original_id: str, attempt: int) -> str:
    client.xgroup_create("{orders}:retry:billing", "billing", "0", mkstream=True)
    envelope = pack(Envelope(original_id, History(attempt=attempt), [b"order_id", b"7"]))
    retry_id = client.xadd("{orders}:retry:billing", {"delivery": envelope})
    client.xreadgroup("billing", "worker-2", {"{orders}:retry:billing": ">"})
    return retry_id.decode()


def test_pending_shows_what_is_out_and_with_whom(server, redis_client):
    """Entries of the stream, and retries under their original id."""
    hand_out(redis_client, 1)
    retry_id = hand_out_retry(redis_client, "1795369183485-0", attempt=3)

    rows = {record["id"]: record for record in records(run("pending", "orders", url=server.url))}
    assert {"1-0", "1795369183485-0"} == set(rows)
    chosen = ("where", "pending_id", "consumer", "deliveries", "attempt")
    assert ("stream", "1-0", "worker-1", 1, None) == tuple(rows["1-0"][name] for name in chosen)
    assert ("retry", retry_id, "worker-2", 1, 3) == tuple(rows["1795369183485-0"][name] for name in chosen)


def test_pending_sums_the_group_up_on_standard_error(server, redis_client):
    """So that standard output holds rows only."""
    hand_out(redis_client, 1, 2)
    hand_out_retry(redis_client, "9-0", attempt=2)
    redis_client.xadd("{orders}:retry:billing", {"delivery": "due"})
    redis_client.zadd("{orders}:due:billing", {"5-0": 1, "6-0": 2})

    result = run("pending", "orders", "-n", "2", url=server.url)
    undelivered = (
        "0 undelivered" if "lag" in redis_client.xinfo_groups("orders")[0] else "undelivered unknown"
    )  # Redis 6.2 has no lag
    assert 2 == len(records(result))
    assert (
        f"group billing: {undelivered}, 3 pending (2 shown), 2 retries waiting, 1 to be read again (due or released), longest idle "
        in result.stderr
    )
    assert result.stderr.endswith(", 2 consumers\n")


def test_pending_can_be_narrowed_down(server, redis_client):
    """By consumer, and by how long an entry has been out."""
    hand_out(redis_client, 1)
    hand_out(redis_client, 2, consumer="worker-2")
    redis_client.xclaim("orders", "billing", "worker-2", 0, ["2-0"], idle=60_000)

    assert ["1-0"] == [row["id"] for row in records(run("pending", "orders", "--consumer", "worker-1", url=server.url))]
    assert ["2-0"] == [row["id"] for row in records(run("pending", "orders", "--idle", "30s", url=server.url))]


def test_the_table_of_pending_keeps_ids_whole_at_80_columns(server, redis_client):
    """A long consumer name is folded, and a hostile one is harmless."""
    redis_client.xadd("orders", {"order_id": 1}, id="1795369183485-0")
    redis_client.xgroup_create("orders", "billing", "0")
    redis_client.xreadgroup("billing", b"worker-\x1b[31m\xe2\x80\xae\xff" + b"x" * 90, {"orders": ">"})

    result = run("pending", "orders", "-o", "table", url=server.url)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "1795369183485-0  stream  worker-" in result.stdout
    assert [] == unsafe(result.output)


def test_a_retry_whose_envelope_is_damaged_is_shown_under_its_own_id(server, redis_client):
    """Somebody else's entry in the retry stream does not break the list."""
    redis_client.xadd("orders", {"order_id": 1})
    redis_client.xgroup_create("orders", "billing", "$")
    redis_client.xgroup_create("{orders}:retry:billing", "billing", "0", mkstream=True)
    redis_client.xadd("{orders}:retry:billing", {"delivery": b"\xff"}, id="7-0")
    redis_client.xreadgroup("billing", "worker-1", {"{orders}:retry:billing": ">"})

    assert [("7-0", None)] == [(row["id"], row["attempt"]) for row in records(run("pending", "orders", url=server.url))]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--group", "biling"], "stream 'orders' has no group 'biling': did you mean 'billing'?"),
        (["--consumer", "worker-9"], "has no consumer 'worker-9': did you mean 'worker-1'?"),
        (["--idle", "30"], "write it with its unit"),
    ],
)
def test_names_that_are_not_there_are_named_with_those_that_are(server, redis_client, words, says):
    """Exit code 2."""
    hand_out(redis_client, 1)

    result = run("pending", "orders", *words, url=server.url)
    assert 2 == result.exit_code
    assert says in result.stderr


def test_the_group_is_asked_for_only_where_there_are_several(server, redis_client):
    """One is taken, none and several are told; their names cannot steer the terminal."""
    add(redis_client, 1)
    assert "stream 'orders' has no group yet" in run("pending", "orders", url=server.url).stderr

    redis_client.xgroup_create("orders", "billing", "0")
    assert 0 == run("pending", "orders", url=server.url).exit_code

    redis_client.xgroup_create("orders", "se\x1barch", "0")
    several = run("pending", "orders", url=server.url)
    assert 2 == several.exit_code
    assert "has several groups: name one with --group, such as 'billing', 'se\\x1barch'" in several.stderr


# ---- all of them ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["publish", "orders", "a=1"], ["tail", "orders"], ["tail", "orders", "-f"], ["pending", "orders"]]
)
def test_without_a_server_the_sentence_names_the_url(words):
    """Exit code 3, and no password in it."""
    result = run(*words, url=NOBODY)

    assert 3 == result.exit_code
    assert "cannot reach Redis at redis://***@127.0.0.1:1/0" in result.stderr
    assert "name your server" not in result.stderr, "it is named"
    assert "secret" not in result.output


@pytest.mark.parametrize(
    "words", [["publish", "orders", "a=1"], ["tail", "orders"], ["tail", "orders", "-f"], ["pending", "orders"]]
)
def test_a_key_of_another_type_is_named(server, redis_client, words):
    """Exit code 1."""
    redis_client.set("orders", "x")

    result = run(*words, url=server.url)
    assert 1 == result.exit_code
    assert "'orders' is not a stream" in result.stderr


def test_who_names_no_server_is_told_how(monkeypatch):
    """And nobody else."""
    for variable in ("REDIS_URL", "STREAMWORKER_REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    unnamed = repair_of(None)
    monkeypatch.setenv("REDIS_URL", NOBODY)

    assert "name your server with -u" in unnamed
    assert ("", "") == (repair_of(None), repair_of(NOBODY))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["acl", "--role", "boss", "--stream", "x"], "'--role': 'boss' is not one of 'worker'"),
        (["tail", "orders", "-n", "0"], "'-n': it is 1 at least"),
        (["run"], "Missing argument 'APP'. Name it, or set STREAMWORKER_APP."),
    ],
)
def test_wrong_usage_is_said_in_plain_words(words, says):
    """Not in those of the library that checks values."""
    result = run(*words)

    assert 2 == result.exit_code
    assert says in " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.mark.parametrize("words", [["tail", "nope"], ["pending", "nope"]])
def test_a_stream_that_is_not_there_is_named(server, words):
    """A mistyped name must not look like an empty stream."""
    result = run(*words, url=server.url)

    assert 2 == result.exit_code
    assert "there is no stream 'nope'" in result.stderr
    assert "dead letters" not in result.stderr


@pytest.mark.parametrize("variable", ["STREAMWORKER_REDIS_URL", "REDIS_URL"])
def test_the_server_may_come_from_the_environment(server, redis_client, variable, monkeypatch):
    """The variables that `run` reads."""
    add(redis_client, 1)
    monkeypatch.delenv("STREAMWORKER_REDIS_URL", raising=False)
    monkeypatch.setenv(variable, server.url)

    shown = subprocess.run([*COMMAND, "tail", "orders"], check=True, capture_output=True).stdout
    assert "1-0" == json.loads(shown)["id"]


def test_a_stream_that_is_not_there_is_compared_with_the_programs(server, tmp_path, monkeypatch):
    """Where `STREAMWORKER_APP` names the program; one that cannot be imported costs only the hint."""
    (tmp_path / "named_streams.py").write_text(
        "from streamworker import StreamWorker\napp = StreamWorker(group='billing')\n"
        "@app.handler('orders')\nasync def charge(order: dict[str, str]) -> None: ...\n"
    )
    monkeypatch.setenv("STREAMWORKER_APP", str(tmp_path / "named_streams.py"))
    told = [run(*words, "ordres", url=server.url) for words in (["tail"], ["pending"], ["dlq", "ls"])]
    monkeypatch.setenv("STREAMWORKER_APP", "there_is_no_such_program")
    without = run("tail", "ordres", url=server.url)

    assert [2] * 4 == [result.exit_code for result in (*told, without)]
    assert all("there is no stream 'ordres'" in result.stderr for result in (*told, without))
    assert all("did you mean 'orders'?" in result.stderr for result in told)
    assert "did you mean" not in without.stderr
