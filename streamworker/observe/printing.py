"""Text from outside made harmless: what comes from an entry, a name or an exception must steer no terminal and forge no line of a log."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """The text with control characters, bidirectional marks and the like as escapes: a payload must not steer the terminal."""
    return text if text.isprintable() else "".join(_shown(character) for character in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines, such as a traceback: line feeds stay, and nothing else ends a line."""
    return "\n".join(printable(line.expandtabs()) for line in text.split("\n"))


def _shown(character: str) -> str:
    # Cc and Cf hold the escapes, the bidi marks and the invisible joiners; Co, Cs and Cn have no agreed look; Zl and Zp break lines.
    if unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}:
        return character.encode("unicode_escape").decode()
    return character
