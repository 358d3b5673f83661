"""`pause`, `resume` and `handlers` on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamworker.streams.keys import keys_of
from tests.command_line import NOBODY, records, run

APP = """
from datetime import timedelta
from streamworker import KillSwitch, RateLimit, Retention, StreamWorker

app = StreamWorker(group="billing")

@app.handler("orders", rate_limit=RateLimit(100), kill_switch=KillSwitch())
async def charge(order: dict[str, str]) -> None: ...

@app.handler("clicks", name="count")
async def count_clicks(click: dict[str, str]) -> None: ...
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "flow_program.py"
    path.write_text(APP)
    return path


def test_a_handler_is_paused_shown_and_resumed(server, redis_client, program):
    """By its name; said again, nothing changes but the reason, where there is a new one."""
    paused = run("pause", program, "--handler", "charge", "--reason", "bank\nholiday", url=server.url)
    again = run("pause", program, "--handler", "charge", "--reason", "still", url=server.url)
    run("pause", program, "--handler", "charge", url=server.url)
    charge, count = records(run("handlers", program, "-o", "json", url=server.url))

    assert (0, "charge: paused\n") == (paused.exit_code, paused.stdout)
    assert "charge: was paused already\n" == again.stdout
    assert (True, "still", False) == (charge["paused"], charge["reason"], count["paused"])
    assert ("100 per 1s, burst 100", "at 50% of 20, for 30s") == (charge["rate_limit"], charge["kill_switch"])
    assert [b"charge"] == redis_client.hkeys(keys_of("orders", "billing").paused)

    resumed = run("resume", program, url=server.url)
    assert "charge: resumed\ncount: was not paused\n" == resumed.stdout
    assert 0 == redis_client.exists(keys_of("orders", "billing").paused)


def test_the_table_says_since_when_and_why(server, program):
    """For people."""
    run("pause", program, "--reason", "maintenance", url=server.url)
    table = run("handlers", program, "-o", "table", url=server.url).stdout

    assert 2 == table.count("paused")
    assert "maint" in table


def test_check_shows_what_bounds_a_handler_and_a_stream(program):
    """Without a server: rates, kill switches, retentions."""
    program.write_text(APP + "\napp.stream('orders', dict[str, str], retention=Retention(max_length=1000))\n")
    result = run("check", program)

    assert 0 == result.exit_code
    assert ["charge", "100", "per", "1s,", "burst", "100", "at", "50%", "of", "20,", "for", "30s"] in [
        line.split() for line in result.stdout.splitlines()
    ]
    assert ["orders", "up", "to", "1000", "entries"] in [line.split() for line in result.stdout.splitlines()]


def test_an_unknown_handler_is_answered_with_the_one_that_was_meant(server, program):
    """In one sentence, and nothing is paused."""
    result = run("pause", program, "--handler", "charg", url=server.url)

    assert 2 == result.exit_code
    assert "Error: there is no handler 'charg': did you mean 'charge'?\n" == result.stderr


def test_a_server_that_is_not_there_is_named_without_its_password(program):
    """As with every command."""
    result = run("pause", program, url=NOBODY)

    assert 3 == result.exit_code
    assert "secret" not in result.output
