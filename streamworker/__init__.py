"""streamworker: a worker framework for Redis Streams consumer groups.

Every entry is handled at least once, or set aside as a dead letter with its reason; what a handler publishes through its context
commits atomically with the acknowledgement.
"""

from streamworker.app import StreamWorker
from streamworker.codecs import Codec, FieldsCodec, JsonCodec
from streamworker.delivery import Delivery
from streamworker.errors import (
    ConnectionLost,
    DecodeError,
    EncodeError,
    HandlerTimeout,
    Reject,
    Retry,
    ServerError,
    SetupError,
    Snooze,
    StreamWorkerError,
)
from streamworker.handlers import CallNext, Context, Middleware
from streamworker.policies import Backoff, DeadLetterPolicy, RetryPolicy
from streamworker.settings import Settings
from streamworker.version import VERSION

__version__ = VERSION
__all__ = [
    "Backoff",
    "CallNext",
    "Codec",
    "ConnectionLost",
    "Context",
    "DeadLetterPolicy",
    "DecodeError",
    "Delivery",
    "EncodeError",
    "FieldsCodec",
    "HandlerTimeout",
    "JsonCodec",
    "Middleware",
    "Reject",
    "Retry",
    "RetryPolicy",
    "ServerError",
    "Settings",
    "SetupError",
    "Snooze",
    "StreamWorker",
    "StreamWorkerError",
]
