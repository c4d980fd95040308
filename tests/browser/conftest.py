"""Fixtures: `notebook("name.ipynb")` opens one in a real browser and drives it."""

import os
import shutil

import pytest
from driver import CHROMIUM, ROOT, Notebook, chromium, jupyterlab


@pytest.fixture(scope="module")
def browser():
    """Chromium; skipped where it is missing, except in CI, where that is a failure."""
    missing = None if CHROMIUM else "chromium is not installed (Debian: apt-get install chromium)"
    try:
        import playwright  # noqa: F401
    except ImportError:
        missing = "playwright is not installed (pip install playwright)"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a copy of the chapters: (url, token, folder)."""
    home = tmp_path_factory.mktemp("jupyter")
    if (ROOT / "chapters").is_dir():
        ignored = shutil.ignore_patterns(".*")
        shutil.copytree(ROOT / "chapters", home / "chapters", ignore=ignored)
    with jupyterlab(home) as running:
        yield running


@pytest.fixture
def notebook(browser, server):
    """Open a notebook of the copy in a 1280 x 720 window; it and its kernel end with the test."""
    url, token, _ = server
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    opened = []

    def open_notebook(name):
        opened.append(Notebook(context.new_page(), f"{url}doc/tree/{name}?token={token}"))
        return opened[-1]

    yield open_notebook
    for one in opened:
        one.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    context.close()
