"""What the checker sees in histories written by hand: each invariant is broken once, and kept once in the nearest harmless case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.torture.checker import check, figures
from tests.torture.features import flow
from tests.torture.fleet import runs_in
from tests.torture.history import DeadLetter, Disturbance, Footprint, History, Life, Plan, Published, Rules, Run

RULES = Rules(lease=1.0)
A, B = 101, 102
"""Two processes."""


def published(number: int = 1, *, at: float = 0.0, answer: str = "acked", **plan) -> Published:
    return Published(number, Plan(**plan), answer, f"{number}-0" if answer == "acked" else None, at, at + 0.001)


def run(
    number: int = 1, *, pid: int = A, started: float = 1.0, ended: float | None = 1.1, end: str | None = "done", **facts
) -> Run:
    return Run(number, f"{number}-0", pid, **{"attempt": 1, "crashes": 0} | facts, started=started, ended=ended, end=end)


def life(pid: int = A, *, ended: float = 50.0, code: int = 0, ordered: str | None = "term", at: float = 49.0) -> Life:
    return Life(pid, 0.0, ended, code, ordered, at)


def letter(number: int = 1, reason: str = "rejected", attempts: int = 1, **facts) -> DeadLetter:
    return DeadLetter(number, f"{number}-0", reason, attempts, **{"crashes": 0, "intact": True} | facts)


def a_history(**parts) -> History:
    """One entry, handled once, by one worker that then drained; changed by what a test is about."""
    sound = {"published": (published(),), "runs": (run(),), "lives": (life(A), life(B))}
    return History(**{**sound, **parts})


def seen(history: History, rules: Rules = RULES) -> set[str]:
    """The invariants that it breaks."""
    return {violation.invariant for violation in check(history, rules)}


def test_a_sound_history_breaks_nothing():
    """One entry, one run, one orderly end."""
    assert set() == seen(a_history())


# ---- I1 ---------------------------------------------------------------------------------------------------------------------


def test_an_acknowledged_entry_that_ended_nowhere_is_lost():
    """Total queue: acked publishes less what was handled or set aside."""
    history = a_history(published=(published(), published(2)))

    assert {"I1"} == seen(history)
    assert 1 == figures(history, RULES).lost


@pytest.mark.parametrize("answer", ["unknown", "refused"])
def test_a_publish_that_was_not_acknowledged_may_be_missing(answer):
    """Nobody was promised anything."""
    assert set() == seen(a_history(published=(published(), published(2, answer=answer))))


def test_what_was_published_before_the_server_forgot_is_not_counted_as_lost_but_what_came_after_is():
    """A server that was emptied cannot give back what it had."""
    history = a_history(published=(published(), published(2, at=3.0), published(3, at=7.0)), forgotten=(5.0,))

    assert (1, 1) == (figures(history, RULES).lost, figures(history, RULES).forgotten)
    assert {"I1"} == seen(history)


def test_a_run_that_did_not_drain_proves_nothing():
    """Though everything that was asked for was handled; and what was not is not lost, for it may have been under way."""
    assert {"I1"} == seen(a_history(drained="3 pending"))
    assert (0, False) == (
        figures(a_history(drained="1 pending", runs=()), RULES).lost,
        figures(a_history(drained="1"), RULES).drained,
    )


def test_what_nobody_published_must_not_be_handled():
    """Neither an unknown number, nor a refused one, nor another id."""
    assert {"I1"} == seen(a_history(runs=(run(), run(2))))
    assert {"I1"} == seen(a_history(published=(published(), published(2, answer="refused")), runs=(run(), run(2))))
    assert {"I1"} == seen(a_history(runs=(replace(run(), id="9-9"),)))


# ---- I2, I13 ----------------------------------------------------------------------------------------------------------------


def test_an_entry_that_ran_again_without_a_cause_is_a_duplicate():
    """Nothing had touched the first run, so its acknowledgement stood."""
    assert {"I2", "I13"} == seen(a_history(runs=(run(), run(pid=B, started=9.0, ended=9.1))))


def test_a_group_that_was_lost_after_it_explains_a_repeat_however_late():
    """It is made again below what was pending, and everything above that comes again."""
    lost = Disturbance("XGROUP DESTROY", 5.0, 5.1, voids=True)
    runs = (run(), run(pid=B, started=9.0, ended=9.1))

    assert "I13" not in seen(a_history(runs=runs, disturbances=(lost,)))
    assert "I13" in seen(a_history(runs=runs, disturbances=(replace(lost, begin=-5.0, end=-4.9),)))


def test_a_kill_explains_one_more_run_and_no_second_one():
    """Each cause stands for one duplicate."""
    died = life(A, ended=1.06, code=-9, ordered="kill", at=1.05)
    cut_off = run(ended=None, end=None)
    once = a_history(runs=(cut_off, run(pid=B, started=3.0, ended=3.1)), lives=(died, life(B)))
    twice = replace(once, runs=(*once.runs, run(pid=B, started=5.0, ended=5.1)))

    assert set() == seen(once)
    assert (1, 1) == (figures(once, RULES).duplicates, figures(once, RULES).causes)
    assert "I2" in seen(twice)


def test_a_retry_and_a_snooze_are_no_duplicates():
    """They were asked for."""
    runs = (run(end="snoozed"), run(started=2, ended=2.1, end="failed"), run(started=3, ended=3.1, attempt=2))

    assert set() == seen(a_history(published=(published(failures=1),), runs=runs))


# ---- I3 ---------------------------------------------------------------------------------------------------------------------


def test_two_handlers_on_one_entry_at_once_break_the_lease():
    """Even if a network trouble explains the second run: a worker that is cut off stops its handler in time."""
    runs = (run(ended=4.0), run(pid=B, started=3.0, ended=3.1))
    cut_off = Disturbance("partition", 1.1, 4.0, frozenset({A}))

    assert "I3" in seen(a_history(runs=runs))
    assert {"I3"} == seen(a_history(runs=runs, disturbances=(cut_off,)))


def test_a_frozen_worker_may_be_overlapped_once_its_lease_is_over_and_not_sooner():
    """It had at least half a lease left when it froze."""
    frozen = Disturbance("stop", 1.5, 4.0, frozenset({A}), freezes=True)
    late = (run(ended=4.0), run(pid=B, started=2.6, ended=2.7))
    soon = (run(ended=4.0), run(pid=B, started=1.8, ended=1.9))

    assert set() == seen(a_history(runs=late, disturbances=(frozen,)))
    assert {"I3"} == seen(a_history(runs=soon, disturbances=(frozen,)))


def test_a_handler_must_not_outlive_the_loss_of_its_lease():
    """What an unfenced renewal does: it takes the entry back, and nobody stops the first handler."""
    taken = Disturbance("taken", 1.2, 1.2, takes="1-0")

    assert {"I3"} == seen(a_history(runs=(run(ended=5.0),), disturbances=(taken,)))
    assert set() == seen(a_history(runs=(run(ended=1.7),), disturbances=(taken,)))


def test_an_undisturbed_worker_gives_nothing_up():
    """A handler that is cancelled for no reason; a timeout, a drain and a cut connection are reasons."""
    cancelled = run(end="cancelled")
    again = run(started=3.0, ended=3.1)

    assert "I3" in seen(a_history(runs=(cancelled, again)))
    assert set() == seen(a_history(runs=(cancelled, again), disturbances=(Disturbance("cut", 1.05, 1.05),)))
    timed_out = a_history(published=(published(kind="hang", failures=1),), runs=(cancelled, replace(again, attempt=2)))
    assert set() == seen(timed_out)


def test_a_late_acknowledgement_ends_the_run_that_came_after_it():
    """The first run was done while the server was away; its acknowledgement came through when the entry was being run again."""
    runs = (run(), run(pid=B, started=9.0, ended=9.4, end="cancelled"))

    assert set() == seen(a_history(runs=runs, disturbances=(Disturbance("server killed", 1.05, 1.2),)))


# ---- I4 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("again_at", "broken"), [(4.5, set()), (5.9, {"I4"})])
def test_what_a_dead_worker_ran_comes_back_in_time(again_at, broken):
    """Lease, hold, sweep, its own time alone, and a second: here less than four seconds."""
    died = life(A, ended=1.06, code=-9, ordered="kill", at=1.05)
    runs = (run(ended=None, end=None), run(pid=B, started=again_at, ended=again_at + 0.1))
    history = a_history(published=(published(seconds=0.2),), runs=runs, lives=(died, life(B)))

    assert broken == seen(history)
    assert pytest.approx(again_at - 1.05) == figures(history, RULES).worst_redelivery


# ---- I5, I6, I8 -------------------------------------------------------------------------------------------------------------


def test_an_attempt_follows_only_a_failed_one():
    """A crash or a release must not cost any."""
    runs = (run(ended=None, end=None), run(pid=B, started=3.0, ended=3.1, attempt=2))
    died = life(A, ended=1.06, code=-9, ordered="kill", at=1.05)

    assert {"I5"} == seen(a_history(runs=runs, lives=(died, life(B)), published=(published(failures=1),)))


def test_no_attempt_is_beyond_the_limit():
    """Three attempts, not four."""
    runs = tuple(run(started=n, ended=n + 0.1, end="failed", attempt=n) for n in (1, 2, 3, 4))
    history = a_history(published=(published(failures=99, ends="exhausted"),), runs=runs)

    assert {"I5", "I6"} == seen(replace(history, dead_letters=(letter(reason="exhausted", attempts=4),)))
    assert set() == seen(replace(history, runs=runs[:3], dead_letters=(letter(reason="exhausted", attempts=3),)))


@pytest.mark.parametrize(
    "letters",
    [
        pytest.param((letter(), letter()), id="two of one entry"),
        pytest.param((letter(intact=False),), id="fields are missing"),
        pytest.param((letter(reason="crashed"),), id="another reason"),
    ],
)
def test_a_dead_letter_is_written_once_and_whole_and_with_its_reason(letters):
    """An entry that asks to be rejected."""
    history = a_history(published=(published(kind="reject", ends="rejected"),), runs=(run(end="failed"),))

    assert set() == seen(replace(history, dead_letters=(letter(),)))
    assert {"I6"} == seen(replace(history, dead_letters=letters))


def test_an_innocent_entry_is_no_dead_letter():
    """It was handled, and lies among the dead as well."""
    assert {"I6"} == seen(a_history(dead_letters=(letter(reason="crashed"),)))


@pytest.mark.parametrize(("committed", "broken"), [((1,), set()), ((1, 1), {"I6"}), ((), {"I6"}), ((1, 2), {"I6"})])
def test_what_commits_with_an_acknowledgement_is_there_exactly_once(committed, broken):
    """Not twice, not missing, and nothing of an entry that did not succeed."""
    assert broken == seen(a_history(published=(published(kind="commit"),), collected={"commits": committed}))


@pytest.mark.parametrize("kind", ["effect", "effect-once"])
@pytest.mark.parametrize(
    ("written", "broken"),
    [(((1, 1),), set()), (((1, 2),), {"I6"}), ((), {"I6"}), (((1, 1), (2, 1)), {"I6"})],
    ids=["once", "twice", "missing", "of nobody"],
)
def test_what_is_written_with_an_acknowledgement_is_there_exactly_once(kind, written, broken):
    """Not twice, not missing, and nothing of an entry that did not succeed."""
    assert broken == seen(a_history(published=(published(kind=kind),), collected={"effects": written}))


@pytest.mark.parametrize(
    ("written", "broken"), [(((1, 1),), set()), (((1, 2),), {"I30"}), ((), {"I30"}), (((1, 1), (2, 1)), {"I30"})]
)
def test_what_a_handler_in_a_process_asks_for_is_there_exactly_once(written, broken):
    """Neither twice, nor not at all, nor of another entry."""
    processes = (published(kind="cpu"), published(2, kind="cpu-dies", ends="crashed"))
    dead = (run(2, started=2, ended=2.1, end="crashed"),)

    assert broken == seen(
        a_history(
            published=processes,
            runs=(run(), *dead),
            dead_letters=(letter(2, "crashed", crashes=1),),
            collected={"cpu": written},
        )
    )


def test_an_entrys_crashes_are_its_own():
    """None more than there were, none less where nothing was done to its worker; a worker's death may count against what had not begun."""
    crash = run(started=2, ended=2.1, end="crashed")
    kind = {"published": (published(kind="cpu-dies-once"),), "collected": {"cpu": ((1, 1),)}}
    killed = {"lives": (life(A, ordered="kill", code=-9, ended=1.5, at=1.5), life(B))}

    assert set() == seen(a_history(runs=(crash, run(started=3, ended=3.1, crashes=1)), **kind))
    assert {"I31"} == seen(a_history(runs=(crash, run(started=3, ended=3.1, crashes=2)), **kind))
    assert {"I31"} == seen(a_history(runs=(crash, run(started=3, ended=3.1, crashes=0)), **kind))
    assert set() == seen(a_history(runs=(run(pid=B, started=3, ended=3.1, crashes=1),), **kind, **killed))
    assert {"I31"} == seen(a_history(runs=(run(pid=B, started=3, ended=3.1, crashes=1),), **kind))


