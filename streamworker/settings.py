"""How a worker runs: one frozen record, filled from arguments, flags, the environment and defaults, in this order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from streamworker.addresses import check_health_address
from streamworker.errors import SetupError

DEFAULT_REDIS_URL = "redis://localhost:6379/0"
PREFIX = "STREAMWORKER_"

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([kmgt])(i?)b?", re.IGNORECASE)

OTHER_VARIABLES = ("APP", "LEASH", "DEMO_LEDGER", "DEMO_STREAM")
"""What else is read from the environment: the command line's program, a child's end of the line to its supervisor, the demo's own."""
_OF_A_SERVICE = re.compile(r"STREAMWORKER_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)")

ONLY_OUTSIDE = ("workers", "health_addr", "liveness_limit")
"""What must be known before the program is imported, so that a program cannot say it."""


def parse_duration(text: str) -> timedelta:
    """A duration as people write it: `25s`, `500ms`, `5m`, `1h30m`. Raises `SetupError`; a bare number has no unit, so it is refused."""
    compact = text.strip().lower()
    if not _DURATION.fullmatch(compact):
        raise SetupError(f"{text!r} is not a duration: write it with its unit, such as 500ms, 25s, 5m or 1h30m")
    try:
        return sum((float(amount) * _UNITS[unit] for amount, unit in _PART.findall(compact)), timedelta())
    except OverflowError:
        raise SetupError(f"{text!r} is too long for a duration") from None


def format_duration(duration: timedelta) -> str:
    """A duration as `parse_duration` reads it: `25s`, `1h30m`, `500ms`."""
    milliseconds, rest = divmod(duration, timedelta(milliseconds=1))
    milliseconds += rest >= timedelta(microseconds=500)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        amount, milliseconds = divmod(milliseconds, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """A size as people write it, in bytes: `512MB` (millions), `512MiB` or `512Mi` (1024 * 1024). Raises `SetupError`."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise SetupError(f"{text!r} is not a size: write it in kB, MB, GB, KiB, MiB or GiB, such as 512MB, 512MiB or 2GB")
    amount, unit, binary = found.groups()
    size = int(float(amount) * (1024 if binary else 1000) ** ("kmgt".index(unit.lower()) + 1))
    if size < 1:
        raise SetupError(f"{text!r} is no room at all: write a size above zero, such as 64MB")
    return size


def format_size(size: int) -> str:
    """A size in millions of bytes, for people: `87MB`."""
    return f"{round(size / 1_000_000)}MB"


def _read_by(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """What reads a setting's text; a value that is no text is left to its type."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except SetupError as error:
            raise ValueError(str(error)) from None

    return read


def _as_names(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_read_by(parse_duration))]
Size = Annotated[int, BeforeValidator(_read_by(parse_size))]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
HealthAddress = Annotated[str, BeforeValidator(_read_by(check_health_address))]


class Settings(BaseModel):
    """The settings of one worker process. Durations are `timedelta`; in the environment they are written `25s`, `5m`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    redis_url: SecretStr = Field(SecretStr(DEFAULT_REDIS_URL), description="Where the server is: redis://, rediss:// or unix://.")
    workers: int = Field(1, ge=1, le=1_000, description="How many worker processes; above 1, a supervisor starts and watches them.")
    concurrency: int = Field(10, ge=1, le=100_000, description="Deliveries in flight per handler that does not say so itself.")
    max_concurrency: int | None = Field(
        None, ge=1, le=100_000, description="Handlers running at once in a process, over all of them."
    )
    in_flight_bytes: Size = Field(64_000_000, ge=1, description="About how many bytes of entries a process holds at a time.")
    handlers: Names = Field((), description="Run only these handlers.")
    exclude: Names = Field((), description="Run all handlers but these.")
    consumer: str | None = Field(None, min_length=1, description="This process's name in its groups; unique, made up by default.")
    burst: bool = Field(False, description="End when nothing is undelivered, pending or waiting for a retry.")
    grace: Duration = Field(timedelta(seconds=25), ge=timedelta(0), description="How long a drain lets handlers finish.")
    max_deliveries: int | None = Field(None, ge=1, description="Drain and end after so many deliveries.")
    max_runtime: Duration | None = Field(None, gt=timedelta(0), description="Drain and end after so long.")
    max_memory: Size | None = Field(None, ge=1, description="Drain and end when the process holds so much memory.")
    health_addr: HealthAddress = Field("auto", description="HOST:PORT of the health endpoints; auto: 0.0.0.0:8080 in Kubernetes.")
    liveness_limit: Duration = Field(timedelta(seconds=30), gt=timedelta(0), description="How long an event loop may stand still.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level that is logged.")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else json.")
    loop: Literal["auto", "asyncio", "uvloop"] = Field("auto", description="auto: uvloop where it is installed.")

    _url_file: tuple[str, str] | None = PrivateAttr(None)
    """The variable that names the URL's file, and the file's path, where the URL comes from one."""

    @classmethod
    def load(cls, environment: Mapping[str, str], flags: Mapping[str, Any], arguments: Mapping[str, Any]) -> Settings:
        """Merge: arguments of the program over flags over environment over defaults; `None` means not given.

        Raises `SetupError` that names the setting and where it came from.
        """
        found = _find(environment)
        merged: dict[str, Any] = {name: value for name, (_, value) in found.items()}
        origin = {name: f"environment variable {variable}" for name, (variable, _) in found.items()}
        for values, source in ((flags, _as_option), (arguments, _as_argument)):
            for name, value in values.items():
                if value is not None:
                    merged[name] = value
                    origin[name] = source(name)
        try:
            settings = cls(**merged)
        except ValidationError as error:
            raise SetupError(_explain(error, origin)) from None
        variable = origin.get("redis_url", "").removeprefix("environment variable ")
        if variable.endswith("_FILE"):
            settings._url_file = (variable, environment[variable].strip())
        return settings

    @property
    def reads_url_from_file(self) -> bool:
        """Whether the URL comes from a file that the environment names."""
        return self._url_file is not None

    def read_redis_url(self) -> str:
        """The URL in force; where it comes from a file, what the file says now, because a password may have been rotated in it.

        Raises `SetupError` when the file cannot be read.
        """
        return self.redis_url.get_secret_value() if self._url_file is None else _content(*self._url_file)


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that the environment gives: `STREAMWORKER_NAME`, or a file's content by `STREAMWORKER_NAME_FILE`.

    `REDIS_URL` (and `REDIS_URL_FILE`) stand in where the prefixed name is not set. An empty variable counts as not set.
    """
    return {name: value for name, (_, value) in _find(environment).items()}


