"""Who may start where keys have an order: against a model that any mistake of the real thing would contradict."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streamworker.worker.keyed_lanes import KeyedLanes

KEYS = st.sampled_from("abc")


class KeyedLanesMachine(RuleBasedStateMachine):
    """Offers, takes, ends, rests and wakes numbered items in any order; the model is a list of what waits and what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: KeyedLanes[int] = KeyedLanes()
        self.key_of: dict[int, str] = {}
        self.waiting: set[int] = set()
        self.running: set[int] = set()
        self.resting: set[int] = set()
        self.beside: set[int] = set()
        self.ended: set[int] = set()

    def may_start(self, beside: bool) -> set[int]:
        firsts = {min(of_key) for key in "abc" if (of_key := [item for item in self.waiting if self.key_of[item] == key])}
        busy = {self.key_of[item] for item in self.running}
        return {n for n in firsts - self.resting if self.key_of[n] not in busy and (n in self.beside) is beside}

    @rule(number=st.integers(0, 99), key=KEYS, beside=st.booleans())
    def offer(self, number: int, key: str, beside: bool) -> None:
        if number not in self.key_of:
            self.key_of[number] = key
            self._offer(number, beside, resting=False)

    def _offer(self, number: int, beside: bool, resting: bool) -> None:
        self.lanes.offer(self.key_of[number], (number // 10, number % 10), number, beside=beside, resting=resting)
        self.waiting.add(number)
        (self.resting.add if resting else self.resting.discard)(number)
        (self.beside.add if beside else self.beside.discard)(number)

    @rule(beside=st.booleans())
    def take(self, beside: bool) -> None:
        taken = self.lanes.take_beside() if beside else self.lanes.take()
        if taken is None:
            assert self.lanes.closed or not self.may_start(beside)
            return
        assert not self.lanes.closed
        assert taken in self.may_start(beside)
        self.waiting.discard(taken)
        self.running.add(taken)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), beside=st.booleans(), resting=st.booleans())
    def end_or_stay(self, data: st.DataObject, beside: bool, resting: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(number)
        self.lanes.end(self.key_of[number])
        if resting or beside:
            self._offer(number, beside, resting)
        else:
            self.ended.add(number)

    @precondition(lambda self: self.resting)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.resting)))
        self.resting.discard(number)
        self.lanes.wake(self.key_of[number], number)

    @rule(number=st.integers(0, 99), key=KEYS)
    def wake_what_does_not_rest(self, number: int, key: str) -> None:
        if number not in self.resting:
            self.lanes.wake(key, number)

    @rule(closed=st.booleans())
    def close_or_open(self, closed: bool) -> None:
        self.lanes.closed = closed

    @rule()
    def let_all_go(self) -> None:
        assert sorted(self.waiting) == sorted(self.lanes.let_all_go())
        self.resting.clear()
        self.beside |= self.waiting

    @rule(number=st.integers(0, 99), key=KEYS)
    def look_for_earlier_ones(self, number: int, key: str) -> None:
        earlier = any(self.key_of[item] == key for item in self.running)
        earlier |= any(self.key_of[item] == key and item < number for item in self.waiting)

        assert earlier is self.lanes.has_earlier(key, (number // 10, number % 10))

    @rule(key=KEYS)
    def refuse_to_end_what_does_not_run(self, key: str) -> None:
        if key not in {self.key_of[item] for item in self.running}:
            with pytest.raises(ValueError, match="runs"):
                self.lanes.end(key)

    @invariant()
    def nothing_is_lost_and_one_of_a_key_runs(self) -> None:
        assert len(self.waiting) == self.lanes.waiting
        assert len(self.may_start(False)) == self.lanes.ready
        assert len(self.waiting) - len(self.may_start(False)) - len(self.may_start(True)) == self.lanes.held_up
        assert len(self.running) == len({self.key_of[item] for item in self.running})
        assert set(self.key_of) == self.waiting | self.running | self.ended


TestKeyedLanes = KeyedLanesMachine.TestCase


def test_the_key_that_has_been_ready_for_longest_comes_first():
    """A key with many entries takes its turn among the others."""
    lanes: KeyedLanes[str] = KeyedLanes()
    for number, key in enumerate("aaab"):
        lanes.offer(key, (number, 0), f"{key}{number}")

    first, second = lanes.take(), lanes.take()
    lanes.end("a")
    lanes.offer("c", (9, 0), "c9")
    order = [first, second, lanes.take(), lanes.take(), lanes.take()]

    assert ["a0", "b3", "a1", "c9", None] == order


def test_an_earlier_entry_that_comes_late_goes_before_one_that_rests():
    """Its own time is not waited for, and the later one keeps its rest."""
    lanes: KeyedLanes[str] = KeyedLanes()
    lanes.offer("a", (5, 0), "later", resting=True)
    lanes.offer("a", (1, 0), "earlier")

    assert ("earlier", None) == (lanes.take(), lanes.take())
    lanes.end("a")
    assert lanes.take() is None
    lanes.wake("a", "later")
    assert "later" == lanes.take()
