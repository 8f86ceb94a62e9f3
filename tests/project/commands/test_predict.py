"""Predictions are equal to the results of test."""

import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import stop_of
from lightning.pytorch import Callback
from PIL import Image
from torch import nn

from datamodules.preparation.index import read_index
from datamodules.reading.decode import read_rgb
from lightning_modules import ImageClassifier
from project.__main__ import main
from project.commands.predict import NAMES

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--callbacks=false"]


class Twins(nn.Module):
    """Return equal logits for pairs of classes, and small ones, whose probabilities are equal in bfloat16."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, num_classes // 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (0.01 * self.fc(images.flatten(1))).repeat_interleave(2, 1)


class KeepLogits(Callback):
    """Store the outputs of ``test_step``."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.logits.append(outputs["logits"])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / NAMES[0]).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def content(folder: Path) -> dict[str, Any]:
    return json.loads((folder / NAMES[1]).read_text(), parse_constant=pytest.fail)


def probabilities(folder: Path) -> torch.Tensor:
    return torch.tensor([image["probabilities"] for image in content(folder)["images"]])


def stdin(monkeypatch: pytest.MonkeyPatch, paths: list[str]) -> None:
    text = io.BytesIO(b"".join(os.fsencode(path) + b"\n" for path in paths))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(text))


def lines_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on stderr of a command that fails because of the user."""
    code, err = stop_of(args, capsys)
    assert code == 2
    return err.strip().splitlines()


def compare_with_test(run: Path, root: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Predict the test images of a run, and assert that the results are equal to those of ``test`` to the bit."""
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.callbacks+=test_predict.KeepLogits"]
    cli = main(["test", f"--run={run}", *quiet])
    (logits,) = (callback for callback in cli.trainer.callbacks if isinstance(callback, KeepLogits))
    entries = read_index(root / "test.txt")
    stdin(monkeypatch, [f"{root}/{path}" for path, _ in entries])
    folder = main(["predict", f"--run={run}", "-", f"--output={output}"])
    assert torch.equal(probabilities(folder), torch.cat(logits.logits).softmax(1).float())
    found = rows(folder)
    assert [row["path"] for row in found] == [f"{root}/{path}" for path, _ in entries]
    right = [row["predicted"] == str(label) for row, (_, label) in zip(found, entries, strict=True)]
    assert float(np.float32(np.mean(right))) == cli.trainer.callback_metrics["test/acc"].item()
    return found


def test_accuracy_and_probabilities_are_those_of_test(
    finished_run: Path, sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compare_with_test(finished_run, sample_root, tmp_path / "out", monkeypatch)
    assert list(found[0]) == ["path", "predicted", "confidence", *"0123456789"]
    for row in found:
        shares = [float(row[name]) for name in "0123456789"]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["confidence"]) == max(shares) == shares[int(row["predicted"])]


