"""A child's end of the line to its supervisor. When the line ends, the supervisor is gone, and so is the child soon: in good order.

A thread listens, because a handler that blocks the event loop must neither delay an order's watchdog nor outlive the supervisor.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import MutableMapping
from contextlib import suppress

from streamworker.supervisor.messages import VARIABLE, Hello, LastWords, Message, Order, encode
from streamworker.worker.exits import ExitCode
from streamworker.worker.process import WorkerProcess
from streamworker.worker.status import Status
from streamworker.worker.watchdog import MARGIN


class Leash:
    """One child's. `number` is the child's own, from 1 on, lent to no other living child."""

    def __init__(self, line: socket.socket, number: int) -> None:
        self.number = number
        self._line = line
        self._worker: WorkerProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._paused = False
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, name="streamworker-leash", daemon=True).start()

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Leash:
        """The leash that this process was started with; what this process starts itself does not find it again."""
        descriptor, _, number = environment.pop(VARIABLE).partition(":")
        os.set_inheritable(int(descriptor), False)
        return cls(socket.socket(fileno=int(descriptor)), int(number))

    def attach(self, worker: WorkerProcess, grace_seconds: float) -> None:
        """Let orders reach this worker from now on. Called on its event loop."""
        with self._lock:
            self._worker, self._loop = worker, asyncio.get_running_loop()
            if self._paused:
                worker.pause(True)
        self._send(Hello(grace_seconds, MARGIN.total_seconds()))

    def tell(self, status: Status) -> None:
        """Tell the supervisor how the worker is. Never waits: where nobody listens, the next one tells it."""
        self._send(status)

    def say(self, last_words: str, trace: str = "") -> None:
        """Tell the supervisor why this child cannot go on; the supervisor tells the world."""
        self._send(LastWords(last_words, trace))

    def _send(self, message: Message) -> None:
        # The lines are short. One that is cut in two where the buffer is full is dropped by the reader.
        with suppress(OSError):
            self._line.sendall(encode(message), socket.MSG_DONTWAIT)

    def _listen(self) -> None:
        with suppress(OSError), self._line.makefile("rb") as orders:
            for order in orders:
                with suppress(ValueError):  # a word of another version's supervisor
                    self._obey(Order(order.decode().strip()), "told by the supervisor")
        self._obey(Order.DRAIN, "the supervisor is gone")

    def _obey(self, order: Order, why: str) -> None:
        with self._lock:
            worker, loop = self._worker, self._loop
            if worker is None or loop is None:
                if order in (Order.DRAIN, Order.HURRY):
                    os._exit(ExitCode.DONE)  # nothing is in hand yet, and an import may take long
                self._paused = order is Order.PAUSE
                return
        with suppress(RuntimeError):  # the loop is closed: the worker has ended
            match order:
                case Order.DRAIN:
                    worker.watchdog.watch()
                    loop.call_soon_threadsafe(worker.drain, why)
                case Order.HURRY:
                    worker.watchdog.hurry()
                    loop.call_soon_threadsafe(worker.hurry)
                case Order.PAUSE | Order.RESUME:
                    loop.call_soon_threadsafe(worker.pause, order is Order.PAUSE)
