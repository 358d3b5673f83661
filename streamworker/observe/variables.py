"""Warns of environment variables that look like settings and are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamworker.settings import misspelt


def warn_of_strange_variables(environment: Mapping[str, str], log: Any) -> None:
    """Say which of them are ignored, and what each was probably meant to be; never their values."""
    for variable, near in misspelt(environment):
        meant = "no setting has this name" if near is None else f"no setting has this name; did you mean {near}?"
        log.warning("setting.ignored", variable=variable, why=meant)
