"""The newcomer's first commands, run as a newcomer runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from streamworker.demo.story import Count
from tests.command_line import NOBODY
from tests.scenarios.workers import ROOT
from tests.waiting import wait_until

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_URL", "STREAMWORKER_"))}
APP = """
from streamworker import StreamWorker

app = StreamWorker(group="billing")

@app.handler("orders")
async def charge(order: dict[str, str]) -> None:
    print("charged", order["order_id"], flush=True)
"""


def start(*arguments: str, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streamworker", *arguments]
    given = {"env": ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **(given | options))


def test_the_demo_counts_every_entry_and_exits_with_0(valkey):
    """Published, handled, retried, reclaimed and dead letters are counted after a real SIGKILL; nothing is lost. Its lines are whole. The
    environment's server is not asked."""
    demo = start("demo", "--rate", "100", env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "COLUMNS": "40", "REDIS_URL": NOBODY})
    summary, told = demo.communicate(timeout=40)
    figures = {name: int(number) for name, number in re.findall(r"([a-z ]+?) (\d+)(?:   |\n)", summary)}

    assert 0 == demo.returncode
    assert (200, 197, 3, 0) == tuple(figures[name] for name in ("published", "handled", "dead letters", "lost"))
    assert figures["retried"] >= 20
    assert figures["reclaimed"] >= 1
    assert [] == [line for line in told.splitlines() if "\u2501" in line], "no bars in a pipe"
    assert "worker-1 killed, worker-2 working: " in told
    assert "Every entry was handled or set aside, though a worker was killed with SIGKILL in the middle of its work." in summary


def test_the_demo_leaves_nothing_on_a_server_it_was_given(valkey):
    """Not one key more than before."""
    with redis.Redis.from_url(valkey.url) as client:
        client.set("mine", "stays")
        demo = start("demo", "--rate", "200", "--redis-url", valkey.url)
        demo.communicate(timeout=40)
        left = client.keys("*")

    assert 0 == demo.returncode
    assert [b"mine"] == left


GOOD = Count(
    published=10,
    handled=9,
    handled_twice=0,
    retried=1,
    reclaimed=1,
    dead_letters=1,
    pending=0,
    lost=0,
    p95=timedelta(milliseconds=1),
)


@pytest.mark.parametrize(
    "wrong", [{"lost": 1}, {"handled": 8}, {"pending": 1}, {"reclaimed": 0}, {"retried": 0}, {"dead_letters": 0, "handled": 10}]
)
def test_a_count_that_does_not_close_is_a_failure(wrong):
    """Neither a missing entry nor a fault that never happened passes."""
    assert GOOD.closes
    assert not replace(GOOD, **wrong).closes


def test_dev_starts_a_server_works_and_takes_the_server_down_again(tmp_path):
    """Publish to the URL it prints, see the handler run, Ctrl-C: exit 0, and no server is left."""
    (tmp_path / "shop.py").write_text(APP)
    errors = tmp_path / "errors"
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    with errors.open("w") as log:
        dev = start("dev", "shop.py", cwd=tmp_path, stderr=log, env=environment, start_new_session=True)
        try:
            wait_until(lambda: "worker.ready" in errors.read_text(), within=20)
            said = errors.read_text()
            url = re.search(r"redis://[\d.]+:\d+/0", said).group()
            publish = start("publish", "orders", "order_id=7", "-u", url)
            publish.communicate(timeout=20)
            line = dev.stdout.readline()
            os.killpg(dev.pid, signal.SIGINT)
            code = dev.wait(20)
        finally:
            dev.kill()
            dev.communicate()

    assert "charged 7\n" == line
    assert 0 == code
    assert "started a private" in said
    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(url) as client:
        client.ping()


def test_a_killed_dev_leaves_no_server(tmp_path):
    """Even SIGKILL of the worker takes the private server with it."""
    (tmp_path / "shop.py").write_text(APP)
    errors = Path(tmp_path / "errors")
    with errors.open("w") as log:
        dev = start("dev", "shop.py", cwd=tmp_path, stderr=log, stdout=subprocess.DEVNULL)
        wait_until(lambda: "worker.ready" in errors.read_text(), within=20)
        url = re.search(r"redis://[\d.]+:\d+/0", errors.read_text()).group()
        dev.kill()
        dev.wait()

    wait_until(lambda: not _answers(url))


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
