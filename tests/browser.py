"""Open pages in a real browser, without a window: Chromium, driven by Playwright.

Where one of the two is missing, tests that need them are skipped, or fail if REQUIRE_BROWSER is set, as in .ci/run.
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
}"""  # innerText stops at a shadow root, of which TensorBoard is made


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def missing() -> str | None:
    """Say what to install before a browser can be opened."""
    if importlib.util.find_spec("playwright") is None:
        return "Expected Playwright, but it is not installed: pip install playwright"
    if find_chromium() is None:
        return "Expected Chromium, but it is not on the PATH: apt-get install chromium"
    return None


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Yield a browser.

    Playwright's event loop counts as running until the end: whatever starts a loop of its own has to come before.
    """
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # ms; on two idle cores nothing takes 3 s
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root and in many containers; the pages are our own
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
    """Yield a page, of which a script runs first; what goes wrong meanwhile tells what the page showed."""
    page = browser.new_page(viewport=WINDOW)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"not loaded: {request.url}"))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    try:
        page.add_init_script(script)
        page.goto(address)
        yield page
    except Exception as error:  # whatever fails is told with what the page showed, and raised
        for frame in page.frames:
            error.add_note(f"{frame.url} showed: {' | '.join(lines_of(frame.locator('body')))[:4000]}")
        error.add_note(f"The browser complained of: {complaints or 'nothing'}")
        raise
    finally:
        page.close()


def lines_of(shown: "Locator | ElementHandle") -> list[str]:
    """Return the lines of text that an element shows, those inside shadow roots and input fields too."""
    return shown.evaluate(SHOWN)
