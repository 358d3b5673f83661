"""What commands print for programs, and entries as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def print_json(record: Mapping[str, Any]) -> None:
    """Print one record as a line of JSON; ASCII only, so that nothing in it can steer a terminal."""
    print(json.dumps(record))  # noqa: T201  # this is the command's output


def readable(value: bytes) -> str:
    """A field's name or value as text; what is not UTF-8 is shown as escapes."""
    return value.decode("utf-8", "backslashreplace")
