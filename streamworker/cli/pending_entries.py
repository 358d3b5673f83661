"""The report of `pending`."""

from __future__ import annotations

from datetime import datetime, timedelta

from streamworker.admin.groups import choose_group
from streamworker.admin.pending import PendingDelivery, PendingReport, report
from streamworker.cli.options import Output
from streamworker.cli.printing import print_json
from streamworker.cli.showing import age_of, counted, for_people, in_short, milliseconds, print_rows, say
from streamworker.streams import inspecting
from streamworker.streams.link import Link


async def show_pending(
    link: Link, stream: str, group: str | None, *, limit: int, consumer: str | None, idle: timedelta | None, output: Output
) -> None:
    """Print what is pending, and on standard error a line about the group as a whole."""
    chosen = await choose_group(link, stream, group)
    found = await report(link, stream, chosen, limit=limit, consumer=consumer, idle=idle)
    now = await inspecting.now(link)
    if not for_people(output):
        for one in found.deliveries:
            print_json(_record(one, now))
    elif found.deliveries:
        columns = ("ID", "WHERE", "CONSUMER", "IDLE", "DELIVERIES", "AGE")
        print_rows(columns, [_row(one, now) for one in found.deliveries], fold={"CONSUMER"})
    say(f"group {chosen}: {_summary(found)}")


def _summary(found: PendingReport) -> str:
    undelivered = "undelivered unknown" if found.undelivered is None else f"{found.undelivered:,} undelivered"
    retries = f"{found.retries_waiting:,} {'retry' if found.retries_waiting == 1 else 'retries'} waiting"
    if found.retries_due:
        retries += f", {found.retries_due:,} to be read again (due or released)"
    shown = len(found.deliveries)
    longest = f", longest idle {in_short(found.deliveries[0].idle)}" if shown else ""
    cut = f" ({shown:,} shown)" if shown != found.pending else ""
    return f"{undelivered}, {found.pending:,} pending{cut}, {retries}{longest}, {counted(found.consumers, 'consumer')}"


def _row(one: PendingDelivery, now: datetime) -> tuple[object, ...]:
    age = age_of(one.id, now)
    return (one.id, one.where, one.consumer, in_short(one.idle), one.deliveries, None if age is None else in_short(age))


def _record(one: PendingDelivery, now: datetime) -> dict[str, object]:
    return {
        "id": one.id,
        "where": one.where,
        "pending_id": one.pending_id,
        "consumer": one.consumer,
        "idle_ms": milliseconds(one.idle),
        "deliveries": one.deliveries,
        "attempt": one.attempt,
        "age_ms": milliseconds(age_of(one.id, now)),
    }
