"""A password that is rotated under a running worker."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import structlog

from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess
from tests.command_line import run
from tests.harness import Ledger, an_app
from tests.waiting import eventually

pytestmark = pytest.mark.matrix


@pytest.fixture
def rotate(redis_client):
    """`rotate(password)`: this is the user's only password from now on, and whoever is connected is thrown out."""

    def set_password(password: str) -> None:
        redis_client.execute_command("ACL", "SETUSER", "rotating", "on", "resetpass", f">{password}", "~*", "+@all")
        for client in redis_client.client_list():
            if client.get("user") == "rotating":
                redis_client.client_kill_filter(_id=client["id"])

    yield set_password
    redis_client.acl_deluser("rotating")


async def test_a_worker_takes_up_a_rotated_password_from_its_file(server, aredis, rotate, tmp_path):
    """Its blocked read, its lease keeper and its publishing connect anew; until then it says what is wrong, without a password."""
    file, ledger = tmp_path / "url", Ledger()
    app = an_app(lease=timedelta(milliseconds=900))

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(order["n"])
        if order["n"] == "long":
            await asyncio.sleep(1.5)

    rotate("first-secret")
    file.write_text(server.url.replace("redis://", "redis://rotating:first-secret@"))
    process = WorkerProcess(app, Settings.load({"REDIS_URL_FILE": str(file)}, {}, {}))
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(process.run())
        await asyncio.wait_for(process.ready.wait(), 10)
        await aredis.xadd("orders", {"n": "before"})
        await ledger.until_count(1)
        rotate("second-secret")
        await eventually(lambda: asyncio.sleep(0, any("password" in str(line.get("error")) for line in lines)))
        file.write_text(server.url.replace("redis://", "redis://rotating:second-secret@"))
        await aredis.xadd("orders", {"n": "long"})
        await ledger.until_count(2, within=20)
        await app.publish("orders", {"n": "published"})
        await ledger.until(lambda seen: "published" in seen)
        process.drain("the test wants it")
        code = await asyncio.wait_for(task, 15)

    assert (0, ["before", "long", "published"]) == (code, ledger.seen)
    assert "secret" not in str(lines)


def test_a_wrong_password_is_one_sentence_and_not_shown(server, rotate):
    """Nor is the right one; the arguments are warned of."""
    rotate("right-secret")

    result = run("tail", "orders", url=server.url.replace("redis://", "redis://rotating:wrong-secret@"))

    assert 3 == result.exit_code
    assert "secret" not in result.output
    note, error = result.stderr.splitlines()
    assert note.startswith("Note: ")
    assert "STREAMWORKER_REDIS_URL_FILE" in note
    assert error.startswith("Error: Redis at redis://***@127.0.0.1:")
