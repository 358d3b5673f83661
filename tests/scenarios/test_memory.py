"""What a worker's memory holds: bounded by bytes, whatever waits in the stream."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis

from tests.scenarios.test_life_and_death import pending
from tests.scenarios.workers import a_fleet
from tests.waiting import wait_until

MIB = 2**20

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def megabytes(pid: int, name: str) -> float:
    """`VmRSS`: what it has now, `VmHWM`: the most it ever had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize(
    ("count", "size", "most_growth", "most_pending"),
    [(200, MIB, 3 * 16, 24), (3, 40 * MIB, 5 * 40, 2)],
    ids=["many", "larger than the limit"],
)
def test_entries_take_a_few_times_what_they_may_weigh(valkey, tmp_path, monkeypatch, count, size, most_growth, most_pending):
    """With 16 MiB and room for a hundred: many of one MiB at about sixteen together; of those larger than the limit one runs, while
    one is acknowledged. An entry is there as bytes off the wire, as fields and as the handler's body, so the growth is up to three
    times the limit, and up to five times what a single entry weighs."""
    monkeypatch.setenv("STREAMWORKER_IN_FLIGHT_BYTES", "16MiB")
    with redis.Redis.from_url(valkey.url) as client, a_fleet(valkey.url, tmp_path, lease_ms=30_000) as fleet:
        worker = fleet.start("--concurrency", "100")
        at_first = megabytes(worker.pid, "VmRSS")
        body, seen = "x" * size, [0]
        for number in range(count):
            client.xadd("orders", {"number": number, "seconds": 0.05, "note": body})

        def is_over() -> bool:
            held = pending(client, "orders")
            seen.append(held)
            return held == 0 and len(set(fleet.numbers())) == count

        wait_until(is_over, within=30)
        growth = megabytes(worker.pid, "VmHWM") - at_first
        worker.send_signal(signal.SIGTERM)

        assert 0 == worker.wait()
        assert sorted(fleet.numbers()) == list(range(count))
        assert max(seen) <= most_pending
        assert growth < most_growth, f"{growth:.0f} MB"
