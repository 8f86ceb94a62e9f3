"""Checkpoints with data that they were not trained on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import DataError, FolderDataModule, SampleDataModule
from project.__main__ import main
from project.cli.match_data import match_data, trained_data
from project.errors import RunError
from project.runs.metrics import digest_of
from project.runs.summary import summary

CLASSES = ["ant", "bee", "cat"]
TRAINED = {"class_names": CLASSES, "class_counts": None, "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture(scope="module")
def insects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of images of three classes, by stage. Tests must not change it."""
    root = tmp_path_factory.mktemp("insects")
    generator = np.random.default_rng(0)
    for number, name in enumerate(CLASSES):
        for stage, count in (("train", 16), ("val", 4), ("test", 4 + number)):
            (root / stage / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(40 * number, 40 * number + 100, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(root / stage / name / f"{i}.png")
    return root


def options(root: Path, runs_dir: Path) -> list[str]:
    """Return the options of a short training on a directory of images."""
    data = ["--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", f"--data.root={root}"]
    quick = ["--data.num_workers=0", "--data.batch_size=16", "--trainer.max_epochs=2", "--report=false"]
    return [*data, *quick, "--callbacks=false", "--trainer.enable_progress_bar=false", f"--runs_dir={runs_dir}"]


@pytest.fixture(scope="module")
def insects_run(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on these images. Tests may only add files to it."""
    args = options(insects, tmp_path_factory.mktemp("runs"))
    return main(["fit", *args, "--model.optimizer.lr=0.01"]).run_dir


@pytest.fixture
def other_order(insects: Path, tmp_path: Path) -> Path:
    """Return a directory that lists the same images with the classes in another order."""
    root, names = tmp_path / "other order", ("cat", "ant", "bee")
    root.mkdir()
    (root / "classes.txt").write_text("\n".join(names))
    for stage in ("train", "val", "test"):
        files = sorted((insects / stage).rglob("*.png"))
        lines = (f"{file.absolute()} {names.index(file.parent.name)}\n" for file in files)
        (root / f"{stage}.txt").write_text("".join(lines))
    return root


def outcome(command: str, run: Path, *more: str) -> dict[str, Any]:
    """Return the content of results.json of a validation or test."""
    cli = main([command, f"--run={run}", "--report=false", *more])
    return json.loads((cli.output_dir / "results.json").read_text())


def resume_of(command: str = "test", run: Path | None = None, image_size: int = 32) -> Any:
    """Return what ``match_data`` uses of a Resume."""
    return SimpleNamespace(command=command, file="a.ckpt", run=run, hyper_parameters={"image_size": image_size})


def data_of(root: Path, **arguments: Any) -> FolderDataModule:
    data = FolderDataModule(root=str(root), num_workers=0, **arguments)
    data.prepare_data()
    return data


def test_classes_in_another_order_are_mapped_by_name(
    insects_run: Path, other_order: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = outcome("test", insects_run)
    assert own["data"]["digest"] == json.loads((insects_run / "run.json").read_text())["data"]["digest"]
    assert "other data" not in capsys.readouterr().out
    other = outcome("test", insects_run, f"--data.root={other_order}")
    assert other["metrics"] == pytest.approx(own["metrics"])
    assert (other["data"]["class"], other["data"]["root"]) == ("FolderDataModule", str(other_order))
    words = f"of epoch {own['epoch']}, on other data than the run's: {other_order} ({other['data']['digest'][:8]})"
    assert words in capsys.readouterr().out


def test_a_test_names_its_checkpoint_and_does_not_apply_to_a_newer_one(insects_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/lenet/copy"
    shutil.copytree(insects_run, run, ignore=shutil.ignore_patterns("test"))
    best = run / "checkpoints/best.ckpt"
    saved = torch.load(best, weights_only=True)
    results = outcome("test", run)
    assert results["checkpoint_digest"] == digest_of(best)
    assert (results["epoch"], results["step"]) == (saved["epoch"] + 1, saved["global_step"])
    assert "best.ckpt is newer" not in summary(run, run)
    torch.save(saved | {"epoch": 8}, best)
    assert f"Measured     tested at epoch {saved['epoch'] + 1}; best.ckpt is newer" in summary(run, run)
    assert outcome("test", run)["epoch"] == 9
    assert "best.ckpt is newer" not in summary(run, run)


def test_other_images_are_normalised_by_the_checkpoint(insects: Path, insects_run: Path, tmp_path: Path) -> None:
    shutil.copytree(insects, tmp_path / "dark", ignore=shutil.ignore_patterns("*.txt", "*.json", "cache"))
    for file in (tmp_path / "dark").rglob("*.png"):
        Image.fromarray((np.array(Image.open(file)) * 0.3).astype(np.uint8)).save(file)
    metrics = outcome("test", insects_run, f"--data.root={tmp_path / 'dark'}")["metrics"]
    folder = main(["predict", f"--run={insects_run}", str(tmp_path / "dark/test")])
    images = json.loads((folder / "predictions.json").read_text())["images"]
    true = [CLASSES.index(Path(image["file"]).parent.name) for image in images]
    losses = [-np.log(image["probabilities"][label]) for image, label in zip(images, true, strict=True)]
    assert metrics["test/loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_weights_without_their_run_have_their_classes_too(insects_run: Path, other_order: Path, tmp_path: Path) -> None:
    shutil.copy(insects_run / "checkpoints/best.ckpt", tmp_path / "mine.ckpt")
    own = outcome("test", insects_run)["metrics"]
    config = [f"--config={insects_run}/config.yaml", f"--data.root={other_order}", f"--runs_dir={tmp_path}/runs"]
    for option in ("--ckpt_path", "--model.pretrained"):
        cli = main(["test", *config, f"{option}={tmp_path}/mine.ckpt", "--report=false"])
        assert cli.trainer.callback_metrics["test/loss"].item() == pytest.approx(own["test/loss"])


def test_data_may_lack_classes_of_the_checkpoint_unless_it_is_for_training(insects: Path, tmp_path: Path) -> None:
    for stage in ("train", "val", "test"):
        for name in ("ant", "cat"):
            shutil.copytree(insects / stage / name, tmp_path / stage / name)
    data = data_of(tmp_path)
    match_data(data, resume_of(), TRAINED)
    assert (data.class_names, data.mean) == (CLASSES, [0.5] * 3)
    with pytest.raises(RunError, match=r"training data with all classes of a\.ckpt, but it has no bee\."):
        match_data(data_of(tmp_path), resume_of("fit"), TRAINED)


def test_data_of_other_classes_is_rejected_with_both_lists(insects: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(insects, other, ignore=shutil.ignore_patterns("*.txt", "*.json", "cache"))
    for stage in ("train", "val", "test"):
        (other / stage / "cat").rename(other / stage / "cats")
    message = (
        r"but a\.ckpt has no cats \(and the data has no cat\)\. Rename the classes .*, or use another checkpoint\."
    )
    for command, advice in (("test", "$"), ("fit", " To load only its weights, ")):
        with pytest.raises(RunError, match=message + advice):
            match_data(data_of(other), resume_of(command), TRAINED)


def test_resumed_training_uses_the_checkpoints_classes_and_normalisation(
    insects_run: Path, other_order: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs/lenet/copy"
    shutil.copytree(insects_run, run)
    known = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    cli = main(["fit", f"--run={run}", f"--data.root={other_order}", "--trainer.max_epochs=3"])
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    for name in ("class_names", "mean", "std", "class_counts"):
        assert saved[name] == known[name]
    labels = dict(zip(cli.datamodule.datasets["train"].files, cli.datamodule.datasets["train"].targets, strict=True))
    assert all(CLASSES[label] == Path(file).parent.name for file, label in labels.items())


def test_normalize_and_size_are_compared_with_the_checkpoint(insects: Path) -> None:
    with pytest.raises(DataError, match=r"mean .* as the checkpoint was trained, but with --data\.normalize false"):
        match_data(data_of(insects, normalize=False), resume_of(), TRAINED)
    with pytest.warns(UserWarning, match="Images have 32 pixels, but the checkpoint was trained on images of 33"):
        match_data(data_of(insects), resume_of(image_size=33), TRAINED)


def test_a_module_that_is_no_classifier_accepts_other_classes() -> None:
    resume: Any = SimpleNamespace(hyper_parameters=TRAINED)
    assert trained_data(resume, "lightning.pytorch.LightningModule") == TRAINED | {"class_names": None}
    assert trained_data(resume, "lightning_modules.ImageClassifier") == TRAINED
    incomplete: Any = SimpleNamespace(hyper_parameters={"mean": [0.5]})
    assert trained_data(incomplete, "lightning_modules.ImageClassifier") == {}


def test_data_is_matched_in_python_too(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), num_workers=0, cache="none")
    data.match([*"9876543210", "none"], [0.0] * 3, [0.5] * 3)
    data.setup("test")
    images, targets = next(iter(data.test_dataloader()))
    own = SampleDataModule(root=str(sample_root), num_workers=0)
    own.setup("test")
    images_of_own, targets_of_own = next(iter(own.test_dataloader()))
    assert torch.equal(targets, 9 - targets_of_own)
    torch.testing.assert_close(0.5 * images, images_of_own * own.std[0] + own.mean[0])
    assert (data.num_classes, data.class_counts) == (11, [*own.class_counts[::-1], 0])
    assert data.digest == own.digest
