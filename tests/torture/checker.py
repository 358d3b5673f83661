"""Reads a history and says what in it must not be. Pure: the same history gives the same violations.

Each check is one invariant (I1 to I15, some of them with their features); what each means is in its docstring. A check that cannot decide
lets it pass only where a disturbance on record may be the cause, and the number of such causes is counted against what they are to explain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.torture import features
from tests.torture.feature import Invariant
from tests.torture.history import DONE, Disturbance, History, Life, Plan, Rules, Run, Violation

CANCELLED_BY_ITS_TIMEOUT = frozenset({"hang"})
FAILS_WITH_ITS_DOWNSTREAM = frozenset({"switched"})
LEASE_AT_LEAST = 1 / 2
"""The share of a lease that is left at any moment of a run: it is renewed at a third, and what is younger than a sixth waits a turn."""


@dataclass(frozen=True)
class Figures:
    """What a run shows, in numbers. `causes` is how many times a disturbance touched a run, each of which may cost one duplicate."""

    published: int = 0
    handled: int = 0
    dead_letters: int = 0
    lost: int = 0
    drained: bool = True
    forgotten: int = 0
    duplicates: int = 0
    causes: int = 0
    worst_redelivery: float = 0.0
    worst_recovery: float = 0.0


def check(history: History, rules: Rules) -> list[Violation]:
    """Everything in this history that must not be."""
    whole = history.with_deaths()
    own = [invariant for feature in features.everything() for invariant in feature.invariants]
    return [violation for invariant in (*INVARIANTS, *own) for violation in invariant(whole, rules)]


def figures(history: History, rules: Rules) -> Figures:
    """The numbers of this history."""
    whole = history.with_deaths()
    lost, forgotten = missing(whole)
    by_number = whole.runs_of()
    return Figures(
        published=sum(entry.answer == "acked" for entry in whole.published),
        handled=len({run.number for run in whole.runs if run.end == DONE}),
        dead_letters=len(whole.dead_letters),
        lost=0 if history.drained else len(lost),
        drained=not history.drained,
        forgotten=len(forgotten),
        duplicates=sum(len(duplicates(runs)) for runs in by_number.values()),
        causes=sum(len(causes(run, whole, rules)) for run in whole.runs),
        worst_redelivery=max((again.started - death for _, death, again in redeliveries(whole)), default=0.0),
        worst_recovery=max((first - healed for healed, first in recoveries(whole)), default=0.0),
    )


# ---- what several checks ask ------------------------------------------------------------------------------------------------


def missing(history: History) -> tuple[list[int], list[int]]:
    """The numbers of acknowledged entries that ended nowhere: lost, and those that the server itself forgot."""
    settled = {run.number for run in history.runs if run.end == DONE} | {letter.number for letter in history.dead_letters}
    forgot = max(history.forgotten, default=-1.0)
    gone = [entry for entry in history.published if entry.answer == "acked" and entry.number not in settled]
    return [entry.number for entry in gone if entry.invoked > forgot], [entry.number for entry in gone if entry.invoked <= forgot]


def duplicates(runs: list[Run]) -> list[Run]:
    """Of one entry's runs those that nobody asked for: after a success, or of an attempt that had been started before."""
    extra = []
    for position, run in enumerate(runs):
        earlier = runs[:position]
        if any(
            other.end == DONE or (other.attempt == run.attempt and other.end not in ("snoozed", "crashed")) for other in earlier
        ):
            extra.append(run)
    return extra


def causes(run: Run, history: History, rules: Rules) -> list[Disturbance]:
    """The disturbances that may have kept this run's settlement from the server."""
    begin, end = run.started - rules.lease, run.until + rules.settle + rules.slack
    return [one for one in history.disturbances if one.concerns(run) and one.begin <= end and one.end >= begin]


def redeliveries(history: History) -> Iterator[tuple[Run, float, Run]]:
    """Each run that died with its process: the run, the moment, and the next run of the same entry."""
    by_number = history.runs_of()
    for death in history.disturbances:
        if death.kind == "death":
            for run in history.runs:
                if death.concerns(run) and run.ended is None:
                    later = [other for other in by_number[run.number] if other.started > run.started and other.pid != run.pid]
                    if later:
                        yield run, death.begin, later[0]


def recoveries(history: History) -> Iterator[tuple[float, float]]:
    """Each end of a trouble, and when something was handled again, if nothing else came in between."""
    starts = sorted(run.started for run in history.runs)
    for healed in history.healed:
        first = next((start for start in starts if start > healed), None)
        if first is not None and not any(healed < one.begin < first for one in history.disturbances if one.kind != "death"):
            yield healed, first


