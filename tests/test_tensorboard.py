"""Check in a browser that TensorBoard's dashboards draw a run."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import browser_or_skip

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
PATIENCE = 60  # seconds for TensorBoard to start, and to read a run; on two idle cores it takes 4
THE_RUN = "%5E%5C.%24"  # the pattern ^\.$: without its subfolders, which TensorBoard treats as separate runs
# an element of each dashboard that is present when it has drawn what matches the pattern of tags
DRAWN = {
    "timeseries": "card-view",
    "scalars": "tf-scalar-card path.line",
    "custom_scalars": "tf-custom-scalar-multi-line-chart-card path.line",
    "images": "tf-image-loader img",
    "histograms": "tf-histogram-loader g.histogram path",
    "distributions": "tf-distribution-loader path.area",
    "pr_curves": "tf-pr-curve-card path.line",
    "graphs": "g.node",
    "hparams": "vaadin-grid #items tr:not([hidden]) td",
    "text": "tf-text-loader tf-markdown-view:has-text('class_path: lightning_modules.ImageClassifier')",
}


@pytest.fixture(scope="module")
def browser(finished_run: Path) -> Iterator["Browser"]:  # after the run, because training may start an event loop
    with browser_or_skip() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(browser: "Browser", finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a TensorBoard of the run, and stop it at the end."""
    log = tmp_path_factory.mktemp("tensorboard") / "log.txt"
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={finished_run}", "--host=127.0.0.1", "--port=0"]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--reload_interval=1"], stdout=file, stderr=file)
    try:
        until = time.monotonic() + PATIENCE
        while (found := re.search(r"http://[\d.]+:\d+/", log.read_text())) is None:
            assert time.monotonic() < until, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("name", DRAWN)
def test_dashboard_draws_the_run(name: str, browser: "Browser", address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{address}?tagFilter=.#{name}&regexInput={THE_RUN}&tagFilter=.")
    page.locator(DRAWN[name]).first.wait_for(state="attached", timeout=1000 * PATIENCE)
    page.close()


def test_projector_draws_the_embeddings(browser: "Browser", address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}#projector")
    projector = page.frame_locator("iframe").frame_locator("iframe")
    projector.get_by_text("Total variance described").wait_for(timeout=1000 * PATIENCE)
    page.close()
