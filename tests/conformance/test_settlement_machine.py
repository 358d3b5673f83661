"""The settlement steps against a model: Hypothesis makes up stories of workers, accidents and lost replies, and looks at everything after
each sentence of them.

Two groups share one stream; `ann`, `bob` and `cyd` work in one, `dan` in the other. No story waits: leases last half an hour, and one
that shall run out is made idle on the server (XCLAIM … IDLE).

Each step's answer must be the model's, and so must every place on the server, with owner, delivery count and whether the lease has run
out. Independently of the model, every entry that nobody deleted is in exactly one place until it is finished, and each story ends with a
drain by a last worker, after which nothing is left and nothing is missing. A failing story is told in plain sentences (THE STORY), as
short as Hypothesis can make it; the `turn(…)` lines before it are what to call to tell it again.

`STREAMWORKER_STORIES=2000x120 pytest tests/conformance/test_settlement_machine.py` tells two thousand stories of up to 120 steps on each
server, other ones each time. Without it they are few, and the same each time, so that what fails has to do with the change at hand; to
find what nobody thought of is the long run's part.

What fakeredis does otherwise than a server, so that here less is asked of it:

* its TCP server ends the connection with every error reply, so the fake runs inside this process;
* XREADGROUP of a key of another type breaks it, and of a missing one answers ERR instead of NOGROUP: the script of `fill` may give any
  error there, and the plain `read` is left out while the retry stream is lost or spoiled;
* XAUTOCLAIM leaves entries alone that were deleted while pending, until they are idle for long enough (`Trimmed.DROPPED_WHEN_IDLE`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from streamworker.codecs.dead_letters import Obituary, write_dead_letter
from streamworker.codecs.envelope import Envelope, pack, unpack
from streamworker.delivery import Delivery, Fields, History, Lease, Outgoing, Reason
from streamworker.errors import ServerError
from streamworker.streams import dead_letters, groups, publishing, reading, scripts, settling
from streamworker.streams.connections import Endpoint
from streamworker.streams.keys import Removal
from streamworker.streams.reading import Page, Room, Taken, turn_of
from streamworker.streams.scripts import Script
from streamworker.worker.bindings import receive
from tests.conformance import taking
from tests.conformance.settlement_model import FAR, NOW, STREAM, Got, Group, Model, Refused
from tests.conformance.settlement_world import LEASE_MS, SOME_WAY_OFF_MS, FakeEndpoint, World, aside, world_of
from tests.factories import a_binding

STAFF = {"ann": "billing", "bob": "billing", "cyd": "billing", "dan": "audit"}
MAX_CRASHES = 3
A_LIMIT = 10_000

_wanted = os.environ.get("STREAMWORKER_STORIES")
STORIES, STEPS = map(int, _wanted.split("x")) if _wanted else (50, 40)
TELLING = settings(
    max_examples=STORIES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=_wanted is None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Worker:
    """A worker process as far as its leases go: what it holds, and what it once held and may still finish too late."""

    name: str
    group: Group
    held: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    past: list[Delivery] = field(default_factory=list)
    alone: Delivery | None = None
    is_dead: bool = False

    def drop(self, delivery: Delivery) -> None:
        place = delivery.lease.key, delivery.lease.entry_id
        if self.held.get(place) is delivery:
            del self.held[place]
            self.past.append(delivery)
        if self.alone is delivery:
            self.alone = None


GROUPS = sorted(set(STAFF.values()))
BINDINGS = {group: a_binding(STREAM, group=group) for group in GROUPS}
VERDICTS = ["ack", "commit", "retry", "release", "dead letter"]
LIFE = ["take", "renew", "run alone", "lapse", "sweep", "die", "start", "doubt", "promote", "come due", "replay"]
ACCIDENTS = ["delete", "trim", "lose", "spoil", "mend", "forget", "flush", "sweep too late"]
COMMON = ["take", *3 * ["take over"], "lapse", "sweep", *2 * ["run alone"], "die", *3 * ["renew"], "doubt", "spoil", "mend"]
TURNS = ["nothing", "publish", *2 * VERDICTS, *2 * LIFE, *ACCIDENTS, *COMMON]
"""What can happen; what stands here more than once happens more often. A turn that a story does not need becomes `nothing`."""
HOWS = [*5 * [""], "late", "late", "again", "trimmed between", "lost"]
"""Late: by somebody who has lost it. Again: as after a lost reply; and the entry may have been trimmed between. Lost: what it gives is
never heard of."""
LOSSES = ["due", "parked", "retry", "one of due", "one of parked"]
SPOILABLE = ["letters", "retry", "dead_letters", "due", "parked", "invoices"]


class SettlementMachine(RuleBasedStateMachine):
    """Stories of one stream on `world`."""

    world: World
    turns: Sequence[str] = TURNS
    removal: Removal = Removal.NEVER
    xackdel: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(GROUPS, self.world.trimmed, self.removal)
        self.staff = {name: Worker(name, self.model.groups[group]) for name, group in STAFF.items()}
        self.notes: dict[str, str] = {}
        self.ended: set[tuple[str, str]] = set()
        self.excused: set[tuple[str, str]] = set()
        """What somebody deleted, or what was trimmed away undelivered or in somebody's hands: nobody promises anything about it."""
        self.unfenced: set[str] = set()
        """What was trimmed away at all: who finishes it late cannot know whether somebody else has acknowledged it."""
        self.acked: set[tuple[str, str]] = set()
        """What was acknowledged and nothing else, which nobody remembers."""
        self.trims_between = False
        self.deaths_alone: dict[tuple[str, str], int] = {}
        self.commits: list[tuple[str, str]] = []
        self.story: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.world.call("FLUSHALL")
        for group in self.model.groups.values():
            for key in (STREAM, group.keys.retry):
                self.world.do(groups.create(self.world.link, key, group.name, "0"))

    # ---- the one rule -----------------------------------------------------------------------------------------------------

    @rule(
        what=st.runner().flatmap(lambda machine: st.sampled_from(machine.turns)),
        pick=st.integers(0, 11),
        how=st.sampled_from(HOWS),
        flag=st.booleans(),
    )
    def turn(self, what: str, pick: int, how: str, flag: bool) -> None:
        """One rule only: Hypothesis leaves some rules out of each story, and a story without reading is none."""
        late, lost = how == "late", how == "lost"
        again, self.trims_between = how in ("again", "trimmed between"), how == "trimmed between"
        size = 1 + pick % 4
        group = self.model.groups[GROUPS[pick % len(GROUPS)]]
        other = pick // len(GROUPS)
        turns: dict[str, Callable[[], None]] = {
            "nothing": lambda: None,
            "publish": lambda: self._publish(size),
            "take": lambda: self._take(pick, size, waits=flag, lost=lost),
            "run alone": lambda: self._run_a_suspect_alone(pick, late=late, again=again, far=flag),
            "lapse": lambda: self._lapse_somewhere(pick, everything=flag),
            "take over": lambda: self._take_over(pick, gives_up=flag),
            "sweep": lambda: self._sweep_somewhere(pick, (1, 3, 100, 100)[size - 1], lost=lost),
            "die": lambda: self._die_somewhere(pick, comes_back=flag),
            "start": lambda: self._start_somewhere(pick),
            "doubt": lambda: self._doubt_somewhere(pick),
            "promote": lambda: self._promote(group, 1 if flag else 100, again=again),
            "come due": lambda: self._let_come_due(group),
            "replay": lambda: self._replay(group, other, again=again),
            "delete": lambda: self._delete(pick),
            "trim": lambda: self._trim_to(size + pick),
            "lose": lambda: self._lose_key(group, LOSSES[other % len(LOSSES)]),
            "spoil": lambda: self._spoil(group, SPOILABLE[other % len(SPOILABLE)]),
            "mend": self._mend_all,
            "forget": lambda: self._forget_consumer(sorted(STAFF)[pick % len(STAFF)], in_retry=flag, again=again),
            "flush": self._flush_scripts,
            "sweep too late": lambda: self._sweep_too_late(group),
        }
        turns.get(what, lambda: self._with_delivery(what, pick, late=late, again=again, flag=flag))()

    # ---- who and what -----------------------------------------------------------------------------------------------------

    def _publish(self, count: int) -> None:
        for _ in range(count):
            name = f"e{len(self.notes) + 1}"
            fields = [b"note", name.encode()]
            entry_id = self.world.do(publishing.add(self.world.link, Outgoing(STREAM, fields)))
            self.notes[entry_id] = name
            self.model.publish(entry_id, fields)
        self._tell(f"{count} published, up to {name}")

    def _take(self, pick: int, room: int, *, waits: bool, lost: bool) -> None:
        takers = self._takers()
        hungry = [worker for worker in takers if self._has_news(worker.group)]
        if takers and not hungry:
            self._publish(room)
            hungry = takers
        if hungry:
            worker = hungry[pick % len(hungry)]
            if waits and not (self.world.is_fake and self.model.refusal(worker.group)):
                self._read(worker, room, lost=lost)
            else:
                self._fill(worker, room, lost=lost)
            if lost and waits:
                self._compare(worker, died=False)

    def _with_delivery(self, what: str, pick: int, *, late: bool, again: bool, flag: bool) -> None:
        if not late and not any(worker.held for worker in self.staff.values()):
            self._take(pick, 2, waits=False, lost=False)
        pool = self._late_ones() if late else [(worker, one) for worker in self.staff.values() for one in worker.held.values()]
        if not pool:
            return
        worker, delivery = pool[pick % len(pool)]
        match what:
            case "ack":
                self._ack(worker, delivery, late=late, again=again, many=flag)
            case "commit":
                self._commit(worker, delivery, ["invoices", "letters"] if flag else ["invoices"], again=again)
            case "retry":
                self._retry_later(worker, delivery, again=again, far=flag)
            case "release":
                self._release(worker, delivery, again=again)
            case "dead letter":
                self._dead_letter(worker, delivery, again=again, keep_last=A_LIMIT if flag else None)
            case _:
                self._renew(worker, delivery, only=late)

    def _late_ones(self) -> list[tuple[Worker, Delivery]]:
        """What somebody still has in memory although it has lost or settled it; what another lease is on by now, if there is any."""
        known = [(worker, one) for worker in self.staff.values() for one in (*worker.past, *worker.held.values())]
        contested = [
            (worker, one)
            for worker, one in known
            if (one.lease.key, one.lease.entry_id) in worker.group.pending and not self._has_it(worker, one)
        ]
        return contested or [(worker, one) for worker in self.staff.values() for one in worker.past]

    def _has_it(self, worker: Worker, delivery: Delivery) -> bool:
        """Whether this very lease is on the entry."""
        pending = worker.group.pending.get((delivery.lease.key, delivery.lease.entry_id))
        return pending is not None and (pending.owner, turn_of(pending.count)) == (worker.name, delivery.lease.turn)

    def _run_a_suspect_alone(self, pick: int, *, late: bool, again: bool, far: bool) -> None:
        late_ones = self._late_ones() if late else []
        if late_ones:
            worker, delivery = late_ones[pick % len(late_ones)]
            is_pending = (delivery.lease.key, delivery.lease.entry_id) in worker.group.pending
            step = 3 if far and is_pending and not self._has_it(worker, delivery) else 1
            if self._recount(worker, delivery, delivery.lease.turn + step, again=again):
                self._count_death(worker.group, delivery.id)  # it looks as if it ran alone
            return
        suspects = [
            (worker, one)
            for worker in self.staff.values()
            for one in worker.held.values()
            if one.history.suspect and one is not worker.alone
        ]
        if suspects:
            self._run_alone(*suspects[pick % len(suspects)], again=again)
        else:
            self._lapse_somewhere(pick, everything=True)
            self._sweep_somewhere(pick, 100, lost=False)

    def _lapse_somewhere(self, pick: int, *, everything: bool) -> None:
        """Leases of somebody run out, all or one: it is dead, or stands still."""
        places = [(group, place) for group in self.model.groups.values() for place in group.pending]
        if not places:
            return
        group, chosen = places[pick % len(places)]
        owner = group.pending[chosen].owner
        for key, entry_id in [place for place, one in group.pending.items() if one.owner == owner] if everything else [chosen]:
            if key not in self.model.spoiled:
                self._tell(f"the lease of {owner} on {self._name_of(group, key, entry_id)} runs out")
                self._lapse(group, key, entry_id)

    def _take_over(self, pick: int, *, gives_up: bool) -> None:
        """Somebody stands still for longer than a lease, and lives on. It may notice that and give the entry up; then it gets it back."""
        held = [(worker, one) for worker in self.staff.values() for one in worker.held.values()]
        if not held:
            return
        worker, delivery = held[pick % len(held)]
        if gives_up and delivery is worker.alone:
            self._count_death(worker.group, delivery.id)  # nobody can tell it from a death
        if gives_up:
            worker.drop(delivery)
        others = [taker for taker in self._takers() if taker.group is worker.group and taker is not worker]
        takers = others[pick % len(others) :][:1] if others else []
        for taker in [*takers, worker] if gives_up else takers:
            self._lapse_and_sweep(delivery, taker)

    def _lapse_and_sweep(self, delivery: Delivery, taker: Worker) -> None:
        place = delivery.lease.key, delivery.lease.entry_id
        if place in taker.group.pending and place[0] not in self.model.spoiled and taker in self._takers():
            owner = taker.group.pending[place].owner
            self._tell(f"{owner} stands still, and its lease on {self._name_of(taker.group, *place)} runs out")
            self._lapse(taker.group, *place)
            self._sweep(taker, 100, lost=False)

    def _sweep_somewhere(self, pick: int, size: int, *, lost: bool) -> None:
        takers = self._takers()
        eager = [worker for worker in takers if any(pending.lapsed for pending in worker.group.pending.values())] or takers
        if eager:
            self._sweep(eager[pick % len(eager)], size, lost=lost)

    def _die_somewhere(self, pick: int, *, comes_back: bool) -> None:
        alive = [worker for worker in self.staff.values() if not worker.is_dead]
        busy = [worker for worker in alive if worker.alone is not None] or [worker for worker in alive if worker.held]
        if busy:
            worker = busy[pick % len(busy)]
            self._die(worker)
            if comes_back:
                self._start(worker)

    def _start_somewhere(self, pick: int) -> None:
        dead = [worker for worker in self.staff.values() if worker.is_dead]
        if dead:
            self._start(dead[pick % len(dead)])

    def _doubt_somewhere(self, pick: int) -> None:
        takers = self._takers()
        if takers:
            self._compare(takers[pick % len(takers)], died=False)

    def _delete(self, pick: int) -> None:
        entries = list(self.model.entries)
        if entries:
            doomed = entries[-1 - pick % len(entries)]
            self._delete_one(doomed)

    def _delete_one(self, doomed: str) -> None:
        self._tell(f"somebody deletes {self.notes[doomed]}")
        self.world.call("XDEL", STREAM, doomed)
        self._trim(doomed)

    def _trim_to(self, length: int) -> None:
        entries = list(self.model.entries)
        self._tell(f"somebody trims the stream to {length}")
        self.world.call("XTRIM", STREAM, "MAXLEN", length)
        for doomed in entries[: max(0, len(entries) - length)]:
            self._trim(doomed)

    def _flush_scripts(self) -> None:
        self._tell("the server forgets the scripts")
        self.world.call("SCRIPT", "FLUSH")

    def _mend_all(self) -> None:
        for spoiled in sorted(self.model.spoiled):
            self._mend(spoiled)
        for group in self.model.groups.values():
            self._make_group_again(group)

    def _forget_consumer(self, name: str, *, in_retry: bool, again: bool) -> None:
        group = self.staff[name].group
        key = group.keys.retry if in_retry else STREAM
        self._step(
            f"{name} is forgotten on {key} unless it has anything",
            lambda: self.model.forget_consumer(group, key, name),
            lambda: groups.forget_consumer(self.world.link, key, group.name, name),
            again=again,
        )

    def _sweep_too_late(self, group: Group) -> None:
        options: Any = {"lease_ms": 0, "cursor": "0-0", "count": 10, "most_bytes": 2**30, "not_after_ms": 1}
        page, _ = self.world.do(reading.reclaim(self.world.link, STREAM, group.name, "ann", **options))
        assert page is None, "a sweep after its time takes nothing"

    # ---- taking -----------------------------------------------------------------------------------------------------------

    def _fill(self, worker: Worker, room: int, *, lost: bool) -> None:
        rooms = [Room((worker.group.keys.retry, STREAM), room)]
        expected, unreadable = self.model.read(worker.group, worker.name, room)
        fresh, refused = self.world.do(
            reading.fill(self.world.link, worker.group.name, worker.name, rooms, most_bytes=2**30, expected_bytes=100)
        )
        taken = [one for of_key in fresh for one in of_key.as_taken()]
        self._tell(f"{worker.name} reads {self._names(taken)}{_unheard(lost)}, refused: {sorted(refused)}")
        assert unreadable == set(refused)
        for error in [] if self.world.is_fake else refused.values():
            assert self.model.refusal(worker.group) == error.code
        self._take_in(worker, expected, taken, lost=lost)

    def _read(self, worker: Worker, count: int, *, lost: bool) -> None:
        keys = [worker.group.keys.retry, STREAM]
        act = taking.read(self.world.link, worker.group.name, worker.name, keys, count=count, block_ms=1_000)
        refusal = self.model.refusal(worker.group)
        if refusal is not None:
            with pytest.raises(ServerError) as refused:
                self.world.do(act)
            self._tell(f"{worker.name} waits and may not read: {refused.value.code}")
            assert refusal == refused.value.code
            return
        expected, _ = self.model.read(worker.group, worker.name, count, of_each=True)
        taken = [one for of_key in self.world.do(act) for one in of_key.as_taken()]
        self._tell(f"{worker.name} waits and reads {self._names(taken)}{_unheard(lost)}")
        self._take_in(worker, expected, taken, lost=lost)

    def _sweep(self, worker: Worker, size: int, *, lost: bool) -> None:
        for key in (worker.group.keys.retry, STREAM):
            holders = {place: pending.owner for place, pending in worker.group.pending.items()}
            answers = self._step(
                f"{worker.name} sweeps {key} by {size}{_unheard(lost)}",
                lambda key=key: self._as_told(*self.model.reclaim(worker.group, key, worker.name)),
                lambda key=key: self._reclaim(worker, key, size),
            )
            for got in answers[0] if isinstance(answers, tuple) else ():
                self._blame(holders[got[0], got[1]], worker, got)
            self._take_in_told(worker, answers, lost=lost)

    # ---- living and dying -------------------------------------------------------------------------------------------------

    def _die(self, worker: Worker) -> None:
        self._tell(f"{worker.name} dies{f' while {self._name(worker.alone)} runs alone' if worker.alone else ''}")
        if worker.alone is not None:
            self._count_death(worker.group, worker.alone.id)
        worker.held, worker.past, worker.alone, worker.is_dead = {}, [], None, True

    def _start(self, worker: Worker) -> None:
        """A new process of that name looks first at what the dead one had."""
        if self.model.refusal(worker.group) is None:
            worker.is_dead = False
            self._compare(worker, died=True)

    def _renew(self, worker: Worker, delivery: Delivery, *, only: bool) -> None:
        for key in (worker.group.keys.retry, STREAM):
            deliveries = [one for one in ([delivery] if only else worker.held.values()) if one.lease.key == key]
            leases = [delivery.lease for delivery in deliveries]
            if not leases:
                continue
            lost = self._step(
                f"{worker.name} renews {', '.join(map(self._name, deliveries))}",
                lambda leases=leases: self.model.renew(worker.group, leases),
                lambda leases=leases, key=key: settling.renew(
                    self.world.link, worker.group.name, leases, worker.group.keys.witnesses(key)
                ),
            )
            for one in deliveries:
                if isinstance(lost, set) and one.lease.entry_id in lost:
                    worker.drop(one)

    def _run_alone(self, worker: Worker, delivery: Delivery, *, again: bool) -> None:
        """A suspect waits until nothing else runs here, and then runs alone."""
        waiting = max(2, delivery.lease.turn + delivery.lease.turn % 2)
        if not self._recount(worker, delivery, waiting, again=again):
            return
        # Whatever else runs here ends before it.
        for other in [other for other in worker.held.values() if not other.history.suspect]:
            self._release(worker, other, again=False)
        is_free = worker.alone is None and all(other.history.suspect for other in worker.held.values())
        if is_free and self._recount(worker, delivery, waiting + 1, again=again):
            self._tell(f"{worker.name} runs {self._name(delivery)} alone")
            worker.alone = delivery

    # ---- verdicts ---------------------------------------------------------------------------------------------------------

    def _ack(self, worker: Worker, delivery: Delivery, *, late: bool, again: bool, many: bool) -> None:
        pool = worker.past if late else worker.held.values()
        others = [other for other in pool if other.lease.key == delivery.lease.key and not _is_poison(other)] if many else []
        deliveries = list({one.lease.entry_id: one for one in (delivery, *others)}.values())
        leases = [one.lease for one in deliveries]

        def expect() -> int:
            acked = self.model.ack(worker.group, leases)
            ended = {(worker.group.name, one.id) for one in deliveries if one.lease.entry_id in acked}
            self.ended |= ended
            self.acked |= ended
            return len(acked)

        acked = self._step(
            f"{worker.name} acks {', '.join(map(self._name, deliveries))}",
            expect,
            lambda: self._send_ack(worker.group.name, leases),
            again=again,
        )
        if isinstance(acked, int):
            for one in deliveries:
                worker.drop(one)

    async def _send_ack(self, group: str, leases: Sequence[Lease]) -> int:
        if self.removal is not Removal.WHEN_ACKED or leases[0].of_retry:
            return await settling.ack(self.world.link, group, leases)
        acked, self.xackdel = await settling.ack_and_delete(self.world.link, group, leases, xackdel=self.xackdel)
        return acked

    def _commit(self, worker: Worker, delivery: Delivery, targets: list[str], *, again: bool) -> None:
        body: Fields = [b"of", f"{worker.group.name}/{delivery.id}".encode()]

        def expect() -> bool:
            done = self.model.commit(worker.group, delivery.lease, [(target, body) for target in targets])
            if done:
                self.ended.add((worker.group.name, delivery.id))
                self.commits.append((worker.group.name, delivery.id))
            return done

        publishes = [Outgoing(target, body) for target in targets]
        self._settle(
            worker,
            delivery,
            f"commits {self._name(delivery)} to {' and '.join(targets)}",
            expect,
            lambda: settling.commit(self.world.link, worker.group.name, worker.group.keys, delivery.lease, publishes),
            again=again,
        )

    def _retry_later(self, worker: Worker, delivery: Delivery, *, again: bool, far: bool) -> None:
        group, history = worker.group, replace(delivery.history, attempt=delivery.attempt + 1, suspect=False)
        envelope = Envelope(delivery.id, history, delivery.fields)
        options: Any = {"delay_ms": 2 * SOME_WAY_OFF_MS if far else 0, "original_id": delivery.id, "envelope": pack(envelope)}
        self._settle(
            worker,
            delivery,
            f"puts {self._name(delivery)} aside {'for long' if far else 'for no time'}",
            lambda: self.model.retry_later(group, delivery.lease, envelope, FAR if far else NOW),
            lambda: settling.retry_later(self.world.link, group.name, group.keys, delivery.lease, **options),
            again=again,
        )

    def _release(self, worker: Worker, delivery: Delivery, *, again: bool) -> None:
        group, envelope = worker.group, Envelope(delivery.id, delivery.history, delivery.fields)
        self._settle(
            worker,
            delivery,
            f"releases {self._name(delivery)}",
            lambda: self.model.release(group, delivery.lease, envelope),
            lambda: settling.release(self.world.link, group.name, group.keys, delivery.lease, envelope=pack(envelope)),
            again=again,
        )

    def _replay(self, group: Group, pick: int, *, again: bool) -> None:
        if not group.dead:
            return
        letter = group.dead[pick % len(group.dead)]
        assert letter.id is not None
        letter_id, original_id = letter.id, letter.original_id
        envelope = Envelope(original_id, History(), [b"note", self.notes[original_id].encode()])
        self._step(
            f"somebody replays {self.notes[original_id]} in {group.name}",
            lambda: self.model.replay(group, letter_id, envelope),
            lambda: dead_letters.replay(self.world.link, group.keys, letter_id, pack(envelope)),
            again=again,
        )

    # ---- accidents --------------------------------------------------------------------------------------------------------

    def _lose_key(self, group: Group, what: str) -> None:
        key = getattr(group.keys, what.removeprefix("one of "))
        if key in self.model.spoiled:
            return
        self._tell(f"somebody deletes {what} of {group.name}")
        before = self.model.originals_alive(group)
        if what == "retry":
            self.world.call("DEL", key)
            self.model.lose_retry_stream(group)
        else:
            self._lose_members(group, key, what)
        self.excused |= {(group.name, lost) for lost in before - self.model.originals_alive(group)}

    def _spoil(self, group: Group, what: str) -> None:
        """A key of ours, or one that handlers publish to, holds something else for a while."""
        key = what if what in self.model.targets else getattr(group.keys, what)
        if key in self.model.spoiled:
            return
        self._tell(f"somebody puts something else in the place of {key}")
        if self.world.call("EXISTS", key):
            self.world.call("RENAME", key, aside(key))
        self.world.call("SET", key, "something else")
        self.model.spoiled.add(key)

    # ---- what must always be so -------------------------------------------------------------------------------------------

    @invariant()
    def the_server_is_where_the_model_is(self) -> None:
        looks = self.world.do(
            self.world.look_at_all(list(self.model.groups.values()), list(self.model.targets), self.model.spoiled)
        )
        for group, seen in zip(self.model.groups.values(), looks.groups, strict=True):
            self._learn(group, seen)
            assert self.model.undelivered(group) == seen.undelivered
            assert {place: (one.owner, one.count, one.lapsed) for place, one in group.pending.items()} == seen.pending
            assert group.parked == seen.parked
            assert {name: when >= FAR for name, when in group.due.items()} == {
                name: when >= FAR for name, when in self._coarse(seen.due).items()
            }
            assert [(one.envelope, one.delivered) for one in group.retry] == [seen_one[1:] for seen_one in seen.retry]
            assert [letter.original_id for letter in group.dead] == [original_id for _, original_id in seen.dead]
            if seen.finished is not None:
                assert self.model.is_finished(group) == seen.finished
            self._each_in_one_place(group, seen)
        assert self.model.targets == looks.targets
        repeated = {one for one in self.commits if self.commits.count(one) > 1}
        assert not repeated, f"committed more than once: {repeated}"

    def _each_in_one_place(self, group: Group, seen: Any) -> None:
        """Without the model: whatever nobody deleted is in one place, or finished."""
        in_pending = [entry_id for key, entry_id in seen.pending if key == STREAM]
        in_retry = [envelope.id for _, envelope, _ in seen.retry]
        places = [
            *seen.undelivered,
            *in_pending,
            *in_retry,
            *(seen.parked.keys() | seen.due.keys()),
            *(id_ for _, id_ in seen.dead),
        ]
        for entry_id, name in self.notes.items():
            count = places.count(entry_id) + ((group.name, entry_id) in self.ended)
            if (group.name, entry_id) not in self.excused:
                assert count > 0, f"{name} is lost in {group.name}"
            is_forgotten = entry_id in self.unfenced and (group.name, entry_id) in self.acked
            if not is_forgotten and (group.name, entry_id) not in self.excused:
                assert count <= 1, f"{name} is in {count} places in {group.name}"

    def teardown(self) -> None:
        """Whatever happened, a last worker finds all that there is to find. A story that went wrong is told."""
        went_well = sys.exc_info()[0] is None
        try:
            if went_well and self.notes:
                went_well = False
                self._drain()
                went_well = True
        finally:
            if not went_well:
                note("\n".join(["", "THE STORY", *self.story, ""]))

    def _drain(self) -> None:
        self._tell("everybody dies, everything is mended, and a last worker drains both groups")
        for worker in self.staff.values():
            self._die(worker)
        self._mend_all()
        for group in self.model.groups.values():
            self._drain_group(group)
        self.the_server_is_where_the_model_is()
        for group in self.model.groups.values():
            assert {} == group.pending
            assert self.model.is_finished(group)
            letters = [letter.original_id for letter in group.dead]
            assert len(letters) == len(set(letters)), "a dead letter twice"
            done = {*letters, *(entry_id for name, entry_id in self.ended if name == group.name)}
            lost = [name for entry_id, name in self.notes.items() if entry_id not in done and entry_id not in self.unfenced]
            assert [] == [name for name in lost if not self._is_excused(group, name)]

    def _drain_group(self, group: Group) -> None:
        last = Worker(f"last of {group.name}", group)
        for key, entry_id in list(group.pending):
            self._lapse(group, key, entry_id)
        self.the_server_is_where_the_model_is()
        for _ in range(20):
            self._let_come_due(group)
            self._promote(group, 100, again=False)
            self.the_server_is_where_the_model_is()
            self._sweep(last, 100, lost=False)
            self._fill(last, 100, lost=False)
            if not last.held:
                break
            while last.held:
                delivery = next(iter(last.held.values()))
                if _is_poison(delivery):
                    self._dead_letter(last, delivery, again=False, keep_last=None)
                else:
                    self._ack(last, delivery, late=False, again=False, many=True)

    # ---- how a sentence is told and checked -------------------------------------------------------------------------------

    def _step(
        self,
        story: str,
        expect: Callable[[], Any],
        act: Callable[[], Awaitable[Any]],
        *,
        again: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> Any:
        """Do it, and once more as after a lost reply if `again`; each answer must be the model's. Answers the first one."""
        first: Any = None
        for turn in range(2 if again else 1):
            if turn:
                between()
            try:
                expected = expect()
            except Refused as refused:
                expected = f"refused: {refused.code}"
            try:
                actual = self.world.do(_awaited(act))
            except ServerError as error:
                actual = f"refused: {error.code}"
            self._tell(f"{story}{' again' if turn else ''}: {actual}{'' if expected == actual else f', EXPECTED {expected}'}")
            assert expected == actual
            first = actual if turn == 0 else first
        return first

    def _settle(
        self,
        worker: Worker,
        delivery: Delivery,
        story: str,
        expect: Callable[[], bool],
        act: Callable[[], Awaitable[bool]],
        *,
        again: bool,
    ) -> None:
        def between() -> None:
            if self.trims_between and delivery.id in self.model.entries:
                self._delete_one(delivery.id)

        answer = self._step(f"{worker.name} {story}", expect, act, again=again, between=between)
        if isinstance(answer, bool):
            worker.drop(delivery)

    def _tell(self, sentence: str) -> None:
        self.story.append(f"{len(self.story) + 1:4} {sentence}")

    def _name(self, delivery: Delivery) -> str:
        lease = delivery.lease
        return f"{self.notes[delivery.id]}{' (retry)' if lease.of_retry else ''} held at {lease.turn}"

    def _name_of(self, group: Group, key: str, entry_id: str) -> str:
        if key == STREAM:
            return self.notes[entry_id]
        one = group.in_retry(entry_id)
        return "a lost retry" if one is None else f"{self.notes[one.envelope.id]} (retry)"

    def _names(self, taken: list[Taken]) -> str:
        return ", ".join(self.notes.get(one.entry.id, f"retry {one.entry.id}") for one in taken) or "nothing"

    # ---- the parts of the rules -------------------------------------------------------------------------------------------

    def _takers(self) -> list[Worker]:
        """Who may be given anything: not the dead, and not while something runs alone there."""
        return [worker for worker in self.staff.values() if not worker.is_dead and worker.alone is None]

    def _has_news(self, group: Group) -> bool:
        return bool(self.model.undelivered(group)) or any(not one.delivered for one in group.retry)

    def _take_in(self, worker: Worker, expected: list[Got], taken: list[Taken], *, lost: bool) -> None:
        assert [(got.key, got.id, got.count) for got in expected] == [(one.key, one.entry.id, one.count) for one in taken]
        for got, one in zip(expected, taken, strict=True):
            if isinstance(got.fields, Envelope):
                assert got.fields == unpack(one.entry.fields[1])
            else:
                assert got.fields == one.entry.fields
            if not lost:
                self._receive(worker, one)

    def _receive(self, worker: Worker, taken: Taken) -> None:
        """As the intake does: what is held already is only counted anew."""
        held = worker.held.get((taken.key, taken.entry.id))
        if held is not None:
            held.lease.turn = taken.turn
            return
        arrival = receive(taken, BINDINGS[worker.group.name], worker.name, 0.0)
        assert arrival.damage is None
        delivery = arrival.delivery
        deaths = self.deaths_alone.get((worker.group.name, delivery.id), 0)
        assert delivery.history.crashes_alone <= deaths, f"{self._name(delivery)} is blamed for more deaths than it has caused"
        assert delivery.history.crashes_alone <= delivery.crashes
        worker.held[taken.key, taken.entry.id] = delivery

    async def _reclaim(self, worker: Worker, key: str, size: int) -> Any:
        pages: list[Page] = []
        cursor: str | None = "0-0"
        while cursor is not None:
            page, _ = await reading.reclaim(
                self.world.link,
                key,
                worker.group.name,
                worker.name,
                lease_ms=LEASE_MS,
                cursor=cursor,
                count=size,
                most_bytes=2**30,
                not_after_ms=2**52,
                witnesses=worker.group.keys.witnesses(key),
            )
            assert page is not None
            pages.append(page)
            cursor = page.following
        return self._told(pages)

    async def _reconcile(self, worker: Worker, key: str, held: list[str], *, died: bool) -> list[Page]:
        pages: list[Page] = []
        cursor: str | None = "-"
        while cursor is not None:
            page, _ = await reading.reconcile(
                self.world.link,
                key,
                worker.group.name,
                worker.name,
                cursor=cursor,
                held=held,
                died=died,
                most_bytes=2**30,
                witnesses=worker.group.keys.witnesses(key),
            )
            pages.append(page)
            cursor = page.following
        return pages

    def _told(self, pages: list[Page]) -> Any:
        self._taken = [one for page in pages for one in page.taken]
        gone = sorted(entry_id for page in pages for entry_id in page.trimmed)
        return [(one.key, one.entry.id, one.count) for one in self._taken], gone

    def _as_told(self, expected: list[Got], gone: set[str]) -> Any:
        self._expected = expected
        return [(got.key, got.id, got.count) for got in expected], sorted(gone)

    def _take_in_told(self, worker: Worker, answers: Any, *, lost: bool) -> None:
        if isinstance(answers, tuple):
            self._take_in(worker, self._expected, self._taken, lost=lost)

    def _compare(self, worker: Worker, *, died: bool) -> None:
        for key in (worker.group.keys.retry, STREAM):
            held = [entry_id for where, entry_id in worker.held if where == key]

            async def look(key: str = key, held: list[str] = held) -> Any:
                return self._told(await self._reconcile(worker, key, held, died=died))

            answers = self._step(
                f"{worker.name} {'starts anew and ' if died else ''}looks for what it does not know of in {key}",
                lambda key=key, held=held: self._as_told(*self.model.reconcile(worker.group, key, worker.name, held, died=died)),
                look,
            )
            self._take_in_told(worker, answers, lost=False)

    def _blame(self, holder: str, taker: Worker, got: tuple[str, str, int]) -> None:
        """Who loses an entry that runs alone, without being dead, might as well be."""
        loser = self.staff.get(holder)
        if loser is not None and loser is not taker and loser.alone is not None:
            lease = loser.alone.lease
            if (lease.key, lease.entry_id) == got[:2]:
                self._count_death(loser.group, loser.alone.id)

    def _count_death(self, group: Group, original_id: str) -> None:
        self.deaths_alone[group.name, original_id] = self.deaths_alone.get((group.name, original_id), 0) + 1

    def _recount(self, worker: Worker, delivery: Delivery, turn: int, *, again: bool) -> bool:
        if delivery.lease.turn == turn:
            return True
        ours = self._step(
            f"{worker.name} writes down {turn} for {self._name(delivery)}",
            lambda: self.model.recount(worker.group, delivery.lease, turn),
            lambda: settling.recount(self.world.link, worker.group.name, worker.group.keys, delivery.lease, turn),
            again=again,
        )
        if ours is True:
            delivery.lease.turn = turn
        elif ours is False:
            worker.drop(delivery)
        return ours is True

    def _dead_letter(self, worker: Worker, delivery: Delivery, *, again: bool, keep_last: int | None) -> None:
        group = worker.group
        obituary = Obituary(Reason.REJECTED, "charge", None, None, datetime.now(UTC), "0")
        fields = write_dead_letter(delivery, obituary)
        self._settle(
            worker,
            delivery,
            f"dead-letters {self._name(delivery)}",
            lambda: self.model.dead_letter(group, delivery.lease, delivery.id),
            lambda: settling.dead_letter(
                self.world.link, group.name, group.keys, delivery.lease, fields=fields, keep_last=keep_last
            ),
            again=again,
        )

    def _promote(self, group: Group, limit: int, *, again: bool) -> None:
        # Lost due times come back in no certain order, so which of them a small limit would move is nobody's business.
        most = 100 if self.model.has_lost_due_times(group) else limit
        before = self.model.originals_alive(group)

        async def act() -> tuple[int, int, bool | None]:
            done = await settling.promote(self.world.link, group.keys, limit=most)
            assert 0 == done.cursor
            return done.moved, done.hollow, None if done.next_due_ms is None else done.next_due_ms < SOME_WAY_OFF_MS

        self._step(f"{group.name} promotes up to {most}", lambda: self.model.promote(group, most), act, again=again)
        assert before == self.model.originals_alive(group)
        self.excused |= self.model.retries_without_envelope

    def _let_come_due(self, group: Group) -> None:
        if group.keys.due in self.model.spoiled:
            return
        for original_id in group.due:
            self.world.call("ZADD", group.keys.due, "XX", 1, original_id)
            group.due[original_id] = NOW
        self._tell(f"the retries of {group.name} come due")

    def _lapse(self, group: Group, key: str, entry_id: str) -> None:
        pending = group.pending[key, entry_id]
        idle = ("IDLE", 2 * LEASE_MS, "RETRYCOUNT", pending.count, "JUSTID")
        self.world.call("XCLAIM", key, group.name, pending.owner, 0, entry_id, *idle)
        self.model.lapse(group, key, entry_id)

    def _trim(self, entry_id: str) -> None:
        self.model.trim(entry_id)
        self.unfenced.add(entry_id)
        for group in self.model.groups.values():
            waits_unheard = entry_id in group.due and entry_id not in group.parked
            position = self.model.published.index(entry_id)
            if position >= group.position or (STREAM, entry_id) in group.pending or waits_unheard:
                self.excused.add((group.name, entry_id))

    def _lose_members(self, group: Group, key: str, what: str) -> None:
        held: dict[str, Any] = group.due if key == group.keys.due else group.parked
        doomed = sorted(held)[:1] if what.startswith("one of") else list(held)
        for original_id in doomed:
            self.world.call("ZREM" if held is group.due else "HDEL", key, original_id)
            del held[original_id]

    def _make_group_again(self, group: Group) -> None:
        if group.keys.retry in self.model.spoiled:
            return
        made = self.world.do(groups.create(self.world.link, group.keys.retry, group.name, "0"))
        assert made is not group.has_retry_group
        group.has_retry_group = True

    def _mend(self, key: str) -> None:
        self._tell(f"somebody puts {key} back")
        self.world.call("DEL", key)
        if self.world.call("EXISTS", aside(key)):
            self.world.call("RENAME", aside(key), key)
        self.model.spoiled.discard(key)

    def _learn(self, group: Group, seen: Any) -> None:
        """What only the server knows: the ids it has given, and the order of what came within one step."""
        fresh = [one for one in group.retry if one.id is None]
        known = {one.id for one in group.retry}
        for entry_id, envelope, _ in seen.retry:
            if entry_id not in known:
                one = next((one for one in fresh if one.envelope == envelope), None)
                assert one is not None, f"the retry stream has got {envelope.id} out of nowhere"
                one.id = entry_id
                fresh.remove(one)
        group.retry.sort(key=lambda one: _order_of(one.id))
        for letter, (entry_id, _) in zip(group.dead, seen.dead, strict=False):
            letter.id = entry_id
        group.due.update(
            {name: when for name, when in self._coarse(seen.due).items() if name in group.due and group.due[name] < FAR}
        )

    def _coarse(self, due: dict[str, float]) -> dict[str, float]:
        """Exact times of what is due now, for their order; what is due in years is `FAR`."""
        now = datetime.now(UTC).timestamp() * 1000
        return {name: FAR if when > now + SOME_WAY_OFF_MS else when for name, when in due.items()}

    def _is_excused(self, group: Group, name: str) -> bool:
        return any((group.name, entry_id) in self.excused for entry_id, called in self.notes.items() if called == name)


def _is_poison(delivery: Delivery) -> bool:
    return delivery.history.crashes_alone >= MAX_CRASHES


def _unheard(lost: bool) -> str:
    return " (and never hears of it)" if lost else ""


async def _awaited(act: Callable[[], Awaitable[Any]]) -> Any:
    return await act()


def _order_of(entry_id: str | None) -> tuple[float, ...]:
    return (float("inf"),) if entry_id is None else tuple(map(int, entry_id.split("-")))


def tell(world: World, *, much_of: Sequence[str] = (), removal: Removal = Removal.NEVER, **changes: Any) -> None:
    """Tell stories on `world` until one goes wrong; half of their turns are `much_of`, if given. `removal` is what becomes of entries."""
    turns = [*TURNS, *(len(TURNS) // len(much_of) * list(much_of) if much_of else [])]
    machine = type("Settlement", (SettlementMachine,), {"world": world, "turns": turns, "removal": removal})
    run_state_machine_as_test(machine, settings=settings(TELLING, **changes))


@pytest.mark.matrix
@pytest.mark.timeout(0 if _wanted else 120)
def test_the_steps_do_what_the_model_says(server: Any) -> None:
    """On each server: every answer and every place is the model's, nothing is lost, nothing is in two places."""
    with world_of(Endpoint(server.url)) as world:
        tell(world)


@pytest.mark.matrix
@pytest.mark.parametrize("removal", [Removal.TRIMMED, Removal.WHEN_ACKED])
@pytest.mark.timeout(0 if _wanted else 120)
def test_the_steps_do_so_where_workers_remove_entries(server: Any, removal: Removal) -> None:
    """As above: what somebody has acknowledged and deleted is not taken for what was trimmed away in somebody's hands."""
    with world_of(Endpoint(server.url)) as world:
        tell(world, removal=removal)


@pytest.mark.timeout(0 if _wanted else 120)
def test_the_steps_do_the_same_on_the_fake() -> None:
    """On fakeredis, with what the head of this file leaves out."""
    with world_of(FakeEndpoint("redis://in-this-process")) as world:
        tell(world)


LATE = ["take", "take over", "take over", "renew", "run alone", "dead letter"]
SPOILT = ["take", "spoil", "retry", "commit", "dead letter"]
"""Turns that lead to where a bug shows: leases that were lost, keys that hold something else."""

SEEDED_BUGS: dict[str, tuple[str, str, str, Sequence[str]]] = {
    "a dead letter without the fence": ("settle_dead_letter", "if not ours() then return 0 end", "", LATE),
    "a dead letter acknowledged before it is written": (
        "settle_dead_letter",
        "local command",
        "acknowledge()\nlocal command",
        SPOILT,
    ),
    "a retry acknowledged before it is written": ("settle_retry", "local kind", "acknowledge()\nlocal kind", SPOILT),
    "a retry without its due time looked at": ("settle_retry", "if kind ~= 'zset'", "if false", SPOILT),
    "a release without the fence": ("settle_release", "if not ours() then return 0 end", "", LATE),
    "a commit by whomever": ("settle_commit", "if not unsettled() then return 0 end", "", ()),
    "a commit without its targets looked at": ("settle_commit", "if state.kind ~= wanted and", "if false and", SPOILT),
    "a fence that does not look at the turn": ("fence", "return turn_of(pending[1][4]) == turn", "return true", LATE),
    "a settlement that is not remembered": ("fence", "else remember() end", "end", ()),
    "a memory that nobody looks at": ("fence", "or was_settled()", "", ()),
    "a renewal that takes back": (
        "renew",
        "if pending[1] and pending[1][2] == consumer and turn_of(pending[1][4]) == tonumber(ARGV[position + 1]) then",
        "if pending[1] then",
        LATE,
    ),
    "a renewal that does not look at the turn": ("renew", "and turn_of(pending[1][4]) == tonumber(ARGV[position + 1])", "", LATE),
    "a renewal that renews nothing": ("renew", "redis.call('XCLAIM', source, group, consumer, 0, id, 'JUSTID')", "{ id }", ()),
    "a reclaim that counts what only waited": ("reclaim", "turn % 2 == 1 and turn > 1", "turn > 1", ()),
    "a reclaim that counts nothing": ("reclaim", "after_a_death(counted - 1)", "counted - 1", ()),
    "a reclaim that counts what was its own": ("reclaim", "if own[id] then", "if false then", LATE),
    "a comparison that counts without a death": ("reconcile", "if died then", "if true then", ["take", "doubt"]),
    "a comparison that takes what is held": ("reconcile", "if not held[id] then", "do", ()),
    "a recount whatever the turn": ("recount", "found ~= turn and", "false and", LATE),
    "a promotion that forgets lost due times": (
        "promote",
        "redis.call('HLEN', KEYS[2]) > redis.call('ZCARD', KEYS[1])",
        "false",
        (),
    ),
    "a promotion that leaves the envelope": ("promote", "redis.call('HDEL', KEYS[2], id)", "", ()),
    "a replay that leaves the dead letter": ("replay", "redis.call('XDEL', KEYS[1], ARGV[1])", "", ()),
    "a consumer forgotten with what it has": (
        "forget_consumer",
        "if redis.call('XPENDING'",
        "if false and redis.call('XPENDING'",
        (),
    ),
}


WHERE_ENTRIES_GO: dict[str, tuple[str, str, str, Sequence[str]]] = {
    "a fence that takes what was deleted for trimmed": (
        "fence",
        "return not shrinks or was_trimmed(settled, id)",
        "return true",
        LATE,
    ),
    "a fence that takes what was trimmed for settled": (
        "fence",
        "return not shrinks or was_trimmed(settled, id)",
        "return false",
        (),
    ),
    "a renewal that is no witness": ("renew", "if KEYS[2] then witness(KEYS[2], id) end", "", ["take", "trim", "renew"]),
    "a renewal that keeps what was deleted": ("renew", "or (KEYS[2] and not was_trimmed(KEYS[2], id))", "", LATE),
    "a sweep that is no witness": (
        "reclaim",
        "for _, id in ipairs(gone) do witness(KEYS[2], id) end",
        "",
        ["take", "trim", "sweep"],
    ),
    "a settlement that deletes nothing": ("fence", "if ARGV[5] == '3' then retire(source, group, { id }) end", "", ()),
}
"""These show only where workers remove entries."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bug", [*SEEDED_BUGS, *WHERE_ENTRIES_GO])
def test_a_seeded_bug_is_found(bug: str, valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stories can fail: with each of these changes to a script one of them does, if they go where it shows."""
    name, right, wrong, much_of = (SEEDED_BUGS | WHERE_ENTRIES_GO)[bug]
    removal = Removal.WHEN_ACKED if bug in WHERE_ENTRIES_GO else Removal.NEVER

    def seeded(wanted: str) -> Script:
        source = scripts.script(wanted).source
        changed = source.replace(right.encode(), wrong.encode(), 1) if name in (wanted, "fence") else source
        return Script(changed, sha1(changed, usedforsecurity=False).hexdigest())

    assert right.encode() in scripts.script("settle_release" if name == "fence" else name).source
    for room in (settling, reading, groups, dead_letters):
        monkeypatch.setattr(room, "script", seeded)
    # A story that fails, and not when it is told again because the server's clock has gone on, has found it too.
    with world_of(Endpoint(valkey.url)) as world, pytest.raises((AssertionError, FlakyFailure)):
        tell(world, much_of=much_of, removal=removal, max_examples=2_000, phases=[Phase.generate], report_multiple_bugs=False)