# ---- the invariants ---------------------------------------------------------------------------------------------------------


def nothing_is_lost(history: History, rules: Rules) -> Iterator[Violation]:
    """I1: after a full drain every acknowledged entry was handled to its end or is a dead letter; none came from nowhere."""
    if history.drained:
        yield Violation("I1", f"the run did not drain, so it proves nothing: {history.drained}")
    lost, _ = missing(history)
    if lost and not history.drained:
        yield Violation("I1", f"{len(lost)} of {len(history.published)} entries lost, the first are {lost[:5]}")
    known = {entry.number: entry for entry in history.published}
    for run in history.runs:
        entry = known.get(run.number)
        if entry is None or entry.answer == "refused" or (entry.id is not None and entry.id != run.id):
            yield Violation("I1", f"entry {run.number} ({run.id}) was handled, but what was published is {entry}")


def duplicates_have_causes(history: History, rules: Rules) -> Iterator[Violation]:
    """I2: of each entry no more needless runs than disturbances touched its earlier runs."""
    for number, runs in history.runs_of().items():
        extra = len(duplicates(runs))
        touched = sum(len(causes(run, history, rules)) for run in runs)
        if extra > touched:
            yield Violation("I2", f"entry {number} ran {extra} times more than asked for, with {touched} causes: {_told(runs)}")


def nothing_runs_twice_at_once(history: History, rules: Rules) -> Iterator[Violation]:
    """I3: no two handlers overlap on one entry while the first holds a lease.

    A worker that is not frozen knows when its lease ends and has stopped its handler by then, so it may never overlap. A frozen one may,
    once the lease that it had when it froze is over.
    """
    for number, runs in history.runs_of().items():
        for position, run in enumerate(runs):
            for other in runs[position + 1 :]:
                if other.started < min(run.until, _life_end(run, history)) and not _may_overlap(run, other, history, rules):
                    yield Violation("I3", f"entry {number} ran twice at once: {_told([run, other])}")


def _may_overlap(run: Run, other: Run, history: History, rules: Rules) -> bool:
    for one in history.disturbances:
        # A lease that the server has voided, or given to somebody else, is noticed at the next renewal; then the handler is stopped.
        if one.concerns(run) and (one.voids or one.takes is not None) and one.begin <= other.started + rules.slack:
            return True
        left = rules.lease * LEASE_AT_LEAST - rules.slack
        if one.concerns(run) and one.freezes and run.started <= one.end and one.begin + left <= other.started:
            return True
    return False


def _life_end(run: Run, history: History) -> float:
    """When this run's process was killed: it cannot overlap afterwards."""
    return min((one.begin for one in history.disturbances if one.kind == "death" and one.concerns(run)), default=run.until)


def a_live_worker_keeps_its_lease(history: History, rules: Rules) -> Iterator[Violation]:
    """I3: a handler is cancelled only by its timeout, a drain, after a disturbance, or because an earlier run's late acknowledgement has
    come through; and it does not outlive the loss of its lease.
    """
    drained = {life.pid: life.ordered_at for life in history.lives if life.ordered == "term" and life.ordered_at is not None}
    for run in history.runs:
        if run.end == "cancelled" and not _has_a_reason(run, drained, history, rules):
            yield Violation("I3", f"a worker that nothing had disturbed gave up entry {run.number}: {_told([run])}")
        for one in history.disturbances:
            noticed = one.begin + rules.lease / 2 + rules.settle + rules.slack
            if (
                one.takes == run.id
                and one.concerns(run)
                and run.started <= one.begin
                and run.until > noticed
                and not _died(run, history)
            ):
                yield Violation("I3", f"entry {run.number} was taken over {one.begin:.3f}, and ran on: {_told([run])}")


def _has_a_reason(run: Run, drained: Mapping[int, float], history: History, rules: Rules) -> bool:
    """Why a handler may be cancelled."""
    plan = history.plans().get(run.number, Plan())
    if plan.kind in CANCELLED_BY_ITS_TIMEOUT or (run.pid in drained and run.until >= drained[run.pid]):
        return True
    was_done = any(other.number == run.number and other.end == DONE and other.until < run.until for other in history.runs)
    return was_done or bool(causes(run, history, rules))


def _died(run: Run, history: History) -> bool:
    return any(one.kind == "death" and one.concerns(run) for one in history.disturbances)