@pytest.mark.parametrize(("committed", "broken"), [((1,), set()), ((1, 1), {"I21"}), ((), {"I21"}), ((1, 2), {"I21"})])
def test_what_a_batch_publishes_for_an_entry_is_there_exactly_once(committed, broken):
    """As what a handler of its own does; an entry that publishes nothing is not missed."""
    assert broken == seen(a_history(published=(published(kind="batch"),), collected={"batches": committed}))
    assert set() == seen(a_history(published=(published(kind="batch-silent"),)))


def test_a_killer_is_stopped_after_one_death_in_company_and_three_alone():
    """The fifth worker must not die of it."""

    def deaths(count: int) -> History:
        entry = published(kind="poison-exit", ends="crashed", kills=True)
        runs = tuple(run(pid=pid, started=pid * 3.0, ended=None, end=None, crashes=pid - 1) for pid in range(1, count + 1))
        lives = tuple(life(pid, ended=pid * 3.0 + 0.1, code=66, ordered=None, at=0.0) for pid in range(1, count + 1))
        return History(
            published=(entry,),
            runs=runs,
            lives=tuple(replace(one, ordered_at=None) for one in lives),
            dead_letters=(letter(reason="crashed", crashes=3),),
        )

    rules = replace(RULES, crash_codes=frozenset({66}))
    assert set() == seen(deaths(4), rules)
    assert {"I8"} == seen(deaths(5), rules)


