"""What happens to a supervisor and its children: a child killed or frozen, the supervisor killed, a rolling restart by HUP."""

from __future__ import annotations

import signal

from tests.torture import children
from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.faults.processes import LONG_ONES
from tests.torture.fleet import Worker, until
from tests.torture.scene import Scene

UNDER_SUPERVISORS = ("--workers", "2")


def a_child(scene: Scene) -> tuple[Worker, int]:
    """One that reads, and its supervisor; waits for one."""
    found: list[tuple[Worker, int]] = []

    def look() -> bool:
        found[:] = [(worker, pid) for worker in scene.fleet.ready_ones() for pid in worker.children()]
        return bool(found)

    until(look, 30, "a child reads")
    return scene.random.choice(found)


def kill_a_child(scene: Scene) -> None:
    """SIGKILL: its supervisor starts another, and its sibling is not disturbed."""
    worker, pid = a_child(scene)
    worker.kill_child(pid)
    scene.fired += 1


def stop_a_child(scene: Scene) -> None:
    """SIGSTOP for longer than a lease, then SIGCONT. Neither its sibling nor its supervisor may do anything about it but go on."""
    _, pid = a_child(scene)
    with scene.hit("stop", child=pid, freezes=True, heals=False):
        children.send(pid, signal.SIGSTOP)
        scene.pause(scene.lease * scene.random.uniform(1.3, 2.2))
        children.send(pid, signal.SIGCONT)


def kill_the_supervisor(scene: Scene) -> None:
    """SIGKILL for it alone: its children drain in order, so nothing may run twice and nothing is put on record."""
    worker = scene.fleet.any_ready(scene.random)
    worker.signal(signal.SIGKILL, "kill")
    scene.fired += 1
    until(lambda: not worker.is_alive() and not worker.orphans(), 30, "the children of a dead supervisor end")


def roll(scene: Scene) -> None:
    """HUP: each child is replaced, once its successor reads. Nothing may run twice, so nothing is put on record."""
    worker = scene.fleet.any_ready(scene.random)
    before = len(children.logged(worker.log, "supervisor.rolled"))
    worker.signal(signal.SIGHUP)
    until(lambda: len(children.logged(worker.log, "supervisor.rolled")) > before, 30, "the rolling restart is over")
    scene.fired += 1


STRIKES: tuple[Strike, ...] = (kill_a_child, kill_a_child, stop_a_child, kill_the_supervisor, roll)


def any_of_them(scene: Scene) -> None:
    """Whatever comes next."""
    scene.random.choice(STRIKES)(scene)


def supervised(name: str, inject: Strike, **facts: object) -> Fault:
    """A fault of two supervisors with two children each."""
    return Fault(f"supervisor: {name}", inject, **{"workers": 2, "options": UNDER_SUPERVISORS, **facts})  # type: ignore[arg-type]


FAULTS = (
    supervised("kill -9 of a child", again_and_again(kill_a_child, 1.0, least=4), events=one_of("child.restarting")),
    supervised("SIGSTOP of a child", again_and_again(stop_a_child, 0.3), mix=LONG_ONES, events=one_of("lease.lost")),
    supervised("kill -9 of the supervisor", again_and_again(kill_the_supervisor, 0.3, least=3), events=one_of("worker.draining")),
    supervised("rolling restart by HUP", again_and_again(roll, 0.2, least=3), events=one_of("supervisor.rolled")),
    supervised("mixed", again_and_again(any_of_them, 0.4, least=6), seconds=10.0, events=one_of("child.exited")),
)
