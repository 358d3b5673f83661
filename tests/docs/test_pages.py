"""Every page runs as it is printed."""

from __future__ import annotations

import pytest

from tests.docs.pages import DOCS, Page, Runner, has_something_to_run, pages

RUN = [path for path in pages() if has_something_to_run(path) and path.parent.name != "tutorial"]


@pytest.mark.parametrize("path", RUN, ids=lambda path: str(path.relative_to(DOCS)))
def test_a_page_prints_what_it_says(path, valkey, tmp_path, in_folder):
    """Every command and every line of Python, in the order of the page."""
    in_folder(tmp_path, valkey.url)
    Runner(Page(path), valkey.url, tmp_path).run()
