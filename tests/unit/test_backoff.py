"""How long a worker waits before it asks its server again: longer each time, and no two workers alike."""

from __future__ import annotations

from collections import Counter

from streamworker.worker.backoff import CAP_SECONDS, FIRST_SECONDS, Pauses


def test_pauses_grow_to_a_cap_and_begin_again_when_it_went_well():
    """Each is somewhere between nothing and twice what the one before could have been."""
    pauses = Pauses()
    limits = [min(CAP_SECONDS, FIRST_SECONDS * 2**step) for step in range(12)]
    taken = [pauses.next() for _ in limits]
    pauses.reset()

    assert [] == [pause for pause, limit in zip(taken, limits, strict=True) if not 0 <= pause <= limit]
    assert CAP_SECONDS == limits[-1]
    assert pauses.next() <= FIRST_SECONDS


def test_a_fleet_that_lost_its_server_together_does_not_come_back_together():
    """Of three hundred clients whose pauses have grown to five seconds, no tenth of a second sees more than a few."""
    arrivals: Counter[int] = Counter()
    for _ in range(300):
        pauses = Pauses()
        for _ in range(7):
            pause = pauses.next()
        arrivals[int(pause * 10)] += 1

    assert max(arrivals.values()) < 30
    assert len(arrivals) > 35
