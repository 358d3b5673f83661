"""One run of one fault on one server: stage, load, fault, drain, history, verdict."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from streamworker.embedded import EmbeddedServer
from tests.torture.checker import Figures, check, figures
from tests.torture.faults import Fault
from tests.torture.fleet import ROOT, Fleet, Recipe, a_fleet, until
from tests.torture.history import DeadLetter, Footprint, History, Plan, Rules, Violation
from tests.torture.load import PAYLOAD, Loader, fields_of
from tests.torture.proxy import Proxy
from tests.torture.scene import SECRET, SERVER_OPTIONS, Canary, Scene, worker_url

LEASE = 1.0
PER_SECOND = 120
WARM_UP = (Plan("ok", 0.01),) * 20 + (Plan("thread", 0.01),) * 20
TAIL = (Plan("ok"),) * 20
DRAIN_WITHIN = 60.0
SENTENCE = "Error: "
STRAY_EVENTS = frozenset({"delivery.unsettled", "delivery.cancelled", "worker.ended_hard"})


@dataclass(frozen=True)
class Order:
    """What to run."""

    fault: Fault
    server: str
    binary: Path
    entries: int
    seed: int
    package_root: Path = ROOT
    processes: int = 1
    """How many processes each worker has; above 1 with a supervisor. A fault may have its own mind of it."""
    keep: Path | None = None
    """Where to leave the ledgers and logs of a run with violations."""


@dataclass(frozen=True)
class Result:
    """What came of it."""

    fault: str
    server: str
    seed: int
    fired: int = 0
    seconds: float = 0.0
    slack: float = 0.0
    figures: Figures = field(default_factory=Figures)
    violations: tuple[str, ...] = ()
    kept: str = ""


def run(order: Order, canary: Canary) -> Result:
    """Run it. Whatever goes wrong in the harness itself is a violation too: a run that was not carried through proves nothing."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    result = Result(order.fault.name, order.server, order.seed)
    try:
        history, fired, rules = _carry_out(order, folder, canary)
        found = check(history, rules)
        if fired == 0:
            found.append(Violation("vacuous", "the fault never fired"))
        result = Result(**{
            **result.__dict__, "fired": fired, "slack": rules.slack, "figures": figures(history, rules),
            "violations": tuple(str(violation) for violation in found),
        })  # fmt: skip
    except Exception as error:
        result = Result(**{**result.__dict__, "violations": (f"harness: {error!r} {traceback.format_exc(limit=-4)}",)})
    kept = ""
    if result.violations and order.keep is not None:
        kept = str(order.keep / f"{order.fault.name}-{order.server}-{order.seed}".replace(" ", "-").replace(":", "-"))
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(folder, kept)
    shutil.rmtree(folder, ignore_errors=True)
    return Result(**{**result.__dict__, "seconds": time.monotonic() - began, "kept": kept})


def _carry_out(order: Order, folder: Path, canary: Canary) -> tuple[History, int, Rules]:
    fault = order.fault
    began = time.monotonic()
    with ExitStack() as stack:
        data = folder / "data" if fault.durable else None
        server = stack.enter_context(EmbeddedServer(order.binary, data_dir=data, extra_args=SERVER_OPTIONS))
        proxy = stack.enter_context(Proxy(worker_url(server.url), seed=order.seed, record=False)) if fault.proxied else None
        fleet = stack.enter_context(a_fleet(folder, LEASE))
        direct = Recipe(worker_url(server.url), _options(order), {}, order.package_root)
        through = direct if proxy is None else replace(direct, url=proxy.url)
        loader = Loader(server.url, fault.mix, LEASE, order.seed)
        random = Random(f"fault {fault.name} {order.seed}")
        scene = Scene(server, fleet, loader, LEASE, random, direct, proxy)
        behind = fault.workers if fault.proxied == "all" else 1 if fault.proxied else 0
        fleet.start_all([_varied(through if number < behind else direct, fault, number) for number in range(fault.workers)])
        before = _warm_up(scene)
        _torture(scene, order)
        drained = _drain(scene)
        after = _settled_footprints(scene)
        fleet.retire_all()
        scene.disturbances += canary.delays(began, LEASE / 10)
        rules = Rules(**{"lease": LEASE, "events": fault.events, "slack": canary.latest(began), **fault.rules})
        return _history(scene, before, after, drained), scene.fired, rules


