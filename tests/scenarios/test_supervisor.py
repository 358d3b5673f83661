"""Several worker processes under a supervisor: killed, rolled, scaled, paused, stopped; counted by the handlers' own ledger."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from tests.scenarios.test_life_and_death import add, pending
from tests.scenarios.workers import Fleet, a_fleet
from tests.waiting import wait_until

APP = "tests.scenarios.pod_app:app"


@pytest.fixture
def fleet(valkey, tmp_path) -> Iterator[Fleet]:
    with a_fleet(valkey.url, tmp_path) as fleet:
        yield fleet


def supervise(fleet: Fleet, *options: str, workers: int = 2, ready: bool = True) -> subprocess.Popen[bytes]:
    """A supervisor; unless told otherwise, all its children are ready."""
    supervisor = fleet.start("--workers", str(workers), *options, app=APP, ready=False)
    if ready:
        fleet.until_logged(supervisor, "child.ready", workers)
    return supervisor


def children(fleet: Fleet, supervisor: subprocess.Popen[bytes]) -> list[int]:
    """The living children, oldest first."""
    ended = {line["pid"] for line in fleet.logged(supervisor, "child.exited")}
    return [line["pid"] for line in fleet.logged(supervisor, "child.started") if line["pid"] not in ended]


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a zombie that nobody has reaped is none."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def said(fleet: Fleet, worker: subprocess.Popen[bytes]) -> str:
    return (fleet.folder / f"worker-{fleet.workers.index(worker)}.log").read_text()


@contextmanager
def publishing(url: str) -> Iterator[list[int]]:
    """Entries all the time inside the block, from a thread; the list holds their numbers."""
    published: list[int] = []
    enough = threading.Event()

    def publish() -> None:
        with redis.Redis.from_url(url) as client:
            while not enough.wait(0.005):
                client.xadd("orders", {"number": len(published)})
                published.append(len(published))

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield published
    finally:
        enough.set()
        thread.join()


# ---- the life of the children -----------------------------------------------------------------------------------------------


def test_the_supervisor_runs_so_many_processes_and_ends_with_them(fleet, client):
    """Each takes a part of the load; TERM drains them all, and the exit code is 0. None is left."""
    supervisor = supervise(fleet)
    pids = children(fleet, supervisor)
    add(client, 300, seconds=0.01)  # both wait for it: a backlog can be over before the second one is there
    fleet.until("done", 300)
    supervisor.send_signal(signal.SIGTERM)
    code = supervisor.wait(15)

    assert 0 == code
    assert list(range(300)) == sorted(fleet.numbers())
    assert set(pids) == {line["pid"] for line in fleet.ledger("done")}
    assert [] == [pid for pid in pids if is_alive(pid)]
    assert {1, 2} == {line["child"] for line in fleet.logged(supervisor, "child.ready")}
    assert ["exit code 0"] * 2 == [line["how"] for line in fleet.logged(supervisor, "child.exited")]


def test_a_killed_child_is_followed_by_another(fleet, client):
    """SIGKILL under load: nothing is lost, and there are as many as before."""
    add(client, 600, seconds=0.01)
    supervisor = supervise(fleet)
    victim = children(fleet, supervisor)[0]
    fleet.until("done", 100)
    os.kill(victim, signal.SIGKILL)
    [ended] = fleet.until_logged(supervisor, "child.exited")
    fleet.until_logged(supervisor, "child.ready", 3)
    wait_until(lambda: set(range(600)) <= set(fleet.numbers()), within=30)
    alive = children(fleet, supervisor)
    wait_until(lambda: pending(client) == 0)
    supervisor.send_signal(signal.SIGTERM)

    assert (victim, "SIGKILL", "error") == (ended["pid"], ended["how"], ended["level"])
    assert 2 == len(alive)
    assert victim not in alive
    assert len(fleet.numbers()) - 600 <= 10, "only what was in flight may run twice"
    assert 0 == supervisor.wait(15)


def test_an_entry_that_kills_its_process_costs_one_child_and_is_handled_by_the_next(fleet, client):
    """The supervisor names the signal; the entry's second run knows of the crash."""
    client.xadd("deadly", {"number": 1})
    supervisor = supervise(fleet, workers=2, ready=False)
    fleet.until("done", 1)

    assert ["SIGABRT"] == [line["how"] for line in fleet.logged(supervisor, "child.exited")]
    assert [1] == [line["crashes"] for line in fleet.ledger("done")]


