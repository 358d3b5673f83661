"""What `dlq` shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import typer

from streamworker.admin.dead_letters import DeadLetterEntry, DeadLetters, Wanted, counted_by_reason, reason_named
from streamworker.admin.groups import choose_group, stream_exists
from streamworker.cli.options import Lines, Output
from streamworker.cli.printing import print_json, readable
from streamworker.cli.showing import (
    added_at,
    age_of,
    counted,
    fields_record,
    for_people,
    in_short,
    milliseconds,
    moment_text,
    print_rows,
    say,
)
from streamworker.codecs import read_headers
from streamworker.delivery import Fields, Reason
from streamworker.errors import SetupError
from streamworker.observe.printing import printable
from streamworker.streams import inspecting
from streamworker.streams.link import Link

_LEFT_BEHIND = "; if it had a group whose dead letters are still there, name it with --group"
_ID = re.compile(r"[0-9]{1,20}(-[0-9]{1,20})?")
_MENTIONED = ("reason", "error", "handler", "attempts", "crashes", "id", "first_failed_at", "failed_at", "consumer", "version")
_LABELS = {"id": "original id", "first_failed_at": "first failed", "failed_at": "failed"}


async def opened(link: Link, stream: str, group: str | None) -> DeadLetters:
    """The dead letters that are meant. Raises `SetupError` or `ServerError` with a sentence when they cannot be."""
    letters = DeadLetters(link, stream, await choose_group(link, stream, group, hint=_LEFT_BEHIND))
    await stream_exists(link, letters.keys.dead_letters)
    return letters


def wanted(reason: str | None, error: str | None) -> Wanted:
    """The filter of `--reason` and `--error`. Raises `SetupError` when there is no such reason."""
    named = None if reason is None else reason_named(reason)
    if reason is not None and named is None:
        reasons = [known.value for known in Reason]
        near = get_close_matches(reason, reasons, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(reasons)}"
        raise SetupError(f"--reason {reason!r} is no reason: {hint}")
    if error == "":
        raise SetupError("--error is empty: write a part of the error's text, or leave it out")
    return Wanted(named, error)


def complete_id(text: str) -> str:
    """A dead letter's id as it is in full. Raises `SetupError` for what is none."""
    if _ID.fullmatch(text) is None:
        raise SetupError(f"{text!r} is not a dead letter's id: write it as `streamworker dlq ls` shows it, such as 1795369183485-0")
    return text if "-" in text else f"{text}-0"


async def print_page(link: Link, letters: DeadLetters, meant: Wanted, count: int, before: str | None, output: Output) -> None:
    """Print the newest that are meant, and on standard error how many that is."""
    page = await letters.page(meant, limit=count, before=None if before is None else complete_id(before))
    await print_rows_of(link, page.letters[::-1], output)
    number = len(page.letters)
    matching = "" if meant.is_all else " that match"
    where = f"of group {letters.group} on {letters.stream}{matching}"
    if not number:
        say(f"no dead letters {where}")
    elif page.before is not None:
        say(f"these are the newest {number:,}{matching}; for older ones: --before {page.before}")
    else:
        reasons = ", ".join(f"{reason} {many:,}" for reason, many in counted_by_reason(page.letters).items())
        say(f"{counted(number, 'dead letter')} {where}: {reasons}")


async def print_rows_of(link: Link, found: Sequence[DeadLetterEntry], output: Output) -> None:
    """Print a table or JSON lines of these dead letters."""
    now = await inspecting.now(link)
    if not for_people(output):
        for letter in found:
            print_json(_brief(letter, now))
    elif found:
        columns = ("ID", "REASON", "ATTEMPTS", "AGE", "HANDLER", "ERROR")
        print_rows(columns, [_row(letter, now) for letter in found], cut="ERROR", fold={"HANDLER", "REASON"})


