"""Every example does what it says, on real servers."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import dead_letters, pending
from tests.torture.proxy import Call, Cut, Effect, Phase, Proxy, nth
from tests.waiting import eventually, wait_until

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def streamworker(*arguments: str, url: str = "redis://localhost:1/0", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would; what it prints is kept."""
    environment = os.environ | {"STREAMWORKER_REDIS_URL": url}
    command = [sys.executable, "-m", "streamworker", *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


def work_off(example: str, url: str, folder: Path = ROOT, *options: str) -> str:
    """Run the example in this folder until nothing is left to do; answers its log."""
    ended = streamworker("run", str(ROOT / "examples" / example), "--burst", *options, url=url, folder=folder)
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


async def test_stock_counts_an_order_once_however_often_it_is_sent(server, aredis):
    """The counters, the ranking, the marks and the shipments agree."""
    for order_id, article, pieces in ((7, "lamp", 2), (8, "lamp", 3), (7, "lamp", 2)):
        await aredis.xadd("orders", {"order_id": order_id, "article": article, "pieces": pieces})
        work_off("stock.py", server.url)

    assert {b"lamp": b"5"} == await aredis.hgetall("{orders}:sold")
    assert [(b"7", 2.0), (b"8", 3.0)] == await aredis.zrange("{orders}:best", 0, -1, withscores=True)
    assert b"sold" == await aredis.get("{orders}:order:8")
    assert [b"7", b"8"] == [fields[b"order_id"] for _, fields in await aredis.xrange("{orders}:shipments")]
    assert 0 == await pending(aredis, group="stock")


PAYMENTS = 30


@pytest.mark.parametrize("phase", ["before_send", "after_execute"])
def test_inbox_sqlite_books_each_payment_once_though_its_workers_are_killed(server, redis_client, tmp_path, phase: Phase):
    """With SIGKILL, when the database has committed and Redis does not know it yet, or knows it and cannot say so any more."""
    path = tmp_path / "payments.db"
    for number in range(PAYMENTS):
        redis_client.xadd("payments", {"account": f"a{number % 3}", "cents": number})
    environment = os.environ | {"STREAMWORKER_REDIS_URL": server.url, "PAYMENTS_DB": str(path)}
    command = [sys.executable, "-m", "streamworker", "run", "examples/inbox_sqlite.py", "--log-level", "warning"]

    with Proxy(server.url) as proxy:
        for ordinal in (1, 9, 5):
            victim = subprocess.Popen(command, env=environment | {"STREAMWORKER_REDIS_URL": proxy.url}, cwd=ROOT)

            def kill(_: Call, victim: subprocess.Popen[bytes] = victim) -> Effect:
                victim.kill()
                return Cut()

            proxy.on("settle_commit", phase, kill, nth(ordinal))
            assert -signal.SIGKILL == victim.wait(20)
            proxy.remove()
    last = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        wait_until(lambda: all_is_booked(redis_client), within=40)
    finally:
        last.kill()
        last.wait()

    with closing(sqlite3.connect(path)) as db:
        balances = dict(db.execute("SELECT account, cents FROM accounts"))
        [(lines,)] = db.execute("SELECT count(*) FROM inbox")
    assert {f"a{rest}": sum(range(rest, PAYMENTS, 3)) for rest in range(3)} == balances
    assert (PAYMENTS, b"%d" % PAYMENTS) == (lines, redis_client.get("{payments}:booked"))


def all_is_booked(client) -> bool:
    """Whether nothing of the payments is left to do."""
    return int(client.get("{payments}:booked") or 0) >= PAYMENTS and client.xpending("payments", "ledger")["pending"] == 0


async def test_ordering_books_each_account_in_order(server, aredis):
    """A movement that fails twice holds up its account and no other: the balances tell."""
    for number, (account, cents, flaky) in enumerate([("a", 100, 2), ("a", 20, 0), ("b", 1, 0), ("a", 3, 1), ("b", 4, 0)]):
        await aredis.xadd("movements", {"account": account, "number": number, "cents": cents, "flaky": flaky})
    work_off("ordering.py", server.url)
    statements = [fields for _, fields in await aredis.xrange("statements")]
    of = {
        account: [(int(line[b"number"]), int(line[b"balance"])) for line in statements if line[b"account"] == account]
        for account in (b"a", b"b")
    }

    assert {b"a": [(0, 100), (1, 120), (3, 123)], b"b": [(2, 1), (4, 5)]} == of
    assert [b"b", b"b"] == [line[b"account"] for line in statements[:2]]


async def test_batches_count_each_click_once(server, aredis, tmp_path):
    """Hundreds in a few transactions; the one that is no page is set aside, the one that is not known yet comes back by itself."""
    pages = ["/home"] * 640 + ["/checkout", "nonsense", "/not-yet"]
    for number, page in enumerate(pages):
        await aredis.xadd("clicks", {"page": page, "visitor": f"v{number}"})
    log = work_off("batches.py", server.url, tmp_path)
    [letter] = await dead_letters(aredis, "clicks", "click-counts")
    with closing(sqlite3.connect(tmp_path / "clicks.db")) as db:
        counts = dict(db.execute("SELECT page, count(*) FROM clicks GROUP BY page"))

    assert {"/home": 640, "/checkout": 1, "/not-yet": 1} == counts
    assert ("rejected", b"nonsense") == (letter.notes["reason"], letter.fields[1])
    assert [b"/checkout"] == [fields[b"page"] for _, fields in await aredis.xrange("checkouts")]
    assert log.count("clicks.counted") < 10
    assert 0 == await pending(aredis, "clicks", "click-counts")


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


async def test_schedules_make_a_report_each_second_once_in_two_processes(server, aredis):
    """Each second's tick is there once, with its moment; both processes run the same program."""
    options = ("run", "examples/schedules.py", "--max-runtime", "4s")
    both = await asyncio.gather(*(asyncio.to_thread(streamworker, *options, url=server.url) for _ in range(2)))
    ticks = [fields[b"_tick"] for _, fields in await aredis.xrange("reports")]

    assert [0, 0] == [ended.returncode for ended in both]
    assert len(ticks) >= 2
    assert len(ticks) == len(set(ticks))
    assert len(ticks) >= sum(ended.stderr.count("report.made") for ended in both) >= 2


async def test_retention_empties_what_is_acknowledged_and_keeps_the_rest(server, aredis):
    """Orders go, also those that another group has had to be given first; clicks of today stay."""
    await aredis.xgroup_create("orders", "search", id="0", mkstream=True)
    for n in range(5):
        await aredis.xadd("orders", {"order_id": n})
        await aredis.xadd("clicks", {"page": n})
    log = await asyncio.to_thread(work_off, "retention.py", server.url)
    kept = await aredis.xlen("orders")
    [[_, given]] = await aredis.xreadgroup("search", "other", {"orders": ">"})
    await aredis.xack("orders", "search", *(entry_id for entry_id, _ in given))
    await aredis.xadd("orders", {"order_id": 5})
    ended = await asyncio.to_thread(streamworker, "run", "examples/retention.py", "--max-runtime", "3s", url=server.url)

    assert 0 == ended.returncode
    assert (5, 5) == (kept, len(given))
    assert (5, 1) == (log.count("order.charged"), ended.stderr.count("order.charged"))
    assert (1, 5) == (await aredis.xlen("orders"), await aredis.xlen("clicks"))


async def test_listeners_hear_of_each_change_in_every_process(server, aredis):
    """An order that comes after a change is charged at the new price, whoever has it."""
    options = ("run", "examples/listeners.py", "--max-runtime", "5s")
    processes = [asyncio.create_task(asyncio.to_thread(streamworker, *options, url=server.url)) for _ in range(2)]

    async def both_read() -> bool:
        # Redis 7.0 knows a consumer only once it has been given something.
        return 2 == len({client["name"] for client in await aredis.client_list() if client["cmd"] == "xreadgroup"})

    async def charged() -> bool:
        await aredis.xadd("price-changes", {"sku": "tea", "cents": 300})
        await aredis.xadd("orders", {"sku": "tea"})
        return any(fields[b"cents"] == b"300" for _, fields in await aredis.xrange("invoices"))

    await eventually(both_read, within=20)
    await eventually(charged)
    for ended in await asyncio.gather(*processes):
        assert "price.changed" in ended.stderr


async def test_quotes_are_answered(server):
    """A price for what there is, the reason for what there is not, and the end of patience where nobody answers."""
    working = asyncio.create_task(
        asyncio.to_thread(streamworker, "run", "examples/quotes.py", "--max-deliveries", "2", url=server.url)
    )
    environment = os.environ | {"STREAMWORKER_REDIS_URL": server.url}

    def ask(sku: str) -> tuple[int, str, str]:
        command = [sys.executable, str(ROOT / "examples" / "quotes.py"), sku]
        ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
        return ended.returncode, ended.stdout, ended.stderr

    assert (0, "250\n", "") == await asyncio.to_thread(ask, "tea")
    assert (1, "", "Reject: there is no gold\n") == await asyncio.to_thread(ask, "gold")
    assert 0 == (await working).returncode
    assert "ask again later" in (await asyncio.to_thread(ask, "tea"))[2]


async def test_flow_control_waits_for_the_provider_and_keeps_to_its_rate(server, aredis, tmp_path):
    """While the provider is down hardly anything is tried; then all orders are charged, no more in a second than it takes."""
    down = tmp_path / "provider-is-down"
    down.touch()
    for number in range(40):
        await aredis.xadd("orders", {"order_id": number, "cents": 990})
    working = asyncio.create_task(asyncio.to_thread(work_off, "flow_control.py", server.url, tmp_path))
    await eventually(lambda: aredis.zcard("{orders}:due:billing"), within=20)
    await asyncio.sleep(2)  # what is claimed is that little happens meanwhile
    down.unlink()
    log = await working

    moments = sorted(int(entry_id.partition(b"-")[0]) for entry_id, _ in await aredis.xrange("invoices"))
    assert 40 == len(moments)
    assert all(later - first >= 950 for first, later in zip(moments, moments[25:], strict=False))
    assert "kill_switch.tripped" in log
    assert "kill_switch.reset" in log
    assert 20 > log.count("delivery.retrying")
    assert [] == await dead_letters(aredis)


async def test_priorities_pack_three_of_the_one_for_each_of_the_other(server, aredis, tmp_path):
    """While both have a backlog; in the end everything is packed, and every letter written."""
    for number in range(600):
        await aredis.xadd("orders", {"order_id": number})
        await aredis.xadd("orders-vip", {"order_id": number})
    await aredis.xadd("letters", {"to": "all of them"})

    await asyncio.to_thread(work_off, "priorities.py", server.url, tmp_path, "--max-concurrency", "8")

    came_by = [fields[b"came_by"] for _, fields in await aredis.xrange("packed")]
    assert {b"orders": 600, b"orders-vip": 600} == Counter(came_by)
    assert 375 <= came_by[:600].count(b"orders-vip") <= 525
