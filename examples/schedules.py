"""Reports that are made at their times: each once, however many workers run this. Needs `pip install 'streamworker[cron]'`.

Run it with `streamworker run schedules.py`, as often as you like: nobody leads.
"""

from datetime import datetime, timedelta

from pydantic import BaseModel

from streamworker import Context, StreamWorker

app = StreamWorker(group="reports")


class Report(BaseModel):
    """What is to be reported, and until when."""

    kind: str
    until: datetime


@app.every(timedelta(seconds=1), "reports")
def pulse(tick: datetime) -> Report:
    return Report(kind="pulse", until=tick)


@app.cron("30 2 * * *", "reports", timezone="Europe/Berlin", missed="once")
def nightly(tick: datetime) -> Report:
    return Report(kind="nightly", until=tick)


app.every(timedelta(minutes=5), "cleanups", name="cleanup", max_length=100)({"what": "old carts"})


@app.handler("reports")
async def make(report: Report, ctx: Context) -> None:
    ctx.log.info("report.made", kind=report.kind, tick=ctx.delivery.headers["tick"])
