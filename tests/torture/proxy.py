"""A TCP proxy between a worker and its server that knows commands from replies, and does to them what networks do.

    with Proxy(server.url) as proxy:
        lost = proxy.drop_reply("XACK", when=every(3))          # every third XACK is executed, and nobody is told
        slow = proxy.shape("to_client", Shape(delay=0.05, jitter=0.02))
        ...                                                     # a worker at proxy.url
    assert lost.fired and slow.fired                            # or the run was vacuous

It runs in a thread with an event loop of its own, so that a test's blocked loop does not hold it up. Three kinds of trouble:

* a `Rule` acts on named calls, in one of three phases: "before_send" (the server has not seen it), "after_execute" (the server has
  answered, the client does not know), "after_reply" (the answer is with the client). What it does is an effect (`Delay`, `Cut`,
  `Stall`, `CutInside`) or a callback, which may kill a process there and then;
* a `Shape` acts on all bytes of a direction: latency, bandwidth, small writes;
* `cut`, `stall`, `heal` and `refuse` act on the connections that there are now, or will be.

Commands are named by `resp.name_of`: `XACK`, `XREADGROUP BLOCK`, `CLIENT UNBLOCK`, and scripts by their own names, such as `fill`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from time import monotonic
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from tests.torture.resp import FrameSplitter, arguments_of, name_of

Phase = Literal["before_send", "after_execute", "after_reply"]
Direction = Literal["to_server", "to_client"]
Manner = Literal["rst", "fin"]
Pattern = str | Callable[["Call"], bool]
"""Which calls: by name, `*` for all, or by a predicate."""

When = Callable[[int], bool]
"""Which of the calls that match, counted from 1."""


@dataclass(eq=False)
class Call:
    """One command on its way: its number of all calls, its ordinal among those of its name, and its reply as it came (bytes of RESP)."""

    name: str
    number: int
    ordinal: int
    connection: int
    request: bytes = field(repr=False)
    reply: bytes | None = field(default=None, repr=False)
    reached: Phase | None = None
    """How far it came: asked before it was sent, answered, and the answer forwarded."""

    @cached_property
    def arguments(self) -> list[bytes]:
        """Its words, the command's own included."""
        return arguments_of(self.request)


@dataclass(frozen=True)
class Delay:
    """Hold this call for so long, and with it what follows on its connection."""

    seconds: float
    jitter: float = 0.0


@dataclass(frozen=True)
class Cut:
    """End the connection; what the call was about to do does not happen."""

    how: Manner = "rst"


@dataclass(frozen=True)
class CutInside:
    """Forward a random beginning of the reply, at least one byte and never all, then end the connection. For "after_execute"."""

    how: Manner = "fin"


@dataclass(frozen=True)
class Stall:
    """Make the connection half-open: both sides may write, nothing arrives, nobody is told. For ever, or until it goes on or is cut."""

    seconds: float | None = None
    then: Literal["resume", "cut"] = "resume"


Effect = Delay | Cut | CutInside | Stall
Action = Effect | Callable[[Call], Effect | None]


def always(count: int) -> bool:
    """Each of them."""
    return True


def nth(*numbers: int) -> When:
    """Those of these numbers, from 1."""
    return lambda count: count in numbers


def every(step: int) -> When:
    """The step-th, twice that, and so on."""
    return lambda count: count % step == 0


@dataclass(eq=False)
class Rule:
    """What happens to which calls, and how often it did. `limit` ends it after so many times."""

    of: Pattern
    phase: Phase
    action: Action
    when: When = always
    limit: int | None = None
    matched: int = 0
    fired: int = 0
    happened: threading.Event = field(default_factory=threading.Event, repr=False)
    """Set when it has fired."""

    def strike(self, call: Call) -> Effect | None:
        """What to do to this call, if anything."""
        if not (self.of in {"*", call.name} if isinstance(self.of, str) else self.of(call)):
            return None
        self.matched += 1
        if (self.limit is not None and self.fired >= self.limit) or not self.when(self.matched):
            return None
        self.fired += 1
        try:
            return self.action(call) if callable(self.action) else self.action
        finally:
            self.happened.set()


