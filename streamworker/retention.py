"""How long entries stay in a stream once nobody needs them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from streamworker.errors import SetupError

SHORTEST_AGE = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Retention:
    """What of a stream is kept: everything, unless one of these is given.

    `delete_when_acked` lets an entry go as soon as every group of the stream has acknowledged it, `max_age` when it is older than that,
    `max_length` when so many newer ones are there. None of them ever removes what some group has pending, or is still to be given:
    beside `delete_when_acked`, the bounds only say from when on a group that lags behind is reported. Raises `SetupError`.
    """

    delete_when_acked: bool = False
    max_age: timedelta | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        age, length = self.max_age, self.max_length
        if not isinstance(self.delete_when_acked, bool):
            raise SetupError(f"delete_when_acked is True or False, not {self.delete_when_acked!r}")
        if age is not None and (not isinstance(age, timedelta) or age < SHORTEST_AGE):
            raise SetupError(f"max_age is a timedelta of at least {SHORTEST_AGE.seconds} s, not {age!r}: leave it out to keep all")
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise SetupError(
                f"max_length is a whole number of at least 1, not {length!r}: leave it out to keep all, or say delete_when_acked=True"
            )

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever removed."""
        return not (self.delete_when_acked or self.max_age or self.max_length)
