"""Keeps the groups that are read in existence, and leaves a stream in trouble alone for a while, so that the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic

from streamworker.errors import ServerError
from streamworker.streams.faults import Remedy, concerns_all, remedy_for
from streamworker.streams.link import Link
from streamworker.worker.bindings import Binding
from streamworker.worker.intake import Intake
from streamworker.worker.pools import Pool


class Upkeep:
    """The groups of one reader, by its own connection. `readable` is called whenever a stream can be read, for the first time or again."""

    def __init__(self, link: Link, pools: Sequence[Pool], intake: Intake, readable: Callable[[], None]) -> None:
        self._link = link
        self._bindings = [binding for pool in pools for binding in pool.bindings]
        self._intake = intake
        self._readable = readable

    @property
    def is_called_for(self) -> bool:
        """Whether there is a stream in trouble whose time to be looked after has come."""
        return any(self._troubled())

    async def establish_all(self) -> None:
        """See that every group is there. Raises what concerns them all."""
        for binding in self._bindings:
            await self._establish(binding)

    async def look_after_troubled(self) -> None:
        """See whether streams that were in trouble can be read by now."""
        for binding in list(self._troubled()):
            await self._establish(binding)

    def note_refused(self, refused: Mapping[str, ServerError]) -> None:
        """One stream's trouble must not stop the others: its group is made again, or it is left alone for a while.

        Raises the error that concerns them all.
        """
        for error in refused.values():
            if concerns_all(error):
                raise error
        for binding in self._bindings:
            for key in (binding.keys.retry, binding.keys.stream):
                if key in refused:
                    _note(binding, refused[key])

    def _troubled(self) -> Iterator[Binding]:
        now = monotonic()
        return (binding for binding in self._bindings if not binding.ready and now >= binding.next_try_at)

    async def _establish(self, binding: Binding) -> None:
        if await binding.establish(self._link, self._intake.held_of(binding)):
            self._readable()


def _note(binding: Binding, error: ServerError) -> None:
    if remedy_for(error) is Remedy.MAKE_GROUP:
        binding.is_missing()
    else:
        binding.is_out_of_order(error)
