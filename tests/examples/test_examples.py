"""Every example does what it says, on real servers."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import dead_letters, pending

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def streamworker(*arguments: str, url: str = "redis://localhost:1/0") -> subprocess.CompletedProcess[str]:
    """Run the command as a user would; what it prints is kept."""
    environment = os.environ | {"STREAMWORKER_REDIS_URL": url}
    command = [sys.executable, "-m", "streamworker", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


def work_off(example: str, url: str) -> str:
    """Run the example until nothing is left to do; answers its log."""
    ended = streamworker("run", f"examples/{example}", "--burst", url=url)
    assert 0 == ended.returncode, ended.stderr
    return ended.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_its_registrations_are_sound(example):
    """At most sixty lines, and `streamworker check` finds nothing wrong without touching a server."""
    checked = streamworker("check", str(example))

    assert len(example.read_text().splitlines()) <= 60
    assert 0 == checked.returncode, checked.stderr
    assert "ok:" in checked.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_its_line_in_the_readme(example):
    """The table names every file."""
    assert f"[{example.name}]({example.name})" in (ROOT / "examples" / "README.md").read_text()


async def test_temperature_warns_of_heat_and_sets_the_impossible_aside(server, aredis):
    """A normal reading is acknowledged, a high one raises an alarm, an impossible one and a malformed one become dead letters."""
    for value in ("21.5", "38.2", "999", "warm"):
        await aredis.xadd("mystream", {"sensor": 1, "value": value})
    log = work_off("temperature.py", server.url)
    letters = await dead_letters(aredis, "mystream", "temperature-group")

    assert [{b"sensor": b"1", b"value": b"38.2"}] == [fields for _, fields in await aredis.xrange("alarms")]
    assert {("rejected", b"999"), ("malformed", b"warm")} == {(letter.notes["reason"], letter.fields[3]) for letter in letters}
    assert 1 == log.count("temperature.high")
    assert 0 == await pending(aredis, "mystream", "temperature-group")


async def test_orders_are_invoiced_once_or_set_aside(server, aredis):
    """Retry and Snooze lead to an invoice in the end, Reject to a dead letter; only Retry counts as an attempt."""
    for order_id, customer in enumerate(("c42", "busy", "closed", "broke")):
        await aredis.xadd("orders", {"order_id": order_id, "customer_id": customer, "cents": 990, "_tenant": "eu"})
    log = work_off("orders.py", server.url)
    [letter] = await dead_letters(aredis)

    assert [b"0", b"1", b"2"] == sorted(fields[b"order_id"] for _, fields in await aredis.xrange("invoices"))
    assert ("rejected", "Reject: card refused") == (letter.notes["reason"], letter.notes["error"])
    assert 6 == log.count("order.came_in")
    assert '"tenant": "eu"' in log
    assert 0 == await pending(aredis)


def test_the_example_of_a_test_passes():
    """As a user runs it, in a folder of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", "examples/test_temperature.py"]
    tested = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)

    assert 0 == tested.returncode, tested.stdout
    assert "4 passed" in tested.stdout


async def test_publishing_places_orders_once_and_reminds_of_what_is_not_paid(server, aredis):
    """A second click writes nothing, and what was paid is not reminded of."""
    environment = os.environ | {"STREAMWORKER_REDIS_URL": server.url}
    command = [sys.executable, str(ROOT / "examples" / "publishing.py")]
    run = functools.partial(subprocess.run, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    ended = await asyncio.to_thread(run, command)
    assert (0, "") == (ended.returncode, ended.stderr)

    assert [b"1", b"2", b"3"] == [fields[b"order_id"] for _, fields in await aredis.xrange("orders")]
    assert [101, 2] == [await aredis.xlen("imports"), await aredis.zcard("{reminders}:scheduled")]
    streamworker("run", "examples/publishing.py", "--max-deliveries", "2", url=server.url)
    assert [b"1", b"2"] == [fields[b"order_id"] for _, fields in await aredis.xrange("reminders")]


async def test_typed_streams_follow_a_parcel(server, aredis):
    """What the program publishes as a model, its handlers are given as one, from stream to stream."""
    environment = os.environ | {"STREAMWORKER_REDIS_URL": server.url}
    command = [sys.executable, str(ROOT / "examples" / "typed_streams.py")]
    run = functools.partial(subprocess.run, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    ended = await asyncio.to_thread(run, command)
    assert (0, "") == (ended.returncode, ended.stderr)
    log = work_off("typed_streams.py", server.url)

    assert [{b"parcel_id": b"1", b"city": b"Rome"}] == [fields for _, fields in await aredis.xrange("deliveries")]
    assert 1 == log.count("parcel.delivered")
    assert 1 == log.count("parcel.weighed")