# ---- I9 to I12 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "broken"),
    [
        (life(B), set()),
        (life(B, code=-9, ordered="kill"), set()),
        (life(B, code=4), {"I9"}),
        (life(B, code=-15), {"I9"}),
        (replace(life(B, code=-15), ready=False), set()),
        (life(B, code=1, ordered=None), {"I9"}),
        (replace(life(B), code=None, ended=None), {"I9"}),
        (life(B, code=3, ordered=None), {"I9"}),
    ],
)
def test_a_worker_ends_as_it_is_told_and_not_otherwise(one, broken):
    """Drained with 0, killed by its signal, never of itself."""
    assert broken == seen(a_history(lives=(life(A), one)))


def test_a_worker_that_finds_no_server_may_give_up():
    """It was started while the server was down."""
    down = Disturbance("server killed", 20.0, 21.0)
    gone = replace(life(B, ended=20.5, code=3, ordered=None), started=20.2, ordered_at=None)

    assert set() == seen(a_history(lives=(life(A), gone), disturbances=(down,)))


@pytest.mark.parametrize(
    ("now", "broken"),
    [
        (Footprint("worker 101", 21, 9, 52_000, 3), set()),
        (Footprint("worker 101", 60, 9, 52_000, 3), {"I10"}),
        (Footprint("worker 101", 20, 40, 52_000, 3), {"I10"}),
        (Footprint("worker 101", 20, 9, 150_000, 3), {"I10"}),
        (Footprint("worker 101", 20, 9, 52_000, 5), {"I10"}),
        (Footprint("the group", consumers=9), {"I10"}),
    ],
)
def test_resources_are_flat(now, broken):
    """Files, threads, memory, connections, consumer records."""
    assert broken == seen(a_history(before=(Footprint("worker 101", 20, 8, 50_000, 2),), after=(now,)))


