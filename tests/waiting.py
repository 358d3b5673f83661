"""Waiting for facts outside our process, such as the end of another one, which nothing announces."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(predicate: Callable[[], bool], within: float = 5.0) -> None:
    """Look every 10 ms until `predicate` holds; fail the test when it does not within so many seconds."""
    deadline = time.monotonic() + within
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within:g} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.01)
