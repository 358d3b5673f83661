"""What commands print, and never a control character from an entry."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any


def print_json(record: Mapping[str, Any]) -> None:
    """Print one record as a line of JSON; ASCII only, so that nothing in it can steer a terminal."""
    print(json.dumps(record))  # noqa: T201  # this is the command's output


def printable(text: str) -> str:
    """The text with control characters, bidirectional marks and the like as escapes: a payload must not steer the terminal."""
    return "".join(_shown(character) for character in text)


def readable(value: bytes) -> str:
    """A field's name or value as text; what is not UTF-8 is shown as escapes."""
    return value.decode("utf-8", "backslashreplace")


def _shown(character: str) -> str:
    # Cc and Cf hold the escapes, the bidi marks and the invisible joiners; Co, Cs and Cn have no agreed look; Zl and Zp break lines.
    if unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}:
        return character.encode("unicode_escape").decode()
    return character