@pytest.mark.parametrize(("next_at", "broken"), [(7.0, set()), (15.0, {"I11"})])
def test_work_goes_on_soon_after_a_trouble(next_at, broken):
    """Measured from its end to the first handler that starts."""
    history = a_history(
        published=(published(), published(2)), runs=(run(), run(2, started=next_at, ended=next_at + 0.1)), healed=(5.0,)
    )

    assert broken == seen(history)


def test_troubles_show_in_the_log_and_secrets_do_not():
    """An expected event is missing; a payload was logged; a trace was."""
    rules = replace(RULES, events=(frozenset({"lease.lost", "leases.failing"}),))

    assert {"I12"} == seen(a_history(), rules)
    assert set() == seen(a_history(logged=frozenset({"lease.lost"})), rules)
    assert {"I12"} == seen(a_history(leaks=("…",)))
    assert {"I12"} == seen(a_history(stray=("Traceback",)))


# ---- the ledger -------------------------------------------------------------------------------------------------------------


def test_a_ledger_that_was_cut_off_by_a_kill_is_read_to_its_last_whole_line():
    """The run that had begun has no end."""
    line = '{"event": "%s", "at": %d, "number": 1, "id": "1-0", "attempt": 1, "crashes": 0, "consumer": "c"}\n'
    ledger = (
        line % ("started", 1_000_000_000) + line % ("done", 1_100_000_000) + line % ("started", 2_000_000_000) + '{"event": "do'
    )

    assert [run(), run(started=2.0, ended=None, end=None)] == runs_in(ledger.encode(), A)


