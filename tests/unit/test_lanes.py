"""Who may start: against a model that any mistake of the real thing would contradict."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamworker.worker.lanes import Lanes

NAMES = ("a", "b", "c")


class LanesMachine(RuleBasedStateMachine):
    """Offers, starts and ends numbered items in any order; the model is a list of what waits, and what runs."""

    @initialize(limits=st.fixed_dictionaries({name: st.integers(1, 3) for name in NAMES}))
    def begin(self, limits: dict[str, int]) -> None:
        self.limits = limits
        self.lanes: Lanes[int] = Lanes(limits)
        self.waiting: dict[str, list[int]] = {name: [] for name in NAMES}
        self.running: Counter[str] = Counter()
        self.in_lots: Counter[str] = Counter()
        self.number = 0

    @rule(name=st.sampled_from(NAMES))
    def offer(self, name: str) -> None:
        self.number += 1
        self.lanes.offer(name, self.number)
        self.waiting[name].append(self.number)

    @rule(name=st.sampled_from(NAMES), items=st.integers(1, 5))
    def enter_lot(self, name: str, items: int) -> None:
        may = self.running[name] < self.limits[name] and not self.waiting[name]
        assert may is self.lanes.enter_lot(name, items)
        self.in_lots[name] += items if may else 0

    @precondition(lambda self: self.in_lots.total() > 0)
    @rule(data=st.data(), goes=st.sampled_from(["ended", "lane", "line"]))
    def leave_lot(self, data: st.DataObject, goes: str) -> None:
        name = data.draw(st.sampled_from(sorted(name for name in NAMES if self.in_lots[name])))
        if goes == "ended":
            self.lanes.leave_lot(1)
        elif goes == "line":
            self.number += 1
            self.lanes.leave_lot_for_line(name, self.number)
            self.waiting[name].append(self.number)
        elif self.lanes.has_place(name):
            self.lanes.leave_lot_for_lane(name)
            self.running[name] += 1
        else:
            return
        self.in_lots[name] -= 1

    @rule()
    def start_all(self) -> None:
        for name, item in self.lanes.ready():
            self._started(name, item)

        for name in NAMES:
            assert not self.waiting[name] or self.limits[name] == self.running[name]

    @rule()
    def start_one_and_think_again(self) -> None:
        started = next(self.lanes.ready(), None)
        if started is None:
            assert all(not self.waiting[name] or self.limits[name] == self.running[name] for name in NAMES)
        else:
            self._started(*started)

    @precondition(lambda self: self.running.total() > 0)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(name for name in NAMES if self.running[name])))
        self.lanes.release(name)
        self.running[name] -= 1

    @rule(data=st.data())
    def refuse_to_release_what_does_not_run(self, data: st.DataObject) -> None:
        for name in NAMES:
            if not self.running[name]:
                with pytest.raises(ValueError, match="nothing running"):
                    self.lanes.release(name)

    @rule()
    def clear(self) -> None:
        assert [(name, item) for name in NAMES for item in self.waiting[name]] == sorted(self.lanes.clear())
        self.waiting = {name: [] for name in NAMES}

    @invariant()
    def room_is_the_limits_less_what_is_held(self) -> None:
        held = self.running.total() + self.in_lots.total() + sum(map(len, self.waiting.values()))
        assert held == self.lanes.held
        assert max(0, sum(self.limits.values()) - held) == self.lanes.room

    def _started(self, name: str, item: int) -> None:
        """The oldest of its lane, and never above the lane's limit."""
        assert self.waiting[name].pop(0) == item
        self.running[name] += 1
        assert self.running[name] <= self.limits[name]


TestLanes = LanesMachine.TestCase


def test_a_full_lane_does_not_hold_up_another() -> None:
    """Each has its own limit."""
    lanes: Lanes[str] = Lanes({"slow": 1, "fast": 2})
    for item in ("s1", "s2"):
        lanes.offer("slow", item)
    for item in ("f1", "f2", "f3"):
        lanes.offer("fast", item)

    started = list(lanes.ready())

    assert [("slow", "s1"), ("fast", "f1"), ("fast", "f2")] == started


def test_an_item_that_ends_lets_the_next_one_start() -> None:
    """One ends, one starts."""
    lanes: Lanes[str] = Lanes({"only": 1})
    lanes.offer("only", "first")
    lanes.offer("only", "second")
    list(lanes.ready())

    lanes.release("only")

    assert [("only", "second")] == list(lanes.ready())


def test_what_is_cleared_does_not_count_as_running() -> None:
    """Only what was started has to be released."""
    lanes: Lanes[str] = Lanes({"only": 1})
    lanes.offer("only", "first")

    lanes.clear()

    assert 0 == lanes.held
    assert [] == list(lanes.ready())


class Permitting:
    """Lets so many through, and no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def admit(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        return True

    @property
    def room(self) -> int:
        return self.left

    @property
    def is_shut(self) -> bool:
        return not self.left


def test_a_gate_holds_up_its_lane_and_no_other() -> None:
    """Though there are free places; each start takes one leave, when it waited, when it need not, and when another one has ended."""
    lanes: Lanes[str] = Lanes({"gated": 5, "free": 5})
    gate = Permitting(2)
    lanes.gates = {"gated": gate}

    assert (2, 5) == (lanes.free("gated"), lanes.free("free"))
    assert [True, True, False] == [lanes.begin("gated") for _ in range(3)]
    assert lanes.begin("free")
    lanes.offer("gated", "third")
    assert [] == list(lanes.ready())
    assert lanes.follow("gated") is None

    gate.left = 1
    assert [("gated", "third")] == list(lanes.ready())
    lanes.offer("gated", "fourth")
    gate.left = 1
    assert "fourth" == lanes.follow("gated")
    assert (2, 3) == (5 - lanes.idle("gated"), lanes.held)


def test_what_waits_in_one_lane_is_taken_out_alone() -> None:
    """The others keep theirs."""
    lanes: Lanes[str] = Lanes({"a": 1, "b": 1})
    for lane in ("a", "b"):
        lanes.offer(lane, lane)

    assert ["a"] == lanes.clear_one("a")
    assert (0, 1, 1) == (lanes.waiting("a"), lanes.waiting("b"), lanes.held)
