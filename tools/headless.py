"""The system's Chromium without a window, for tests of pages and for pictures of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
"""Its path, or None."""
NO_CHROMIUM = "a page has to be opened in Chromium, which this machine has not (Debian: chromium)"

_FLAGS = (
    "--no-sandbox",  # which root, as in a container, cannot have
    "--disable-gpu",
    # No connections of its own beside those that a page asks for.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A playwright browser; raises if there is no `CHROMIUM`."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        raise RuntimeError(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()