def test_a_program_that_always_dies_is_given_up_with_1_and_a_sentence(fleet, client, tmp_path):
    """Growing pauses, then the end: it says how the last one died, and what it said."""
    (tmp_path / "die").touch()
    supervisor = supervise(fleet, workers=2, ready=False)
    code = supervisor.wait(50)
    [loop] = fleet.logged(supervisor, "supervisor.crash_loop")
    deaths = fleet.logged(supervisor, "child.exited")

    assert 1 == code
    assert ("exit code 1", "ConnectionRefusedError: the payment service is not there") == (loop["how"], loop["said"])
    assert 10 <= len(deaths) <= 14
    assert all(
        0 <= line["after_s"] <= 0.5 * 2 ** (line["early_deaths"] - 1) for line in fleet.logged(supervisor, "child.restarting")
    )


def test_a_child_that_stops_dead_is_killed_as_the_last_means(fleet, client):
    """Not even its watchdog can run in a frozen process; the exit code says that its work was left."""
    supervisor = supervise(fleet, "--grace", "0s")
    frozen = children(fleet, supervisor)[0]
    os.kill(frozen, signal.SIGSTOP)
    supervisor.send_signal(signal.SIGTERM)
    code = supervisor.wait(20)

    assert 4 == code
    assert [frozen] == [line["pid"] for line in fleet.logged(supervisor, "child.killed")]
    assert not is_alive(frozen)


def test_a_child_that_gives_up_has_failed(valkey, client, tmp_path):
    """It drains of its own accord, but is followed by another as a crashed one is: after a pause, and it counts."""
    with a_fleet(valkey.url, tmp_path, ON_GROUP_LOST="stop") as fleet:
        supervisor = supervise(fleet)
        client.xgroup_destroy("orders", "billing")
        ended = fleet.until_logged(supervisor, "child.exited", 1)[0]
        fleet.until_logged(supervisor, "child.restarting")

        assert ("exit code 1", "error") == (ended["how"], ended["level"])
        assert "XGROUP CREATE orders billing" in ended["said"]
        assert [] == fleet.logged(supervisor, "child.leaving")


# ---- recycling --------------------------------------------------------------------------------------------------------------


def test_children_are_recycled_after_so_many_deliveries(fleet, client):
    """Again and again, each followed at once; nothing is handled twice."""
    add(client, 400, seconds=0.005)
    supervisor = supervise(fleet, "--max-deliveries", "60", ready=False)
    fleet.until("done", 400, within=40)
    supervisor.send_signal(signal.SIGTERM)
    code = supervisor.wait(15)
    leaving = fleet.logged(supervisor, "child.leaving")

    assert 0 == code
    assert list(range(400)) == sorted(fleet.numbers())
    assert len(leaving) >= 4
    assert {"max-deliveries reached"} == {line["why"] for line in leaving}
    assert [] == fleet.logged(supervisor, "child.restarting")


def test_a_child_that_holds_too_much_memory_is_recycled(fleet, client):
    """The limit is the process's own; its successor starts with little, and nothing is lost."""
    supervisor = supervise(fleet, "--max-memory", "150MB", "--concurrency", "1")
    before = children(fleet, supervisor)
    add(client, 12, stream="hogs")
    [*_, left] = fleet.until_logged(supervisor, "child.leaving")
    fleet.until_logged(supervisor, "child.ready", 3)
    fleet.until("done", 12)
    supervisor.send_signal(signal.SIGTERM)

    assert "max-memory reached" == left["why"]
    assert left["pid"] in before
    assert 0 == supervisor.wait(15)
    assert list(range(12)) == sorted(fleet.numbers())


def test_alone_a_process_that_holds_too_much_memory_drains_and_exits_with_0(fleet, client):
    """Whatever started it starts it again."""
    worker = fleet.start("--max-memory", "150MB", app=APP)
    add(client, 12, stream="hogs")

    assert 0 == worker.wait(20)
    assert "max-memory reached" == fleet.logged(worker, "worker.draining")[0]["why"]
    assert 0 == pending(client, "hogs")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_memory_limit_below_what_the_program_needs_is_refused(fleet, workers):
    """It would recycle for ever; the sentence names what it needs, once."""
    worker = fleet.start("--max-memory", "10MB", "--workers", workers, app=APP, ready=False)

    assert 2 == worker.wait(20)
    assert 1 == said(fleet, worker).count("Error: --max-memory is not above the ")


def test_burst_ends_when_all_children_have_found_nothing_left(fleet, client):
    """None is restarted, and the exit code is 0."""
    add(client, 200, seconds=0.01)
    supervisor = supervise(fleet, "--burst", ready=False)
    code = supervisor.wait(30)

    assert 0 == code
    assert list(range(200)) == sorted(fleet.numbers())
    assert 2 == len(fleet.logged(supervisor, "child.started"))


# ---- signals ----------------------------------------------------------------------------------------------------------------


