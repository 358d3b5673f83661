"""Handlers in processes of their own: what they ask for counts, and their deaths are nobody else's."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from streamworker.codecs.dead_letters import read_dead_letter
from tests.scenarios.workers import Fleet, a_fleet
from tests.waiting import wait_until

APP = "tests.scenarios.cpu_apps:app"


def add(client: Any, *does: str, stream: str = "images", first: int = 0) -> list[bytes]:
    return [client.xadd(stream, {"number": number, "does": what}) for number, what in enumerate(does, first)]


def is_idle(client: Any, stream: str = "images") -> bool:
    """Whether all is handled or set aside; seen in one moment, for an entry goes from key to key."""
    hashed = stream if "{" in stream else f"{{{stream}}}"
    groups, due, retry = (
        client.pipeline().xinfo_groups(stream).zcard(f"{hashed}:due:billing").xlen(f"{hashed}:retry:billing").execute()
    )
    return bool(groups) and groups[0]["pending"] == groups[0]["lag"] == due == retry == 0


def letters(client: Any, stream: str = "images") -> dict[int, dict[str, str]]:
    """The notes of each dead letter by its entry's number."""
    hashed = stream if "{" in stream else f"{{{stream}}}"
    found = {}
    for _, fields in client.xrange(f"{hashed}:dlq:billing"):
        record = read_dead_letter([part for pair in fields.items() for part in pair])
        found[int(fields[b"number"])] = dict(record.notes)
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has asked about its end yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_of(fleet: Fleet) -> set[int]:
    """The processes of handlers that have begun."""
    return {line["pid"] for line in fleet.ledger("began")} - {worker.pid for worker in fleet.workers}


def fallen(worker: subprocess.Popen[bytes], fleet: Fleet) -> list[dict[str, Any]]:
    return fleet.logged(worker, "handler.process_died")


def test_what_a_handler_asks_for_in_its_process_is_written_with_the_acknowledgement(valkey, client, tmp_path):
    """Its publishes and its transaction, once for each entry; its lifespan is its own process's; what it prints and logs is seen."""
    add(client, *["succeed", "print"] * 20)
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        wait_until(lambda: is_idle(client), within=20)
        text = (tmp_path / "worker-0.log").read_text()

        assert [str(number).encode() for number in range(40)] == sorted(
            (fields[b"number"] for _, fields in client.xrange("{images}:scaled")), key=int
        )
        assert b"40" == client.get("{images}:count")
        assert all(line["pid"] == line["state"] != worker.pid for line in fleet.ledger("started"))
        assert 3 >= len({line["pid"] for line in fleet.ledger("started")})
        assert "printed 1\n" in text
        [logged] = [line for line in fleet.logged(worker, "scale.logged") if line["number"] == 7]
        assert ("images", "billing", "scale", 1) == tuple(logged[name] for name in ("stream", "group", "handler", "attempt"))

        worker.send_signal(signal.SIGTERM)
        assert 0 == worker.wait(10)
        assert {line["pid"] for line in fleet.ledger("began")} == {line["pid"] for line in fleet.ledger("ended")}


def test_what_a_handler_raises_in_its_process_decides_as_it_does_elsewhere(valkey, client, tmp_path):
    """An error is tried again and told with its text and place; what is given up on, and the three words, are known across."""
    add(client, "fail", "give up", "reject", "retry", "snooze", "leave")
    with a_fleet(valkey.url, tmp_path) as fleet:
        fleet.start(app=APP)
        wait_until(lambda: is_idle(client), within=20)
        told = letters(client)

        assert {0: "exhausted", 1: "unretryable", 2: "rejected", 3: "exhausted", 5: "exhausted"} == {
            number: notes["reason"] for number, notes in told.items()
        }
        assert "ValueError: number 0 is odd" == told[0]["error"]
        assert 'cpu_apps.py", line' in told[0]["traceback"]
        assert "handling" not in told[0]["traceback"]
        assert "HopelessError: for good" == told[1]["error"]
        assert ("Reject: not this one", "Retry: later", "SystemExit: 3") == (told[2]["error"], told[3]["error"], told[5]["error"])
        attempts = Counter(line["number"] for line in fleet.ledger("started"))
        assert {0: 3, 1: 1, 2: 1, 3: 3, 4: 2, 5: 3} == attempts
        assert {1} == {line["attempt"] for line in fleet.ledger("started") if line["number"] == 4}


