"""The report of a run: the data that it reads, the content of the page, and that the page is self-contained."""

import html
import math
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from report_runs import (
    CLASSES,
    PARAMETERS,
    PICTURES,
    STEPS,
    write_config,
    write_epoch,
    write_resumed_run,
    write_run,
    write_test,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from watching import fit

from callbacks.base.log import LogSnapshot
from project.__main__ import main
from project.report import write_report
from project.report.events import QUANTILES, Events, quantiles, read_events
from project.report.outcome import facts, numbers, sentence, warnings
from project.report.read import Run, read_run
from project.report.tables import confusion_matrix

ROOT = Path(__file__).parents[3]
MISTAKES = 30  # images of the mistakes of one stage
REPEATED = {"kernels/conv1", "kernels_split/conv1", "mistakes/val", "gradient_flow"}  # shown in another form
SHOWN = len(PICTURES) - len(REPEATED) + 2 * MISTAKES  # with a test
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements and text of a page; fails on a tag that is closed in the wrong place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "full/2026-11-21_10-00-00")


def test_events_are_those_that_tensorboards_own_reader_finds(run: Path) -> None:
    found = read_events(run)
    sizes = {"images": 1, "histograms": 0, "scalars": 0, "compressedHistograms": 1}
    theirs = EventAccumulator(str(run), sizes).Reload()
    assert list(found.scalars) == theirs.Tags()["scalars"]
    for tag, series in found.scalars.items():
        assert [(scalar.wall_time, scalar.step, scalar.value) for scalar in series] == [
            tuple(vars(one).values()) for one in theirs.Scalars(tag)
        ]
    assert {tag: one.data for tag, one in found.pictures.items()} == {
        tag: theirs.Images(tag)[-1].encoded_image_string for tag in theirs.Tags()["images"]
    }
    assert {tag: [one.step for one in series] for tag, series in found.histograms.items()} == {
        tag: [one.step for one in theirs.Histograms(tag)] for tag in theirs.Tags()["histograms"]
    }
    assert found.cut == []


def test_the_latest_image_of_a_tag_is_read(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in range(20):
            writer.add_image("kernels/a", np.full((3, 4 + step, 4), step, np.uint8), step)
    picture = read_events(tmp_path).pictures["kernels/a"]
    assert (picture.step, picture.height) == (19, 23)


def test_resumed_run_holds_each_step_once_as_tensorboard_shows_it(tmp_path: Path) -> None:
    folder = write_resumed_run(tmp_path / "a/2026-11-21_10-00-00")
    found = read_events(folder)
    theirs = EventAccumulator(str(folder), {"scalars": 0, "histograms": 0}).Reload()
    for tag, series in found.scalars.items():
        latest = {scalar.step: scalar.value for scalar in theirs.Scalars(tag)}
        assert [(scalar.step, scalar.value) for scalar in series] == list(latest.items())
    assert [one.step for one in found.histograms["weights/fc.bias"]] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS]
    assert found.pictures["kernels/a"].step == 2 * STEPS - 1
    assert "validation 75.00% (best accuracy at epoch 4)" in sentence(read_run(folder))


def test_files_that_hold_the_same_steps_give_the_latest_of_each_in_order(tmp_path: Path) -> None:
    for number, steps in enumerate([(0, 10, 20, 30), (5, 20, 25)]):
        with SummaryWriter(tmp_path) as writer:
            for step in steps:
                writer.add_scalar("a", number, step)
        (file,) = tmp_path.glob("*tfevents.1*")
        file.rename(tmp_path / f"events.out.tfevents.{number}")
    series = read_events(tmp_path).scalars["a"]
    assert [(scalar.step, scalar.value) for scalar in series] == [(0, 0), (5, 1), (10, 0), (20, 1), (25, 1), (30, 0)]


