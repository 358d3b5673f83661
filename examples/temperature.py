"""Readings of temperature sensors: warns of heat, and refuses what no thermometer can show.

Run it with `streamworker run temperature.py`, and add a reading: redis-cli XADD mystream '*' sensor 1 value 21.5
"""

from datetime import timedelta

from pydantic import BaseModel

from streamworker import Context, Reject, StreamWorker

LOWEST, HIGH, HIGHEST = -90.0, 35.0, 60.0

app = StreamWorker(group="temperature-group", lease=timedelta(seconds=5))


class Reading(BaseModel):
    """What a sensor adds to `mystream`."""

    sensor: int
    value: float


@app.handler("mystream")
async def watch(reading: Reading, ctx: Context) -> None:
    if not LOWEST <= reading.value <= HIGHEST:
        raise Reject(f"no thermometer on earth shows {reading.value} degrees")
    if reading.value > HIGH:
        ctx.log.warning("temperature.high", sensor=reading.sensor, value=reading.value)
        await ctx.publish("alarms", reading)