def redelivery_is_bounded(history: History, rules: Rules) -> Iterator[Violation]:
    """I4: what a dead worker ran is started again within lease + hold + sweep + 1 s, and what it waits for to run alone.

    Measured from the end of the last trouble that came in between.
    """
    plans = history.plans()
    longest = max((plan.seconds for plan in plans.values()), default=0.0)
    # What died with its worker is run again alone, one after the other: the last one waits for all the others.
    dying = sum(plans.get(run.number, Plan()).seconds for run in history.runs if run.ended is None and _died(run, history))
    for run, death, again in redeliveries(history):
        alone = dying + 2 * longest
        bound = rules.lease * (1 + rules.hold + 1.25 / 4) + alone + 1 + rules.restart + rules.held_up + rules.slack
        troubles = [one.end for one in history.disturbances if one.begin < again.started and one.end > death]
        since = max([death, *(end for end in troubles if end < again.started)])
        if again.started - since > bound:
            what = f"entry {run.number} came back after {again.started - since:.2f} s, the bound is {bound:.2f} s"
            yield Violation("I4", f"{what}: {_told([run, again])}")


def attempts_are_counted(history: History, rules: Rules) -> Iterator[Violation]:
    """I5: an attempt follows only a failed one; none is beyond the limit; a crash or a release costs none."""
    most = max(rules.max_attempts)
    plans = history.plans()
    for number, runs in history.runs_of().items():
        plan = plans.get(number, Plan())
        failed = {
            run.attempt for run in runs if run.end == "failed" or (run.end == "cancelled" and plan.kind in CANCELLED_BY_ITS_TIMEOUT)
        }
        for run in runs:
            if run.attempt > most:
                yield Violation("I5", f"entry {number} was given attempt {run.attempt}, the limit is {most}")
            if run.attempt > 1 and run.attempt - 1 not in failed:
                yield Violation("I5", f"entry {number} was given attempt {run.attempt}, but none before it failed: {_told(runs)}")
        counted = plan.ends == DONE and plan.kind not in FAILS_WITH_ITS_DOWNSTREAM
        if counted and any(run.end == DONE and run.attempt != plan.failures + 1 for run in runs):
            yield Violation("I5", f"entry {number} succeeded at another attempt than {plan.failures + 1}: {_told(runs)}")


def dead_letters_are_exact(history: History, rules: Rules) -> Iterator[Violation]:
    """I6: one dead letter, whole and with its reason, for each entry that is to have one, and for no other."""
    plans = history.plans()
    runs_of = history.runs_of()
    done = {run.number for run in history.runs if run.end == DONE}
    voids = [one for one in history.disturbances if one.voids]
    for number, count in Counter(letter.number for letter in history.dead_letters).items():
        # A group that was destroyed is made again below what was pending; what was set aside since is handled, and set aside, again.
        if count > 1 + len(voids):
            yield Violation("I6", f"entry {number} has {count} dead letters")
    for letter in history.dead_letters:
        plan = plans.get(letter.number, Plan())
        if not letter.intact:
            yield Violation("I6", f"the dead letter of entry {letter.number} lacks fields of the entry")
        if letter.number in done:
            yield Violation("I6", f"entry {letter.number} succeeded and is a dead letter ({letter.reason})")
        if letter.reason != plan.ends and not _crashed_alone(letter.number, runs_of, history, rules):
            yield Violation("I6", f"entry {letter.number} was to end as {plan.ends}, and is a dead letter: {letter.reason}")
        if letter.reason == "exhausted" and letter.attempts not in rules.max_attempts:
            yield Violation("I6", f"entry {letter.number} is exhausted after {letter.attempts} attempts")
    wrong = [number for number in done if plans.get(number, Plan()).ends != DONE]
    if wrong:
        yield Violation("I6", f"{len(wrong)} entries succeeded that were to be dead letters, the first are {wrong[:5]}")


def _crashed_alone(number: int, runs_of: dict[int, list[Run]], history: History, rules: Rules) -> bool:
    """Whether so many workers died while they ran this entry that it may be taken for the cause."""
    deaths = (run.end == "crashed" or (run.ended is None and _died(run, history)) for run in runs_of.get(number, []))
    return sum(deaths) >= rules.max_crashes


def killers_are_stopped(history: History, rules: Rules) -> Iterator[Violation]:
    """I8: an entry that kills its worker does so once in company and `max_crashes` times alone, no more."""
    plans = history.plans()
    for number, runs in history.runs_of().items():
        kills = sum(run.ended is None and _died(run, history) for run in runs)
        if plans.get(number, Plan()).kills and kills > rules.max_crashes + 1:
            yield Violation("I8", f"entry {number} killed {kills} workers, the bound is {rules.max_crashes + 1}")


