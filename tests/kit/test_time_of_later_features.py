"""Schedules, order by key, idempotency, listeners and requests in the test's time, on the fake server and on real ones."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from streamworker import Backoff, Context, Idempotency, Retention, RetryPolicy, StreamWorker
from streamworker.streams import groups, inspecting
from streamworker.testing import TestWorker

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["fake", "valkey", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "fake":
        return None
    url: str = request.getfixturevalue("server_pool").empty(request.param).url
    return url


def an_app() -> StreamWorker:
    return StreamWorker(group="g", retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(MINUTE)))


async def test_a_schedule_ticks_at_each_of_its_times_and_at_no_other(redis_url: str | None) -> None:
    """Each tick comes at its own time of the test, once, and is handled then."""
    app, made = an_app(), []
    handled: list[datetime] = []

    @app.every(MINUTE, "reports")
    async def report(tick: datetime) -> dict[str, str]:
        made.append(tick)
        return {"at": tick.isoformat()}

    @app.handler("reports")
    async def write(report: dict[str, str]) -> None:
        handled.append(worker.now)

    async with TestWorker(app, redis_url=redis_url) as worker:
        await worker.run_until_idle()
        assert [] == made

        first = datetime.fromtimestamp((worker.now.timestamp() // 60 + 1) * 60, worker.now.tzinfo)
        await worker.advance(3 * MINUTE)

    assert [first, first + MINUTE, first + 2 * MINUTE] == made
    assert made == handled


async def test_a_program_of_schedules_only_can_be_tested(redis_url: str | None) -> None:
    """No handler is needed to see what a schedule publishes; plain functions and plain bodies tick too."""
    app = an_app()

    @app.cron("30 4 * * *", "mornings", timezone="Europe/Berlin")
    def good_morning() -> dict[str, str]:
        return {"say": "good morning"}

    async with TestWorker(app, redis_url=redis_url) as worker:
        await worker.advance(timedelta(days=2))
        assert [{"say": "good morning"}] * 2 == await worker.published("mornings")


async def test_what_a_function_of_a_schedule_raises_is_raised_to_the_test() -> None:
    """A worker would log it and ask again; a test must see it."""
    app = an_app()

    @app.every(MINUTE, "reports")
    async def report() -> dict[str, str]:
        raise ZeroDivisionError("no orders")

    async with TestWorker(app) as worker:
        with pytest.raises(ZeroDivisionError):
            await worker.advance(MINUTE)


async def test_an_ordered_entry_is_retried_in_its_place_when_its_time_has_come(redis_url: str | None) -> None:
    """What comes after it waits with it, other keys do not, and nothing is waited for in real time."""
    app = an_app()
    done: list[tuple[str, str, datetime]] = []

    @app.handler("movements", ordering_key="account")
    async def book(movement: dict[str, str]) -> None:
        done.append((movement["account"], movement["n"], worker.now))

    async with TestWorker(app, redis_url=redis_url) as worker:
        began = worker.now
        worker.fail_next(book, ValueError("no"), times=2)
        first = await worker.publish("movements", {"account": "a", "n": "1"})
        await worker.run_until_idle()
        second = await worker.publish("movements", {"account": "a", "n": "2"})
        await worker.run_until_idle()
        assert {first, second} == {one.id for one in await worker.pending()}
        assert [] == done

        await worker.advance(MINUTE - timedelta(milliseconds=1))
        assert [(1, "retry")] == [(d.attempt, d.verdict) for d in worker.deliveries()]
        await worker.advance(timedelta(milliseconds=1))
        await worker.publish("movements", {"account": "b", "n": "3"})
        await worker.run_until_idle()
        assert [("b", "3", began + MINUTE)] == done

        await worker.advance(MINUTE)
        assert [("a", "1", began + 2 * MINUTE), ("a", "2", began + 2 * MINUTE)] == done[1:]
        assert [(1, "retry"), (2, "retry"), (3, "ack")] == [(d.attempt, d.verdict) for d in worker.deliveries(first)]
        assert [] == await worker.pending()


async def test_ordered_entries_whose_attempts_are_used_up_let_the_next_ones_go(redis_url: str | None) -> None:
    """The dead letter comes at the time of the last attempt, and then the line goes on."""
    app = an_app()
    done: list[str] = []

    @app.handler("movements", ordering_key="account")
    async def book(movement: dict[str, str]) -> None:
        done.append(movement["n"])

    async with TestWorker(app, redis_url=redis_url) as worker:
        worker.fail_next(book, ValueError("no"), times=3)
        await worker.publish("movements", {"account": "a", "n": "1"})
        await worker.run_until_idle()
        await worker.publish("movements", {"account": "a", "n": "2"})
        await worker.advance(timedelta(hours=1))
        assert [("exhausted", 3)] == [(letter.reason, letter.attempts) for letter in await worker.dead_letters()]
        assert ["2"] == done


async def test_a_test_may_end_while_an_ordered_entry_waits(redis_url: str | None) -> None:
    """The end waits for nothing."""
    app = an_app()

    @app.handler("movements", ordering_key="account")
    async def book(movement: dict[str, str]) -> None: ...

    async with TestWorker(app, redis_url=redis_url) as worker:
        worker.fail_next(book, ValueError("no"))
        await worker.publish("movements", {"account": "a", "n": "1"})
        await worker.run_until_idle()


async def test_an_ordered_entry_of_a_dead_worker_is_taken_over(redis_url: str | None) -> None:
    """When its lease is over by the test's time."""
    app = an_app()
    done: list[int] = []

    @app.handler("movements", ordering_key="account")
    async def book(movement: dict[str, str], ctx: Context) -> None:
        done.append(ctx.delivery.crashes)

    async with TestWorker(app, redis_url=redis_url) as worker:
        worker.crash_next(book)
        await worker.publish("movements", {"account": "a", "n": "1"})
        await worker.run_until_idle()
        await worker.advance(app.lease)
        assert [0, 1] == done
        assert [] == await worker.pending()


