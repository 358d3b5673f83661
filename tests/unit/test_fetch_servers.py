"""Fetching servers: whole or not at all, once, and with a reason when it cannot be."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests import fetch_servers, servers
from tests.fetch_servers import Recipe, Unavailable, fetch, fetched, main, mirrors, parse_version


@dataclass(frozen=True)
class Shelf:
    """A source with a server that does nothing but say its version, or that breaks off halfway."""

    version: str = "8.1.2"
    breaks: bool = False
    asked: list[str] = field(default_factory=list)

    def put(self, server: str, into: Path) -> None:
        self.asked.append(server)
        (into / server).write_text(f"#!/bin/sh\necho 'Redis server v={self.version} sha=00000000:0'\n")
        (into / server).chmod(0o755)
        if self.breaks:
            raise Unavailable("the line went dead")


def a_recipe(*sources: Shelf) -> Recipe:
    return Recipe("redis-8.0", (8, 0), sources)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMWORKER_TEST_SERVERS", str(tmp_path / "servers"))
    return tmp_path / "servers"


@pytest.fixture
def shelved(monkeypatch):
    """`shelved(source, …)` makes these the only places of the only server."""
    return lambda *sources: monkeypatch.setattr(fetch_servers, "RECIPES", {"redis-8.0": a_recipe(*sources)})


def test_a_server_is_fetched_once(cache):
    """The second run finds it."""
    shelf = Shelf()

    programs = {fetch(a_recipe(shelf)) for _ in range(2)}

    assert {cache / "redis-8.0" / "redis-server"} == programs
    assert ["redis-server"] == shelf.asked


def test_runs_beside_each_other_fetch_it_once():
    """One fetches, the others wait and find it."""
    shelf, together, programs = Shelf(), threading.Barrier(4), []

    def run() -> None:
        together.wait()
        programs.append(fetch(a_recipe(shelf)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 4 == len(programs)
    assert ["redis-server"] == shelf.asked


def test_half_a_download_never_counts(cache):
    """What broke off is not taken for a server, and neither is what a killed run has left; the next run gets a whole one."""
    with pytest.raises(Unavailable, match="the line went dead"):
        fetch(a_recipe(Shelf(breaks=True)))
    assert fetched(a_recipe()) is None
    assert [] == [path for path in cache.iterdir() if path.is_dir()]

    (cache / ".redis-8.0.partial").mkdir()
    (cache / ".redis-8.0.partial" / "redis-server").touch()
    assert fetched(a_recipe()) is None
    assert fetch(a_recipe(Shelf())).read_text()


def test_an_older_server_than_wanted_is_refused_and_the_next_place_is_asked():
    """A suite may have moved on, or not have got there yet."""
    old, new = Shelf("7.4.9"), Shelf("8.0.10")

    assert (8, 0, 10) == fetch_servers.version_of(fetch(a_recipe(old, new)))


def test_what_cannot_be_had_is_said_with_its_reasons(shelved, capsys):
    """Exit code 1, or 0 with --best-effort; the table has it too."""
    shelved(Shelf(breaks=True), Shelf("7.4.9"))

    assert (1, 0) == (main([]), main(["--best-effort"]))
    said = capsys.readouterr().out
    assert "redis-8.0 cannot be had: the line went dead; " in said
    assert "has 7.4.9 only" in said


def test_the_table_names_what_is_there(shelved, cache, capsys):
    """Name, version, path."""
    shelved(Shelf())

    assert 0 == main(["redis-8.0"])
    assert ["redis-8.0", "8.1.2", str(cache / "redis-8.0" / "redis-server")] == capsys.readouterr().out.splitlines()[-1].split()


def test_a_mirror_is_one_with_whole_suites():
    """Not the one of security, nor another company's; each once."""
    targets = [
        "https://one.example/debian-security/|bookworm-security|main",
        "https://one.example/debian/|bookworm-updates|main",
        "https://one.example/debian/|bookworm|main",
        "https://one.example/debian/|bookworm|contrib",
        "https://two.example/docker/|bookworm|stable",
        "https://three.example/|./|",
    ]

    assert ["https://one.example/debian/"] == mirrors("\n".join([*targets, targets[2]]))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=d81b8ff71cfb150e", (7, 0, 15)),
        ("Valkey server v=9.1.2 sha=00000000:0", (9, 1, 2)),
    ],
)
def test_a_version_is_read(text, version):
    """Of both families."""
    assert version == parse_version(text)


def test_what_is_absent_is_named_once_with_its_repair():
    """In the head of the report, and to whoever starts it."""
    lines = servers.report()

    assert "redis-6.2, redis-8.0, redis-8.6, valkey-8, valkey-9 (not fetched: python -m tests.fetch_servers)" in lines[-1]
    assert {"redis-6.2"}.isdisjoint(servers.present())
    with pytest.raises(LookupError, match=r"redis-6\.2: not fetched"), servers.start("redis-6.2"):
        pass


def test_any_tool_can_start_what_is_present(cache):
    """It runs within the block, and not after it."""
    [(kind, _), *_] = servers.present().items()

    with servers.start(kind) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()
    assert not server.running