def workers_wanted(environment: Mapping[str, str], flags: Mapping[str, Any]) -> int:
    """How many worker processes are wanted, known without the program. Raises `SetupError`."""
    if flags.get("workers") is None and "workers" not in _find(environment):
        return 1  # whatever else is wrong may be mended by what the program says
    return Settings.load(environment, flags, {}).workers


def misspelt(environment: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """The variables with our prefix that mean nothing, each with the one that was probably meant.

    Those are left out that Kubernetes sets for a Service named `streamworker`.
    """
    names = [name.upper() for name in Settings.model_fields]
    known = [*names, *(f"{name}_FILE" for name in names), *OTHER_VARIABLES]
    ours = [name.removeprefix(PREFIX) for name in environment if name.startswith(PREFIX) and not _OF_A_SERVICE.fullmatch(name)]
    near = {name: get_close_matches(name, known, n=1, cutoff=0.7) for name in sorted(ours) if name not in known}
    return [(PREFIX + name, PREFIX + found[0] if found else None) for name, found in near.items()]


def _find(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The settings that the environment gives, each with the variable that gives it."""
    found: dict[str, tuple[str, str]] = {}
    for name in Settings.model_fields:
        variables = [PREFIX + name.upper()]
        if name == "redis_url":
            variables.append("REDIS_URL")
        for variable in variables:
            given = _variable_or_file(environment, variable)
            if given is not None:
                found[name] = given
                break
    return found


def _variable_or_file(environment: Mapping[str, str], variable: str) -> tuple[str, str] | None:
    value = environment.get(variable, "").strip()
    path = environment.get(f"{variable}_FILE", "").strip()
    if value and path:
        raise SetupError(f"{variable} and {variable}_FILE are both set: keep one")
    if not path:
        return (variable, value) if value else None
    return f"{variable}_FILE", _content(f"{variable}_FILE", path)


def _content(variable: str, path: str) -> str:
    try:
        content = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SetupError(f"{variable} names {path!r}, which cannot be read: {type(error).__name__}") from None
    if not content:
        raise SetupError(f"{variable} names {path!r}, which is empty: write the value into it, or leave the variable out")
    return content


def in_plain_words(problem: str) -> str:
    """What pydantic says of a value, as a sentence about what it is meant to be."""
    for pattern, words in _WORDS:
        problem = pattern.sub(words, problem)
    return problem


_WORDS = [
    (re.compile("^Value error, "), ""),
    (re.compile("^Input should be greater than or equal to (.*)"), r"it is \1 at least"),
    (re.compile("^Input should be less than or equal to (.*)"), r"it is \1 at most"),
    (re.compile("^Input should be greater than (.*)"), r"it is more than \1"),
    (re.compile("^Input should be a valid integer.*"), "it is a whole number"),
    (re.compile("^Input should be a valid number.*"), "it is a number"),
    (re.compile("^Input should be a valid boolean.*"), "it is true or false"),
    (re.compile("^String should have at least 1 character"), "it is not empty"),
    (re.compile("^Input should be "), "it is "),
    (re.compile(r"datetime\.timedelta\(0\)"), "0s"),
]


def _explain(error: ValidationError, origin: Mapping[str, str]) -> str:
    sentences = []
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0])
        sentences.append(f"{origin.get(name, f'setting {name}')}: {in_plain_words(problem['msg'])}")
    return "; ".join(sentences)


def _as_option(name: str) -> str:
    return f"option --{name.replace('_', '-')}"


def _as_argument(name: str) -> str:
    return f"argument {name}="