@pytest.mark.parametrize(
    ("started", "disturbances", "broken"),
    [
        (0.5, (), set()),
        (1.3, (), {"I14"}),
        (1.3, (Disturbance("machine late", 0.2, 0.4),), set()),
        (1.3, (Disturbance("machine late", 2.0, 2.1),), {"I14"}),
    ],
)
def test_an_entry_that_nothing_has_kept_starts_promptly(started, disturbances, broken):
    """Where a fault says that there is always room."""
    history = a_history(runs=(run(started=started, ended=started + 0.1),), disturbances=disturbances)

    assert broken == seen(history, replace(RULES, prompt=0.85))
    assert set() == seen(history)


# ---- I7 ---------------------------------------------------------------------------------------------------------------------


def in_one_key(*runs: Run, lives: tuple[Life, ...] = (life(A),), **parts) -> History:
    """Entries 1 and 8, which have one key."""
    return a_history(published=(published(1, kind="ordered"), published(8, kind="ordered")), runs=runs, lives=lives, **parts)


EARLY, LATE = {"started": 1.0, "ended": 1.1}, {"started": 2.0, "ended": 2.1}


def test_an_entry_may_not_begin_before_an_earlier_one_of_its_key_has_ended():
    """By itself, or between its failure and its next attempt; with two processes at once nobody has promised it."""
    failed = in_one_key(run(1, **EARLY, end="failed"), run(8, started=1.2, ended=1.3), run(1, **LATE, attempt=2), lives=(life(A),))

    assert set() == seen(in_one_key(run(1, **EARLY), run(8, **LATE)))
    assert {"I7"} == seen(in_one_key(run(8, **EARLY), run(1, **LATE)))
    assert "I7" in seen(failed)
    assert set() == seen(in_one_key(run(8, **EARLY), run(1, **LATE, pid=B), lives=(life(A), life(B))))


def test_an_earlier_entry_that_is_set_aside_opens_its_key():
    """When it has run for the last time."""
    rejected = a_history(
        published=(published(1, kind="ordered", ends="rejected"), published(8, kind="ordered")),
        runs=(run(1, **EARLY, end="failed"), run(8, **LATE)),
        lives=(life(A),),
        dead_letters=(letter(1),),
    )

    assert set() == seen(rejected)


def test_two_entries_of_one_key_may_not_run_at_once():
    """In one process; two processes at once may."""
    first, second = {"started": 1.0, "ended": 1.5}, {"started": 1.2, "ended": 1.6}

    assert {"I7"} == seen(in_one_key(run(1, **first), run(8, **second)))
    assert set() == seen(in_one_key(run(1, **first), run(8, **second, pid=B), lives=(life(A), life(B))))


# ---- I15 --------------------------------------------------------------------------------------------------------------------


def ticking(*ticks: float, **parts) -> History:
    """Ticks that were published, with two processes that were there from the first second on."""
    runs = (run(), run(2, pid=B))
    return a_history(published=(published(), published(2)), runs=runs, collected={"schedules": ticks}, **parts)