async def test_a_planned_crash_takes_one_entry_and_its_line_goes_on(redis_url: str | None) -> None:
    """As documented: what comes after it is not held up until it is taken over."""
    app = an_app()
    done: list[tuple[str, int]] = []

    @app.handler("movements", ordering_key="account")
    async def book(movement: dict[str, str], ctx: Context) -> None:
        done.append((movement["n"], ctx.delivery.crashes))

    async with TestWorker(app, redis_url=redis_url) as worker:
        worker.crash_next(book, when="before")
        for number in ("1", "2"):
            await worker.publish("movements", {"account": "a", "n": number})
        await worker.run_until_idle()
        assert [("2", 0)] == done
        await worker.advance(app.lease)
        assert [("2", 0), ("1", 1)] == done


async def test_what_is_done_once_is_done_again_when_its_mark_has_ended(redis_url: str | None) -> None:
    """The marks of an `Idempotency` end in the test's time; what a transaction writes is there."""
    app = an_app()
    done: list[str] = []

    @app.handler("orders", idempotency=Idempotency(ttl=timedelta(hours=1), key=lambda order: order["id"]))
    async def charge(order: dict[str, str], ctx: Context) -> None:
        done.append(order["id"])
        ctx.transaction.hincrby("{orders}:charged", order["id"], 1)

    async with TestWorker(app, redis_url=redis_url) as worker:
        for _ in range(2):
            await worker.publish("orders", {"id": "7"})
            await worker.run_until_idle()
        assert ["7"] == done
        await worker.advance(timedelta(hours=1))
        await worker.publish("orders", {"id": "7"})
        await worker.run_until_idle()
        assert ["7", "7"] == done


async def test_a_request_is_answered_by_the_worker_of_the_test(redis_url: str | None) -> None:
    """`app.request` goes to the server of the test, as `app.publish` does."""
    app = an_app()

    @app.handler("quotes")
    async def quote(asked: dict[str, str]) -> dict[str, str]:
        return {"cents": "250"}

    async with TestWorker(app, redis_url=redis_url):
        assert {"cents": "250"} == await app.request("quotes", {"sku": "tea"})


async def test_listeners_have_heard_everything_when_nothing_happens_any_more(redis_url: str | None) -> None:
    """What a listener publishes is handled, and what a handler publishes is heard, before `run_until_idle` returns."""
    app = an_app()
    heard: list[str] = []
    done: list[str] = []

    @app.listener("news")
    async def hear(news: dict[str, str]) -> None:
        await asyncio.sleep(0.05)
        heard.append(news["n"])
        if news["n"] == "1":
            await app.publish("orders", news)

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        done.append(order["n"])
        ctx.publish("news", {"n": "2"})

    async with TestWorker(app, redis_url=redis_url) as worker:
        for _ in range(3):
            await worker.publish("news", {"n": "1"})
            await worker.run_until_idle()
        assert ["1", "2"] * 3 == heard
        assert ["1"] * 3 == done


async def test_what_is_acknowledged_goes_at_once_and_what_is_too_old_goes_in_the_tests_time(redis_url: str | None) -> None:
    """Whatever another group still needs stays however old it gets."""
    app = StreamWorker(group="g", retention={"orders": Retention(delete_when_acked=True), "clicks": Retention(max_age=60 * MINUTE)})

    @app.handler("orders", "clicks")
    async def handle(body: dict[str, str]) -> None: ...

    async def lengths() -> tuple[int, int]:
        return await inspecting.length(link, "orders"), await inspecting.length(link, "clicks")

    async with TestWorker(app, redis_url=redis_url) as worker:
        link = worker._link
        await worker.publish("orders", {"n": "1"})
        await worker.publish("clicks", {"n": "1"})
        await worker.run_until_idle()
        assert (0, 1) == await lengths()

        await worker.advance(59 * MINUTE)
        assert (0, 1) == await lengths()

        await groups.create(link, "clicks", "search", "0")
        await worker.advance(2 * MINUTE)
        assert (0, 1) == await lengths()

        await link.call("XREADGROUP", "GROUP", "search", "other", "NOACK", "STREAMS", "clicks", ">")
        await worker.advance(MINUTE)
        assert (0, 0) == await lengths()
