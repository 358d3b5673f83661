"""Order by key where workers die: killed again and again, one process at a time, every start noted by the handlers themselves."""

from __future__ import annotations

import signal
from collections import defaultdict

from tests.scenarios.workers import a_fleet
from tests.waiting import wait_until

KEYS, EACH = 10, 100


def first_starts(fleet) -> dict[int, list[int]]:
    """By key, the entries in the order in which they were begun for the first time."""
    seen: dict[int, list[int]] = defaultdict(list)
    for number in fleet.numbers("started"):
        if number not in seen[number % KEYS]:
            seen[number % KEYS].append(number)
    return seen


def in_order() -> dict[int, list[int]]:
    return {key: list(range(key, KEYS * EACH, KEYS)) for key in range(KEYS)}


def add(client) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(KEYS * EACH):
            pipe.xadd("movements", {"number": number, "seconds": 0.003, "_key": f"key-{number % KEYS}"})
        pipe.execute()


def done(fleet, client) -> bool:
    return len(set(fleet.numbers())) == KEYS * EACH and client.xpending("movements", "billing")["pending"] == 0


def test_an_order_survives_kill_9_of_one_process_after_another(server, redis_client, tmp_path):
    """SIGKILL in the midst, three times: every entry is handled, each key's in order, every seventh after a failed attempt."""
    add(redis_client)
    with a_fleet(server.url, tmp_path) as fleet:
        for part in (1, 2, 3):
            victim = fleet.start()
            fleet.until("started", part * 150, within=40)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
        fleet.start()
        wait_until(lambda: done(fleet, redis_client), within=40)

        assert in_order() == first_starts(fleet)
        assert 0 == redis_client.exists("{movements}:dlq:billing")
        alone = [len(fleet.logged(worker, "delivery.runs_alone")) for worker in fleet.workers]
        assert all(count <= KEYS for count in alone), "only the first of each key can have been running"
        attempts = {line["number"]: line["attempt"] for line in fleet.ledger("done")}
        assert {number: 2 if number % 7 == 0 else 1 for number in range(KEYS * EACH)} == attempts


def test_an_order_survives_stops_with_hardly_any_grace(server, redis_client, tmp_path):
    """SIGTERM in the midst, four times: what is given back comes first, in order, however much there is of it."""
    add(redis_client)
    with a_fleet(server.url, tmp_path) as fleet:
        for part in (1, 2, 3, 4):
            leaving = fleet.start("--grace", "10ms")
            fleet.until("started", part * 100, within=40)
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait(20) in (0, 4)
        assert 0 == redis_client.xpending("movements", "billing")["pending"]
        fleet.start()
        wait_until(lambda: done(fleet, redis_client), within=40)

        assert in_order() == first_starts(fleet)
