"""Where a program is found: what a user has named, so that another process of the same program finds it too."""

from __future__ import annotations

from typing import NamedTuple


class Program(NamedTuple):
    """What stands after `run`, whether it is a factory, and where to look for its module."""

    target: str
    factory: bool
    app_dir: str
