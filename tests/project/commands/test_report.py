"""The report of a run: what its page holds, and that the page is self-contained."""

import html
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from report_runs import (
    CLASSES,
    PARAMETERS,
    PICTURES,
    STEPS,
    write_config,
    write_distributions,
    write_metrics,
    write_picture,
    write_run,
    write_test,
)

from project.__main__ import main
from project.report import write_report
from project.report.page import render, warnings
from project.report.read import read_run
from project.report.tables import confusions
from project.runs import record

TIME = "2026-11-21_10-00-00"
REPEATED = {"kernels/conv1", "kernels_split/conv1"}  # shown in another form
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

    @property
    def charts(self) -> dict[str, str]:
        """Descriptions of the charts by title."""
        labels = [svg["aria-label"] for svg in self.all("svg") if "role" in svg]
        return {label.split(",")[0]: label for label in labels}

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text())


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Return a run that has only its config."""
    return write_config(tmp_path / "a" / TIME)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "full" / TIME)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with a test and its report. Tests must not change it."""
    run = write_run(tmp_path_factory.mktemp("whole") / "full" / TIME)
    write_test(run)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(whole: Path) -> Page:
    return Page((whole / "report.html").read_text())


def test_everything_of_a_run_is_shown(page: Page) -> None:
    alts = {image["alt"] for image in page.all("img")}
    assert {f"Pixels of {tag}" for tag in PICTURES if tag not in REPEATED | {"mine"}} <= alts
    assert {"pictures/mine/epoch_0003.png", "Pixels of roc/test"} <= alts  # without a description; of the test
    assert len(page.all("img")) == len(PICTURES) - len(REPEATED) + 1
    assert {"Loss", "Accuracy", "Learning rate", "Momentum", "mine", "time/images_per_second"} <= set(page.charts)
    assert {*PARAMETERS, "conv1"} <= set(page.charts)
    for words in (*CLASSES, "Files, test images", "Classes, validation images", "Updates"):
        assert words.lower() in page.text.lower()
    assert page.charts["Accuracy"] == (
        "Accuracy, by epoch. train: 50.40% at 1 to 70.40% at 3. val: 45.40% at 1 to 65.40% at 3."
    )


def test_sections_are_in_the_order_of_questions(page: Page) -> None:
    names = ["outcome", "curves", "confusion", "mistakes", "attention", "classes", "kernels", "maps", "distributions"]
    assert [section["id"] for section in page.all("section")] == [*names, "flow", "more", "origin"]


def test_a_diagnosis_comes_first_with_the_picture_that_shows_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / f"full/{TIME}")
    alarm = {
        "cause": "lr_too_high",
        "family": "learning_rate",
        "confidence": "sure",
        "says": "The learning rate is too high.",
        "why": "<b>It diverges.</b>",
        "evidence": {"update_ratio": 0.51234},
        "healthy": {"update_ratio": "at most 0.03"},
        "remedy": {"option": "model.optimizer.lr", "value": "0.01"},
        "ruled_out": [],
        "tried": None,
    }
    result = {"verdict": "alarm", "alarms": [alarm], "alternatives": [], "notes": ["A note."], "not_checked": ["leak"]}
    (run / "doctor.json").write_text(json.dumps(result))
    page = Page(write_report(run).read_text())
    assert page.all("section")[0]["id"] == "diagnosis"
    for words in (
        "Alarm (sure): The learning rate is too high.",
        "<b>It diverges.</b>",
        "0.512",
        "at most 0.03",
        "A note.",
    ):
        assert words in page.text
    assert "--model.optimizer.lr 0.01" in page.text
    assert [image["alt"] for image in page.all("img")].count("Pixels of gradient_flow") == 2
    (run / "doctor.json").write_text("{")  # damaged
    assert Page(write_report(run).read_text()).all("section")[0]["id"] == "outcome"


def test_page_is_self_contained(whole: Path, page: Page) -> None:
    text = (whole / "report.html").read_text()
    assert "http" not in text.replace("HTTP", "")
    assert "url(" not in re.sub(r"url\(#", "", text)
    for _, attributes in page.elements:
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
    assert not page.all("script") + page.all("link") + page.all("iframe")
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    targets = [attributes["href"][1:] for _, attributes in page.elements if "href" in attributes]
    targets += re.findall(r"url\(#([\w-]+)", text)
    assert targets
    assert set(targets) <= set(ids)


