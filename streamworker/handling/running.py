"""Runs a handler here, in a thread, so that the loop of the lifespan goes on: what comes of it is what a worker would have had itself."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import structlog

from streamworker.app import StreamWorker
from streamworker.delivery import Delivery, Failed, Outcome
from streamworker.handlers import Context, Handler
from streamworker.policies import RetryPolicy
from streamworker.worker.replies import succeeded


class Runner:
    """The handlers of a program, and what its lifespan has yielded here."""

    def __init__(self, app: StreamWorker, state: Mapping[str, Any]) -> None:
        # Here each is an ordinary plain function, which writes its own replies.
        self._handlers = {handler.name: replace(handler, executor="thread") for handler in app.handlers}
        self._state = state
        self._publish = app.encode_for_commit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamworker-handler")

    def policy(self, name: str) -> RetryPolicy:
        """By which it is decided whether a handler has failed for good."""
        return self._handlers[name].retry

    async def run(self, delivery: Delivery, name: str) -> Outcome:
        """What happened when the handler of this name was given `delivery`."""
        handler = self._handlers[name]
        variables = contextvars.copy_context()
        variables.run(
            structlog.contextvars.bind_contextvars,
            stream=delivery.stream,
            group=delivery.group,
            entry_id=delivery.id,
            handler=name,
            attempt=delivery.attempt,
        )
        running = self._thread.submit(variables.run, self._run, delivery, handler)
        outcome, context, returned = await asyncio.wrap_future(running)
        if outcome is not None:
            return outcome
        try:
            if inspect.isawaitable(returned):
                # A plain function around an async one: what it returned is the work itself.
                returned = await returned
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return Failed(error)
        return succeeded(delivery, handler, context, returned)

    def _run(self, delivery: Delivery, handler: Handler) -> tuple[Outcome | None, Context | None, Any]:
        """The outcome of a failure, or the context and what was returned."""
        try:
            body = handler.decode(delivery.fields)
            context = Context(delivery, handler, body, self._state, self._publish)
            arguments = (body, context) if handler.wants_context else (body,)
            return None, context, handler.function(*arguments)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return Failed(error), None, None
