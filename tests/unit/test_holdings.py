"""What is held, singly or in lots: against a model that knows of no lots."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streamworker.delivery import Lease
from streamworker.worker.holdings import Holdings
from streamworker.worker.lots import Done, Lot
from tests.factories import a_handler


def a_lot(first: int, entries: int, renewed_at: float = 0.0) -> Lot:
    """New entries of `orders`, numbered from there on."""
    ids = [b"%d-0" % number for number in range(first, first + entries)]
    return Lot("orders", "billing", "me", a_handler(), [[entry_id, [b"a", b"b"]] for entry_id in ids], renewed_at)


class HoldingsMachine(RuleBasedStateMachine):
    """Takes lots, and lets their entries end in any order and way; the model is the set of ids that are held."""

    @initialize()
    def begin(self) -> None:
        self.holdings = Holdings()
        self.held: set[str] = set()
        self.lots: list[Lot] = []
        self.leases: list[Lease] = []
        self.done: list[Done] = []
        self.number = 0

    @rule(entries=st.integers(1, 6))
    def take_lot(self, entries: int) -> None:
        lot = a_lot(self.number, entries, float(self.number))
        self.held |= {entry[0].decode() for entry in lot.entries}
        self.number += entries
        self.lots.append(lot)
        self.holdings.hold_lot(lot)

    @precondition(lambda self: any(lot.has_more for lot in self.lots))
    @rule(data=st.data())
    def end_some(self, data: st.DataObject) -> None:
        lot = data.draw(st.sampled_from([lot for lot in self.lots if lot.has_more]))
        first, lot.at = lot.at, data.draw(st.integers(lot.at + 1, len(lot.entries)))
        lot.end(first, lot.at)
        self.done.append(Done(lot, first, lot.at))

    @precondition(lambda self: any(lot.has_more for lot in self.lots))
    @rule(data=st.data())
    def take_one_out(self, data: st.DataObject) -> None:
        lot = data.draw(st.sampled_from([lot for lot in self.lots if lot.has_more]))
        entry_id = lot.entries[lot.at][0].decode()
        lease = self.holdings.take_out(lot, lot.at)
        lot.at += 1
        assert (entry_id, True) == (lease.entry_id, self.holdings.find("orders", entry_id) is lease)
        self.leases.append(lease)

    @precondition(lambda self: bool(self.done))
    @rule()
    def acknowledge(self) -> None:
        self.held -= {entry_id.decode() for done in self.done for entry_id in done.ids}
        self.holdings.drop_done(self.done)
        self.done = []

    @precondition(lambda self: bool(self.leases))
    @rule(data=st.data())
    def drop_one(self, data: st.DataObject) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.holdings.drop([lease])
        self.held.discard(lease.entry_id)

    @rule(time=st.integers(0, 50))
    def look_for_old_ones(self, time: int) -> None:
        assert all(lease.renewed_at < time for lease in self.holdings.older_than(time))

    @precondition(lambda self: bool(self.held))
    @rule(data=st.data())
    def take_over_from_ourselves(self, data: st.DataObject) -> None:
        """The same entry comes again, under another lease: it is held already."""
        entry_id = data.draw(st.sampled_from(sorted(self.held)))
        lease = Lease("orders", entry_id, "me", 2, 1.0)
        assert lease is not self.holdings.hold(lease)

    @invariant()
    def each_entry_is_held_once(self) -> None:
        ids = self.holdings.entry_ids("orders")
        assert sorted(self.held) == sorted(ids)
        assert len(self.held) == self.holdings.count


TestHoldings = HoldingsMachine.TestCase


def test_an_entry_of_a_lot_that_was_lost_is_lost_when_it_is_taken_out() -> None:
    """So that it is not run under a lease of somebody else."""
    holdings, lot = Holdings(), a_lot(1, 2)
    holdings.hold_lot(lot)
    lost = holdings.lose(holdings.older_than(1.0))

    assert ["1-0", "2-0"] == [lease.entry_id for lease in lost]
    assert holdings.take_out(lot, 0) is lost[0]
    assert holdings.lost_ids("orders") == ["1-0", "2-0"]


def test_what_is_abandoned_is_held_no_longer_but_for_what_was_taken_out() -> None:
    """Nobody would settle it, so its leases have to run out."""
    holdings, lot = Holdings(), a_lot(1, 4)
    holdings.hold_lot(lot)
    holdings.take_out(lot, 1)
    lot.end(0, 1)
    holdings.abandon(lot)
    holdings.drop_done([Done(lot, 0, 1)])

    assert ["2-0"] == holdings.entry_ids("orders")
    assert 1 == holdings.count