def test_hup_replaces_the_children_one_by_one_without_a_gap(fleet, client, valkey):
    """Under a steady load: each successor is ready before its predecessor drains; every entry is handled once, and none waits long."""
    supervisor = supervise(fleet)
    before = children(fleet, supervisor)
    with publishing(valkey.url) as published:
        fleet.until("done", 50)
        supervisor.send_signal(signal.SIGHUP)
        fleet.until_logged(supervisor, "supervisor.rolled", within=30)
        count = len(published)
        wait_until(lambda: len(published) >= count + 50)
    wait_until(lambda: len(fleet.numbers()) >= len(published))
    after = children(fleet, supervisor)
    lines = fleet.log_of(supervisor)
    order = [(line["event"], line["pid"]) for line in lines if line["event"] in ("child.ready", "child.exited")]
    times = [line["at"] for line in fleet.ledger("started")]

    assert list(range(len(published))) == sorted(fleet.numbers())
    assert {(1, 0)} == {(line["attempt"], line["crashes"]) for line in fleet.ledger("started")}
    assert 2 == len(after)
    assert not set(before) & set(after)
    assert ["child.ready"] * 2 + ["child.ready", "child.exited"] * 2 == [event for event, _ in order]
    assert set(before) == {pid for event, pid in order if event == "child.exited"}
    assert max(later - earlier for earlier, later in pairwise(times)) < 1


def test_a_program_that_no_longer_starts_leaves_those_that_run_alone(fleet, client, tmp_path):
    """HUP with a broken program: the roll ends with the first, and the old children go on; the next HUP, with a sound one, rolls."""
    supervisor = supervise(fleet)
    before = children(fleet, supervisor)
    (tmp_path / "broken").touch()
    supervisor.send_signal(signal.SIGHUP)
    fleet.until_logged(supervisor, "supervisor.roll_failed")
    add(client, 10)
    fleet.until("done", 10)
    [failed] = fleet.logged(supervisor, "child.exited")

    assert before == children(fleet, supervisor)
    assert "somebody has deployed a program" in failed["said"]

    (tmp_path / "broken").unlink()
    supervisor.send_signal(signal.SIGHUP)
    fleet.until_logged(supervisor, "supervisor.rolled")
    assert not set(before) & set(children(fleet, supervisor))


def test_ttin_and_ttou_add_and_remove_a_child(fleet, client):
    """Never the last one; what a removed one has in hand it finishes."""
    supervisor = supervise(fleet, workers=2)
    supervisor.send_signal(signal.SIGTTIN)
    fleet.until_logged(supervisor, "child.ready", 3)
    three = len(children(fleet, supervisor))
    for gone in (1, 2):
        supervisor.send_signal(signal.SIGTTOU)
        fleet.until_logged(supervisor, "child.exited", gone)
    supervisor.send_signal(signal.SIGTTOU)
    fleet.until_logged(supervisor, "signal.ignored")
    [last] = children(fleet, supervisor)
    add(client, 5)
    fleet.until("done", 5)

    assert 3 == three
    assert {last} == {line["pid"] for line in fleet.ledger("done")}
    assert [3, 2, 1] == [line["workers"] for line in fleet.logged(supervisor, "supervisor.scaled")]


def test_usr1_pauses_and_resumes_all_and_who_comes_later(fleet, client):
    """While paused, entries stay undelivered, to the successor of a dead child too."""
    supervisor = supervise(fleet)
    supervisor.send_signal(signal.SIGUSR1)
    fleet.until_logged(supervisor, "worker.paused", 2)
    os.kill(children(fleet, supervisor)[0], signal.SIGKILL)
    fleet.until_logged(supervisor, "child.ready", 3)
    wait_until(lambda: client.info("clients")["blocked_clients"] == 0)
    add(client, 3)
    undelivered = client.xinfo_groups("orders")[0]["lag"]
    supervisor.send_signal(signal.SIGUSR1)
    fleet.until("done", 3)

    assert 3 == undelivered
    assert 3 == len(fleet.logged(supervisor, "worker.paused"))


def test_ctrl_c_reaches_the_children_once(fleet, client):
    """A terminal sends INT to all that runs in it; the children, of another session, drain once and are not hurried."""
    add(client, 4, seconds=1)
    supervisor = supervise(fleet)
    fleet.until("started", 4)
    os.killpg(supervisor.pid, signal.SIGINT)
    code = supervisor.wait(15)

    assert 0 == code
    assert 4 == len(fleet.numbers())
    assert [] == fleet.logged(supervisor, "worker.interrupted")


def test_a_second_interrupt_stops_all_at_once_with_130(fleet, client):
    """Handlers are cancelled and their entries released, whatever the grace. The first one after a TERM says so."""
    add(client, 4, seconds=60)
    supervisor = supervise(fleet, "--grace", "10m", "--concurrency", "2")
    fleet.until("started", 4)
    supervisor.send_signal(signal.SIGTERM)
    fleet.until_logged(supervisor, "worker.draining", 2)
    supervisor.send_signal(signal.SIGINT)
    said = fleet.until_logged(supervisor, "signal.ignored")
    supervisor.send_signal(signal.SIGINT)
    code = supervisor.wait(15)

    assert "SIGINT: it drains already; once more to stop at once" == said[0]["why"]
    assert 130 == code
    assert 0 == pending(client)
    assert 4 == client.xlen("{orders}:retry:billing")