@dataclass
class Shape:
    """What happens to all bytes of a direction: later by `delay` (and up to `jitter` more, in order), no faster than
    `bytes_per_second`, in writes of `piece` bytes. `fired` counts the frames that it touched.
    """

    delay: float = 0.0
    jitter: float = 0.0
    bytes_per_second: float | None = None
    piece: int | None = None
    fired: int = 0


class Proxy:
    """Stands before the server at `server_url`; `url` is its own, with the same user, password and database."""

    url: str

    def __init__(self, server_url: str, *, seed: int = 0, record: bool = True) -> None:
        parts = urlsplit(server_url)
        if parts.scheme != "redis":
            raise ValueError(f"the proxy reads plain redis:// only, not {parts.scheme}://")
        self._parts = parts
        self._record = record
        self.random = Random(seed)
        self.calls: list[Call] = []
        """Every call in the order in which it came, unless `record` is off."""
        self.counts: Counter[str] = Counter()
        """How many calls of each name came."""
        self.connections = 0
        """How many connections were ever made."""
        self.cuts = 0
        self.stalls = 0
        self.refused = 0
        """How many connections were ended by us, made half-open by us, and turned away."""
        self.failures: list[BaseException] = []
        """What callbacks raised; the end of the `with` block raises it too."""
        self._rules: tuple[Rule, ...] = ()
        self._shapes: dict[Direction, Shape] = {"to_server": Shape(), "to_client": Shape()}
        self._refusing = False
        self._stalling: Stall | None = None
        self._alive: set[_Connection] = set()
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="torture-proxy", daemon=True)

    # ---- life ---------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = self._run(self._listen())
        port = self._listener.sockets[0].getsockname()[1]
        secret, at, _ = self._parts.netloc.rpartition("@")
        self.url = self._parts._replace(netloc=f"{secret}{at}127.0.0.1:{port}").geturl()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.failures and kind is None:
            raise self.failures[0]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._listener.close()
        for connection in self._alive:
            connection.end("rst")
        await asyncio.gather(*(connection.gone.wait() for connection in list(self._alive)))

    # ---- troubles of named calls --------------------------------------------------------------------------------------------

    def add(self, rule: Rule) -> Rule:
        """Follow this rule from now on; of several that strike a call in one phase, each has its effect, in their order."""
        self._rules = (*self._rules, rule)
        return rule

    def remove(self, *rules: Rule) -> None:
        """Follow these no more; without any: follow none."""
        self._rules = tuple(rule for rule in self._rules if rules and rule not in rules)

    def on(self, of: Pattern, phase: Phase, action: Action, when: When = always, *, limit: int | None = None) -> Rule:
        """Have `action` happen to calls of that name in this phase. A callback runs in the proxy's thread, which waits for it."""
        return self.add(Rule(of, phase, action, when, limit))

    def drop_request(self, of: Pattern, when: When = always, *, then: Effect = Cut(), limit: int | None = None) -> Rule:
        """The server never sees the call, and then the connection is cut or stalls."""
        return self.on(of, "before_send", then, when, limit=limit)

    def drop_reply(self, of: Pattern, when: When = always, *, then: Effect = Cut(), limit: int | None = None) -> Rule:
        """The server executes the call, the client does not hear of it, and then the connection is cut or stalls."""
        return self.on(of, "after_execute", then, when, limit=limit)

    def cut_between_replies(self, of: Pattern = "*", when: When = always, *, how: Manner = "fin", limit: int | None = None) -> Rule:
        """A reply arrives, those to the commands sent with it do not."""

        def is_followed(call: Call) -> bool:
            return (of in {"*", call.name} if isinstance(of, str) else of(call)) and self._is_followed(call)

        return self.on(is_followed, "after_reply", Cut(how), when, limit=limit)

    def cut_inside_reply(self, of: Pattern = "*", when: When = always, *, how: Manner = "fin", limit: int | None = None) -> Rule:
        """The connection ends at a random byte of the reply."""
        return self.on(of, "after_execute", CutInside(how), when, limit=limit)

    def _is_followed(self, call: Call) -> bool:
        return any(connection.number == call.connection and connection.waiting for connection in self._alive)

    # ---- troubles of whole connections --------------------------------------------------------------------------------------

    def shape(self, direction: Direction, shape: Shape | None) -> Shape:
        """Shape what goes in this direction from now on; `None` ends it."""
        self._shapes[direction] = Shape() if shape is None else shape
        return self._shapes[direction]

    def cut(self, how: Manner = "rst") -> int:
        """End every connection now, both its sides; answers how many. May be called in a callback."""

        async def cut_all() -> int:
            return sum(connection.cut(how) for connection in list(self._alive))

        return self._run(cut_all())

    def stall(self, effect: Stall = Stall(), *, idle_only: bool = False, new_too: bool = False) -> int:
        """Make connections half-open now (those that wait for no reply, if `idle_only`), and with `new_too` all later ones until
        `heal`; answers how many there were.
        """

        async def stall_all() -> int:
            self._stalling = effect if new_too else self._stalling
            chosen = [connection for connection in self._alive if not (idle_only and connection.waiting)]
            for connection in chosen:
                connection.stall(effect)
            return len(chosen)

        return self._run(stall_all())

    def heal(self) -> None:
        """Let stalled connections go on with what was held, and take new ones again."""

        async def heal_all() -> None:
            self._stalling, self._refusing = None, False
            for connection in self._alive:
                connection.resume()

        self._run(heal_all())

    def refuse(self) -> None:
        """Turn new connections away until `heal`."""
        self._refusing = True

    # ---- what happens inside ------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do this in the proxy's loop, from whichever thread. It must not wait for anything when called from the loop itself."""
        if threading.current_thread() is not self._thread:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
        try:
            work.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("a callback cannot wait for the loop that it runs in")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.refused += 1
            _end(writer, "rst")
            return
        self.connections += 1
        connection = _Connection(self, self.connections, reader, writer)
        self._alive.add(connection)
        if self._stalling is not None:
            connection.stall(self._stalling)
        try:
            await connection.serve()
        finally:
            self._alive.discard(connection)
            connection.gone.set()

    def _new_call(self, frame: bytes, connection: int) -> Call:
        name = name_of(frame)
        self.counts[name] += 1
        call = Call(name, next(self._numbers), self.counts[name], connection, frame)
        if self._record:
            self.calls.append(call)
        return call

    def _effects(self, phase: Phase, call: Call) -> list[Effect]:
        call.reached = phase
        effects = []
        for rule in self._rules:
            if rule.phase == phase:
                try:
                    effects.append(rule.strike(call))
                except Exception as error:
                    self.failures.append(error)
        return [effect for effect in effects if effect is not None]


