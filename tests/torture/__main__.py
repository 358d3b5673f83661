"""`python -m tests.torture`: run the faults, say what was lost, doubled or late. Exit code 1 on any violation, a vacuous fault included."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import count
from pathlib import Path

from tests import servers
from tests.torture import children, faults, report, seeded
from tests.torture.run import Order, Result, run
from tests.torture.scene import Canary

SHORT_ENTRIES = 300
LONG_ENTRIES = 300
"""On six or seven servers about fifty faults make more than 100,000."""
LONG_JOBS = 4
"""Most of a run is waiting; more than this, and two cores are late often enough to be a cause themselves."""


def main(words: Sequence[str]) -> int:
    """Run what is asked for."""
    asked = _arguments(words)
    if asked.table is not None:
        print(report.markdown(report.read(asked.table)))
        return 0
    if asked.list:
        print("\n".join(slug(fault.name) for fault in faults.everything()))
        return 0
    children.adopt_orphans()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # what is told to go ends what it has started, and says what it has found
    results: list[Result] = []
    missed: list[str] = []
    is_whole = True
    if not asked.seeded_bugs:
        orders = _orders(asked)
        results = carry_out(orders, asked.jobs, asked.json)
        is_whole = len(results) == len(orders)
        print(f"\n{report.table(results)}\n\n{report.markdown(results)}\n" if results else "nothing was run")
    if is_whole and (asked.seeded_bugs or asked.short):
        missed = seeded.uncaught(_programs("redis,valkey"), asked.seed, asked.jobs)
    for result in results:
        for violation in result.violations:
            print(f"VIOLATION {result.fault} on {result.server}, seed {result.seed}: {violation} {result.kept}")
    for bug in missed:
        print(f"NOT CAUGHT {bug}")
    return int(any(result.violations for result in results) or bool(missed) or not is_whole or not (results or asked.seeded_bugs))


def carry_out(orders: Sequence[Order], jobs: int, file: Path | None = None) -> list[Result]:
    """Run them, a few at a time, and say so as they end; the results are in the order of the orders.

    Whatever has ended is in the file at once. Ctrl-C or TERM lets what runs come to its end, and answers what there is.
    """
    canary = Canary()
    began = time.monotonic()
    done = count(1)
    results: dict[int, Result] = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, order, canary): position for position, order in enumerate(orders)}
        try:
            for future in as_completed(running):
                result = results[running[future]] = future.result()
                print(f"[{next(done):3}/{len(orders)} {time.monotonic() - began:4.0f} s] {report.one_line(result)}", flush=True)
                for violation in result.violations[:3]:
                    print(f"          {violation[:500]}", flush=True)
                if file is not None:
                    report.write(file, in_order(results))
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print(f"interrupted: {len(results)} of {len(orders)} runs have ended; waiting for those that run", flush=True)
    return in_order(results)


def in_order(results: Mapping[int, Result]) -> list[Result]:
    """By position."""
    return [results[position] for position in sorted(results)]


def slug(name: str) -> str:
    """A fault's name as an argument."""
    return re.sub(r"\W+", "-", name).lower()


def _orders(asked: argparse.Namespace) -> list[Order]:
    wanted = [fault for fault in faults.everything() if asked.faults is None or slug(fault.name) in asked.faults.split(",")]
    if asked.faults is not None and len(wanted) != len(set(asked.faults.split(","))):
        raise SystemExit(f"no such fault among {asked.faults}: see --list")
    programs = list(_programs(asked.servers).items())
    orders = []
    for number in range(asked.rounds):
        for position, fault in enumerate(wanted):
            # A short run has each fault once, on the servers in turn; a long one has each on all, so that one that is cut short
            # has whole rows.
            chosen = programs if not asked.short else [programs[position % len(programs)]]
            for name, binary in chosen:
                orders.append(
                    Order(fault, name, binary, asked.entries, asked.seed + number, processes=asked.workers, keep=asked.keep)
                )
    return orders


def _programs(names: str) -> dict[str, Path]:
    present = servers.present()
    chosen = present if names == "all" else {name: present[name] for name in names.split(",") if name in present}
    if not chosen:
        raise SystemExit(f"none of these servers is here: {names}; there are {', '.join(present) or 'none at all'}")
    return chosen


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--short", action="store_true", help="each fault once, and the seeded bugs: for CI; the default")
    parser.add_argument("--rounds", type=int, default=1, help="how often to run each fault on each server")
    parser.add_argument("--entries", type=int, default=SHORT_ENTRIES, help="how many entries each run publishes")
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one has the next")
    parser.add_argument("--servers", default="redis,valkey", help="names as tests/servers.py has them, or all")
    parser.add_argument("--faults", help="only these, as --list prints them, with commas between")
    parser.add_argument("--workers", type=int, default=1, help="how many processes each worker has, above 1 with a supervisor")
    parser.add_argument("--jobs", type=int, default=3, help="how many runs at a time: most of one is waiting")
    parser.add_argument("--json", type=Path, help="write every run to this file, as it ends")
    parser.add_argument("--table", type=Path, help="print the table of such a file, also of a run that was cut short, and end")
    parser.add_argument("--keep", type=Path, help="leave ledgers and logs of runs with violations in this folder")
    parser.add_argument("--seeded-bugs", action="store_true", help="only prove that known bugs are caught")
    parser.add_argument("--list", action="store_true", help="print the names of the faults")
    parser.add_argument(
        "--long", action="store_true", help="100,000 entries and more on every server that is here, in about 25 minutes"
    )
    asked = parser.parse_args(words)
    asked.short = asked.short or not words
    if asked.long:
        asked.servers, asked.entries, asked.jobs = "all", LONG_ENTRIES, LONG_JOBS
        asked.json = asked.json or Path(tempfile.gettempdir()) / "torture.json"
        print(f"each run is written to {asked.json} as it ends")
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