def test_what_the_grace_cuts_off_makes_the_exit_code_4(fleet, client):
    """The worst end of all children is that of the supervisor."""
    add(client, 1, seconds=60)
    supervisor = supervise(fleet, "--grace", "200ms")
    fleet.until("started", 1)
    supervisor.send_signal(signal.SIGTERM)

    assert 4 == supervisor.wait(15)
    assert 1 == client.xlen("{orders}:retry:billing")


def test_a_stop_while_children_start_does_not_wait_for_them(fleet, tmp_path):
    """A lifespan that takes for ever has nothing in hand."""
    (tmp_path / "wait").touch()
    supervisor = supervise(fleet, "--grace", "0s", ready=False)
    fleet.until_logged(supervisor, "child.started", 2)
    supervisor.send_signal(signal.SIGTERM)
    code = supervisor.wait(15)

    assert code in (0, 4)


# ---- who dies first ---------------------------------------------------------------------------------------------------------


def test_children_drain_and_end_when_their_supervisor_is_killed(fleet, client):
    """SIGKILL of the supervisor under load: what is in hand is finished, and nobody is left behind."""
    add(client, 20, seconds=0.5)
    supervisor = supervise(fleet, "--concurrency", "4")
    pids = children(fleet, supervisor)
    fleet.until("started", 8)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    wait_until(lambda: not any(map(is_alive, pids)), within=15)
    left = pending(client)
    started, done = fleet.numbers("started"), fleet.numbers()
    fleet.start("--burst", app=APP, ready=False).wait(30)

    assert 0 == left
    assert sorted(started) == sorted(done)
    assert list(range(20)) == sorted(fleet.numbers())
    assert {"the supervisor is gone"} == {line["why"] for line in fleet.logged(supervisor, "worker.draining")}


def test_a_blocked_child_does_not_outlive_its_supervisor_for_ever(fleet, client):
    """Its event loop never hears of it; a thread does, and its watchdog ends it."""
    add(client, 1, stream="blocking", seconds=120)
    supervisor = supervise(fleet, "--grace", "0s")
    pids = children(fleet, supervisor)
    fleet.until("started", 1)
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()
    wait_until(lambda: not any(map(is_alive, pids)), within=15)

    assert 1 == pending(client, "blocking")
    assert fleet.has_logged(supervisor, "worker.ended_hard")


def test_children_that_still_start_end_with_their_supervisor(fleet, tmp_path):
    """Whatever they wait for."""
    (tmp_path / "wait").touch()
    supervisor = supervise(fleet, "--grace", "0s", ready=False)
    pids = [line["pid"] for line in fleet.until_logged(supervisor, "child.started", 2)]
    supervisor.send_signal(signal.SIGKILL)
    supervisor.wait()

    wait_until(lambda: not any(map(is_alive, pids)), within=15)


# ---- what is wrong from the start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "repair"),
    [
        (["--grace", "25"], "25s"),
        (["--handler", "chrage"], "charge"),
        (["--health-addr", "8080"], "HOST:PORT"),
        (["-w", "0"], "--workers"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(fleet, arguments, repair):
    """However many children find it out; none is started again."""
    supervisor = supervise(fleet, *arguments, ready=False)
    code = supervisor.wait(20)
    text = said(fleet, supervisor)

    assert 2 == code
    assert 1 == text.count("Error: ")
    assert repair in text
    assert "Traceback" not in text
    assert len(fleet.logged(supervisor, "child.started")) in (0, 2)


def test_without_a_server_it_says_so_once_and_exits_with_3(tmp_path):
    """No child is started again; whoever runs the supervisor does that."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with a_fleet(f"redis://user:secret@127.0.0.1:{port}/0", tmp_path) as fleet:
        supervisor = supervise(fleet, ready=False)
        code = supervisor.wait(20)
        text = said(fleet, supervisor)

        assert 3 == code
        assert 1 == text.count("Error: cannot reach Redis")
        assert "streamworker dev" in text
        assert "secret" not in text
        assert 2 == len(fleet.logged(supervisor, "child.started"))


def test_children_have_names_of_their_own(fleet, client):
    """--consumer NAME is that of all, with the child's number behind it."""
    supervisor = supervise(fleet, "--consumer", "web")

    assert {"web-1", "web-2"} == {line["consumer"] for line in fleet.logged(supervisor, "worker.ready")}
