"""An application that does nothing but tick and listen."""

from __future__ import annotations

from datetime import timedelta

from streamworker import ListenerContext, StreamWorker

app = StreamWorker()
app.every(timedelta(milliseconds=200), "ticks", name="beat")({"kind": "beat"})


@app.listener("ticks")
async def heard(body: dict[str, str], ctx: ListenerContext) -> None:
    ctx.log.info("tick.heard", tick=ctx.headers["tick"])