def processes_end_as_told(history: History, rules: Rules) -> Iterator[Violation]:
    """I9: no worker ends unasked, a killed one by its signal, and one that is told to drain with its exit code."""
    for life in history.lives:
        if life.code is None:
            yield Violation("I9", f"worker {life.pid} was told {life.ordered} and did not end")
        elif life.ordered == "kill":
            if life.code != -9:
                yield Violation("I9", f"worker {life.pid} was killed, and exited with {life.code}")
        elif life.ordered == "term":
            # Before it listens to signals, TERM ends it as it ends any process; it has taken nothing by then.
            if life.code not in rules.exit_codes and not (life.code == -15 and not life.ready):
                yield Violation("I9", f"worker {life.pid} drained, and exited with {life.code}")
        elif life.code not in rules.crash_codes and not _found_no_server(life, history):
            yield Violation("I9", f"worker {life.pid} exited with {life.code} unasked")


def _found_no_server(life: Life, history: History) -> bool:
    """Whether it gave up at its start because there was no server, as it must."""
    during = [one for one in history.disturbances if one.pids is None and one.kind != "death"]
    return life.code == 3 and any(one.begin - 1 <= (life.ended or life.started) and one.end + 1 >= life.started for one in during)


def resources_are_flat(history: History, rules: Rules) -> Iterator[Violation]:
    """I10: as many files, threads and connections in the end as after the warm-up, no more memory than a little, and no more consumer
    records than there were processes.
    """
    before = {footprint.of: footprint for footprint in history.before}
    typical = {footprint.of.split()[0]: footprint for footprint in reversed(history.before)}
    for now in history.after:
        then = before.get(now.of, typical.get(now.of.split()[0], next(iter(history.before), None)))
        if then is None:
            continue
        for what, room in (("files", 6), ("threads", 12), ("resident_kb", 40_000)):
            if getattr(now, what) > getattr(then, what) + room:
                yield Violation("I10", f"{now.of} has {getattr(now, what)} {what} in the end, and had {getattr(then, what)}")
        if now.connections > rules.connections:
            yield Violation("I10", f"{now.of} has {now.connections} connections in the end, the bound is {rules.connections}")
        if now.consumers > len(history.lives):
            yield Violation("I10", f"{now.consumers} consumer records of {len(history.lives)} processes")


def recovery_is_bounded(history: History, rules: Rules) -> Iterator[Violation]:
    """I11: soon after a trouble's end something is handled again."""
    for healed, first in recoveries(history):
        if first - healed > rules.recovery + rules.slack:
            yield Violation("I11", f"nothing was handled for {first - healed:.2f} s after the trouble's end")


def troubles_are_told(history: History, rules: Rules) -> Iterator[Violation]:
    """I12: what was done shows in the log, without a secret or a payload, and the log is readable to machines."""
    for wanted in rules.events:
        if not wanted & history.logged:
            yield Violation("I12", f"no worker has logged any of {sorted(wanted)}; they logged {sorted(history.logged)}")
    for leak in history.leaks:
        yield Violation("I12", f"a secret or a payload is in the log: {leak}")
    for line in history.stray:
        yield Violation("I12", f"a line that should not be in any log: {line}")


def what_is_done_stays_done(history: History, rules: Rules) -> Iterator[Violation]:
    """I13: no handler starts on an entry whose undisturbed success was acknowledged before, unless the server has forgotten that since."""
    for number, runs in history.runs_of().items():
        for position, run in enumerate(runs):
            if run.end == DONE and not causes(run, history, rules):
                done = run.until + rules.settle + rules.slack
                late = [other for other in runs[position + 1 :] if other.started > done and not _was_forgotten(run, other, history)]
                if late and not any(causes(other, history, rules) for other in runs[:position]):
                    yield Violation("I13", f"entry {number} ran again after its acknowledgement: {_told([run, *late])}")


def _was_forgotten(run: Run, other: Run, history: History) -> bool:
    """Whether the server lost its group between these runs: what is above an entry that was pending then is handled again."""
    return any(one.voids and run.until <= one.end and one.begin <= other.started for one in history.disturbances)


INVARIANTS: tuple[Invariant, ...] = (
    nothing_is_lost,
    duplicates_have_causes,
    nothing_runs_twice_at_once,
    a_live_worker_keeps_its_lease,
    redelivery_is_bounded,
    attempts_are_counted,
    dead_letters_are_exact,
    killers_are_stopped,
    processes_end_as_told,
    resources_are_flat,
    recovery_is_bounded,
    troubles_are_told,
    what_is_done_stays_done,
)


def _told(runs: list[Run]) -> str:
    """Runs in a few words."""

    def one(run: Run) -> str:
        end = f"{run.end} {run.ended:.3f}" if run.ended is not None else "no end"
        return f"[{run.pid} attempt {run.attempt} crashes {run.crashes}: {run.started:.3f} to {end}]"

    return ", ".join(one(run) for run in runs)