Passing = Callable[["_Frame", asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _Connection:
    """A client's connection and ours to the server. Each direction has a task that reads and one that writes, a queue between them."""

    def __init__(self, proxy: Proxy, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.waiting: deque[Call] = deque()
        """Calls that the server has seen and not answered."""
        self._proxy = proxy
        self._client = (reader, writer)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._over = asyncio.Event()
        self.gone = asyncio.Event()

    async def serve(self) -> None:
        """Carry bytes until either side ends or we do."""
        parts = self._proxy._parts
        try:
            server = await asyncio.open_connection(parts.hostname, parts.port or 6379)
        except OSError:
            return self.end("rst")
        (from_client, to_client), (from_server, to_server) = self._client, server
        up: asyncio.Queue[_Frame] = asyncio.Queue()
        down: asyncio.Queue[_Frame] = asyncio.Queue()
        work = [
            self._read(from_client, up, "to_server"),
            self._read(from_server, down, "to_client"),
            self._write(to_server, up, self._pass_request),
            self._write(to_client, down, self._pass_reply),
        ]
        tasks = [asyncio.create_task(part) for part in work]
        await self._over.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(_take_leave(from_server, to_server), _wait_for_end(to_client))
        return None

    def end(self, how: Manner) -> None:
        """End both sides, and whatever is on its way."""
        if self._over.is_set():
            return
        self._over.set()
        _end(self._client[1], how)

    def cut(self, how: Manner = "rst") -> bool:
        """End it as a fault that counts; false when it was over already."""
        if self._over.is_set():
            return False
        self._proxy.cuts += 1
        self.end(how)
        return True

    def stall(self, effect: Stall) -> None:
        """Hold everything; the clients' bytes are taken, and go nowhere."""
        self._proxy.stalls += 1
        self._flowing.clear()
        if effect.seconds is not None:
            then = self.resume if effect.then == "resume" else self.cut
            asyncio.get_running_loop().call_later(effect.seconds, then)

    def resume(self) -> None:
        """Go on with what was held."""
        self._flowing.set()

    async def _read(self, source: asyncio.StreamReader, queue: asyncio.Queue[_Frame], direction: Direction) -> None:
        splitter = FrameSplitter()
        due = 0.0
        with suppress(OSError):
            while data := await source.read(1 << 16):
                shape = self._proxy._shapes[direction]
                for frame in splitter.feed(data):
                    if shape.delay or shape.jitter:
                        due = max(due, monotonic() + shape.delay + self._proxy.random.uniform(0, shape.jitter))
                    queue.put_nowait(_Frame(frame, due, direction))
        queue.put_nowait(_Frame(splitter.rest, due, direction, last=True))

    async def _write(self, target: asyncio.StreamWriter, queue: asyncio.Queue[_Frame], pass_on: Passing) -> None:
        with suppress(OSError):
            while not self._over.is_set():
                frame = await queue.get()
                if (pause := frame.due - monotonic()) > 0:
                    await asyncio.sleep(pause)
                await self._flowing.wait()
                if self._over.is_set():
                    return
                if frame.last:
                    target.write(frame.data)
                    break
                await pass_on(frame, target)
        self.end("fin")

    async def _pass_request(self, frame: _Frame, target: asyncio.StreamWriter) -> None:
        call = self._proxy._new_call(frame.data, self.number)
        if await self._goes_on("before_send", call):
            self.waiting.append(call)
            await self._shaped(frame, target)

    async def _pass_reply(self, frame: _Frame, target: asyncio.StreamWriter) -> None:
        if frame.data.startswith(b">") or not self.waiting:
            return await self._shaped(frame, target)  # said by the server of its own accord
        call = self.waiting[0]
        call.reply = frame.data
        if not await self._goes_on("after_execute", call, target):
            return None
        self.waiting.popleft()
        await self._shaped(frame, target)
        await self._goes_on("after_reply", call)
        return None

    async def _goes_on(self, phase: Phase, call: Call, target: asyncio.StreamWriter | None = None) -> bool:
        """Let what is to happen to this call happen; false when its connection has not survived it."""
        for effect in self._proxy._effects(phase, call):
            match effect:
                case Delay(seconds, jitter):
                    await asyncio.sleep(seconds + self._proxy.random.uniform(0, jitter))
                case Stall():
                    self.stall(effect)
                    await self._flowing.wait()
                case CutInside(how):
                    if target is None or call.reply is None:
                        raise AssertionError("CutInside is for the phase after_execute")
                    target.write(call.reply[: self._proxy.random.randrange(1, len(call.reply))])
                    await target.drain()
                    await asyncio.sleep(0.002)  # a reset would take back what the client has not read
                    self.cut(how)
                case Cut(how):
                    self.cut(how)
        return not self._over.is_set()

    async def _shaped(self, frame: _Frame, target: asyncio.StreamWriter) -> None:
        shape = self._proxy._shapes[frame.direction]
        piece = shape.piece
        if shape.bytes_per_second is not None:
            piece = min(piece or 1 << 30, max(1, int(shape.bytes_per_second / 50)))
        if piece is not None or frame.due:
            shape.fired += 1
        for start in range(0, len(frame.data), piece or len(frame.data)):
            part = frame.data[start : start + (piece or len(frame.data))]
            target.write(part)
            await target.drain()
            if shape.bytes_per_second is not None:
                await asyncio.sleep(len(part) / shape.bytes_per_second)
            elif piece is not None:
                await asyncio.sleep(0)  # others' turn: small writes take long


@dataclass(frozen=True)
class _Frame:
    """A whole frame, when it may go on (monotonic seconds), and whether its side has ended with it."""

    data: bytes
    due: float
    direction: Direction
    last: bool = False


async def _take_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the server's side politely, however the client's ends: a reset could take back what it has been sent and has not read."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            writer.write_eof()
            while await reader.read(1 << 16):
                pass
    writer.close()
    await _wait_for_end(writer)


async def _wait_for_end(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        try:
            await asyncio.wait_for(writer.wait_closed(), 1)
        except TimeoutError:  # nobody reads what is left
            writer.transport.abort()


def _end(writer: asyncio.StreamWriter, how: Manner) -> None:
    raw = writer.get_extra_info("socket")
    if how == "rst" and raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
