"""`@app.listener`: functions that see every entry of a stream in every process, without a group."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, Never, TypedDict, TypeVar, Unpack

import structlog

from streamworker.codecs import Codec, Decoder, codec_named
from streamworker.entries import Fields, read_headers
from streamworker.errors import EncodeError, SetupError
from streamworker.handlers import Executor, HandlerFunction, choose_executor, name_of, read_signature
from streamworker.outgoing import check_stream
from streamworker.registration import check_heard
from streamworker.retention import Retention

Function = TypeVar("Function", bound=HandlerFunction)


@dataclass(frozen=True, slots=True)
class Listener:
    """A registered listener. `start` is `$` (what comes from now on), `0` (from the first entry) or the id after which it begins."""

    name: str
    stream: str
    start: str
    function: HandlerFunction
    body_type: Any
    wants_context: bool
    decode: Decoder
    executor: Executor


@dataclass(eq=False)
class ListenerContext:
    """What a listener can ask for beside the body. Nothing here can be settled: there is no group, so no acknowledgement and no retry."""

    id: str
    stream: str
    fields: Fields
    state: Mapping[str, Any]
    listener: str

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The entry's headers by their name without its leading underscore."""
        return read_headers(self.fields)

    @property
    def published_at(self) -> datetime:
        """When the entry was added, by the server's clock: the millisecond in front of its id."""
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, tz=UTC)

    @cached_property
    def log(self) -> Any:
        """A structlog logger that knows stream, entry and listener."""
        log = structlog.get_logger("streamworker.listener")
        return log.bind(stream=self.stream, entry_id=self.id, listener=self.listener)


class Unfit(TypedDict, total=False):
    """What only a handler can say: whoever has entries of its own may leave them for later, a listener hears each as it comes."""

    rate_limit: Never
    kill_switch: Never
    concurrency: Never


class Listeners:
    """The part of an application where listeners are registered."""

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)  # type: ignore[call-arg]  # the next part of the application
        self._codec = codec
        self.listeners: list[Listener] = []
        self.retentions: dict[str, Retention] = {}
        """What of its streams is kept, where something is not."""

    def listener(
        self,
        stream: str,
        *,
        start: str = "$",
        codec: Literal["fields", "json"] | Codec | None = None,
        name: str | None = None,
        **unfit: Unpack[Unfit],
    ) -> Callable[[Function], Function]:
        """Register a function that is called with every entry of `stream` in every process, one after the other; it is returned unchanged.

        There is no group: nothing is acknowledged, and nothing is retried, an error is logged. The first parameter's annotation is the
        body's type, a second one is the `ListenerContext`. `start` is `"$"` (what comes from now on), `"0"` (from the first entry) or an
        entry id (what comes after it). After a lost connection it goes on after the last entry seen. Raises `SetupError`.
        """

        def register(function: Function) -> Function:
            chosen = self._codec if codec is None else codec_named(codec)
            signature = read_signature(function, ListenerContext)
            listener = Listener(
                name=name_of(function) if name is None else name,
                stream=stream,
                start=start,
                function=function,
                body_type=signature.body_type,
                wants_context=signature.wants_context,
                decode=chosen.decoder(signature.body_type),
                executor=choose_executor(function),
            )
            _check(listener, self.listeners)
            check_heard(stream, self.retentions.get(stream), [stream])
            self.listeners.append(listener)
            return function

        for option in unfit:
            raise SetupError(
                f"a listener cannot have {option}=: it hears each entry in every process, one after the other; leave it out, or take the "
                f'entries with @app.handler("{stream}", {option}=…)'
            )
        if callable(stream):
            raise SetupError('write @app.listener("stream"), with the stream\'s name')
        return register


def _check(listener: Listener, others: Iterable[Listener]) -> None:
    name = listener.name
    if not isinstance(name, str) or not name:
        raise SetupError(f"a listener's name is a non-empty string, not {name!r}")
    try:
        check_stream(listener.stream)
    except EncodeError as error:
        raise SetupError(f"listener {name!r}: {error}") from error
    if not isinstance(listener.start, str) or not re.fullmatch(r"\$|\d{1,20}(-\d{1,20})?", listener.start):
        raise SetupError(f"listener {name!r}: start is '$', '0' or an entry id such as '1795369183485-0', not {listener.start!r}")
    if any(other.name == name for other in others):
        raise SetupError(f"two listeners are called {name!r}: rename one, or give it name=")
