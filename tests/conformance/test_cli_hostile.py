"""Whatever lies in Redis, no command lets it steer the terminal: entries, dead letters, names of streams, groups and consumers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from streamworker.codecs.envelope import Envelope, pack
from streamworker.delivery import History
from tests.command_line import run, unsafe

CORPUS = [
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
    b"\x9b2J\xc2\x9b2J\x1bc",
    "\u202egnp.exe\u2066\u2069\u200f\u061c".encode(),
    b"\r\nforged line\r\x0b\x0c\x85",
    "\u2028\u2029\u0085".encode(),
    b"[red]rich[/red] [link=http://evil]x[/link] :boom:",
    b"\x00\xff\xfe\xed\xa0\x80",
    "\U000e0041\ue000\ufeff\u200b\u00ad".encode(),
    b"\t\x08\x08\x7f",
    b"",
]
BYTES = (
    st.sampled_from(CORPUS) | st.binary(max_size=24) | st.text(max_size=12).map(lambda text: text.encode(errors="surrogatepass"))
)
SOME = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def harmless(*words: str, url: str, code: int | None = 0) -> str:
    """Run a command in both forms; answers its text for people."""
    shown = ""
    for form in ("text" if words[0] == "tail" or words[:2] == ("dlq", "show") else "table", "json"):
        result = run(*words, "-o", form, url=url)
        if code is not None:
            assert code == result.exit_code, result.output
        assert [] == unsafe(result.output), words
        if form == "json":
            assert all(json.loads(line) for line in result.stdout.splitlines())
            assert result.stdout.isascii()
        else:
            shown = result.output
    return shown


@SOME
@given(st.lists(st.tuples(BYTES, BYTES), min_size=1, max_size=4))
@example([(value, value) for value in CORPUS])
def test_tail_shows_any_entry_in_one_line(redis_client, server, pairs):
    """As text, and as JSON."""
    redis_client.delete("orders")
    redis_client.execute_command("XADD", "orders", "*", *(part for pair in pairs for part in pair))

    assert 1 == harmless("tail", "orders", url=server.url).count("\n")


@SOME
@given(BYTES.filter(bool), BYTES.filter(bool))
@pytest.mark.parametrize("where", ["stream", "retry"])
def test_pending_shows_any_consumer(redis_client, server, where, consumer, told):
    """And the original id that a retry's envelope claims."""
    redis_client.flushall()
    key = "orders" if where == "stream" else "{orders}:retry:billing"
    for made in ("orders", "{orders}:retry:billing"):
        redis_client.xgroup_create(made, "billing", "0", mkstream=True)
    entry_id = told.decode(errors="backslashreplace")
    for original in (entry_id, "1-1"):
        redis_client.xadd(key, {"delivery": pack(Envelope(original, History(last_error=entry_id), [b"n", told]))})
    redis_client.execute_command("XREADGROUP", "GROUP", "billing", consumer, "STREAMS", key, ">")

    harmless("pending", "orders", url=server.url)


@SOME
@given(
    st.fixed_dictionaries(dict.fromkeys(("error", "reason", "handler", "traceback", "consumer", "failed_at", "odd"), BYTES)), BYTES
)
@example(
    dict.fromkeys(("error", "reason", "handler", "traceback", "consumer", "failed_at", "odd"), b"\n".join(CORPUS)),
    b"\n".join(CORPUS),
)
def test_dlq_shows_any_dead_letter(redis_client, server, notes, value):
    """Its notes may be anybody's: ls, show, replay and discard, and what they say beside it."""
    redis_client.flushall()
    redis_client.xgroup_create("orders", "billing", "0", mkstream=True)
    original: list[Any] = [value, value, b"_type", value, b"_dlq_reason", notes["reason"]]
    ours = [part for name, note in notes.items() if name != "reason" for part in (f"_dlq_{name}".encode(), note)]
    added = redis_client.execute_command("XADD", "{orders}:dlq:billing", "*", *original, *ours, b"_dlq_id", value).decode()

    harmless("dlq", "ls", "orders", url=server.url)
    harmless("dlq", "show", "orders", added, url=server.url)
    for words in (["--dry-run", "--all"], ["--all", "--yes"]):
        result = run("dlq", "replay", "orders", *words, url=server.url)
        assert [] == unsafe(result.output)


@SOME
@given(BYTES.filter(lambda name: name and b"}" not in name and b"{" not in name), BYTES.filter(bool))
def test_names_of_streams_and_groups_are_shown_harmlessly(redis_client, server, name, other):
    """In tables, and in the sentences about what there is not."""
    redis_client.flushall()
    redis_client.xgroup_create(name, other, "0", mkstream=True)
    redis_client.xgroup_create(name, b"second" + name, "0")
    redis_client.set("plain", other)
    text = name.decode(errors="surrogateescape")

    for words in (
        ["pending", text],
        ["dlq", "ls", text],
        ["dlq", "ls", text, "--group", "sec"],
        ["tail", text],
        ["tail", text + "x"],
    ):
        result = run(*words, url=server.url)
        assert [] == unsafe(result.output), words
        assert result.exit_code in (0, 2)
    assert [] == unsafe(run("publish", "plain", "n=1", url=server.url).output)


def test_what_the_server_says_is_harmless_too(redis_client, server):
    """An error may quote what somebody has stored."""
    for words in (["tail", "\x1b[31m"], ["publish", "or\x1b[2Jders", "n=1\x9b"], ["publish", "x", "--json", "{\x1b"]):
        result = run(*words, url=server.url)
        assert [] == unsafe(result.output), words


def test_what_a_program_registers_is_harmless_in_the_table(tmp_path, server):
    """Names of streams and groups, types and the application's own."""
    (tmp_path / "hostile.py").write_text(
        "from streamworker import StreamWorker\n"
        "app = StreamWorker('a\\x1b[31mb', group='g\\u202e[red]')\n"
        "@app.handler('s\\x9b2J', type='t\\r\\n')\n"
        "async def charge(order: dict[str, str]) -> None: ...\n"
    )

    result = run("check", str(tmp_path / "hostile.py"))

    assert 0 == result.exit_code, result.output
    assert [] == unsafe(result.output)
    assert "[red]" in result.output.replace("\n", "")
