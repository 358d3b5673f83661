"""What happens between a worker and its server: late, cut, silent, and replies that are lost, command by command."""

from __future__ import annotations

import time

from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.faults.processes import kill
from tests.torture.fleet import Worker, until
from tests.torture.history import Disturbance
from tests.torture.load import PLAIN
from tests.torture.proxy import Call, Cut, Shape, Stall, every
from tests.torture.scene import Scene

LONG_ONES = {**PLAIN, "long": 20.0}
READ_REPLY_SECONDS = 30.0


def behind(scene: Scene) -> list[Worker]:
    """The workers behind the proxy."""
    return [worker for worker in scene.fleet.ready_ones() if worker.recipe.url == scene.the_proxy.url]


def delay(scene: Scene) -> None:
    """Both directions are late: sometimes a little, sometimes by more than a lease, so that renewals arrive when the lease is over."""
    proxy = scene.the_proxy
    late = scene.random.choice((0.02, 0.2, 1.2)) * scene.lease
    with scene.hit("delay", workers=behind(scene), fires=0, heals=False):
        shapes = [proxy.shape("to_server", Shape(delay=late, jitter=late / 4)), proxy.shape("to_client", Shape(delay=late / 4))]
        scene.pause(scene.lease * scene.random.uniform(1, 2))
        proxy.shape("to_server", None)
        proxy.shape("to_client", None)
        scene.pause(1.5 * late)  # until what is on its way has arrived
    scene.fired += sum(shape.fired > 0 for shape in shapes)


def cut(scene: Scene) -> None:
    """Every connection ends, orderly or by a reset."""
    with scene.hit("cut", workers=behind(scene), fires=0, heals=False):
        scene.fired += int(scene.the_proxy.cut(scene.random.choice(("rst", "fin"))) > 0)


def partition(scene: Scene) -> None:
    """Nothing arrives in either direction for up to three leases, and nobody is told; then what was held goes on, or is cut."""
    proxy = scene.the_proxy
    with scene.hit("partition", workers=behind(scene), fires=0):
        scene.fired += int(proxy.stall(new_too=True) > 0)
        scene.pause(scene.lease * scene.random.uniform(1.2, 3))
        if scene.random.random() < 0.5:
            proxy.cut("rst")
        proxy.heal()


def half_open_for_ever(scene: Scene) -> None:
    """Connections go silent and stay so; new ones work. The only worker must notice by itself."""
    scene.pause(0.5)
    begin = time.monotonic()
    with scene.hit("half-open", fires=0, heals=False):
        scene.fired += int(scene.the_proxy.stall(Stall()) > 0)
        started = {run.started for run in scene.fleet.runs()}
        until(
            lambda: any(run.started > begin + 0.5 for run in scene.fleet.runs() if run.started not in started),
            40,
            "the worker goes on",
        )
        scene.healed.append(begin + 0.5)
    scene.loader.finished.wait()
    scene.the_proxy.cut("rst")


def drop_replies(of: str, beside: Strike | None = None, apart: float = 0.5, step: int = 3) -> Strike:
    """The server executes this command, and its caller does not hear of it: one time in `step`. `beside` makes the command happen."""

    def inject(scene: Scene) -> None:
        proxy = scene.the_proxy
        owners: dict[int, int] = {}

        def learn(call: Call) -> None:
            name = next((word for word in call.arguments if word.startswith(b"streamworker:")), None)
            if name is not None:
                owners[call.connection] = int(name.rsplit(b"-", 2)[1])

        def strike(call: Call) -> Cut:
            now = time.monotonic()
            pid = owners.get(call.connection)
            scene.disturbances.append(Disturbance(f"reply of {of} lost", now, now, None if pid is None else frozenset({pid})))
            return Cut(scene.random.choice(("rst", "fin")))

        proxy.on(lambda call: call.name in {"HELLO", "CLIENT SETNAME"}, "before_send", learn)
        proxy.cut("fin")  # so that each connection says whose it is
        now = time.monotonic()
        scene.disturbances.append(Disturbance("cut", now, now))
        rule = proxy.on(of, "after_execute", strike, every(step))
        for _ in scene.while_loaded(apart):
            if beside is not None:
                beside(scene)
        try:
            until(lambda: rule.fired >= 3, 12, f"replies of {of} were lost three times")
        finally:
            proxy.remove()
            scene.fired += rule.fired
        scene.healed.append(time.monotonic())

    return inject


def cut_all(scene: Scene) -> None:
    """For what happens after a reconnect only."""
    now = time.monotonic()
    scene.disturbances.append(Disturbance("cut", now, now))
    scene.the_proxy.cut("rst")


def retire(scene: Scene) -> None:
    """For what happens in a drain only: a worker whose grace is too short for what it runs."""
    scene.until_busy()
    scene.fleet.replace(scene.fleet.any_ready(scene.random))


def lost_replies(of: str, **facts: object) -> Fault:
    """The fault for one command."""
    settings = {key: facts.pop(key) for key in ("mix", "options", "rules", "events", "workers", "seconds") if key in facts}
    return Fault(f"reply lost: {of}", drop_replies(of, **facts), **{"workers": 2, "proxied": "all", **settings})  # type: ignore[arg-type]


FAILING = {**PLAIN, "fails-once": 15.0, "always-fails": 8.0, "reject": 10.0}

FAULTS = (
    Fault("delays", again_and_again(delay, 0.3), mix=LONG_ONES, proxied="one", events=one_of("leases.failing", "lease.lost")),
    Fault("cuts", again_and_again(cut, 0.3, least=6), proxied="all", events=one_of("reading.failing")),
    Fault("partition of one worker", again_and_again(partition, 0.4), mix=LONG_ONES, proxied="one", events=one_of("lease.lost")),
    # A reply that carries entries may take 30 s, because they may be large; a connection that falls silent then is noticed as late.
    Fault(
        "half-open for ever",
        half_open_for_ever,
        workers=1,
        proxied="all",
        events=one_of("reading.failing"),
        rules={"recovery": READ_REPLY_SECONDS + 3},
    ),
    lost_replies("fill", step=1),
    lost_replies("XREADGROUP BLOCK", step=2, seconds=6.0, mix={"ok": 1.0}),
    lost_replies("XACK"),
    lost_replies("settle_ack", mix=FAILING),
    lost_replies("settle_retry", mix=FAILING),
    lost_replies("settle_dead_letter", mix=FAILING),
    lost_replies(
        "settle_release", beside=retire, apart=0.2, step=2,
        mix=LONG_ONES, options=("--grace", "200ms"), rules={"exit_codes": frozenset({0, 4})},
    ),
    lost_replies("reclaim", beside=kill, apart=1.8, step=2, seconds=6.0, workers=3),
    lost_replies("reconcile", beside=cut_all, apart=0.3, step=2),
    lost_replies("renew", mix=LONG_ONES),
    lost_replies("promote", mix=FAILING),
)  # fmt: skip
