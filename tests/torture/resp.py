"""What the proxy knows of Redis's protocol: where a frame ends, and what a command is called.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files

from streamworker.streams import scripts

AGGREGATES = {b"*": 1, b"~": 1, b">": 1, b"%": 2}
"""What begins with its number of elements, and how many frames an element is."""

BULKS = (b"$", b"=", b"!")
"""What begins with its number of bytes."""

TWO_WORDS = {"ACL", "CLIENT", "CONFIG", "SCRIPT", "XGROUP", "XINFO"}

FRAGMENTS = {"book", "fence"}
"""Parts of scripts, not scripts."""


class FrameSplitter:
    """Cuts a stream of bytes into whole frames; what has not come to its end yet is kept for the next bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._missing = 1

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes, as they came."""
        self._buffer += data
        frames = []
        while self._pass_element():
            if self._missing == 0:
                frames.append(bytes(self._buffer[: self._at]))
                del self._buffer[: self._at]
                self._at, self._missing = 0, 1
        return frames

    @property
    def rest(self) -> bytes:
        """The beginning of a frame that has not ended."""
        return bytes(self._buffer)

    def _pass_element(self) -> bool:
        """Go past one element of the frame; false when it is not all there. A nesting needs no stack: only the sum of what is missing."""
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            return False
        kind = bytes(self._buffer[self._at : self._at + 1])
        following = end + 2
        inside = 0
        if kind in AGGREGATES:
            inside = max(0, int(self._buffer[self._at + 1 : end])) * AGGREGATES[kind]
        elif kind in BULKS and (size := int(self._buffer[self._at + 1 : end])) >= 0:
            following += size + 2
        if len(self._buffer) < following:
            return False
        self._at = following
        self._missing += inside - 1
        return True


def arguments_of(frame: bytes, most: int | None = None) -> list[bytes]:
    """The words of a command, or its first `most`."""
    if not frame.startswith(b"*"):
        return frame.split()  # an inline command
    end = frame.index(b"\r\n")
    count = int(frame[1:end])
    words = []
    for _ in range(count if most is None else min(most, count)):
        begin = end + 2
        end = frame.index(b"\r\n", begin)
        size = int(frame[begin + 1 : end])
        words.append(frame[end + 2 : end + 2 + size])
        end += 2 + size
    return words


def name_of(frame: bytes) -> str:
    """What a command is called here: a script of ours by its name, a container command with its second word, a blocking read so."""
    words = arguments_of(frame, most=12)
    first = words[0].decode(errors="replace").upper() if words else ""
    if first in {"EVALSHA", "EVAL"} and len(words) > 1:
        digest = words[1].decode(errors="replace") if first == "EVALSHA" else sha1(words[1], usedforsecurity=False).hexdigest()
        return script_names().get(digest, first)
    if first in TWO_WORDS and len(words) > 1:
        return f"{first} {words[1].decode(errors='replace').upper()}"
    if first in {"XREADGROUP", "XREAD"} and b"BLOCK" in (word.upper() for word in words):
        return f"{first} BLOCK"
    return first


@cache
def script_names() -> dict[str, str]:
    """Our scripts' names by their digests."""
    names = [file.name.removesuffix(".lua") for file in files(scripts).iterdir() if file.name.endswith(".lua")]
    return {scripts.script(name).digest: name for name in names if name not in FRAGMENTS}
