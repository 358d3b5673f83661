"""The rule of everything that is written with an acknowledgement: once if the handler succeeded, not at all if it did not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tests.torture.history import DONE, History, Violation


def exactly_once(rule: str, what: str, written: Mapping[int, int], kinds: Collection[str], history: History) -> Iterator[Violation]:
    """What breaks the rule among entries of these kinds; `written` is how often something is there, by an entry's number."""
    ours = {entry.number for entry in history.published if entry.plan.kind in kinds}
    done = {run.number for run in history.runs if run.end == DONE} & ours
    repeated = [number for number, count in written.items() if count > 1]
    if repeated and not any(one.voids for one in history.disturbances):
        yield Violation(rule, f"{what} of {len(repeated)} entries are there more than once, the first are {repeated[:5]}")
    absent = done - set(written)
    if absent and not history.forgotten:
        yield Violation(rule, f"{what} of {len(absent)} entries are not there, the first are {sorted(absent)[:5]}")
    baseless = set(written) - done
    if baseless:
        yield Violation(
            rule, f"{what} of {len(baseless)} entries that did not succeed are there, the first are {sorted(baseless)[:5]}"
        )