@pytest.mark.slow
def test_views_augmentation_workers_and_precision_are_those_of_test(
    fast: list[str], sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "views.yaml"
    overlay.write_text(
        "trainer: {precision: bf16-mixed}\n"
        "model:\n  init_args:\n    tta: [flip]\n    channels_last: true\n"
        "data:\n  init_args:\n    num_workers: 1\n    eval_transforms:\n"
        "    - {class_path: torchvision.transforms.v2.Pad, init_args: {padding: 2}}\n"
        "    - {class_path: torchvision.transforms.v2.FiveCrop, init_args: {size: 32}}\n"
    )
    run = main(["fit", *fast, f"--config={overlay}", *QUICK, f"--runs_dir={tmp_path / 'runs'}"]).run_dir
    compare_with_test(run, sample_root, tmp_path / "out", monkeypatch)


@pytest.mark.parametrize("precision", ["bf16-mixed", pytest.param("64-true", marks=pytest.mark.slow)])
def test_of_equally_probable_classes_the_first_is_predicted_and_tested(
    precision: str, fast: list[str], sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--model.network=test_predict.Twins", f"--trainer.precision={precision}", f"--runs_dir={tmp_path}"]
    run = main(["fit", *fast, *QUICK, *options]).run_dir
    labels = [str(label) for _, label in read_index(sample_root / "test.txt")]
    callbacks = ["--trainer.callbacks+=ConfusionMatrix", "--trainer.callbacks+=ClassReport"]
    cli = main(["test", f"--run={run}", *callbacks, "--trainer.enable_progress_bar=false"])
    stdin(monkeypatch, [f"{sample_root}/{path}" for path, _ in read_index(sample_root / "test.txt")])
    predicted = [row["predicted"] for row in rows(main(["predict", f"--run={run}", "-"]))]
    assert {int(name) % 2 for name in predicted} == {0}
    right = [prediction == label for prediction, label in zip(predicted, labels, strict=True)]
    assert float(np.float32(np.mean(right))) == cli.trainer.callback_metrics["test/acc"].item()
    with (cli.output_dir / "confusion_matrix_test.csv").open(newline="") as file:
        _, *matrix = csv.reader(file)
    pairs = list(zip(labels, predicted, strict=True))
    assert [[int(count) for count in row] for row in matrix] == [
        [int(true), *(pairs.count((true, str(one))) for one in range(10))] for true in map(str, range(10))
    ]


def test_images_that_transforms_normalize_are_predicted_and_exported_as_they_are_tested(
    fast: list[str],
    sample_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    transforms = (
        "[{class_path: torchvision.transforms.v2.ToDtype, init_args: {dtype: torch.float32, scale: true}},"
        " {class_path: torchvision.transforms.v2.Normalize, init_args: {mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3]}}]"
    )
    overlay = tmp_path / "normalized.yaml"
    overlay.write_text(
        "data:\n  init_args:\n    normalize: false\n"
        f"    train_transforms: {transforms}\n    eval_transforms: {transforms}\n"
    )
    run = main(["fit", *fast, f"--config={overlay}", *QUICK, f"--runs_dir={tmp_path / 'runs'}"]).run_dir
    compare_with_test(run, sample_root, tmp_path / "out", monkeypatch)
    files = [str(sample_root / file) for file, _ in read_index(sample_root / "test.txt")[:9]]
    found = probabilities(main(["predict", f"--run={run}", *files]))
    pixels = torch.stack([torch.from_numpy(read_rgb(file)).permute(2, 0, 1) for file in files])
    module = ImageClassifier.load_from_checkpoint(run / "checkpoints/best.ckpt", map_location="cpu").eval()
    torch.testing.assert_close(module.classify(pixels), found, atol=1e-5, rtol=0)
    capsys.readouterr()
    exported = main(["export", f"--run={run}", "--format=torch_export"])
    assert "Transforms   ToDtype, Normalize are not included, except normalisation" in capsys.readouterr().out
    torch.testing.assert_close(torch.export.load(exported).module()(pixels), found, atol=1e-5, rtol=0)


def test_images_are_resized_like_the_runs_data_even_if_it_is_missing(fast: list[str], tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(0, 256, (24, 40, 3), np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{i}.png")
    options = [*fast[:2], "--data=datamodules.FolderDataModule", f"--data.root={photos}", "--data.resize=pad"]
    options += ["--data.batch_size=4", "--trainer.enable_progress_bar=false", f"--runs_dir={tmp_path / 'runs'}"]
    run = main(["fit", *options, *QUICK]).run_dir
    upright = Image.open(photos / "cat/0.png")
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 8  # rotated by 90 degrees to the left when displayed
    upright.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png", exif=exif)
    upright.convert("RGBA").save(tmp_path / "alpha.png")
    shutil.rmtree(photos)
    # one by one: the order of summation may depend on the position in a batch
    found = probabilities(main(["predict", f"--run={run}", f"{tmp_path}/*.png", "--batch_size=1"]))
    assert found.shape == (3, 2)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])
    module = ImageClassifier.load_from_checkpoint(run / "checkpoints/best.ckpt").eval()
    pixels = torch.from_numpy(read_rgb(tmp_path / "upright.png", 32, "pad")).permute(2, 0, 1)
    assert torch.allclose(found[0], module.classify(pixels[None])[0], atol=1e-6)


def test_most_probable_classes_are_printed_and_bad_files_are_named_skipped_and_counted(
    finished_run: Path, sample_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "my images"
    images.mkdir()
    source = sample_root / read_index(sample_root / "test.txt")[0][0]
    names = ["a.png", "b c.png", os.fsdecode(b"caf\xe9.png"), "d.png"]
    for name in names:
        shutil.copy(source, images / name)
    (images / "broken.png").write_bytes(source.read_bytes()[:500])
    (images / "notes.txt").write_text("x")
    capsys.readouterr()
    folder = main(["predict", f"--run={finished_run}", str(images), "gone.png", "--top=2", "--batch_size=2"])
    out, err = capsys.readouterr()
    assert folder.parent == finished_run / "predict"
    assert [os.path.basename(image["file"]) for image in content(folder)["images"]] == sorted(names)
    assert os.fsencode(content(folder)["images"][2]["file"]).endswith(b"/caf\xe9.png")
    assert "\\udce9" in rows(folder)[2]["path"]  # the CSV is valid UTF-8
    lines = out.splitlines()
    assert lines[0].count("%") == 2
    assert lines[0].endswith(f"  {images}/a.png")
    assert "caf\\udce9.png'" in out
    assert (
        f"Predicted    4 images by {finished_run}/checkpoints/best.ckpt (1 files without an image suffix were skipped"
        in out
    )
    assert "Skipped      2 files" in out
    assert err.splitlines()[0] == "skipped: gone.png is missing"
    assert err.splitlines()[1].startswith(f"skipped: {images}/broken.png is not a readable image (")
    assert len(err.splitlines()) == 2
    assert {os.path.basename(image["file"]) for image in content(folder)["skipped"]} == {"gone.png", "broken.png"}


def test_without_an_image_no_file_is_left_and_one_line_says_why(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("x")
    output = f"--output={tmp_path / 'out'}"
    lines = lines_of(["predict", f"--run={finished_run}", str(tmp_path / "in"), output], capsys)
    assert lines == [
        f"error: Expected images in {tmp_path}/in, but found none. (1 files without an image suffix were "
        f"skipped, such as {tmp_path}/in/a.txt)"
    ]
    lines = lines_of(["predict", f"--run={finished_run}", str(tmp_path / "in/a.txt"), output], capsys)
    assert lines[-1] == "error: Expected images, but of 1 files none can be read."
    assert "a.txt is not a readable image" in lines[0]
    assert not (tmp_path / "out").exists()


def test_results_are_not_overwritten_by_those_of_other_images(
    finished_run: Path, sample_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(sample_root / read_index(sample_root / "test.txt")[0][0])
    command = ["predict", f"--run={finished_run}", f"--output={tmp_path}", image]
    (tmp_path / "notes.txt").touch()  # a file of the user
    main(command)
    (line,) = lines_of(command, capsys)
    assert line == f"error: Expected a directory without results at --output, but {tmp_path} has predictions.csv."
    assert [row["path"] for row in rows(tmp_path)] == [image]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", *NAMES]


def test_a_checkpoint_without_a_run_predicts_and_last_is_found(
    finished_run: Path, sample_root: Path, tmp_path: Path
) -> None:
    image = str(sample_root / read_index(sample_root / "test.txt")[0][0])
    shutil.copy(finished_run / "checkpoints/best.ckpt", tmp_path / "mine.ckpt")
    alone = main(["predict", f"--ckpt_path={tmp_path / 'mine.ckpt'}", image])
    assert alone.parent == tmp_path / "predict"
    last = main(["predict", "--run=last", f"--runs_dir={finished_run.parents[1]}", image])
    assert last.parent == finished_run / "predict"
    assert torch.allclose(probabilities(alone), probabilities(last))


def test_mistakes_are_reported_in_one_line(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.ckpt").write_text("no checkpoint")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/best.ckpt").touch()
    (tmp_path / "config.yaml").write_text("model: {class_pa")
    for args, message in (
        (["a.png"], "error: Expected a run. Set --run last, --run best, --run DIRECTORY, or --ckpt_path FILE."),
        (["--ckpt_path=gone.ckpt", "a.png"], "error: Expected a checkpoint at --ckpt_path, but gone.ckpt does not"),
        ([f"--ckpt_path={tmp_path / 'no.ckpt'}", "a.png"], f"error: Expected the checkpoint of a run, but {tmp_path}"),
        ([f"--run={tmp_path}", "a.png"], f"error: Expected YAML in {tmp_path}/config.yaml, but got: "),
        ([f"--run={finished_run}", "a.png", "--top=0"], "argument --top: invalid PositiveInt value: '0'"),
    ):
        lines = lines_of(["predict", *args], capsys)
        assert len(lines) == 1
        assert message in lines[0]
