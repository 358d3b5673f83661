"""What a test has planned for the next deliveries of a handler: that it fails, or that its worker dies."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamworker.delivery import Delivery
from streamworker.handlers import CallNext, Context

When: TypeAlias = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Raise this instead of calling the handler."""

    error: BaseException | type[BaseException]

    def __str__(self) -> str:
        return f"fail_next({self.error!r})"


@dataclass(frozen=True, slots=True)
class Death:
    """Let the worker die before the handler has begun, or after it has done its work and before that is acknowledged."""

    when: When

    def __str__(self) -> str:
        return f"crash_next(when={self.when!r})"


class Plans:
    """The plans of one worker. `crash` lets it look as if the process had died with a delivery; it does not return."""

    def __init__(self, crash: Callable[[Delivery], Awaitable[None]]) -> None:
        self._crash = crash
        self._of: dict[str, deque[Failure | Death]] = defaultdict(deque)
        self.running: dict[int, Context] = {}
        """The handlers that run now."""

    def add(self, handler: str, plan: Failure | Death, times: int) -> None:
        """Plan it for the next `times` deliveries for which nothing is planned yet."""
        self._of[handler].extend([plan] * times)

    def left(self) -> list[str]:
        """What was planned and has not happened, as sentences."""
        return [f"{plan} of handler {name!r} has not happened" for name, plans in self._of.items() for plan in plans]

    async def middleware(self, ctx: Context, call_next: CallNext) -> None:
        """Stands next to the handler, inside of the program's own middleware, which sees what is planned as if the handler did it."""
        plans = self._of[ctx.handler.name]
        plan = plans.popleft() if plans else None
        self.running[id(ctx)] = ctx
        try:
            if isinstance(plan, Failure):
                raise plan.error
            if plan == Death("before"):
                await self._crash(ctx.delivery)
            await call_next(ctx)
            if plan == Death("after"):
                await self._crash(ctx.delivery)
        finally:
            del self.running[id(ctx)]
