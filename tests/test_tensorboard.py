"""Check TensorBoard's dashboards of a run in a browser."""

import io
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from browser import browser_or_skip, lines_of, open_page
from dashboards import color_by_label, expand, network_in_graph, open_dashboard, projector_of, read_events, serve
from google.protobuf import text_format
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer.record_writer import RecordWriter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ElementHandle, Page

HISTOGRAM = "g.histogram path.outline"


@pytest.fixture(scope="module")
def watched_run(finished_run: Path) -> Path:
    return finished_run


@pytest.fixture(scope="module")
def events(watched_run: Path) -> EventAccumulator:
    return read_events(watched_run)


@pytest.fixture(scope="module")
def browser(
    watched_run: Path,
) -> Iterator["Browser"]:  # requires the run first, because training may start an event loop
    with browser_or_skip() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(
    browser: "Browser", watched_run: Path
) -> Iterator[str]:  # requires the browser first, to serve nothing without one
    with serve(watched_run) as address:
        yield address


def cards(page: "Page", element: str, tags: list[str], content: str) -> dict[str, "ElementHandle"]:
    """Wait until exactly one card with content matches the filter for each tag, and return these cards."""
    from playwright.sync_api import expect

    matching = page.locator("tf-category-paginated-view").first  # the other views ignore the filter
    matches = matching.locator(element).filter(has=page.locator("[itemprop=tag]"))
    expect(matches.filter(has=page.locator(content))).to_have_count(len(tags))
    # handles, because locators would search all cards repeatedly: 10 s for 37 cards
    shown = {
        card.eval_on_selector("[itemprop=tag]", "tag => tag.textContent"): card for card in matches.element_handles()
    }
    assert sorted(shown) == sorted(tags)
    return shown


def drawn(card: "ElementHandle", paths: str) -> int:
    """Check that the paths in a card have only finite numbers, and return the number of paths."""
    path_data = card.eval_on_selector_all(paths, "paths => paths.map(path => path.getAttribute('d'))")
    for path in path_data:
        assert re.fullmatch(r"[ML][\d.,MLZe-]+", path or ""), path
    return len(path_data)


def test_time_series_show_the_last_value_of_each_metric(
    browser: "Browser", address: str, events: EventAccumulator
) -> None:
    from playwright.sync_api import expect

    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("val/")]
    assert tags
    with open_dashboard(browser, address, "timeseries", "^val/") as page:
        shown = {}
        expect(page.locator("scalar-card tb-data-table")).to_have_count(len(tags))
        for card in page.locator("scalar-card").all():
            row = card.locator("tb-data-table-content-row").filter(has_text=re.compile(r"^\s*\.\s"))
            _, _, value, step, _ = lines_of(row)  # run, smoothed, value, step, relative time
            shown["".join(lines_of(card.locator("tb-truncated-path")))] = (float(value), int(step))
        assert sorted(shown) == sorted(tags)
        for tag, number_and_step in shown.items():
            last = events.Scalars(tag)[-1]
            assert number_and_step == (pytest.approx(last.value, rel=1e-3), last.step), tag


def test_time_series_have_a_group_for_each_kind_of_tag(
    browser: "Browser", address: str, events: EventAccumulator
) -> None:
    tags = [tag for kind in ("scalars", "images", "histograms") for tag in events.Tags()[kind]]
    with open_dashboard(browser, address, "timeseries") as page:
        groups = {lines_of(group)[0] for group in page.locator("metrics-card-group-toolbar").all()}
        assert {tag.split("/")[0] for tag in tags} <= groups


def test_scalars_are_lines_with_a_point_for_each_logged_step(
    browser: "Browser", address: str, events: EventAccumulator
) -> None:
    with open_dashboard(browser, address, "scalars", ".") as page:
        shown = cards(page, "tf-scalar-card", events.Tags()["scalars"], "path.line")
        for tag in (
            tag for tag in shown if tag.startswith("lr-")
        ):  # lines of cards far down the page may never be drawn
            card = shown[tag]
            card.scroll_into_view_if_needed()
            steps = len({event.step for event in events.Scalars(tag)})
            for _ in range(50):  # a line may still be empty or animated
                lines = card.eval_on_selector_all("path.line", "paths => paths.map(path => path.getAttribute('d'))")
                points = max((len(re.findall(r"[ML]", line or "")) for line in lines), default=0)
                if points == steps:
                    break
                page.wait_for_timeout(100)
            assert points == steps, tag


def test_training_and_validation_share_a_chart(browser: "Browser", address: str) -> None:
    from playwright.sync_api import expect

    with open_dashboard(browser, address, "custom_scalars") as page:
        charts = page.locator("tf-custom-scalar-multi-line-chart-card")
        expect(charts).to_have_count(2)
        for chart, name in zip(charts.all(), ("loss", "acc"), strict=True):
            expect(chart).to_contain_text(name)
            expect(chart).to_contain_text("Matches (2)")  # train and val


