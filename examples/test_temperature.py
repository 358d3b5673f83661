"""Tests of `temperature.py`, without a server: python -m pytest examples (pip install 'streamworker[testing]' pytest-asyncio)."""

from datetime import timedelta

import pytest
from temperature import Reading, app, watch

from streamworker.testing import TestWorker


@pytest.mark.asyncio
async def test_heat_raises_an_alarm():
    async with TestWorker(app) as worker:
        await worker.publish("mystream", Reading(sensor=1, value=21.5))
        await worker.publish("mystream", Reading(sensor=2, value=38.2))
        await worker.run_until_idle()

        assert await worker.published("alarms", Reading) == [Reading(sensor=2, value=38.2)]


@pytest.mark.asyncio
async def test_what_no_thermometer_shows_is_set_aside():
    async with TestWorker(app) as worker:
        await worker.publish("mystream", Reading(sensor=1, value=999))
        await worker.add("mystream", {"sensor": "1", "value": "warm"})
        await worker.run_until_idle()

        assert [letter.reason for letter in await worker.dead_letters()] == ["rejected", "malformed"]


@pytest.mark.asyncio
async def test_a_reading_outlives_its_worker():
    async with TestWorker(app) as worker:
        worker.crash_next(watch)
        entry_id = await worker.publish("mystream", Reading(sensor=2, value=38.2))
        await worker.run_until_idle()
        assert await worker.published("alarms") == []

        await worker.advance(app.lease)
        assert len(await worker.published("alarms")) == 1
        assert [delivery.outcome for delivery in worker.deliveries(entry_id)] == ["crashed", "succeeded"]


@pytest.mark.asyncio
async def test_an_alarm_that_fails_comes_later():
    async with TestWorker(app) as worker:
        worker.fail_next("watch", OSError("the siren is broken"))
        await worker.publish("mystream", Reading(sensor=2, value=38.2))
        await worker.run_until_idle()
        assert [retry.attempt for retry in await worker.waiting()] == [2]

        await worker.advance(timedelta(minutes=5))
        assert len(await worker.published("alarms")) == 1
