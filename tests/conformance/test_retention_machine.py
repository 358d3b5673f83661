"""Made-up stories of a stream with several groups, told to a server and to a model: nothing that a group needs is ever removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from streamworker.delivery import Lease, Outgoing
from streamworker.errors import ServerError
from streamworker.retention import Retention
from streamworker.streams import groups, inspecting, scripts, settling, trimming
from streamworker.streams.connections import Endpoint
from streamworker.streams.keys import Removal, keys_of
from streamworker.streams.link import Link
from streamworker.streams.scripts import Script
from streamworker.streams.trimming import Hold

pytestmark = pytest.mark.matrix

STREAM = "orders"
OURS, NAMES = "billing", ["billing", "search", "audit"]
MINUTE_MS = 60_000
NAME, PLACES = st.sampled_from(NAMES), st.sets(st.integers(0, 50), min_size=1, max_size=40) | st.just(set(range(300)))

TURNS: dict[str, tuple[int, dict[str, st.SearchStrategy[Any]]]] = {
    "add": (3, {"count": st.integers(1, 12)}),
    "read": (3, {"name": NAME, "count": st.integers(1, 20) | st.just(300)}),
    "keep_up": (
        4,
        {"names": st.sets(NAME, min_size=1), "but": st.sets(st.integers(0, 20), max_size=2), "count": st.integers(1, 300)},
    ),
    "acknowledge_and_delete": (4, {"name": NAME, "picked": PLACES, "native": st.booleans()}),
    "settle": (
        3,
        {"name": NAME, "which": st.integers(0, 300), "how": st.sampled_from(["retry", "release", "commit", "dead letter"])},
    ),
    "acknowledge_plainly": (1, {"name": NAME, "picked": PLACES}),
    "trim": (
        5,
        {
            "length": st.none() | st.integers(1, 60),
            "minutes": st.none() | st.integers(1, 60),
            "acked": st.sampled_from([True, False, False]),
            "required": st.sampled_from([set(), set(), {OURS}, {"search"}]),
        },
    ),
    "make_group": (1, {"name": NAME}),
    "destroy_group": (1, {"name": st.sampled_from(NAMES[1:])}),
    "set_back": (1, {"name": NAME, "share": st.floats(0, 1)}),
}
"""What can happen, how often compared with the rest, and what to whom."""


@dataclass
class Group:
    """What one group has been given and has not acknowledged, by position in the stream."""

    position: int = 0
    pending: set[int] = field(default_factory=set)

    def needs(self, number: int) -> bool:
        return number >= self.position or number in self.pending


class Retaining(RuleBasedStateMachine):
    """`link` and `runner` are the server's, shared by all stories."""

    link: Link
    runner: asyncio.Runner

    def call(self, *command: str | int) -> object:
        return self.runner.run(self.link.call(*command))

    @initialize(filler=st.sampled_from([1, 5, 30, 250]), names=st.sets(st.sampled_from(NAMES[1:])))
    def begin(self, filler: int, names: set[str]) -> None:
        self.call("FLUSHALL")
        self.groups: dict[str, Group] = {}
        self.first_ms = int(time.time() * 1000) - 5_000 * MINUTE_MS
        self.ids: list[str] = []
        self.there: set[int] = set()
        self.xackdel = True
        self.add(filler)
        for name in (OURS, *names):
            self.make_group(name)

    @rule(turn=st.sampled_from([name for name, (weight, _) in TURNS.items() for _ in range(weight)]), data=st.data())
    def next(self, turn: str, data: st.DataObject) -> None:
        """One rule, because Hypothesis leaves out some of many, and here each needs the others."""
        getattr(self, turn)(**data.draw(st.fixed_dictionaries(TURNS[turn][1]), turn))

    # ---- what happens to a stream -----------------------------------------------------------------------------------------

    def add(self, count: int) -> None:
        for _ in range(count):
            entry_id = f"{self.first_ms + len(self.ids) * MINUTE_MS}-0"
            self.call("XADD", STREAM, entry_id, "note", "a" * 20)
            self.there.add(len(self.ids))
            self.ids.append(entry_id)

    def make_group(self, name: str) -> None:
        if name not in self.groups:
            self.runner.run(groups.create(self.link, STREAM, name, "0"))
            self.groups[name] = Group()

    def destroy_group(self, name: str) -> None:
        self.call("XGROUP", "DESTROY", STREAM, name)
        self.groups.pop(name, None)

    def set_back(self, name: str, share: float) -> None:
        """Somebody lets a group begin again further below; what it has pending stays."""
        if name in self.groups:
            position = int(self.groups[name].position * share)
            self.call("XGROUP", "SETID", STREAM, name, self.ids[position - 1] if position else "0")
            self.groups[name].position = position

    def read(self, name: str, count: int) -> None:
        if name not in self.groups:
            return
        group = self.groups[name]
        reply = self.call("XREADGROUP", "GROUP", name, "me", "COUNT", count, "STREAMS", STREAM, ">")
        got = [self.ids.index(raw.decode()) for raw, _ in reply[0][1]] if reply else []  # type: ignore[index]
        assert [number for number in range(group.position, len(self.ids)) if number in self.there][:count] == got
        if got:
            group.position = got[-1] + 1
            group.pending |= set(got)

    def keep_up(self, names: set[str], but: set[int], count: int) -> None:
        """Groups read and acknowledge all that they can, but for a few of the last."""
        for name in sorted(names & self.groups.keys()):
            self.read(name, count)
            pending = self._pending_of(name, set(range(300)))
            self._acknowledge(name, [number for place, number in enumerate(reversed(pending)) if place not in but])

    # ---- how entries are settled ------------------------------------------------------------------------------------------

    def acknowledge_plainly(self, name: str, picked: set[int]) -> None:
        """As a consumer of another framework does."""
        self._acknowledge(name, self._pending_of(name, picked))

    def _acknowledge(self, name: str, chosen: Sequence[int]) -> None:
        if chosen:
            self.call("XACK", STREAM, name, *(self.ids[number] for number in chosen))
            self.groups[name].pending -= set(chosen)

    def acknowledge_and_delete(self, name: str, picked: set[int], native: bool) -> None:
        chosen = self._pending_of(name, picked)
        if not chosen:
            return
        leases = [Lease(STREAM, self.ids[number], "me", 1, 0.0) for number in chosen]
        knows = native and self.xackdel
        acked, self.xackdel = self.runner.run(settling.ack_and_delete(self.link, name, leases, xackdel=knows))
        self.xackdel |= not native
        assert len(chosen) == acked
        self._settled(name, chosen)

    def settle(self, name: str, which: int, how: str) -> None:
        for number in self._pending_of(name, {which}):
            assert self.runner.run(self._settle(name, number, how)) is (number in self.there)
            if number in self.there:
                self._settled(name, [number])

    def trim(self, length: int | None, minutes: int | None, acked: bool, required: set[str]) -> None:
        """To the end; then exactly that is gone which the retention lets go and no group needs."""
        newest_allowed = None if minutes is None else max(0, len(self.ids) - minutes)
        now_ms = int(time.time() * 1000)
        age = None
        if newest_allowed is not None:
            age = timedelta(milliseconds=now_ms - self.first_ms - newest_allowed * MINUTE_MS + MINUTE_MS // 2)
        retention = Retention(acked, age, length)
        for _ in range(20):
            trimmed = self.runner.run(trimming.trim(self.link, STREAM, retention, sorted(required)))
            if not trimmed.removed:
                break
        guard = 0 if required - self.groups.keys() else self._guard()
        for number in sorted(self.there):
            too_many = length is not None and len(self.there) > length
            too_old = newest_allowed is not None and number < newest_allowed
            if number < guard and (acked or too_many or too_old):
                self._let_go({number})
        over = (length is not None and len(self.there) > length) or (
            newest_allowed is not None and any(number < newest_allowed for number in self.there)
        )
        assert len(self.there) == trimmed.length
        assert over is (trimmed.hold is not None)
        if trimmed.hold is not None:
            self._is_the_holder(trimmed.hold, required)

    # ---- what must be so --------------------------------------------------------------------------------------------------

    def _let_go(self, numbers: set[int]) -> None:
        """The model removes these: the very last check is that no group needs any."""
        assert not any(group.needs(number) for group in self.groups.values() for number in numbers)
        self.there -= numbers

    @invariant()
    def the_server_is_where_the_model_is(self) -> None:
        if not self.groups:
            return
        assert self.there == {self.ids.index(entry.id) for entry in self.runner.run(inspecting.entries(self.link, STREAM))}
        for name, group in self.groups.items():
            pending = self.runner.run(inspecting.pending(self.link, STREAM, name, count=1_000))
            assert sorted(group.pending) == sorted(self.ids.index(one.id) for one in pending)

    def _settled(self, name: str, numbers: Sequence[int]) -> None:
        self.groups[name].pending -= set(numbers)
        self._let_go({number for number in numbers if not any(group.needs(number) for group in self.groups.values())})

    async def _settle(self, name: str, number: int, how: str) -> bool:
        keys, lease = keys_of(STREAM, name, Removal.WHEN_ACKED), Lease(STREAM, self.ids[number], "me", 1, 0.0)
        match how:
            case "retry":
                return await settling.retry_later(
                    self.link, name, keys, lease, delay_ms=60_000, original_id=lease.entry_id, envelope=b"e"
                )
            case "release":
                return await settling.release(self.link, name, keys, lease, envelope=b"e")
            case "commit":
                return await settling.commit(self.link, name, keys, lease, [Outgoing("invoices", [b"n", b"1"])])
            case _:
                return await settling.dead_letter(self.link, name, keys, lease, fields=[b"a", b"b"], keep_last=None)

    def _pending_of(self, name: str, picked: set[int]) -> list[int]:
        """Some of what is pending there, chosen by place."""
        pending = sorted(self.groups[name].pending) if name in self.groups else []
        return sorted({pending[place % len(pending)] for place in picked}) if pending else []

    def _guard(self) -> int:
        return min((self._needed_from(group) for group in self.groups.values()), default=0)

    def _needed_from(self, group: Group) -> int:
        return min([group.position, *(number for number in group.pending if number in self.there)])

    def _is_the_holder(self, hold: Hold, required: set[str]) -> None:
        if missing := required - self.groups.keys():
            assert hold.why == "missing"
            assert hold.group in missing
            return
        group = self.groups[hold.group]
        assert self._guard() == self._needed_from(group)
        assert hold.why == ("pending" if self._guard() < group.position else "undelivered")


TELLING = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@contextmanager
def machine_at(url: str) -> Iterator[type[Retaining]]:
    """Stories on this server."""
    with asyncio.Runner() as runner:
        link = Link(Endpoint(url))
        yield type("Stories", (Retaining,), {"link": link, "runner": runner})
        runner.run(link.close())


@pytest.fixture
def machine(server: Any) -> Iterator[type[Retaining]]:
    """Stories on each server."""
    with machine_at(server.url) as machine:
        yield machine


def tell(machine: type[Retaining], **changes: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(TELLING, **changes))


def test_no_story_loses_what_a_group_needs(machine: type[Retaining]) -> None:
    """Whoever reads, acknowledges, settles, trims, comes, goes, or is set back, in whatever order."""
    tell(machine)


SEEDED_BUGS = {
    "a trim that looks at its first group only": ("trim", "if not guard or is_before(needed, guard) then", "if not guard then"),
    "a trim that does not look at what is pending": ("trim", "if info['pending'] > 0 then", "if false then"),
    "a trim that does not look at what was delivered": ("trim", "oldest and is_before(oldest[1], needed)", "oldest"),
    "a trim without a guard": ("trim", "is_before(guard, before) and guard or before", "before"),
    "a trim by length without a guard": ("trim", "if is_before(guard, before) then before = guard end", ""),
    "a trim before its groups are there": ("trim", "if not there[ARGV[position]] then", "if false then"),
    "a trim of one too many": ("trim", "behind(math.min(length - most, step))", "behind(math.min(length - most + 1, step))"),
    "a trim that holds back silently": ("trim", "return { removed, length, holder, why }", "return { removed, length }"),
    "a deletion though others have it pending": ("retire", "if pending['err'] or #pending > 0 then return true end", ""),
    "a deletion before others are given it": ("retire", "if is_before(info['last-delivered-id'], id) then return true end", ""),
    "a deletion that never happens": ("retire", "if not is_needed(id) then", "if false then"),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bug", SEEDED_BUGS)
def test_a_seeded_bug_is_found(bug: str, valkey: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stories can fail: with each of these changes to a script one of them does."""
    name, right, wrong = SEEDED_BUGS[bug]

    def seeded(wanted: str) -> Script:
        source = scripts.script(wanted).source
        changed = source.replace(right.encode(), wrong.encode(), 1) if name in (wanted, "retire") else source
        return Script(changed, sha1(changed, usedforsecurity=False).hexdigest())

    assert right.encode() in scripts.script("ack_and_delete" if name == "retire" else name).source
    for room in (settling, trimming):
        monkeypatch.setattr(room, "script", seeded)
    with machine_at(valkey.url) as machine, pytest.raises((AssertionError, FlakyFailure)):
        tell(machine, max_examples=300, phases=[Phase.generate], report_multiple_bugs=False)


def test_no_group_means_that_nothing_goes(machine: type[Retaining]) -> None:
    """The first one that comes may be given everything."""
    link, runner = machine.link, machine.runner
    for _ in range(5):
        runner.run(link.call("XADD", STREAM, "*", "a", "b"))

    trimmed = runner.run(trimming.trim(link, STREAM, Retention(max_length=2), []))

    assert (0, 5, Hold("", "groupless")) == trimmed


def test_a_stream_that_is_none_is_an_error_that_names_it(machine: type[Retaining]) -> None:
    """And one that is not there has nothing to trim."""
    link, runner = machine.link, machine.runner
    absent = runner.run(trimming.trim(link, STREAM, Retention(max_length=2), [OURS]))
    runner.run(link.call("SET", STREAM, "text"))

    with pytest.raises(ServerError, match="WRONGTYPE"):
        runner.run(trimming.trim(link, STREAM, Retention(max_length=2), []))
    assert (0, 0, None) == absent