def test_images_are_loaded_in_their_size(browser: "Browser", address: str, events: EventAccumulator) -> None:
    with open_dashboard(browser, address, "images", ".") as page:
        for tag, card in cards(page, "tf-image-loader", events.Tags()["images"], "img").items():
            last = Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string))
            load = "image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])"
            assert card.eval_on_selector("img", load) == list(last.size), tag


def test_histograms_have_a_layer_for_each_logged_step(
    browser: "Browser", address: str, events: EventAccumulator
) -> None:
    with open_dashboard(browser, address, "histograms", ".") as page:
        for tag, card in cards(page, "tf-histogram-loader", events.Tags()["histograms"], HISTOGRAM).items():
            assert drawn(card, HISTOGRAM) == len(events.Histograms(tag)), tag


def test_distributions_are_bands(browser: "Browser", address: str, events: EventAccumulator) -> None:
    with open_dashboard(browser, address, "distributions", ".") as page:
        shown = cards(page, "tf-distribution-loader", events.Tags()["histograms"], "path.area")
        assert {drawn(card, "path.area") for card in shown.values()} == {8}  # between nine quantiles


@pytest.mark.slow
def test_a_hundred_runs_open_with_charts(browser: "Browser", watched_run: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    (file,) = watched_run.glob("*tfevents*")  # a run is one line in the list of runs; other tests add test/
    logged = [Event.FromString(content) for content in RawEventFileLoader(str(file)).Load()]
    for i in range(100):
        folder = tmp_path / f"lenet/{i:03}"
        folder.mkdir(parents=True)
        with (folder / file.name).open("wb") as stream:
            writer = RecordWriter(stream)
            for event in logged:
                if all(value.HasField("simple_value") for value in event.summary.value):
                    writer.write(event.SerializeToString())
    with serve(tmp_path) as address:
        for _ in range(600):  # until TensorBoard has read all runs
            with urlopen(f"{address}data/plugin/scalars/tags") as answer:
                if sum("val/acc" in tags for tags in json.load(answer).values()) == 100:
                    break
            time.sleep(0.1)
        with open_page(browser, address) as page:
            card = page.locator("scalar-card").first
            expect(card).to_be_in_viewport()
            expect(card.locator("tb-data-table-content-row")).to_have_count(100)
            expect(page.locator("scalar-card line-chart").first).to_be_in_viewport()


def test_projector_shows_points_of_each_class(browser: "Browser", address: str, watched_run: Path) -> None:
    config = text_format.Parse((watched_run / "projector_config.pbtxt").read_text(), ProjectorConfig())
    with open_dashboard(browser, address, "projector") as page:
        projector = projector_of(page)
        panel = lines_of(projector.locator("vz-projector-data-panel"))
        shown = [embedding for embedding in config.embeddings if embedding.tensor_name in panel]
        assert shown, panel
        embedding = shown[0]
        points = (watched_run / embedding.tensor_path).read_text().splitlines()
        labels = [line.split("\t")[0] for line in (watched_run / embedding.metadata_path).read_text().splitlines()]
        labels = labels[-len(points) :]  # drop the header
        counts = f"Points: {len(points)} Dimension: {len(points[0].split())}"
        assert counts in " ".join(lines_of(projector.locator("vz-projector")))
        color_by_label(projector)
        legend = lines_of(projector.locator("vz-projector-legend"))
        assert dict(zip(legend[::2], map(int, legend[1::2]), strict=True)) == Counter(labels)


def test_pr_curves_are_drawn_for_each_class(browser: "Browser", address: str, events: EventAccumulator) -> None:
    tags = [tag for tag in events.Tags()["tensors"] if tag.startswith("pr/")]
    assert tags
    with open_dashboard(browser, address, "pr_curves", ".") as page:
        for tag, card in cards(page, "tf-pr-curve-card", tags, "path.line").items():
            assert drawn(card, "path.line")
            assert f"step {events.Tensors(tag)[-1].step}" in lines_of(card)


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
        assert set(row) & set(hyperparameters(events))


def test_text_shows_the_config_and_the_class_report(browser: "Browser", address: str, events: EventAccumulator) -> None:
    with open_dashboard(browser, address, "text", ".") as page:
        shown = cards(page, "tf-text-loader", ["config/text_summary", "class_report/val/text_summary"], "p, td, pre")
        for tag, card in shown.items():
            text = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
            words = re.findall(r"[^\s|]+", re.sub(r"^```\w*$|^[\s|:-]+$", "", text, flags=re.MULTILINE))
            assert words
            assert " ".join(words) in " ".join(" ".join(lines_of(card)).split()), tag


def hyperparameters(events: EventAccumulator) -> list[str]:
    """Return the names of the logged HPARAMS of a run."""
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return list(HParamsPluginData.FromString(content).session_start_info.hparams)
