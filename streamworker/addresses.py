"""Where the health endpoints listen, and where they are asked for. Imports nothing that takes time: a container's probe runs this too."""

from __future__ import annotations

from collections.abc import Mapping

from streamworker.errors import SetupError

IN_A_POD = ("0.0.0.0", 8080)  # noqa: S104  # the kubelet asks from outside of the container
FROM_INSIDE = ("127.0.0.1", 8080)
KUBERNETES = "KUBERNETES_SERVICE_HOST"
"""Set by Kubernetes in every container of a pod."""

_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[IPV6]:PORT` or `:PORT`. Raises `SetupError`."""
    host, colon, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise SetupError(f"{text!r} is not an address: write HOST:PORT, such as 0.0.0.0:8080 or [::]:8080")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """An address as `parse_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_health_address(text: str) -> str:
    """The setting as it is, if it is one. Raises `SetupError`."""
    text = text.strip()
    if text not in ("auto", "off"):
        try:
            parse_address(text)
        except SetupError as error:
            raise SetupError(f"{error}, or auto, or off") from None
    return text


def where_to_listen(setting: str, environment: Mapping[str, str]) -> tuple[str, int] | None:
    """What the setting means: `auto` listens in a Kubernetes pod only; `None` is nowhere. Raises `SetupError`."""
    if setting == "auto":
        return IN_A_POD if environment.get(KUBERNETES) else None
    return None if setting == "off" else parse_address(setting)


def where_to_ask(address: str | None, environment: Mapping[str, str]) -> tuple[str, int]:
    """Where a probe in the same container finds the endpoints: the address given, else the worker's own. Raises `SetupError`."""
    given = environment.get("STREAMWORKER_HEALTH_ADDR", "").strip() if address is None else address
    if given in ("", "auto"):
        return FROM_INSIDE
    if given == "off":
        raise SetupError("STREAMWORKER_HEALTH_ADDR is off here, so no worker answers: name an address there, or with --addr")
    host, port = parse_address(given)
    return _EVERYWHERE.get(host, host), port
