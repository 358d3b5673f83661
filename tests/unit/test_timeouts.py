"""One timer for all runs: each whose time is over is told, once, on every kind of loop; one that has ended is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest
import uvloop

from streamworker.worker.timeouts import Timeouts

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_each_run_that_is_too_long_is_told_once(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """However soon: a loop may give a handle of another kind for what is due at once."""
    random, told = Random(7), list[int]()

    async def main() -> None:
        all_told = asyncio.Event()

        def expired(run: int) -> None:
            told.append(run)
            if len(told) == 300:
                all_told.set()

        timeouts: Timeouts[int] = Timeouts(expired)
        for run in range(300):
            timeouts.watch(run, random.choice([0.0, 0.0001, 0.0003, 0.001, 0.002, 0.005]))
            if run % 3 == 0:
                await asyncio.sleep(0)
        await asyncio.wait_for(all_told.wait(), 10)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())

    assert list(range(300)) == sorted(told)


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_run_that_has_ended_is_not_told(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Nor does it keep the others from being told."""
    told = list[int]()

    async def main() -> None:
        last = asyncio.Event()

        def expired(run: int) -> None:
            told.append(run)
            last.set()

        timeouts: Timeouts[int] = Timeouts(expired)
        for run in (1, 2, 3):
            timeouts.watch(run, 0.001)
        timeouts.forget(1, 0.001)
        timeouts.forget(2, 0.001)
        await asyncio.wait_for(last.wait(), 10)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())

    assert [3] == told
