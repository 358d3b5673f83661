"""streamworker: a worker framework for Redis Streams consumer groups.

Every entry is handled at least once, or set aside as a dead letter with its reason; what a handler publishes through its context
commits atomically with the acknowledgement.

The names are imported when first used, so that commands which need none of them, such as `streamworker --version`, answer at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamworker.version import VERSION

if TYPE_CHECKING:
    from streamworker.app import StreamWorker
    from streamworker.batching import BatchContext
    from streamworker.codecs import Codec, FieldsCodec, JsonCodec
    from streamworker.delivery import Delivery
    from streamworker.effects import Idempotency, Transaction
    from streamworker.errors import (
        ConnectionLost,
        DecodeError,
        EncodeError,
        EntryFailed,
        HandlerTimeout,
        NoReply,
        NotConfirmed,
        PublishFailed,
        Reject,
        RequestFailed,
        Retry,
        ServerError,
        SetupError,
        Snooze,
        StreamWorkerError,
    )
    from streamworker.flow import KillSwitch, RateLimit
    from streamworker.handlers import CallNext, Context, Middleware
    from streamworker.listeners import ListenerContext
    from streamworker.policies import Backoff, DeadLetterPolicy, RetryPolicy
    from streamworker.posting import Durability
    from streamworker.retention import Retention
    from streamworker.settings import Settings
    from streamworker.stream import Stream
    from streamworker.sync_publisher import SyncPublisher

__version__ = VERSION
__all__ = [
    "Backoff",
    "BatchContext",
    "CallNext",
    "Codec",
    "ConnectionLost",
    "Context",
    "DeadLetterPolicy",
    "DecodeError",
    "Delivery",
    "Durability",
    "EncodeError",
    "EntryFailed",
    "FieldsCodec",
    "HandlerTimeout",
    "Idempotency",
    "JsonCodec",
    "KillSwitch",
    "ListenerContext",
    "Middleware",
    "NoReply",
    "NotConfirmed",
    "PublishFailed",
    "RateLimit",
    "Reject",
    "RequestFailed",
    "Retention",
    "Retry",
    "RetryPolicy",
    "ServerError",
    "Settings",
    "SetupError",
    "Snooze",
    "Stream",
    "StreamWorker",
    "StreamWorkerError",
    "SyncPublisher",
    "Transaction",
    "__version__",
]

_HOMES = {
    "app": ("StreamWorker",),
    "batching": ("BatchContext",),
    "codecs": ("Codec", "FieldsCodec", "JsonCodec"),
    "delivery": ("Delivery",),
    "effects": ("Idempotency", "Transaction"),
    "errors": (
        "ConnectionLost",
        "DecodeError",
        "EncodeError",
        "EntryFailed",
        "HandlerTimeout",
        "NoReply",
        "NotConfirmed",
        "PublishFailed",
        "Reject",
        "RequestFailed",
        "Retry",
        "ServerError",
        "SetupError",
        "Snooze",
        "StreamWorkerError",
    ),
    "flow": ("KillSwitch", "RateLimit"),
    "handlers": ("CallNext", "Context", "Middleware"),
    "listeners": ("ListenerContext",),
    "policies": ("Backoff", "DeadLetterPolicy", "RetryPolicy"),
    "posting": ("Durability",),
    "retention": ("Retention",),
    "settings": ("Settings",),
    "stream": ("Stream",),
    "sync_publisher": ("SyncPublisher",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (https://peps.python.org/pep-0562/)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