async def print_one(letters: DeadLetters, text: str, output: Lines) -> bool:
    """Print all of one dead letter; false, and said, when it is not there."""
    letter = await letters.find(complete_id(text))
    if letter is None:
        say(not_there(letters, text))
        return False
    if for_people(output):
        typer.echo("\n".join(_lines(letters, letter)))
    else:
        print_json(_full(letters, letter))
    return True


def not_there(letters: DeadLetters, dead_letter_id: str) -> str:
    """What to say about an id that is not there."""
    return (
        f"no dead letter {dead_letter_id} of group {letters.group} on {letters.stream}: it was replayed, discarded, or never there"
    )


def _row(letter: DeadLetterEntry, now: datetime) -> tuple[object, ...]:
    age = age_of(letter.id, now)
    attempts = None if letter.attempts is None else str(letter.attempts)
    if attempts is not None and letter.crashes:
        attempts += f" + {letter.crashes} crashes" if letter.crashes > 1 else " + 1 crash"
    error = letter.error_line if letter.damage is None else f"({letter.damage})"
    return (letter.id, letter.reason, attempts, None if age is None else in_short(age), letter.handler, error)


def _brief(letter: DeadLetterEntry, now: datetime) -> dict[str, Any]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "error": letter.error_line,
        "attempts": letter.attempts,
        "crashes": letter.crashes,
        "original_id": letter.original_id,
        "age_ms": milliseconds(age_of(letter.id, now)),
        "handler": letter.handler,
        "damage": letter.damage,
    }


def _full(letters: DeadLetters, letter: DeadLetterEntry) -> dict[str, Any]:
    notes: dict[str, Any] = dict(letter.notes)
    notes |= {"attempts": letter.attempts, "crashes": letter.crashes}
    notes["original_id"] = notes.pop("id", None)
    return {
        **notes,
        "id": letter.id,
        "stream": letters.stream,
        "group": letters.group,
        "damage": letter.damage,
        "headers": read_headers(letter.fields),
        "fields": fields_record(letter.fields),
    }


def _lines(letters: DeadLetters, letter: DeadLetterEntry) -> list[str]:
    notes = letter.notes
    lines = [printable(f"dead letter {letter.id} of group {letters.group} on {letters.stream}")]
    if letter.damage is not None:
        lines.append(f"  cannot be replayed: {printable(letter.damage)}")
    for name in (*_MENTIONED, *sorted(notes.keys() - {*_MENTIONED, "traceback", "stream", "group"})):
        if name in notes:
            lines += _labelled(_LABELS.get(name, name), _note(name, notes))
    lines += ["headers", *_pairs(read_headers(letter.fields))] if read_headers(letter.fields) else []
    lines += ["fields", *_pairs(_texts(letter.fields))]
    if "traceback" in notes:
        lines += ["traceback", *(f"  {printable(line.expandtabs())}" for line in notes["traceback"].splitlines())]
    return lines


def _note(name: str, notes: Mapping[str, str]) -> str:
    text = notes[name]
    if name.endswith("_at"):
        try:
            return moment_text(datetime.fromisoformat(text))
        except ValueError:
            return text
    if name == "id" and _ID.fullmatch(text):
        return f"{text}, added {moment_text(added_at(text))}"
    return text


def _labelled(label: str, text: str) -> list[str]:
    """A note beside its label; further lines are indented, so that none can look like a note of its own."""
    first, *more = text.splitlines() if text else [""]
    return [f"  {printable(label):<13} {printable(first)}", *(f"{'':16}{printable(line)}" for line in more)]


def _texts(fields: Fields) -> list[tuple[str, str]]:
    return [(readable(name), readable(value)) for name, value in zip(fields[::2], fields[1::2], strict=True)]


def _pairs(pairs: Mapping[str, str] | Sequence[tuple[str, str]]) -> list[str]:
    listed = pairs.items() if isinstance(pairs, Mapping) else pairs
    return [f"  {printable(name)} = {printable(value)}" for name, value in listed]