def test_a_process_that_dies_takes_no_other_entry_with_it(valkey, client, tmp_path):
    """Each death counts against the entry that ran there, until it is set aside; the worker lives on, and nobody else loses an attempt."""
    add(client, *["sleep", "die", "sleep", "exit", "sleep", "sleep"] * 2)
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        wait_until(lambda: is_idle(client), within=40)
        runs = fleet.ledger("started")
        told = letters(client)

        assert worker.poll() is None
        assert {1: 3, 3: 3, 7: 3, 9: 3} == Counter(line["number"] for line in runs if line["number"] in told)
        assert {("crashed", "3", "1")} == {(notes["reason"], notes["crashes"], notes["attempts"]) for notes in told.values()}
        assert "SIGSEGV" in told[1]["error"]
        assert "exit code 3" in told[3]["error"]
        assert [0, 1, 2] == [line["crashes"] for line in runs if line["number"] == 1]
        assert sorted(set(range(12)) - {1, 3, 7, 9}) == sorted(fleet.numbers())
        assert {0} == {line["crashes"] for line in runs if line["number"] not in told}
        assert b"8" == client.get("{images}:count")
        assert 12 == len(fallen(worker, fleet))


def test_a_process_that_is_killed_from_outside_under_load_costs_its_entry_a_run_and_nothing_else(valkey, client, tmp_path):
    """Whatever is killed while it runs is run again; all is done, and its effects are there once."""
    add(client, *["sleep"] * 60)
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        for count in (5, 15, 30):
            fleet.until("done", count)
            victim = fleet.ledger("started")[-1]["pid"]
            os.kill(victim, signal.SIGKILL)
        wait_until(lambda: is_idle(client), within=30)

        assert worker.poll() is None
        assert {} == letters(client)
        assert set(range(60)) == set(fleet.numbers())
        assert b"60" == client.get("{images}:count")
        assert 60 == client.xlen("{images}:scaled")
        assert 3 >= len(fallen(worker, fleet))


def test_an_idle_process_that_is_killed_is_replaced_and_no_entry_is_blamed(valkey, client, tmp_path):
    """Its death is nobody's doing."""
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        wait_until(lambda: processes_of(fleet), within=10)
        [idle] = processes_of(fleet)
        os.kill(idle, signal.SIGKILL)
        add(client, "succeed")
        wait_until(lambda: fleet.numbers() == [0], within=20)

        assert [0] == [line["crashes"] for line in fleet.ledger("started")]
        assert [] == fallen(worker, fleet)


def test_a_timeout_kills_the_process_and_what_it_has_started(valkey, client, tmp_path):
    """It counts as a failed attempt, the place is free, the next entry is handled; even code that holds the interpreter ends."""
    add(client, "hang", "program", "hold", "succeed", stream="timed")
    with a_fleet(valkey.url, tmp_path) as fleet:
        fleet.start(app=APP)
        wait_until(lambda: is_idle(client, "timed"), within=40)
        told = letters(client, "timed")
        runs = fleet.ledger("started")

        assert {0: "exhausted", 1: "exhausted", 2: "exhausted"} == {number: notes["reason"] for number, notes in told.items()}
        assert {"HandlerTimeout: scale_in_time ran longer than 0:00:00.500000"} == {notes["error"] for notes in told.values()}
        assert {("0", "3")} == {(notes["crashes"], notes["attempts"]) for notes in told.values()}
        assert [3] == fleet.numbers()
        gone = {line["pid"] for line in runs if line["number"] != 3} | {line["program"] for line in fleet.ledger("program")}
        wait_until(lambda: not any(map(is_alive, gone)), within=5)


