"""Which entries are held here, each under its lease or many as a lot; asked and changed from several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from streamworker.delivery import Lease
from streamworker.worker.lots import Done, Lot


class Holdings:
    """What one consumer holds."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Lease] = {}
        self._lots: dict[Lot, None] = {}
        self._lock = threading.Lock()

    def hold(self, lease: Lease) -> Lease:
        """Keep this lease until it is dropped; where the entry is held already, answers under which, and changes nothing."""
        with self._lock:
            if self._lots:
                self._break_up_where(lease.key, lease.entry_id)
            return self._held.setdefault((lease.key, lease.entry_id), lease)

    def drop(self, leases: Iterable[Lease]) -> None:
        """Stop keeping them: they were settled, or are not ours."""
        held = self._held
        with self._lock:
            for lease in leases:
                place = (lease.key, lease.entry_id)
                # By now the same entry may be held again, under a newer lease.
                if held.get(place) is lease:
                    del held[place]

    def hold_lot(self, lot: Lot) -> None:
        """Keep a lot, of whose entries none is held."""
        with self._lock:
            self._lots[lot] = None

    def take_out(self, lot: Lot, position: int) -> Lease:
        """Give one entry of a lot, which has not ended well, a lease of its own."""
        with self._lock:
            entry_id = lot.entries[position][0]
            lot.entries[position] = None
            if lot.leases is not None:
                return lot.leases[entry_id]
            lease = lot.lease_of(entry_id)
            self._held[lease.key, lease.entry_id] = lease
            self._let_go(lot, 1)
            return lease

    def drop_done(self, done: Sequence[Done]) -> None:
        """Stop keeping what was acknowledged."""
        with self._lock:
            for lot, first, stop in done:
                ids, lot.entries[first:stop] = lot.entries[first:stop], [None] * (stop - first)
                if lot.leases is None:
                    self._let_go(lot, stop - first)
                    continue
                for lease in map(lot.leases.__getitem__, ids):
                    if self._held.get((lease.key, lease.entry_id)) is lease:
                        del self._held[lease.key, lease.entry_id]

    def abandon(self, lot: Lot) -> None:
        """Stop keeping all that the lot still holds, whatever has become of it."""
        with self._lock:
            if lot in self._lots:
                self._break_up(lot)
            for lease in [] if lot.leases is None else lot.leases.values():
                if any(entry is not None and _id_of(entry) == lease.entry_id.encode() for entry in lot.entries):
                    self._held.pop((lease.key, lease.entry_id), None)

    def find(self, key: str, entry_id: str) -> Lease | None:
        """The lease of an entry that we hold."""
        with self._lock:
            self._break_up_where(key, entry_id)
            return self._held.get((key, entry_id))

    def entry_ids(self, key: str) -> list[str]:
        """What we hold of this stream."""
        with self._lock:
            in_lots = [_id_of(entry).decode() for lot in self._lots if lot.key == key for entry in lot.entries if entry is not None]
            return [entry_id for held_key, entry_id in self._held if held_key == key] + in_lots

    def lost_ids(self, key: str) -> list[str]:
        """Of this stream, what we hold though it is lost: its handler has not ended yet."""
        with self._lock:
            return [lease.entry_id for lease in self._held.values() if lease.key == key and lease.lost]

    @property
    def count(self) -> int:
        """How many entries we hold."""
        with self._lock:
            return len(self._held) + sum(lot.left for lot in self._lots)

    def older_than(self, time: float) -> list[Lease]:
        """The leases that were renewed before that time (monotonic seconds); entries of a lot have one each from then on."""
        with self._lock:
            for lot in [lot for lot in self._lots if lot.renewed_at < time]:
                self._break_up(lot)
            return [lease for lease in self._held.values() if lease.renewed_at < time]

    def lose(self, leases: Iterable[Lease]) -> list[Lease]:
        """Mark them lost; answers those that were held, and not lost before."""
        with self._lock:
            lost = [lease for lease in leases if self._held.get((lease.key, lease.entry_id)) is lease and not lease.lost]
            for lease in lost:
                lease.lost = True
        return lost

    def _break_up_where(self, key: str, entry_id: str) -> None:
        raw = entry_id.encode()
        for lot in [lot for lot in self._lots if lot.key == key]:
            if any(entry is not None and _id_of(entry) == raw for entry in lot.entries):
                self._break_up(lot)

    def _break_up(self, lot: Lot) -> None:
        del self._lots[lot]
        ids = [_id_of(entry) for entry in list(lot.entries) if entry is not None]
        lot.leases = {entry_id: lot.lease_of(entry_id) for entry_id in ids}
        for lease in lot.leases.values():
            self._held[lease.key, lease.entry_id] = lease

    def _let_go(self, lot: Lot, entries: int) -> None:
        lot.left -= entries
        if lot.left == 0:
            del self._lots[lot]


def _id_of(entry: bytes | list[bytes]) -> bytes:
    return entry if isinstance(entry, bytes) else entry[0]