def test_pause_before_a_run_was_resumed_is_not_counted(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    for number, times in enumerate([(0, 60), (9000, 9120)]):
        with (folder / f"events.out.tfevents.{number}").open("wb") as file:
            for time in times:
                RecordWriter(file).write(Event(wall_time=time).SerializeToString())
    assert read_run(folder).minutes == 3


def test_earlier_settings_of_a_run_are_on_its_page(tmp_path: Path) -> None:
    folder = write_resumed_run(tmp_path / "a/2026-11-21_10-00-00")
    write_config(folder / "previous_configs/2026-11-21_11-00-00", planned=77)
    assert "previous_configs/2026-11-21_11-00-00/config.yaml" in page_of(folder).text
    assert "max_epochs: 77" in page_of(folder).text
    assert "of 4 planned epochs" in page_of(folder).text


def test_folders_below_the_run_are_not_read_as_the_run(run: Path) -> None:
    before = read_events(run)
    with SummaryWriter(run / "another") as writer:
        writer.add_scalar("val/loss", 1.0, 1)
    assert read_events(run) == before


@pytest.mark.parametrize("left", [0, 5, 30, 2000, -5])
def test_truncated_file_gives_its_complete_records(run: Path, left: int) -> None:
    (file,) = run.glob("*tfevents*")
    file.write_bytes(file.read_bytes()[:left])
    found = read_events(run)
    assert found.cut == ([] if left == 0 else [file.name])
    assert bool(found.scalars) == (left not in (0, 5, 30))
    page = page_of(run)
    assert (f"{file.name} ends within a record" in page.text) == (left != 0)


@pytest.mark.parametrize("damage", [b"\xff" * 40, (28).to_bytes(8, "little") + b"\xff" * 32])
def test_file_that_is_damaged_in_the_middle_gives_the_records_before(run: Path, damage: bytes) -> None:
    (file,) = run.glob("*tfevents*")
    content = bytearray(file.read_bytes())
    second = 12 + int.from_bytes(content[:8], "little") + 4  # a record has length, checksum, event, checksum
    third = second + 12 + int.from_bytes(content[second : second + 8], "little") + 4
    content[third : third + 40] = damage
    file.write_bytes(content)
    assert read_events(run).cut == [file.name]
    assert len(read_events(run).scalars) == 1
    assert f"{file.name} ends within a record" in page_of(run).text


@pytest.mark.parametrize("bins", ["tensorflow", "fd"])
def test_quantiles_are_numpys_within_a_bucket(tmp_path: Path, bins: str) -> None:
    values = np.random.default_rng(0).normal(3, 2, 20_000)
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("weights/a", values, 1, bins=bins)
    ((_, num, rms, spread),) = read_events(tmp_path).histograms["weights/a"]
    assert num == len(values)
    assert rms == pytest.approx(np.sqrt(np.mean(values**2)))
    expected = np.quantile(values, QUANTILES)
    assert spread[0] == pytest.approx(expected[0])
    assert spread[-1] == pytest.approx(expected[-1])
    assert np.allclose(spread, expected, rtol=0.1, atol=0.05)  # TensorBoard's buckets are a tenth wide


def test_quantiles_of_few_values_lie_in_their_buckets() -> None:
    assert quantiles([1, 2, 3], [0, 4, 0], 1, 2, [0, 0.25, 0.5, 1]) == (1, 1.25, 1.5, 2)
    assert quantiles([0, 1, 2, 3], [0, 2, 0, 2], 0, 3, [0.25, 0.75, 1]) == (0.5, 2.5, 3)
    assert quantiles([-1, 5], [0, 7], 5, 5) == (5,) * len(QUANTILES)
    assert all(map(math.isnan, quantiles([1.0], [0], 0, 0)))


def test_steps_are_converted_to_epochs(run: Path) -> None:
    found = read_run(run)
    assert found.epoch_ends == {1: STEPS - 1, 2: 2 * STEPS - 1, 3: 3 * STEPS - 1}
    assert found.epochs([-1, 4, 9, 29, 34]) == pytest.approx([0, 0.5, 1, 3, 3.5])
    assert found.epoch_ends is found.epoch_ends  # it reads every logged step


def test_images_name_the_epochs_of_training(run: Path) -> None:
    page = page_of(run)
    assert "Grad-CAM at conv2: red regions increase the score of the class, after 3 epochs" in page.text
    assert "A training batch as the network sees it, after 2 epochs" in page.text


def test_steps_of_several_optimizers_are_those_of_scalars(tmp_path: Path) -> None:
    class Adversaries(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.networks = torch.nn.ModuleList([torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)])

        def configure_optimizers(self) -> list[torch.optim.SGD]:
            return [torch.optim.SGD(network.parameters()) for network in self.networks]

        def training_step(self, batch: list[torch.Tensor]) -> None:
            for optimizer in self.optimizers():
                optimizer.step()
            self.log("train/loss", 0.0, on_step=False, on_epoch=True)

        def validation_step(self, batch: list[torch.Tensor]) -> None: ...

    class Draws(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            LogSnapshot(trainer).image("mine", torch.zeros(3, 8, 8, dtype=torch.uint8))

    write_config(tmp_path / "a/b")
    fit(Adversaries(), tmp_path / "a/b", [Draws()], epochs=2)
    assert "mine, after 2 epochs" in page_of(tmp_path / "a/b").text


def test_sentence_has_the_results(run: Path) -> None:
    assert sentence(read_run(run)) == (
        "ResNet (depth 20) on SampleDataModule: validation 65.40% (best accuracy at epoch 3), test not tested, "
        "training state not recorded (3 of 3 planned epochs, less than a minute), checkpoint none."
    )
    write_test(run, 0.5, "2026-11-21_11-00-00")
    write_test(run, 0.625)
    assert "test 62.50% (checkpoints/best.ckpt, the latest of 2 tests)" in sentence(read_run(run))


def test_unfinished_test_does_not_hide_a_finished_one(run: Path) -> None:
    write_config(run / "test/2026-11-21_12-00-00")
    assert "test started, but has no results, " in sentence(read_run(run))
    write_test(run, 0.625, "2026-11-21_11-00-00")
    found = read_run(run)
    assert "test 62.50% (checkpoints/best.ckpt; another was started, but has no results), " in sentence(found)
    assert numbers(found)["test accuracy"] == (0.625, "acc")
    assert "confusion_matrix/test" in found.pictures
    assert "Most confident mistakes, test images" in page_of(run).text


def test_first_of_equal_validations_is_the_best(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00", planned=30)
    with SummaryWriter(folder) as writer:
        for epoch, accuracy in enumerate([0.5, 0.75, math.nan, 0.75]):
            write_epoch(writer, epoch, 1.0, accuracy + 0.05, np.random.default_rng(0))
    assert read_run(folder).best() == ("acc", 2, 0.75)
    assert "4 of 30 planned epochs" in sentence(read_run(folder))


def test_best_validation_is_that_of_the_best_checkpoint(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    with (folder / "config.yaml").open("a") as file:
        file.write("checkpoint: {monitor: val/loss, mode: min}\n")
    with SummaryWriter(folder) as writer:
        for epoch, (accuracy, loss) in enumerate([(0.5, 0.9), (0.75, 0.8), (0.6, 0.7)]):
            writer.add_scalar("epoch", epoch, epoch)
            writer.add_scalar("val/acc", accuracy, epoch)
            writer.add_scalar("val/loss", loss, epoch)
    assert read_run(folder).best() == ("acc", 3, pytest.approx(0.6))


def test_module_without_accuracy_is_reported_by_its_loss(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    with SummaryWriter(folder) as writer:
        for epoch, loss in enumerate([0.5, 0.25, 0.375]):
            writer.add_scalar("epoch", epoch, epoch)
            writer.add_scalar("val/loss", loss, epoch)
    assert "validation 0.25 (best loss at epoch 2), test not tested" in sentence(read_run(folder))


def test_run_that_just_started_has_an_outcome_and_its_origin_only(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    page = page_of(folder)
    assert "Validation none yet Test not tested Training state not recorded 0 of 3 planned epochs" in page.text
    assert [section["id"] for section in page.all("section")] == ["outcome", "origin"]
    (folder / "config.yaml").write_text("")
    assert "An unknown network on unknown data" in page_of(folder).text


def test_run_without_tensorboard_shows_its_csv(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    (folder / "metrics.csv").write_text("epoch,step,val/acc,lr-SGD\n0,9,0.5,\n,14,,0.1\n1,19,0.25,\n")
    assert facts(read_run(folder))[0] == ("Validation", "50.00%", "best accuracy at epoch 1")
    assert page_of(folder).all("svg")


def test_everything_of_a_run_is_shown(run: Path) -> None:
    write_test(run)
    page = page_of(run)
    alts = " ".join(image["alt"] for image in page.all("img"))
    for words in ("Kernels of conv1", "Kernels of conv2", "Feature maps of conv1", "Grad-CAM at conv2", "Occlusion"):
        assert words in alts
    assert len(page.all("img")) == SHOWN
    for words in ("Momentum", "mine", "Training, images per second", *PARAMETERS, *CLASSES):
        assert words in page.text
    for caption in (
        "Most confident mistakes, test images",
        "Classes, validation images",
        "Updates: change of the weights",
    ):
        assert caption in page.text
    labels = [svg["aria-label"] for svg in page.all("svg") if "role" in svg]
    assert (
        "Accuracy, by epoch. train: 50.40% at epoch 1, 70.40% at epoch 3; lowest 50.40% at 1, highest 70.40% at 3. "
        "val: 45.40% at epoch 1, 65.40% at epoch 3; lowest 45.40% at 1, highest 65.40% at 3."
    ) in labels


def test_every_scalar_is_drawn_or_counted_as_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a/2026-11-21_10-00-00")
    drawn = ["lr-SGD/my-group", "lr-SGD-1", "lr-SGD/my-group-momentum", "lr-SGD/my-group-weight_decay", "epochs_lost"]
    with SummaryWriter(folder) as writer:
        for tag in [*drawn, "hp/own", "hp/val/acc", "hp/epochs"]:
            writer.add_scalar(tag, 1.0, 29)
    page = page_of(folder)
    labels = {svg["aria-label"].split(",")[0]: svg["aria-label"] for svg in page.all("svg") if "role" in svg}
    assert "SGD/my-group: 1 at" in labels["Learning rate"]
    assert "SGD-1: 1 at" in labels["Learning rate"]
    assert "momentum" not in labels["Learning rate"]
    assert "SGD/my-group: 1 at" in labels["Momentum"]
    assert "SGD/my-group: 1 at" in labels["Weight decay"]
    assert {"epochs_lost", "hp/own"} <= set(labels)
    assert not {"epoch", "hp/val/acc", "hp/epochs"} & set(labels)


def test_page_is_self_contained(run: Path) -> None:
    write_test(run)
    text = write_report(run).read_text()
    page = Page(text)
    assert "http" not in text.replace("HTTP", "")
    assert "url(" not in re.sub(r"url\(#", "", text)
    for _, attributes in page.elements:
        assert attributes.get("src", "data:").startswith("data:image/") or attributes.get("src") is None
        assert attributes.get("href", "#").startswith("#")
    assert not page.all("script") + page.all("link") + page.all("iframe")
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    targets = [attributes["href"][1:] for _, attributes in page.elements if "href" in attributes]
    targets += re.findall(r"url\(#([\w-]+)", text)
    assert targets
    assert set(targets) <= set(ids)


def test_page_is_well_formed_for_readers_of_all_kinds(run: Path) -> None:
    page = page_of(run)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("title")) == len(page.all("main")) == 1
    assert len(page.all("h2")) == len(page.all("section"))
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    assert all(image["alt"] for image in page.all("img"))
    assert all("aria-hidden" in svg or (svg["role"] == "img" and svg["aria-label"]) for svg in page.all("svg"))


def test_names_of_classes_and_files_cannot_be_markup(run: Path) -> None:
    text = write_report(run).read_text()
    assert "<b>" not in text
    assert "<script" not in text
    assert html.escape(CLASSES[1]) in text
    assert "&lt;/pre&gt;&lt;script&gt;" in text


def test_class_that_is_never_predicted_has_no_precision(run: Path) -> None:
    text = write_report(run).read_text()
    row = re.search(r'<tr><th scope="row">déjà vu</th>(<td[^>]*>\d+</td>.*?)</tr>', text[text.index('id="classes"') :])
    assert row is not None
    assert re.findall(r">([^<]+)</td>", row[1])[1:] == ["50.00%", "\N{EN DASH}", "60.00%", "0.25"]


@pytest.mark.parametrize("left", ["true \\ predicted,a,b\na,1,2\nb,", "true \\ predicted,a,b\na,1", "x,é\né,1\n"])
def test_incomplete_matrix_is_reported(run: Path, left: str) -> None:
    (run / "confusion_matrix_val.csv").write_bytes(left.encode("latin-1"))
    assert "confusion_matrix_val.csv is incomplete" in page_of(run).text


def test_names_of_classes_are_unchanged(tmp_path: Path) -> None:
    classes = ["0.50", "nan", "1e3", "007"]
    run = write_run(tmp_path / "a/2026-11-21_10-00-00", classes=classes)
    text = write_report(run).read_text()
    (row,) = re.findall(r'<tr><th scope="row">val/nan/3.png</th>(.*?)</tr>', text)
    assert re.findall(r">([^<]+)</td>", row) == ["nan", "0.50", "96.00%", "4.5"]


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    with SummaryWriter(folder) as writer:
        for epoch, loss in enumerate([1.0, 0.5, math.nan, math.inf]):
            write_epoch(writer, epoch, loss, 0.5, np.random.default_rng(0))
        writer.add_scalar("once", math.nan, 3)
        writer.add_scalar("once", 1.0, 13)
    found = warnings(read_run(folder))
    assert "val/loss is not finite from epoch 3 (2 of 4 values)." in found
    assert any(text.startswith("once is not finite first at epoch 0.4 (1 of 2") for text in found)
    page = page_of(folder)
    assert "val is not finite from epoch 3" in page.text
    assert "NaN" in page.text


def test_settings_that_changed_in_a_resumed_run_are_named(tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00", planned=5)
    assert not warnings(read_run(folder))
    write_config(folder / "previous_configs/2026-11-21_11-00-00", planned=2)
    write_config(folder / "previous_configs/2026-11-21_12-00-00", planned=3)
    for config in folder.glob("previous_configs/*/config.yaml"):
        config.write_text(config.read_text().replace(str(config.parents[1]), str(folder.parent)))
    (warning,) = warnings(read_run(folder))
    assert (
        "trainer.max_epochs 2 -> 3 (2026-11-21_11-00-00), trainer.max_epochs 3 -> 5 (2026-11-21_12-00-00)." in warning
    )
    assert "trainer.max_epochs 2 -> 3" in page_of(folder).text


def test_network_without_images_has_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "mlp/2026-11-21_10-00-00", epochs=1, pictures=False)
    page = page_of(folder)
    assert len(page.all("img")) == MISTAKES
    assert not {"kernels", "maps", "attention"} & {section["id"] for section in page.all("section")}


def test_a_thousand_classes_are_cut_with_a_note(tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(1000)]
    folder = write_run(tmp_path / "many/2026-11-21_10-00-00", classes=classes)
    page = page_of(folder)
    assert "50 of 1000 rows; class_report_val.csv has all." in page.text
    assert "A matrix of 1000 classes is too large for this page. It is in confusion_matrix_val.csv ." in page.text
    assert len(page.all("tr")) < 400


def test_images_that_would_make_the_page_large_are_left_out_with_a_note(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.report.pictures.LIMIT", 400_000)
    page = page_of(run)
    assert len(page.all("img")) < SHOWN
    assert "1 images are only in TensorBoard" in page.text


def test_two_runs_are_shown_side_by_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(run.parent / "2026-11-21_11-00-00", epochs=4, planned=5, seed=7)
    path = main(["report", str(run), "last", f"--runs_dir={run.parents[1]}"])
    assert path == other / "report_with_full_2026-11-21_10-00-00.html"
    assert capsys.readouterr().out == f"Report: {path}\n"
    page = Page(path.read_text())
    for words in ("3 of 3 planned", "4 of 5 planned", "seed_everything 4 7 differs between repeats"):
        assert words in page.text
    assert "trainer.callbacks.callbacks.FeatureMaps.init_args.num_images 4 7" in page.text
    assert "epochs trained 3 4 +1" in page.text
    (label,) = [svg["aria-label"] for svg in page.all("svg") if svg.get("aria-label", "").startswith("Accuracy")]
    assert [f"{name}: " in label for name in ("A train", "A val", "B train", "B val")] == [True] * 4
    assert len(page.all("img")) == 2 * (SHOWN - MISTAKES)


def test_two_runs_with_the_same_config_say_so(run: Path) -> None:
    assert "The two configs are the same." in Page(write_report(run, run).read_text()).text


def test_report_is_the_same_each_time(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run).read_bytes()
    assert not list(run.glob("*.partial"))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere"], "Expected a run directory"),
        (["last"], "but found none"),
        ([], "the following arguments are required: RUN"),
        (["last", "--outptu=x"], "--outptu=x"),
    ],
)
def test_mistake_is_reported_in_one_line(
    args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", *args, *([f"--runs_dir={tmp_path}"] if args else [])])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: Expected")
    assert err.count("\n") == 1
    assert words in err


def test_config_that_is_not_yaml_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_config(tmp_path / "a/2026-11-21_10-00-00")
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(SystemExit):
        main(["report", str(folder)])
    assert capsys.readouterr().err.startswith(f"error: Expected YAML in {folder}/config.yaml, but got")


def test_report_imports_no_torch(run: Path) -> None:
    commands = f"main(['report', {str(run)!r}]); main(['export-scalars', {str(run)!r}])"
    check = "assert not {'torch', 'lightning'} & {*sys.modules}"
    code = f"import sys; from project.__main__ import main; {commands}; {check}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (run / "scalars.json").is_file()


def test_fit_and_test_write_a_report_and_print_its_path(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--report=true", "--test_after_fit=true", "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]
    cli = main(["fit", *fast, *options])
    report = cli.run_dir / "report.html"
    assert f"Report       {report}\n" in capsys.readouterr().out
    page = page_of(cli.run_dir)
    assert report.read_text() == write_report(cli.run_dir).read_text()
    assert "LeNet on SampleDataModule." in page.text
    assert re.search(r"Training finished 1 of 1 planned epochs, .* Checkpoint epoch 1 checkpoints/best.ckpt", page.text)
    assert re.search(r"Test \d+\.\d\d% checkpoints/best.ckpt of epoch 1", page.text)
    assert not (next((cli.run_dir / "test").iterdir()) / "report.html").exists()


def test_fit_without_report_writes_none(finished_run: Path) -> None:
    assert not (finished_run / "report.html").exists()


def test_report_that_fails_does_not_fail_the_run(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> Path:
        raise ValueError("of\nno use")

    monkeypatch.setattr("project.cli.cli.write_report", fail)
    options = ["--report=true", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", f"--runs_dir={tmp_path}"]
    with pytest.warns(UserWarning, match=r"No report was written \(ValueError: of no use\)"):
        cli = main(["fit", *fast, *options])
    assert (cli.run_dir / "checkpoints/best.ckpt").is_file()
    assert "Report  " not in capsys.readouterr().out


def test_of_equally_frequent_confusions_the_first_classes_come_first_and_no_images_have_no_recall(
    tmp_path: Path,
) -> None:
    (tmp_path / "confusion_matrix_test.csv").write_text("true,a,b,c\na,0,0,0\nb,2,1,1\nc,0,2,0\n")
    found = confusion_matrix(Run(tmp_path, {}, "", Events()), "test")
    assert re.findall(r">(\w → \w)<", found) == ["b → a", "c → b", "b → c"]
    assert re.findall(r"<td>(.*?)</td></tr>", found)[:3] == ["\N{EN DASH}", "25.0%", "0.0%"]