def test_a_tick_that_was_published_twice_or_not_at_all_is_seen():
    """Every 0.4 s there is one."""
    assert set() == seen(ticking(10.0, 10.4, 10.8))
    assert {"I15"} == seen(ticking(10.0, 10.4, 10.4, 10.8))
    assert {"I15"} == seen(ticking(10.0, 10.8))


def test_a_tick_may_be_left_out_when_no_process_could_publish_it():
    """Not there, or kept from it; a trouble of one alone is no excuse."""
    of_all, of_one = Disturbance("cut", 9.0, 9.1), Disturbance("reply of tick lost", 9.0, 9.1, frozenset({A}))
    none = {"lives": (life(A, ended=10.5, at=10.0), life(B, ended=10.5, at=10.0))}

    assert "I15" not in seen(ticking(10.0, 10.8, disturbances=(of_all,)))
    assert "I15" in seen(ticking(10.0, 10.8, disturbances=(of_one,)))
    assert "I15" not in seen(ticking(10.0, 10.8, **none))
    assert "I15" not in seen(ticking(1.0, 1.8))
    assert "I15" not in seen(ticking(10.0, 10.8), replace(RULES, slack=0.3))


# ---- I22, I23 ---------------------------------------------------------------------------------------------------------------


def limited(starts: list[float], **parts) -> History:
    """Entries of a handler with a rate, started at these moments."""
    numbers = range(1, len(starts) + 1)
    runs = tuple(run(number, started=at, ended=at + 0.01) for number, at in zip(numbers, starts, strict=True))
    return a_history(published=tuple(published(number, kind="limited") for number in numbers), runs=runs, **parts)


def test_no_more_starts_than_the_rate_and_the_burst():
    """In the worst stretch of time, wherever it lies."""
    burst, interval = flow.LIMIT.burst, flow.LIMIT.per.total_seconds() / flow.LIMIT.count
    steady = [1.0 + number * interval for number in range(40)]

    assert set() == seen(limited(steady))
    assert set() == seen(limited([2.0] * burst + [2.0 + interval]))
    assert {"I22"} == seen(limited([1.0] + [2.0] * (burst + 1)))
    assert set() == seen(limited([2.0] * (burst + 1), forgotten=(0.5,)))


def test_nothing_of_a_paused_handler_starts():
    """From when every process has seen it until it is resumed; another handler may."""
    paused = {"collected": {"flow": ((0.5, 2.0),)}}

    assert {"I23"} == seen(a_history(published=(published(kind="pausable"),), **paused))
    assert set() == seen(a_history(published=(published(kind="ok"),), **paused))
    assert set() == seen(a_history(published=(published(kind="pausable"),), runs=(run(started=2.1, ended=2.2),), **paused))


def test_an_entry_whose_downstream_was_away_may_succeed_later():
    """At whatever attempt; but it is not used up."""
    failed = run(started=1.0, ended=1.1, end="failed")
    again = run(started=1.5, ended=1.6, attempt=2)

    assert set() == seen(a_history(published=(published(kind="switched"),), runs=(failed, again)))
    exhausted = a_history(published=(published(kind="switched"),), runs=(failed,), dead_letters=(letter(1, "exhausted", 3),))
    assert "I6" in seen(exhausted)


# ---- I29 --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "lengths", "broken"),
    [
        ((), None, set()),
        ((), (0, 0), set()),
        ((), (50, 50), set()),
        ((7,), None, {"I29"}),
        ((), (1, 0), {"I29"}),
        ((), (51, 50), {"I29"}),
    ],
)
def test_a_group_that_is_robbed_and_a_stream_that_stays_long_are_seen(missed, lengths, broken):
    """What the laggard has not been given, and what nobody needs."""
    assert broken == seen(a_history(collected={"retention": (missed, lengths)}))


# ---- I32 --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noted", "broken"), [((), set()), ((60, 0, -1, 0), set()), ((60, 1, 7, 0), {"I32"}), ((60, 0, -1, 3), {"I32"})]
)
def test_what_a_lot_has_lost_or_left_is_seen(noted, broken):
    """Of as many as were added."""
    assert broken == seen(a_history(collected={"lots": noted}))
