"""Where health endpoints listen, and where they are asked for."""

from __future__ import annotations

import pytest

from streamworker.addresses import format_address, parse_address, where_to_ask, where_to_listen
from streamworker.errors import SetupError


@pytest.mark.parametrize(
    ("text", "address"),
    [("0.0.0.0:8080", ("0.0.0.0", 8080)), (":81", ("", 81)), ("[::1]:0", ("::1", 0)), (" localhost:65535 ", ("localhost", 65535))],
)
def test_an_address_is_a_host_and_a_port(text: str, address: tuple[str, int]) -> None:
    """IPv6 in brackets; no host is every one."""
    assert address == parse_address(text)
    assert address == parse_address(format_address(*address))


@pytest.mark.parametrize("text", ["", "8080", "host", "host:", "host:http", "host:65536", "::1", "::1:80", "host:-1", "host:²"])
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    """One sentence."""
    with pytest.raises(SetupError, match=r"HOST:PORT, such as 0\.0\.0\.0:8080"):
        parse_address(text)


def test_auto_listens_in_kubernetes_only() -> None:
    """Two workers on one laptop must not collide."""
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}

    assert ("0.0.0.0", 8080) == where_to_listen("auto", pod)
    assert where_to_listen("auto", {}) is None
    assert where_to_listen("off", pod) is None
    assert ("h", 1) == where_to_listen("h:1", {})


def test_a_probe_asks_where_the_worker_listens() -> None:
    """By the same variable; what listens everywhere is asked at home."""
    assert ("127.0.0.1", 8080) == where_to_ask(None, {})
    assert ("127.0.0.1", 8080) == where_to_ask(None, {"STREAMWORKER_HEALTH_ADDR": "auto"})
    assert ("127.0.0.1", 81) == where_to_ask(None, {"STREAMWORKER_HEALTH_ADDR": "0.0.0.0:81"})
    assert ("::1", 81) == where_to_ask("[::]:81", {})
    assert ("other", 82) == where_to_ask("other:82", {"STREAMWORKER_HEALTH_ADDR": "off"})
    with pytest.raises(SetupError, match="--addr"):
        where_to_ask(None, {"STREAMWORKER_HEALTH_ADDR": "off"})