def test_page_is_well_formed_for_readers_of_all_kinds(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("title")) == len(page.all("main")) == 1
    assert len(page.all("h2")) == len(page.all("section"))
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    assert all(image["alt"] for image in page.all("img"))
    assert all("aria-hidden" in svg or (svg["role"] == "img" and svg["aria-label"]) for svg in page.all("svg"))


def test_names_of_classes_and_files_cannot_be_markup(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    assert "<b>" not in text
    assert "<script" not in text
    assert html.escape(CLASSES[1]).replace("&quot;", "&#34;") in text
    assert "&lt;/pre&gt;&lt;script&gt;" in text


def test_kernels_are_shown_once_and_sheets_are_folded(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    section = text[text.index('id="kernels"') : text.index('id="maps"')]
    opened, folded = section.split("<details>")
    assert re.findall('alt="([^"]+)"', opened) == ["Pixels of kernels_colour/conv1"]
    assert re.findall('alt="([^"]+)"', folded) == ["Pixels of kernels/conv2"]


def test_class_that_is_never_predicted_has_no_precision(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    row = re.search(r'<tr><th scope="row">déjà vu</th>(<td[^>]*>\d+</td>.*?)</tr>', text[text.index('id="classes"') :])
    assert row is not None
    assert re.findall(r">([^<]+)</td>", row[1])[1:] == ["50.00%", "\N{EN DASH}", "60.00%", "0.25"]


def test_names_of_classes_that_look_like_numbers_are_unchanged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / TIME, classes=["0.50", "nan", "1e3", "007"])
    (row,) = re.findall(r'<tr><th scope="row">val/nan/3.png</th>(.*?)</tr>', write_report(run).read_text())
    assert re.findall(r">([^<]+)</td>", row) == ["nan", "0.50", "96.00%", "4.5"]


def test_latest_picture_of_a_tag_is_shown(begun: Path) -> None:
    for epoch in (2, 10, 1):
        write_picture(begun, "own/layer", epoch)
    Image.new("RGB", (9, 9)).save(begun / "pictures/clip.gif")
    (begun / "pictures/own/layer/epoch_0011.png.partial").touch()  # left by a kill
    assert [image["alt"] for image in page_of(begun).all("img")] == [
        "pictures/own/layer/epoch_0010.png",
        "pictures/clip.gif",
    ]


def test_pictures_that_would_make_the_page_large_are_left_out_with_a_note(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.report.read.LIMIT", 1_200_000)
    page = page_of(run)
    shown = {image["alt"] for image in page.all("img")}
    left = [tag for tag in PICTURES if tag not in REPEATED | {"mine"} and f"Pixels of {tag}" not in shown]
    assert 0 < len(left) < 4
    for tag in left:
        assert f"Pixels of {tag} (left out to limit the size of this page: pictures/{tag}/epoch_0003.png)" in page.text


def test_run_that_just_started_has_an_outcome_and_its_origin_only(begun: Path) -> None:
    page = page_of(begun)
    assert "Validation none yet Test not tested Training state not recorded 0 of 3 planned epochs" in page.text
    assert [section["id"] for section in page.all("section")] == ["outcome", "origin"]
    assert f"no pictures in {begun}/pictures. If its callbacks drew some, TensorBoard shows them." in page.text
    (begun / "config.yaml").write_text("")
    assert "An unknown network on unknown data" in page_of(begun).text


def test_steps_are_converted_to_epochs(run: Path) -> None:
    found = read_run(run)
    assert found.epoch_ends == {1: STEPS - 1, 2: 2 * STEPS - 1, 3: 3 * STEPS - 1}
    assert found.epochs(torch.tensor([-1, 4, 9, 29, 34]).numpy()) == pytest.approx([0, 0.5, 1, 3, 3.5])


def test_epochs_that_a_resumed_run_repeats_replace_the_earlier_ones(begun: Path) -> None:
    write_distributions(begun, ["weights/a", "logits"], (1, 2, 3), scale=9)
    write_distributions(begun, ["weights/a"], (2,))
    with (begun / "distributions.csv").open("a") as file:
        file.write("weights/a,3,30,9,1.")  # a kill
    assert {epoch: values[-1] for epoch, values in read_run(begun).distributions["weights/a"].items()} == {1: 18, 2: 2}
    assert set(page_of(begun).charts) == {"logits", "a"}


def test_two_runs_share_an_axis_of_steps_if_one_has_no_finished_epoch(run: Path, begun: Path) -> None:
    chart = Page(render([read_run(run), read_run(begun)])).charts["Loss"]
    assert chart.startswith("Loss, by epoch. A train: ")
    write_metrics(begun, [{"step": 3, "train/loss": 1.0}])
    chart = Page(render([read_run(run), read_run(begun)])).charts["Loss"]
    assert chart.startswith("Loss, by step. A train: ")
    assert f" at {3 * STEPS - 1}. B train: 1" in chart


def test_every_scalar_is_drawn_or_counted_as_left_out(begun: Path) -> None:
    groups = [f"lr-SGD/{name}{end}" for name in "abcdefgh" for end in ("", "-momentum", "-weight_decay")]
    own = [f"own{i}" for i in range(14)]
    write_metrics(begun, [{"step": 3} | dict.fromkeys([*groups, *own, "lr-SGD-1"], 0.5)])
    page = page_of(begun)
    assert set(page.charts) == {"Learning rate", "Momentum", "Weight decay", *sorted(own)[:12]}
    assert "SGD/a: 0.5 at 3" in page.charts["Momentum"]
    assert "momentum" not in page.charts["Learning rate"]
    assert "3 more are in metrics.csv, such as lr-SGD/h." in page.text
    assert "2 more are in metrics.csv, such as lr-SGD/h-momentum." in page.text
    assert "2 more scalars are in metrics.csv." in page.text


def test_values_that_are_not_finite_are_named(begun: Path) -> None:
    losses = [1.0, 0.5, math.nan, math.inf]
    rows = [{"step": 10 * i + 9, "epoch": i, "val/acc": 0.5, "val/loss": loss} for i, loss in enumerate(losses)]
    write_metrics(
        begun, [*rows, {"step": 3, "once": math.nan}, {"step": 13, "once": 1}, {"step": 5, "never": math.inf}]
    )
    found = warnings(read_run(begun))
    assert "val/loss is not finite from epoch 3 (2 of 4 values)." in found
    assert any(text.startswith("once is not finite first at epoch 0.4 (1 of 2") for text in found)
    page = page_of(begun)
    assert "never: never finite." in page.charts["never"]
    assert "val/loss is not finite from epoch 3" in page.text
    write_metrics(begun, [{"step": 3} | {f"own{i}": math.nan for i in range(11)}])
    assert len(found := warnings(read_run(begun))) == 9
    assert found[-1] == "3 more scalars are not finite."


def test_settings_that_changed_in_a_resumed_run_are_named(begun: Path) -> None:
    for time, planned in (("11", 2), ("12", 77)):
        config = write_config(begun / f"previous_configs/2026-11-21_{time}-00-00", planned) / "config.yaml"
        config.write_text(config.read_text().replace(str(config.parents[1]), str(begun.parent)))
    (warning,) = warnings(read_run(begun))
    changes = "trainer.max_epochs 2 -> 77 (2026-11-21_11-00-00), trainer.max_epochs 77 -> 3 (2026-11-21_12-00-00)."
    assert changes in warning
    text = page_of(begun).text
    assert changes in text
    assert "previous_configs/2026-11-21_12-00-00/config.yaml" in text
    assert "max_epochs: 77" in text


def test_a_thousand_classes_are_cut_with_a_note(tmp_path: Path) -> None:
    run = write_run(tmp_path / "many" / TIME, classes=[f"class {i}" for i in range(1000)])
    write_picture(run, "confusion_matrix/val", 3)
    page = page_of(run)
    assert "pictures/confusion_matrix/val/epoch_0003.png" in [image["alt"] for image in page.all("img")]
    assert "50 of 1000 rows; class_report_val.csv has all." in page.text
    assert "A matrix of 1000 classes is too large for this page. It is in confusion_matrix_val.csv." in page.text
    assert len(page.all("tr")) < 500


def test_of_equally_frequent_confusions_the_first_classes_come_first_and_no_images_have_no_recall(begun: Path) -> None:
    (begun / "confusion_matrix_val.csv").write_text("true,a,b,c\na,0,0,0\nb,2,1,1\nc,0,2,0\n")
    matrix, frequent = confusions(read_run(begun), "val", "images")
    assert [row[0] for row in frequent.rows] == ["b → a", "c → b", "b → c"]
    assert [row[-1] for row in matrix.rows] == ["\N{EN DASH}", "25.0%", "0.0%"]


def test_origin_lists_the_commands_that_resumed_a_run(begun: Path) -> None:
    assert "not recorded" in page_of(begun).text
    for command in (["fit", "--config", "a b.yaml"], ["fit", "--run", "last"]):
        record.begin(begun, command)
        record.end(begun, "interrupted", 1.0)
    text = page_of(begun).text
    assert "python -m project fit --config 'a b.yaml'" in text
    assert f"resumed {record.read(begun)['resumed'][0]['at']} python -m project fit --run last" in text


def test_two_runs_are_shown_side_by_side(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(run.parent / "2026-11-21_11-00-00", epochs=4, planned=5, seed=7)
    path = main(["report", str(run), "last", f"--runs_dir={run.parents[1]}"])
    assert path == other / f"report_with_full_{TIME}.html"
    assert capsys.readouterr().out == f"Report: {path}\n"
    page = Page(path.read_text())
    for words in ("3 of 3 planned", "4 of 5 planned", "seed_everything 4 7 differs between repeats"):
        assert words in page.text
    assert "trainer.callbacks.0.init_args.num_images 4 7" in page.text
    assert "epochs trained 3 4 +1" in page.text
    assert [f"{name}: " in page.charts["Accuracy"] for name in ("A train", "A val", "B train", "B val")] == [True] * 4
    assert len(page.all("img")) == 2 * (len(PICTURES) - len(REPEATED))
    assert "The two configs are the same." in Page(write_report(run, run).read_text()).text


@pytest.mark.parametrize(("name", "words"), [("nowhere", "Expected a run directory"), ("begun", "Expected YAML in ")])
def test_mistake_is_reported_in_one_line(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (write_config(tmp_path / "a/begun") / "config.yaml").write_text("a: [")
    with pytest.raises(SystemExit, match="2"):
        main(["report", name, f"--runs_dir={tmp_path}"])
    err = capsys.readouterr().err
    assert err.startswith(f"error: {words}")
    assert err.count("\n") == 1


def test_report_of_a_finished_run_holds_its_results_pictures_and_origin(finished_run: Path, tmp_path: Path) -> None:
    page = Page(write_report(finished_run, output=tmp_path / "report.html").read_text())
    assert "LeNet on SampleDataModule." in page.text
    assert re.search(r"Training finished 2 of 2 planned epochs, .* Checkpoint checkpoints/best.ckpt", page.text)
    alts = " ".join(image["alt"] for image in page.all("img"))
    for words in ("Feature maps of", "Grad-CAM at", "Kernels of", "Most confident of", "roc/val: One class vs. rest"):
        assert words in alts
    assert {"Loss", "Learning rate", "conv1.weight", "right"} <= set(page.charts)
    assert "images confidence accuracy calibration_error" in " ".join(page.text.split())
    assert "Bar(" not in page.text  # every cell with a bar is drawn as one
    info = record.read(finished_run)
    known = (info["git"]["commit"], info["hardware"]["cpu"], info["versions"]["torch"])
    for words in (*known, "python -m project fit --config", f"--config {finished_run}/config.yaml"):
        assert str(words) in page.text, words


def test_fit_and_test_write_a_report_and_print_its_path(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--report=true", "--test_after_fit=true", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    report = cli.run_dir / "report.html"
    assert f"Report       {report}\n" in capsys.readouterr().out
    text = Page(report.read_text()).text
    assert re.search(r"Training finished 1 of 1 planned epochs", text)
    assert re.search(r"Test \d+\.\d\d% checkpoints/best.ckpt of epoch 1", text)
    assert "roc/test: One class vs. rest, epoch 1" in text
    assert not (next((cli.run_dir / "test").iterdir()) / "report.html").exists()


def test_report_that_fails_does_not_fail_the_run(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(folder: Path) -> Path:
        raise ValueError("of\nno use")

    monkeypatch.setattr("project.report.write_report", fail)
    options = ["--report=true", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--callbacks=false"]
    with pytest.warns(UserWarning, match=r"No report was written \(ValueError: of no use\)"):
        cli = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert (cli.run_dir / "checkpoints/best.ckpt").is_file()
    assert "Report  " not in capsys.readouterr().out
