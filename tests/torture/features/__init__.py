"""The features, one file each: whatever module of this folder has a `FEATURE` takes part. See `tests/torture/__init__.py` for how."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from tests.torture.feature import Feature


@cache
def everything() -> tuple[Feature, ...]:
    """All features, by the names of their files."""
    names = sorted(module.name for module in iter_modules(__path__))
    return tuple(import_module(f"{__name__}.{name}").FEATURE for name in names)


def of_kind(kind: str) -> Feature | None:
    """The feature that this kind of entry belongs to."""
    return next((feature for feature in everything() if kind in feature.kinds), None)
