"""The report in a browser: on a phone and on a desktop, light, dark and printed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import browser_or_skip
from report_runs import CLASSES, write_config, write_distributions, write_metrics, write_run, write_test

from project.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
SCREENS = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1280, "height": 900}}
SMALLEST = 10  # CSS pixels of text in a chart
CONTRAST = 4.5  # WCAG 2.2, AA
BROKEN_IMAGES = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length"
TEXT_SIZES = """[...document.querySelectorAll('svg.chart')].filter(c => c.checkVisibility()).map(c => {
    const scale = c.getBoundingClientRect().width / c.viewBox.baseVal.width
    return Math.min(...[...c.querySelectorAll('text')].map(t => parseFloat(getComputedStyle(t).fontSize) * scale))})"""
CUT = """[...document.querySelectorAll('svg.chart')].filter(c => c.checkVisibility()).flatMap(c => {
    const box = c.getBoundingClientRect()
    return [...c.querySelectorAll('text')].filter(t => {
        const b = t.getBoundingClientRect()
        return b.left < box.left - 1 || b.right > box.right + 1 || b.bottom > box.bottom + 1 || b.top < box.top - 1
    }).map(t => t.textContent)})"""
OUTSIDE = """[...document.querySelectorAll('img, svg, figcaption, summary, p, dd, a, h2')]
    .filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML)"""
COLOURS = """[...document.querySelectorAll('p, td, th, caption, figcaption, a, summary, h1, h2, svg.chart text')]
    .filter(e => e.checkVisibility() && !e.classList.contains('bar') && !e.closest('.matrix td'))
    .map(e => e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color)"""


@pytest.fixture(scope="module")
def browser(reports: dict[str, Path]) -> Iterator["Browser"]:  # runs come first: training may start an event loop
    with browser_or_skip() as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the reports of a real run, a complete one, two runs, one that just started, and one with long names."""
    runs = tmp_path_factory.mktemp("runs")
    whole = write_run(runs / "full/2026-11-21_10-00-00")
    write_test(whole)
    other = write_run(runs / "full/2026-11-21_11-00-00", epochs=30, planned=30, seed=7)
    begun = write_config(runs / f"{'a-long-name-' * 12}/2026-11-21_12-00-00")
    wide = write_run(runs / "wide/2026-11-21_13-00-00", classes=[f"{'long' * 20} {i}" for i in range(20)])
    write_distributions(wide, [f"gradients/{'stage.' * 12}{i}.weight" for i in range(90)], (1, 2), scale=-1.234e-5)
    groups = {f"lr-SGD/{'group' * 20}{i}": 0.1 for i in range(90)}
    write_metrics(wide, [{"step": step, "epoch": step, "val/acc": 0.1} | groups for step in range(2)])
    pages = {"whole": write_report(whole), "two": write_report(whole, other)}
    return pages | {"begun": write_report(begun), "wide": write_report(wide), "real": write_report(finished_run)}


@pytest.mark.parametrize(("screen", "scheme"), [("phone", "light"), ("desk", "dark")])
@pytest.mark.parametrize("name", ["real", "whole", "two", "begun", "wide"])
def test_page_is_complete_and_readable(
    browser: "Browser", reports: dict[str, Path], name: str, screen: str, scheme: str
) -> None:
    context = browser.new_context(viewport=SCREENS[screen], color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = reports[name].as_uri()
    page.goto(address)
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]

    assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen]["width"]
    assert page.locator(".outcome").first.is_visible()
    headings = page.locator("h2")
    assert headings.count() >= (2 if name == "begun" else 11)
    assert all(heading.is_visible() for heading in headings.all())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SCREENS[screen]["width"]
    assert page.evaluate(BROKEN_IMAGES) == 0
    assert min(page.evaluate(TEXT_SIZES), default=SMALLEST) >= SMALLEST
    assert page.evaluate(CUT) == []
    assert page.evaluate(OUTSIDE) == []

    (paper,) = _rgb([page.evaluate("getComputedStyle(document.body).backgroundColor")])
    assert (sum(paper) > 600) == (scheme == "light")
    for colour in _rgb(set(page.evaluate(COLOURS))):
        assert _contrast(colour, paper) >= CONTRAST, colour
    context.close()


def test_matrix_and_table_of_ten_classes_fit_a_phone(browser: "Browser", reports: dict[str, Path]) -> None:
    page = browser.new_page(viewport=SCREENS["phone"])
    page.goto(reports["real"].as_uri())
    boxes = page.locator("#confusion .scroll, #classes .scroll")
    assert boxes.count() >= 3  # the most frequent confusions too, and those of test if another test has run it
    for box in boxes.all():
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    page.close()


def test_names_are_shown_as_they_are(browser: "Browser", reports: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(reports["whole"].as_uri())
    assert CLASSES[1] in page.locator("#classes").inner_text()
    assert page.locator("b, script").count() == 0
    page.click("nav a >> text=Gradient flow")
    assert page.url.endswith("#flow")
    page.close()


def test_page_is_printed_light_with_its_charts(browser: "Browser", reports: dict[str, Path]) -> None:
    page = browser.new_context(color_scheme="dark").new_page()
    page.goto(reports["two"].as_uri())
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#curves svg.chart").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    page.close()


def _rgb(colours: Iterator[str] | list[str] | set[str]) -> list[tuple[float, ...]]:
    return [tuple(map(float, colour.strip("rgba()").split(",")[:3])) for colour in colours]


def _contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Return the contrast ratio of two colours by WCAG 2.2."""
    dark, light = sorted(map(_luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