def _options(order: Order) -> tuple[str, ...]:
    """What the workers are started with. Only one process can have a given name."""
    own = order.fault.options
    return own if order.processes == 1 or {"--workers", "--consumer"} & {*own} else (*own, "--workers", str(order.processes))


def _varied(recipe: Recipe, fault: Fault, number: int) -> Recipe:
    """Workers of a fleet may differ, as said by the fault."""
    environment = fault.environments[number % len(fault.environments)] if fault.environments else {}
    return Recipe(recipe.url, recipe.options, environment, recipe.package_root)


def _warm_up(scene: Scene) -> tuple[Footprint, ...]:
    """Have every part used once, so that what is open then is what is always open."""
    for plan in WARM_UP:
        scene.loader.publish(plan)
    until(lambda: not scene.what_is_left(), 20, "the warm-up is handled")
    return scene.footprints()


def _torture(scene: Scene, order: Order) -> None:
    seconds = max(order.entries / PER_SECOND, order.fault.seconds)
    scene.loader.start(order.entries, seconds, within=seconds + 120)
    try:
        order.fault.inject(scene)
    finally:
        scene.loader.join()
    for plan in TAIL:
        scene.loader.publish(plan)


def _drain(scene: Scene) -> str:
    """Wait until nothing is left; answers what is."""
    deadline = time.monotonic() + DRAIN_WITHIN
    while time.monotonic() < deadline:
        if not scene.what_is_left():
            # An entry on its way between two keys would have been seen in neither: look twice.
            time.sleep(0.1)
            if not scene.what_is_left():
                return ""
        time.sleep(0.05)
    return scene.what_is_left()


def _settled_footprints(scene: Scene) -> tuple[Footprint, ...]:
    """What is open in the end; a connection that is being closed gets a moment for it."""
    most = Rules().connections
    deadline = time.monotonic() + 5
    while True:
        now = scene.footprints()
        if all(one.connections <= most for one in now) or time.monotonic() > deadline:
            return now
        time.sleep(0.05)


def _history(scene: Scene, before: tuple[Footprint, ...], after: tuple[Footprint, ...], drained: str) -> History:
    published = tuple(scene.loader.published)
    logged, leaks, stray = read_log(scene.fleet)
    plans = {entry.number: entry.plan for entry in published}
    return History(
        published=published,
        runs=scene.fleet.runs(),
        lives=tuple(life for worker in scene.fleet.workers for life in worker.lives()),
        disturbances=tuple(scene.disturbances),
        dead_letters=tuple(dead_letter_of(fields, plans) for fields in scene.dead_letters()),
        collected=scene.collected(),
        forgotten=tuple(scene.forgotten),
        healed=tuple(scene.healed),
        drained=drained,
        before=before,
        after=after,
        logged=logged,
        leaks=leaks,
        stray=stray,
    )


def dead_letter_of(fields: Mapping[str, str], plans: Mapping[int, Plan]) -> DeadLetter:
    """A dead letter as the checker wants it."""
    number = int(fields.get("number", -1))
    plan = plans.get(number)
    whole = plan is not None and fields_of(number, plan).items() <= fields.items()
    return DeadLetter(
        number, fields["_dlq_id"], fields["_dlq_reason"], int(fields["_dlq_attempts"]), int(fields["_dlq_crashes"]), whole
    )


def read_log(fleet: Fleet) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """The events, the lines with a secret or a payload in them, and the lines that should not be there."""
    events, leaks, stray = set(), [], []
    for worker in fleet.workers:
        text = worker.log.read_text(errors="replace")
        for line in text.splitlines(keepends=True):
            if SECRET in line or PAYLOAD in line:
                leaks.append(re.sub(r"\s+", " ", line)[:300])
            if not line.endswith("\n") or line.startswith(SENTENCE):
                continue  # it was killed in the middle of it; or it is why a worker did not start, which its exit code tells
            try:
                event = json.loads(line)["event"]
            except (ValueError, KeyError, TypeError):
                stray.append(line.strip()[:300])
                continue
            events.add(event)
            if event in STRAY_EVENTS:
                stray.append(line.strip()[:600])
    return frozenset(events), tuple(leaks[:5]), tuple(stray[:5])
