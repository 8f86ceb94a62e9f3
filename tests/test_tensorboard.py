"""Check TensorBoard's dashboards of a run in a browser."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import browser_or_skip, lines_of
from dashboards import DRAWN, color_by_label, expand, network_in_graph, open_dashboard, projector_of, read_events, serve
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def events(finished_run: Path) -> EventAccumulator:
    return read_events(finished_run)


@pytest.fixture(scope="module")
def browser(finished_run: Path) -> Iterator["Browser"]:  # after the run, because training may start an event loop
    with browser_or_skip() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(browser: "Browser", finished_run: Path) -> Iterator[str]:  # after the browser, to serve nothing without one
    with serve(finished_run) as address:
        yield address


@pytest.mark.parametrize("name", DRAWN)
def test_dashboard_draws_something(name: str, browser: "Browser", address: str) -> None:
    with open_dashboard(browser, address, name, "."):
        pass  # it waits for an element of the dashboard


def test_time_series_show_the_last_value_of_each_metric(
    browser: "Browser", address: str, events: EventAccumulator
) -> None:
    from playwright.sync_api import expect

    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("val/")]
    with open_dashboard(browser, address, "timeseries", "^val/") as page:
        shown = {}
        expect(page.locator("scalar-card tb-data-table")).to_have_count(len(tags))
        for card in page.locator("scalar-card").all():
            row = card.locator("tb-data-table-content-row").filter(has_text=re.compile(r"^\s*\.\s"))
            _, _, value, step, _ = lines_of(row)  # run, smoothed, value, step, relative time
            shown["".join(lines_of(card.locator("tb-truncated-path")))] = (float(value), int(step))
    assert tags
    assert shown == {
        tag: (pytest.approx(last.value, rel=1e-3), last.step) for tag in tags for last in events.Scalars(tag)[-1:]
    }


def test_training_and_validation_share_a_chart(browser: "Browser", address: str) -> None:
    from playwright.sync_api import expect

    with open_dashboard(browser, address, "custom_scalars") as page:
        charts = page.locator("tf-custom-scalar-multi-line-chart-card")
        expect(charts).to_have_count(2)
        for chart, name in zip(charts.all(), ("loss", "acc"), strict=True):
            expect(chart).to_contain_text(name)
            expect(chart).to_contain_text("Matches (2)")  # train and val


def test_projector_shows_points_of_each_class(browser: "Browser", address: str, finished_run: Path) -> None:
    config = text_format.Parse((finished_run / "projector_config.pbtxt").read_text(), ProjectorConfig())
    with open_dashboard(browser, address, "projector") as page:
        projector = projector_of(page)
        panel = lines_of(projector.locator("vz-projector-data-panel"))
        embedding = next(embedding for embedding in config.embeddings if embedding.tensor_name in panel)
        points = (finished_run / embedding.tensor_path).read_text().splitlines()
        labels = [line.split("\t")[0] for line in (finished_run / embedding.metadata_path).read_text().splitlines()]
        counts = f"Points: {len(points)} Dimension: {len(points[0].split())}"
        assert counts in " ".join(lines_of(projector.locator("vz-projector")))
        color_by_label(projector)
        legend = lines_of(projector.locator("vz-projector-legend"))
        labels = labels[-len(points) :]  # without the header
        assert dict(zip(legend[::2], map(int, legend[1::2]), strict=True)) == Counter(labels)


def test_graph_opens_down_to_the_layers(browser: "Browser", address: str, events: EventAccumulator) -> None:
    scopes, layers = network_in_graph(events)
    assert layers
    with open_dashboard(browser, address, "graphs") as page:
        for scope in scopes:
            expand(page, scope)
        nodes = page.locator("g.node").evaluate_all("nodes => nodes.map(node => node.dataset.name)")
        assert set(layers) <= set(nodes)


def test_hparams_are_listed_with_their_metrics(browser: "Browser", address: str, events: EventAccumulator) -> None:
    with open_dashboard(browser, address, "hparams") as page:
        grid = page.locator("vaadin-grid")
        names = [" ".join(lines_of(cell)) for cell in grid.locator("#header th").all()]
        cells = [" ".join(lines_of(cell)) for cell in grid.locator("#items tr:not([hidden])").first.locator("td").all()]
    row = dict(zip(names, cells, strict=False))  # an empty last cell is missing
    assert row["Trial ID"] == "."
    metrics = [name for name in row if name in events.Tags()["scalars"]]
    assert "hp/val/acc" in metrics
    for name in metrics:
        assert float(row[name]) == pytest.approx(events.Scalars(name)[-1].value, rel=1e-4), name
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert set(row) & set(HParamsPluginData.FromString(content).session_start_info.hparams)


def test_text_shows_the_config_and_the_class_report(browser: "Browser", address: str) -> None:
    with open_dashboard(browser, address, "text", ".") as page:
        page.get_by_text("class_path: lightning_modules.ImageClassifier").first.wait_for()
        page.get_by_text("recall").first.wait_for()  # a column of the class report
