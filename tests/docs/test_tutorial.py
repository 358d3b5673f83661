"""The tutorial runs as it is printed, on every server."""

from __future__ import annotations

from tests.docs.pages import DOCS, ROOT, Page, Runner

TUTORIAL = DOCS / "tutorial" / "redis-streams.md"


def test_the_tutorial_prints_what_it_says(server, tmp_path, in_folder):
    """Every command and every line of Python, in the order of the page."""
    in_folder(tmp_path, server.url)
    Runner(Page(TUTORIAL), server.url, tmp_path).run()


def test_the_tutorials_program_is_the_example():
    """There is one `temperature.py`."""
    [block] = [block for block in Page(TUTORIAL).blocks if block.note == "file: temperature.py"]

    assert (ROOT / "examples" / "temperature.py").read_text() == block.body
