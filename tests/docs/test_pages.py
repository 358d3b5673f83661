"""Every page runs as it is printed."""

from __future__ import annotations

import pytest

from tests.docs.pages import DOCS, WRITE, Page, Runner, has_something_to_run, pages

RUN = [path for path in pages() if has_something_to_run(path) and path.parent.name != "tutorial"]


@pytest.mark.parametrize("path", RUN, ids=lambda path: str(path.relative_to(DOCS)))
def test_a_page_prints_what_it_says(path, valkey, tmp_path, in_folder):
    """Every command and every line of Python, in the order of the page."""
    in_folder(tmp_path, valkey.url)
    Runner(Page(path), valkey.url, tmp_path).run()


@pytest.mark.skipif(WRITE, reason="outputs are written anew")
@pytest.mark.parametrize(
    "block",
    [
        "```console\n$ redis-cli XLEN orders\n(integer) 1\n```\n",
        "```pycon\n>>> 6 * 7\n41\n```\n",
        "```console\n$ redis-cli XADD a '*' n 1\n\"1795369183485-0\"\n$ redis-cli XADD a '*' n 1\n\"1795369183485-0\"\n```\n",
    ],
    ids=["a figure", "Python", "one id for two entries"],
)
def test_a_page_that_says_something_else_is_refused(block, valkey, tmp_path, in_folder):
    """The comparison sees what it is there to see."""
    page = tmp_path / "page.md"
    page.write_text(block)
    in_folder(tmp_path, valkey.url)

    with pytest.raises(AssertionError, match="the page says"):
        Runner(Page(page), valkey.url, tmp_path).run()
