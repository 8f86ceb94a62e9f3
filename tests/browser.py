"""Open headless Chromium, driven by Playwright.

If either is missing, tests that need them are skipped, or fail if REQUIRE_BROWSER is set, as in .ci/run.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@contextmanager
def browser_or_skip() -> Iterator["Browser"]:
    """Yield a browser to a fixture, or skip its tests.

    Playwright's event loop runs until the end: code that starts another event loop must run before.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None or importlib.util.find_spec("playwright") is None:
        report = pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip
        report("needs Chromium and Playwright: apt-get install chromium, pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root and in many containers; these pages are trusted
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
