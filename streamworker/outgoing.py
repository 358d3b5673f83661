"""From a body and what is said about it to the entry that is to be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Unpack

from streamworker.codecs import Codec
from streamworker.codecs.replies import request_headers
from streamworker.delivery import Outgoing, PublishOptions
from streamworker.destination import Destination
from streamworker.errors import EncodeError
from streamworker.posting import LARGEST_VALUE, PLAIN, Posting, Posts, SendOptions, split
from streamworker.streams.keys import tag
from streamworker.streams.packing import pack
from streamworker.streams.publishing import xadd_head

_NO_HEADERS: Mapping[str, str] = {}


def encode_outgoing(codec: Codec, stream: str, body: Any, **options: Unpack[PublishOptions]) -> Outgoing:
    """The entry for `body`. Raises `EncodeError` when it cannot be one."""
    check_stream(stream)
    if not options:
        return Outgoing(stream, codec.encode(body, _NO_HEADERS))
    headers, max_length = publish_options(**options)
    return Outgoing(stream, codec.encode(body, headers), max_length)


def publish_options(
    *,
    type: str | None = None,  # noqa: A002  # the word that users know
    headers: Mapping[str, str] | None = None,
    key: str | None = None,
    max_length: int | None = None,
) -> tuple[Mapping[str, str], int | None]:
    """All headers, and the length to trim to. Raises `EncodeError`; its name stands in the `TypeError` for an option that there is not."""
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or not 1 <= max_length < 2**63):
        raise EncodeError(f"max_length is a whole number of at least 1, or None to keep all, not {max_length!r}")
    written = {} if headers is None else dict(headers)
    if type is not None:
        written["type"] = type
    if key is not None:
        written["key"] = key
    return written, max_length


def encode_request(codec: Codec, stream: str, body: Any, reply_to: str, correlation_id: str, options: PublishOptions) -> Outgoing:
    """The entry that asks for a reply. Raises `EncodeError`."""
    given = options.get("headers")
    headers = {} if given is None else dict(given)
    own = request_headers(reply_to, correlation_id)
    taken = sorted(own.keys() & headers.keys())
    if taken:
        raise EncodeError(f"the header {taken[0]!r} of a request is written for you; leave it out")
    asking: PublishOptions = {**options, "headers": headers | own}
    return encode_outgoing(codec, stream, body, **asking)


def check_stream(stream: object) -> None:
    """See that this can be a stream's name. Raises `EncodeError` or `SetupError`."""
    if not isinstance(stream, str) or not stream:
        repair = ": call its own publish, or write its name" if isinstance(stream, Destination) else ""
        raise EncodeError(f"a stream's name is a non-empty string, not {stream!r}{repair}")
    try:
        stream.encode()
    except UnicodeEncodeError:
        raise EncodeError("the stream's name holds half a surrogate pair, which is not text") from None
    tag(stream)


def encode_many(
    codec: Codec, stream: str, bodies: Iterable[Any], dedupe_ids: Sequence[str] | None, options: SendOptions
) -> Iterator[Posting]:
    """How each of these is to be written. Raises `EncodeError`."""
    check_stream(stream)
    entry, ways = split(options)
    if ways.get("dedupe_id") is not None:
        raise EncodeError("one dedupe_id for many entries would let through the first alone: give dedupe_ids, one for each")
    if dedupe_ids is None:
        if ways.get("dedupe_window") is not None:
            raise EncodeError("dedupe_window says how long dedupe_ids are remembered: give them too")
        posts = Posts(**ways) if ways else PLAIN
        headers, max_length = publish_options(**entry)
        for position, body in enumerate(bodies):
            try:
                yield posts.of(Outgoing(stream, codec.encode(body, headers), max_length))
            except EncodeError as error:
                raise _of(position, bodies, error) from None
        return
    if isinstance(dedupe_ids, str):
        raise EncodeError("dedupe_ids is a list with one id for each body")
    listed, ids = list(bodies), list(dedupe_ids)
    if len(listed) != len(ids):
        raise EncodeError(f"there are {len(listed):,} bodies and {len(ids):,} dedupe_ids: give one for each")
    posts = Posts(**{**ways, "dedupe_id": ids[0]}) if ids else Posts()
    headers, max_length = publish_options(**entry)
    for position, (body, dedupe_id) in enumerate(zip(listed, ids, strict=True)):
        try:
            yield posts.of(Outgoing(stream, codec.encode(body, headers), max_length), dedupe_id)
        except EncodeError as error:
            raise _of(position, listed, error) from None


def packed_many(codec: Codec, stream: str, bodies: Iterable[Any], entry: PublishOptions) -> Iterator[bytes]:
    """The commands that add these, where nothing is said but what belongs to the entries. Raises `EncodeError`."""
    check_stream(stream)
    headers, max_length = publish_options(**entry)
    head = xadd_head(stream, max_length)
    encode = codec.encode
    for position, body in enumerate(bodies):
        try:
            fields = encode(body, headers)
            command = pack((*head, *fields))
            if len(command) > LARGEST_VALUE:
                PLAIN.of(Outgoing(stream, fields))  # looks whether it is one of its values
        except EncodeError as error:
            raise _of(position, bodies, error) from None
        yield command


def _of(position: int, bodies: Iterable[Any], error: EncodeError) -> EncodeError:
    """The error of one of several bodies, which says of which one."""
    of_all = f" of {len(bodies):,}" if isinstance(bodies, Sized) else ""
    return EncodeError(f"body {position + 1:,}{of_all}: {error}")
