"""Open pages in headless Chromium, driven by Playwright.

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
    from playwright.sync_api import Browser, ElementHandle, Locator, Page

WINDOW = {"width": 1280, "height": 800}  # pixels
SHOWN = """root => {
  const lines = [];
  const read = node => {
    if (node.nodeType === Node.TEXT_NODE && node.textContent.trim()) lines.push(node.textContent.trim());
    if (node.nodeType !== Node.ELEMENT_NODE || /^(style|script|template|noscript|dom-module)$/.test(node.localName))
      return;
    if (getComputedStyle(node).display === 'none') return;
    if (node.localName === 'input' && /^(text|search|)$/.test(node.type)) node.value && lines.push(node.value);
    const slotted = node.localName === 'slot' ? node.assignedNodes() : [];
    (slotted.length ? slotted : (node.shadowRoot || node).childNodes).forEach(read);
  };
  read(root);
  return lines;
}"""  # innerText stops at shadow roots, which TensorBoard consists of


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str | None:
    """Return what to install before a browser can be opened, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "Expected Playwright, but it is not installed: pip install playwright"
    if find_chromium() is None:
        return "Expected Chromium, but it is not on the PATH: apt-get install chromium"
    return None


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Yield a browser.

    Playwright's event loop runs until the end: code that starts another event loop must run before.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # ms; on two idle cores everything takes less than 3 s
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root and in many containers; these pages are trusted
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def browser_or_skip() -> Iterator["Browser"]:
    """Yield a browser to a fixture, or skip its tests."""
    if reason := missing():
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)(reason)
    with open_browser() as browser:
        yield browser


@contextmanager
def open_page(browser: "Browser", address: str, script: str = "") -> Iterator["Page"]:
    """Yield a page after running a script in it; errors are raised with the text of the page."""
    page = browser.new_page(viewport=WINDOW)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"not loaded: {request.url}"))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    try:
        page.add_init_script(script)
        page.goto(address)
        yield page
    except Exception as error:  # add the text of the page to any error
        for frame in page.frames:
            error.add_note(f"{frame.url} showed: {' | '.join(lines_of(frame.locator('body')))[:4000]}")
        error.add_note(f"The browser complained of: {complaints or 'nothing'}")
        raise
    finally:
        page.close()


def lines_of(shown: "Locator | ElementHandle") -> list[str]:
    """Return the lines of text of an element, including those in shadow roots and input fields."""
    return shown.evaluate(SHOWN)
