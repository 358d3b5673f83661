"""What a reply is on the wire: the body as any entry has it, or nothing, or why there is none. Pure.

`_reply_to` of a request names the stream for its reply, `_correlation_id` comes back in it. `_reply` is `ok`, `none` or `failed`, and then
`_reply_reason` is the reason of the dead letter and `_reply_error` its error.
"""

from __future__ import annotations

from typing import Any

from streamworker.codecs.base import Codec, Decoder
from streamworker.codecs.headers import write_headers
from streamworker.delivery import Delivery, Outgoing, Reason
from streamworker.entries import Fields, read_headers
from streamworker.errors import RequestFailed

ASKS = b"_reply_to"
OK, NONE, FAILED = "ok", "none", "failed"


def request_headers(reply_to: str, correlation_id: str) -> dict[str, str]:
    """The headers of a request."""
    return {"reply_to": reply_to, "correlation_id": correlation_id}


def write_reply(delivery: Delivery, mine: str, codec: Codec, body: Any) -> Outgoing | None:
    """The reply to a request; `None` where none is asked for. `mine` is how the names of the streams for replies begin.

    Others could have a worker write anywhere. Raises `EncodeError` when the body cannot be written.
    """
    reply_to = _address(delivery, mine)
    if reply_to is None:
        return None
    headers = _headers(delivery, NONE if body is None else OK)
    fields = write_headers(headers) if body is None else codec.encode(body, headers)
    return Outgoing(reply_to, fields, is_reply=True)


def write_failure(delivery: Delivery, mine: str, reason: Reason, error: str | None) -> Outgoing | None:
    """The reply to a request that was set aside; `None` where none is asked for."""
    reply_to = _address(delivery, mine)
    if reply_to is None:
        return None
    told = {"reply_reason": str(reason), "reply_error": "" if error is None else error.encode(errors="replace").decode()}
    return Outgoing(reply_to, write_headers(_headers(delivery, FAILED) | told), is_reply=True)


def read_reply(fields: Fields, decode: Decoder) -> Any:
    """The body of a reply. Raises `RequestFailed`, or `DecodeError` when it is of another type."""
    headers = read_headers(fields)
    match headers.get("reply"):
        case "none":
            return None
        case "failed":
            raise RequestFailed(headers.get("reply_reason", ""), headers.get("reply_error", ""))
        case _:
            return decode(fields)


def _address(delivery: Delivery, mine: str) -> str | None:
    if ASKS not in delivery.fields:
        return None
    reply_to = delivery.headers.get("reply_to", "")
    return reply_to if reply_to.startswith(mine) else None


def _headers(delivery: Delivery, kind: str) -> dict[str, str]:
    correlation_id = delivery.headers.get("correlation_id")
    return {"reply": kind} if correlation_id is None else {"correlation_id": correlation_id, "reply": kind}
