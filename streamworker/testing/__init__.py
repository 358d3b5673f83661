"""The test kit: a worker inside a test, on a fake server or on a real one, whose time the test moves.

The names are imported when first used, because pytest loads this package in every run of everyone who has it installed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamworker.testing.fake import FakeServer
    from streamworker.testing.records import DeadLetterRecord, DeliveryRecord, PendingRecord, WaitingRecord
    from streamworker.testing.worker import TestWorker

__all__ = ["DeadLetterRecord", "DeliveryRecord", "FakeServer", "PendingRecord", "TestWorker", "WaitingRecord"]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (https://peps.python.org/pep-0562/)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from streamworker.testing import fake, records, worker

    return next(getattr(home, name) for home in (worker, fake, records) if hasattr(home, name))


def __dir__() -> list[str]:
    return __all__