def test_the_processes_of_a_worker_that_is_killed_die_with_it(valkey, client, tmp_path):
    """Those that wait, those that work, and those whose code holds the interpreter; another worker does their entries."""
    add(client, "hold", "hang", "succeed")
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        fleet.until("started", 3)
        fleet.until("done", 1)
        orphans = processes_of(fleet)
        assert len(orphans) >= 3

        worker.send_signal(signal.SIGKILL)
        worker.wait()

        wait_until(lambda: not any(map(is_alive, orphans)), within=5)


def test_a_drain_waits_for_a_process_within_the_grace_and_then_kills_it(valkey, client, tmp_path):
    """What ends in time is acknowledged; what does not is released, uncounted, and no process is left."""
    add(client, "sleep", "hang")
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start("--grace", "1s", app=APP)
        fleet.until("started", 2)
        worker.send_signal(signal.SIGTERM)

        assert 4 == worker.wait(10)
        assert [0] == fleet.numbers()
        [stopped] = fleet.logged(worker, "worker.stopped")
        assert (1, 0) == (stopped["interrupted"], stopped["left_pending"])
        assert 1 == client.xlen("{images}:retry:billing")
        wait_until(lambda: not any(map(is_alive, processes_of(fleet))), within=5)


def test_what_lies_beside_the_program_does_not_stand_in_for_pythons_own_modules(valkey, client, tmp_path):
    """In the worker it does not, for these are imported by then; so it must not in its processes."""
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    (tmp_path / "beside.py").write_text("from tests.scenarios.cpu_apps import app")
    add(client, "succeed")
    with a_fleet(valkey.url, tmp_path) as fleet:
        fleet.start("--app-dir", str(tmp_path), app="beside:app")
        fleet.until("done", 1)


def test_a_lost_lease_kills_the_process(valkey, client, tmp_path):
    """Whoever has taken the entry over must not be disturbed; the worker goes on."""
    add(client, "hang")
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        fleet.until("started", 1)
        [run] = fleet.ledger("started")
        taken = client.xpending_range("images", "billing", "-", "+", 1)[0]["message_id"]
        client.xclaim("images", "billing", "somebody-else", 0, [taken])

        fleet.until_logged(worker, "delivery.abandoned")
        wait_until(lambda: not is_alive(run["pid"]), within=5)
        client.xack("images", "billing", taken)
        add(client, "succeed", first=5)
        fleet.until("done", 1)


def test_leases_are_renewed_while_a_process_holds_the_interpreter(valkey, client, tmp_path):
    """The renewing is the worker's, whose interpreter is free."""
    add(client, "hold")
    with a_fleet(valkey.url, tmp_path, lease_ms=1000) as fleet:
        worker = fleet.start(app=APP)
        fleet.start(app=APP)
        fleet.until("started", 1)
        began = fleet.ledger("started")[0]["at"]
        add(client, *["sleep"] * 40, first=1)
        fleet.until("done", 40)

        assert timedelta(milliseconds=1200) < timedelta(seconds=fleet.ledger("done")[-1]["at"] - began)
        assert [0] == [line["number"] for line in fleet.ledger("started") if line["number"] == 0]
        assert [] == fleet.logged(worker, "lease.lost")


def test_an_idempotent_handler_in_a_process_does_a_thing_once(valkey, client, tmp_path):
    """Its mark is the worker's."""
    for _ in range(3):
        add(client, "succeed", stream="once", first=7)
    with a_fleet(valkey.url, tmp_path) as fleet:
        fleet.start(app=APP)
        wait_until(lambda: is_idle(client, "once"), within=20)

        assert [7] == fleet.numbers()


def test_an_ordered_entry_whose_process_dies_is_run_again_in_its_place(valkey, client, tmp_path):
    """And set aside after as many crashes as anywhere, so that its key gets on."""
    for what in ("succeed", "die", "succeed"):
        add(client, what, stream="{line}:ordered", first=4)
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(app=APP)
        wait_until(lambda: is_idle(client, "{line}:ordered"), within=20)

        assert [4, 4] == fleet.numbers()
        assert [0, 0, 1, 2, 0] == [line["crashes"] for line in fleet.ledger("started")]
        assert "crashed" == letters(client, "{line}:ordered")[4]["reason"]
        assert 3 == len(fallen(worker, fleet))
