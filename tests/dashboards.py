"""Serve a run with TensorBoard and open its dashboards; as a command, take a screenshot of each.

PYTHONPATH=. python tests/dashboards.py runs/lenet/2026-01-01_12-00-00 pictures/
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from urllib.request import urlopen

from browser import missing, open_browser, open_page
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FrameLocator, Page

PATIENCE = 60  # seconds for TensorBoard to start and to read a run; on two idle cores it takes 4
SETTINGS = (
    "localStorage.setItem('_tb_global_settings', '{\"paginationSize\": 1000}')"  # otherwise cards are on further pages
)
THE_RUN = r"^\.$"  # without its subfolders, which TensorBoard treats as separate runs
SPINNERS = "paper-spinner-lite[active]:not([hidden]), mat-spinner"
# selector of an element in each dashboard that is present when it is ready
DRAWN = {
    "timeseries": "card-view",
    "scalars": "tf-scalar-card path.line",
    "custom_scalars": "tf-custom-scalar-multi-line-chart-card path.line",
    "images": "tf-image-loader img",
    "histograms": "tf-histogram-loader g.histogram path",
    "distributions": "tf-distribution-loader path.area",
    "projector": "iframe",
    "pr_curves": "tf-pr-curve-card path.line",
    "graphs": "g.node",
    "hparams": "vaadin-grid #items tr:not([hidden]) td",
    "text": "tf-text-loader tf-markdown-view",
}


def read_events(run: Path) -> EventAccumulator:
    """Return all events of a run directory; by default TensorBoard samples them."""
    everything = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    return EventAccumulator(str(run), size_guidance=everything).Reload()


@contextmanager
def serve(run: Path) -> Iterator[str]:
    """Yield the address of a TensorBoard that has read a run, and stop it on exit."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={run}", "--host=127.0.0.1", "--port=0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with log.open("w") as file:
            process = subprocess.Popen([*command, "--reload_interval=1"], stdout=file, stderr=file)
        try:
            started = _wait_for(lambda: re.search(r"http://[\d.]+:\d+/", log.read_text()), process, log)
            events = read_events(run)
            _wait_for(lambda: _has_read(started[0], events, run), process, log)
            yield started[0]
        finally:
            process.terminate()
            process.wait()


@contextmanager
def open_dashboard(browser: "Browser", address: str, name: str, tags: str = "") -> Iterator["Page"]:
    """Yield the page of a dashboard after it has drawn the run's tags that match a pattern."""
    if name == "timeseries":
        address = f"{address}?tagFilter={quote(tags)}#{name}"
    else:
        address = f"{address}#{name}&regexInput={quote(THE_RUN)}&tagFilter={quote(tags)}"
    with open_page(browser, address, SETTINGS) as page:
        page.locator(DRAWN[name]).first.wait_for(state="attached")
        page.locator(SPINNERS).first.wait_for(state="hidden")
        yield page


def projector_of(page: "Page") -> "FrameLocator":
    """Return the frame of the projector once its points are laid out."""
    inner = page.frame_locator("iframe").frame_locator("iframe")
    inner.get_by_text("Total variance described").wait_for()
    return inner


def color_by_label(projector: "FrameLocator") -> None:
    """Colour the points by class."""
    projector.locator("#colorby").click()
    projector.locator("#colorby paper-item").filter(has_text=re.compile(r"^\s*class")).click()
    projector.locator("vz-projector-legend").wait_for()


def expand(page: "Page", node: str) -> None:
    """Expand a node of the graph."""
    page.locator(f'g.node[data-name="{node}"] .nodecolortarget').first.dblclick()
    page.locator(f'g.node.expanded[data-name="{node}"]').wait_for()


def network_in_graph(events: EventAccumulator) -> tuple[list[str], list[str]]:
    """Return the nested scopes that contain the network, and those of its layers, by their names in the graph."""
    layers = {tag.split("/")[1].rsplit(".", 1)[0] for tag in events.Tags()["histograms"] if tag.startswith("weights/")}
    names = [node.name.split("/") for node in events.Graph().node]
    scopes = {"/".join(name[:i]) for name in names for i in range(1, len(name) + 1)}
    layer_scopes = sorted(scope for scope in scopes if re.sub(r".*\[(.*)\]$", r"\1", scope) in layers)
    parents = layer_scopes[0].split("/")[:-1] if layer_scopes else []
    return ["/".join(parents[: i + 1]) for i in range(len(parents))], layer_scopes


def take_pictures(run: Path, folder: Path) -> None:
    """Write a PNG file of each dashboard."""
    folder.mkdir(parents=True, exist_ok=True)
    with serve(run) as address, open_browser() as browser:
        for name in DRAWN:
            tags = {"timeseries": "^(train|val)/", "scalars": "^(train|val)/", "pr_curves": "^pr/"}.get(name, "")
            with open_dashboard(browser, address, name, tags) as page:
                if name == "projector":
                    color_by_label(projector_of(page))
                if name == "graphs":
                    for scope in network_in_graph(read_events(run))[0]:
                        expand(page, scope)
                    page.get_by_text("Fit to screen").click()
                    page.evaluate("getSelection().removeAllRanges()")  # the double click selected a word
                page.wait_for_load_state("networkidle")
                page.wait_for_timeout(1000)  # until animations end, for which there is no event
                page.screenshot(path=folder / f"{name}.png")
            print(folder / f"{name}.png")


def _wait_for(poll: Callable[[], Any], process: subprocess.Popen, log: Path) -> Any:
    """Poll until a function returns a true value, and return it."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if result := poll():
            return result
        time.sleep(0.1)
    raise TimeoutError(f"Expected TensorBoard to have read the run in {PATIENCE} s, but it printed:\n{log.read_text()}")


def _has_read(address: str, events: EventAccumulator, run: Path) -> bool:
    """Return whether TensorBoard has loaded all tags of a run directory and its embeddings."""

    def ask(path: str) -> Any:
        with urlopen(f"{address}data/{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    plugins = ("scalars", "images", "histograms", "text", "pr_curves")
    known = {tag for plugin in plugins for tag in ask(f"plugin/{plugin}/tags").get(".", ())}
    tags = {tag for kind in ("scalars", "images", "histograms", "tensors") for tag in events.Tags()[kind]}
    if not {tag for tag in tags if not tag.startswith(("_hparams_/", "custom_scalars__"))} <= known:
        return False
    return not (run / "projector_config.pbtxt").exists() or ask("plugins_listing")["projector"]["enabled"]


if __name__ == "__main__":
    if reason := missing():
        raise SystemExit(f"error: {reason}")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("folder", type=Path, help="folder for the pictures")
    arguments = parser.parse_args()
    take_pictures(arguments.run, arguments.folder)
