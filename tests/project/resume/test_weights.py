"""Files that are not checkpoints of the config's network, given to complete commands."""

import argparse
import io
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import stop_of
from failing import RunsCode
from PIL import Image

from datamodules import DataError, SampleDataModule
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet
from project.__main__ import main
from project.report.read import read_run
from project.runs.metrics import digest_of
from project.runs.outcome import numbers, sentence
from project.runs.results import read_result
from project.runs.summary import summary


@pytest.fixture
def good(finished_run: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, which tests may change."""
    return torch.load(finished_run / "checkpoints/best.ckpt", weights_only=True)


def with_code(good: dict[str, Any], folder: Path) -> dict[str, Any]:
    return good | {"callbacks": RunsCode(folder / "trace")}


def of_three_classes(good: dict[str, Any], folder: Path) -> dict[str, Any]:
    for name in ("network.fc3.weight", "network.fc3.bias"):
        good["state_dict"][name] = good["state_dict"][name][:3]
    good["hyper_parameters"]["class_names"] = ["a", "b", "c"]
    return good


def of_other_layers(good: dict[str, Any], folder: Path) -> dict[str, Any]:
    weight = good["state_dict"].pop("network.fc3.weight")
    good["state_dict"]["network.head.weight"] = weight
    return good


def without(key: str) -> Callable:
    return lambda good, folder: {name: value for name, value in good.items() if name != key}


WRONG = {
    "code": (with_code, "needs code of getattr|needs code of .*Path.* to be run"),
    "plain state_dict": (
        lambda good, folder: LeNet(10).state_dict(),
        "not written by Lightning.*use --model.pretrained",
    ),
    "no version": (without("pytorch-lightning_version"), "not written by Lightning.*use --model.pretrained"),
    "no state_dict": (without("state_dict"), "was not written by Lightning"),
    "list": (lambda good, folder: [1, 2], "holds a list"),
    "another major version": (
        lambda good, folder: good | {"pytorch-lightning_version": "1.9.5"},
        r"was written by Lightning 1\.9\.5, and this is 2\..*use --model\.pretrained",
    ),
    "another number of classes": (
        of_three_classes,
        r"has no 0, 1, 2, 3, 4, 5, 6, 7, and 2 more \(and the data has no a, b, c\)\. Rename the classes",
    ),
    "other layers": (
        of_other_layers,
        r"another network: 1 missing in the file \(fc3\.weight\); 1 unexpected in the file \(network\.head\.weight\)",
    ),
}


def check_rejections(file: Path, message: str, fast: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that each command rejects a file in one line, before it creates a directory."""
    runs = file.parent / "runs"
    for command in ("fit", "validate", "test"):
        code, err = stop_of([command, *fast, f"--ckpt_path={file}", f"--runs_dir={runs}"], capsys)
        assert code == 2
        assert err.count("\n") == 1, err
        assert err.startswith("error: Expected a checkpoint")
        assert str(file) in err
        assert "weights_only=" not in err  # torch suggests to load it unsafely
        assert re.search(message, err), err
        assert not runs.exists()


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_checkpoint_that_does_not_match_is_rejected_in_one_line(
    good: dict[str, Any],
    change: Callable,
    message: str,
    fast: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(change(good, tmp_path), tmp_path / "other.ckpt")
    check_rejections(tmp_path / "other.ckpt", message, fast, capsys)
    assert not (tmp_path / "trace").exists()


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


NO_CHECKPOINTS = {
    "empty": (b"", "is empty"),
    "text": (b"epoch: 3\n", "is damaged or of another kind"),
    "web page": (b"<html>Sign in</html>", "is a web page"),
    "picture": (picture(), "is damaged or of another kind"),
}


@pytest.mark.parametrize(("content", "message"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_file_that_is_not_a_checkpoint_is_rejected_in_one_line(
    content: bytes, message: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.ckpt").write_bytes(content)
    check_rejections(tmp_path / "other.ckpt", message, fast, capsys)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_checkpoint_is_rejected_in_one_line(
    share: float, finished_run: Path, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (finished_run / "checkpoints/best.ckpt").read_bytes()
    (tmp_path / "other.ckpt").write_bytes(content[: int(len(content) * share)])
    check_rejections(tmp_path / "other.ckpt", "is damaged or of another kind", fast, capsys)


def test_checkpoint_with_a_flipped_bit_is_rejected_in_one_line(
    finished_run: Path, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((finished_run / "checkpoints/best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "other.ckpt").write_bytes(content)
    check_rejections(tmp_path / "other.ckpt", "wrong checksum of", fast, capsys)


def test_directory_instead_of_a_checkpoint_is_rejected_in_one_line(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.ckpt").mkdir()
    check_rejections(tmp_path / "other.ckpt", "is a directory", fast, capsys)


def test_weights_without_optimizer_are_tested_but_not_resumed(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("optimizer_states", "lr_schedulers", "callbacks"):  # as ModelCheckpoint with save_weights_only
        del good[key]
    torch.save(good, tmp_path / "weights.ckpt")
    options = [*fast, f"--ckpt_path={tmp_path}/weights.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["fit", *options], capsys)
    assert code == 2
    assert "holds only weights" in err
    assert not (tmp_path / "runs").exists()
    assert main(["test", *options]).trainer.callback_metrics["test/acc"] > 0.1


def test_objects_of_the_user_are_loaded_with_weights_only_false_and_a_warning(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good["hyper_parameters"]["mine"] = argparse.Namespace(lr=1)
    torch.save(good, tmp_path / "mine.ckpt")
    options = [*fast, f"--ckpt_path={tmp_path}/mine.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["test", *options], capsys)
    assert code == 2
    assert "needs code of argparse.Namespace" in err
    assert "--weights_only false for a file of your own" in err
    with pytest.warns(UserWarning, match=r"executes any code in .*mine\.ckpt"):
        main(["test", *options, "--weights_only=false"])


def test_training_resumes_from_a_matching_checkpoint(fast: list[str], tmp_path: Path) -> None:
    options = [*fast, "--callbacks=false", "--model.lr_scheduler=null", f"--runs_dir={tmp_path}"]
    run = main(["fit", *options, "--trainer.max_epochs=1"]).run_dir
    cli = main(["fit", *options, f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert cli.trainer.global_step == 24


@pytest.mark.parametrize("option", ["--model.pretrained", "--model.teacher"])
def test_other_files_of_weights_with_code_are_rejected_before_a_run_exists(
    option: str, good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(with_code(good, tmp_path), tmp_path / "evil.ckpt")
    recipe = "configs/distill.yaml" if option == "--model.teacher" else "configs/lenet.yaml"
    options = [f"{option}={tmp_path}/evil.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["fit", f"--config={recipe}", *fast[2:], *options], capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert "evil.ckpt needs code of" in err
    assert not (tmp_path / "trace").exists()
    assert not (tmp_path / "runs").exists()


def test_checkpoint_with_code_is_not_loaded_in_python(good: dict[str, Any], tmp_path: Path) -> None:
    torch.save(with_code(good, tmp_path), tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        ImageClassifier.load_from_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "hostile", [{"_instantiator": "stranger.make"}, {"_class_path": "stranger.Module"}, {"_instantiator": ["os.mkdir"]}]
)
def test_code_that_a_checkpoint_names_to_build_its_module_is_not_executed(
    hostile: dict[str, Any],
    good: dict[str, Any],
    fast: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")  # executed on import
    monkeypatch.syspath_prepend(tmp_path)
    good["hyper_parameters"] |= hostile
    file = tmp_path / "evil.ckpt"
    torch.save(good, file)
    teacher = ["--model=lightning_modules.extras.distiller.Distiller", f"--model.teacher={file}"]
    commands = [
        ["predict", "a.png", f"--ckpt_path={file}"],
        ["export", "--format=onnx", f"--ckpt_path={file}"],
        ["fit", *fast, *teacher, f"--runs_dir={tmp_path}/runs"],
    ]
    for command in commands:
        code, err = stop_of(command, capsys)
        assert code == 2
        assert err.count("\n") == 1, err
        assert "evil.ckpt" in err
    assert not (tmp_path / "trace").exists()


def test_code_that_hyperparameters_name_is_not_executed(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hubconf.py").write_text(
        f"open({str(tmp_path / 'trace')!r}, 'w')\nfrom lightning_modules.networks import LeNet\n\n"
        "def net(num_classes):\n    return LeNet(num_classes)\n"
    )
    arguments = {"repo_or_dir": str(tmp_path), "model": "net", "source": "local"}
    good["hyper_parameters"]["network"] = {
        "class_path": "lightning_modules.networks.ZooNetwork",
        "init_args": {"function": "torch.hub.load", "adapt_stem": False, "arguments": arguments},
    }
    file = tmp_path / "evil.ckpt"
    torch.save(good, file)
    options = [*fast, f"--runs_dir={tmp_path}/runs"]
    main(["test", *options, f"--ckpt_path={file}"])
    main(["fit", *options, f"--ckpt_path={file}", "--trainer.max_epochs=2", "--callbacks=false"])
    main(["test", *options, f"--model.pretrained={file}"])
    capsys.readouterr()
    for command in (["predict", "a.png"], ["export", "--format=onnx"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, f"--ckpt_path={file}"])
        assert "evil.ckpt calls torch.hub.load, which is not known to be a part" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
    ImageClassifier.load_from_checkpoint(file)  # SECURITY.md warns of this
    assert (tmp_path / "trace").exists()


# Checkpoints with data that they were not trained on

CLASSES = ("ant", "bee", "cat")


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


@pytest.fixture(scope="module")
def insects_run(insects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on these images. Tests may only add files to it."""
    options = ["--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", f"--data.root={insects}"]
    options += ["--data.num_workers=0", "--data.batch_size=16", "--trainer.max_epochs=2", "--report=false"]
    options += ["--callbacks=false", "--trainer.enable_progress_bar=false", "--model.optimizer.lr=0.01"]
    return main(["fit", *options, f"--runs_dir={tmp_path_factory.mktemp('runs')}"]).run_dir


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


def outcome(command: str, run: Path, *options: str) -> dict[str, Any]:
    """Return the content of results.json of a validation or test."""
    cli = main([command, f"--run={run}", "--report=false", *options])
    return json.loads((cli.output_dir / "results.json").read_text())


@pytest.mark.parametrize("command", ["validate", "test"])
def test_classes_in_another_order_are_mapped_by_name(
    command: str, insects_run: Path, other_order: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = outcome(command, insects_run)
    assert own["data"]["digest"] == json.loads((insects_run / "run.json").read_text())["data"]["digest"]
    assert "other data" not in capsys.readouterr().out
    matrix = ["--callbacks=false", "--trainer.callbacks=[ConfusionMatrix]"]
    cli = main([command, f"--run={insects_run}", f"--data.root={other_order}", *matrix, "--report=false"])
    other = json.loads((cli.output_dir / "results.json").read_text())
    assert cli.model.class_names == cli.datamodule.class_names == list(CLASSES)
    assert other["metrics"] == pytest.approx(own["metrics"])
    assert (other["data"]["class"], other["data"]["root"]) == ("FolderDataModule", str(other_order))
    assert other["data"]["digest"] not in (None, own["data"]["digest"])
    words = f"of epoch {own['epoch']}, on other data than the run's: {other_order} ({other['data']['digest'][:8]})"
    assert words in capsys.readouterr().out
    (drawn,) = cli.output_dir.glob("confusion_matrix_*.csv")
    assert drawn.read_text().splitlines()[0] == r"true \ predicted,ant,bee,cat"


def test_a_test_names_its_checkpoint_and_does_not_apply_to_a_newer_one(insects_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/lenet/copy"
    shutil.copytree(insects_run, run)
    shutil.rmtree(run / "test", ignore_errors=True)
    best = run / "checkpoints/best.ckpt"
    saved = torch.load(best, weights_only=True)
    results = outcome("test", run)
    assert results["checkpoint_digest"] == digest_of(best)
    assert (results["epoch"], results["step"]) == (saved["epoch"] + 1, saved["global_step"])
    newer = "tested at|best.ckpt is newer"
    assert not re.search(newer, summary(run, run) + sentence(run, read_result(run)[0]))
    torch.save(saved | {"epoch": 8}, best)
    words = f"tested at epoch {saved['epoch'] + 1}; best.ckpt is newer"
    assert f"Measured     {words}\n" in summary(run, run)
    assert words in sentence(run, read_result(run)[0])
    assert read_run(run).test is None
    assert "test accuracy" not in numbers(run, read_result(run)[0])
    assert outcome("test", run)["epoch"] == 9
    assert not re.search(newer, summary(run, run) + sentence(run, read_result(run)[0]))
    assert "test accuracy" in numbers(run, read_result(run)[0])


def test_other_images_are_normalised_by_the_checkpoint(insects: Path, insects_run: Path, tmp_path: Path) -> None:
    shutil.copytree(insects, tmp_path / "dark", ignore=shutil.ignore_patterns("*.txt", "*.json", "cache"))
    for file in (tmp_path / "dark").rglob("*.png"):
        Image.fromarray((np.array(Image.open(file)) * 0.3).astype(np.uint8)).save(file)
    results = outcome("test", insects_run, f"--data.root={tmp_path / 'dark'}")
    folder = main(["predict", f"--run={insects_run}", str(tmp_path / "dark/test")])
    images = json.loads((folder / "predictions.json").read_text())["images"]
    true = [CLASSES.index(Path(image["file"]).parent.name) for image in images]
    losses = [-np.log(one["probabilities"][label]) for one, label in zip(images, true, strict=True)]
    assert results["metrics"]["test/loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    right = [one["predicted"] == CLASSES[label] for one, label in zip(images, true, strict=True)]
    assert results["metrics"]["test/acc"] == pytest.approx(np.mean(right))


def test_other_test_images_of_the_same_names_are_other_data(
    insects: Path, insects_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "noise"
    shutil.copytree(insects, root)
    generator = np.random.default_rng(1)
    for file in (root / "test").rglob("*.png"):
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    outcome("test", insects_run, f"--data.root={root}")
    assert f"on other data than the run's: {root} (" in capsys.readouterr().out


def test_transforms_are_not_fitted_to_other_data_than_the_runs(
    insects: Path, other_order: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whitening = "[{class_path: datamodules.transforms.ZCAWhitening, init_args: {num_images: 8}}]"
    options = ["--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", f"--data.root={insects}"]
    options += ["--data.num_workers=0", "--data.batch_size=16", "--trainer.max_epochs=1", "--report=false"]
    options += ["--data.normalize=false", f"--data.train_transforms={whitening}", f"--data.eval_transforms={whitening}"]
    options += ["--callbacks=false", "--trainer.enable_progress_bar=false", f"--runs_dir={tmp_path}/runs"]
    run = main(["fit", *options]).run_dir
    best = run / "checkpoints/best.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is fitted to")
        own = outcome("test", run)["metrics"]
    for command, name in (("test", "best"), ("validate", "best"), ("fit", "last")):
        code, err = stop_of([command, f"--run={run}", f"--data.root={other_order}", "--trainer.max_epochs=2"], capsys)
        assert code == 2
        assert err == (
            f"error: Expected the data that {run}/checkpoints/{name}.ckpt was trained on ({insects}), because "
            f"ZCAWhitening is fitted to its training images, but got {other_order}. Set --data.root to the "
            "data of the run. To classify other images, use `predict`, which fits to the data of the run.\n"
        )
    shutil.copy(best, tmp_path / "mine.ckpt")
    with pytest.warns(
        UserWarning, match=r"ZCAWhitening is fitted to .* unknown whether .*mine\.ckpt was trained on them"
    ):
        cli = main(["test", *options, f"--ckpt_path={tmp_path}/mine.ckpt"])
    assert cli.trainer.callback_metrics["test/loss"].item() == pytest.approx(own["test/loss"])


def test_weights_without_their_run_have_their_classes_too(insects_run: Path, other_order: Path, tmp_path: Path) -> None:
    shutil.copy(insects_run / "checkpoints/best.ckpt", tmp_path / "mine.ckpt")
    own = outcome("test", insects_run)["metrics"]
    config = [f"--config={insects_run}/config.yaml", f"--data.root={other_order}", f"--runs_dir={tmp_path}/runs"]
    for option in ("--ckpt_path", "--model.pretrained"):
        cli = main(["test", *config, f"{option}={tmp_path}/mine.ckpt", "--report=false"])
        assert cli.trainer.callback_metrics["test/loss"].item() == pytest.approx(own["test/loss"])


def test_data_may_lack_classes_of_the_checkpoint(insects: Path, insects_run: Path, tmp_path: Path) -> None:
    for stage in ("train", "val", "test"):
        for name in ("ant", "cat"):
            shutil.copytree(insects / stage / name, tmp_path / stage / name)
    own = outcome("test", insects_run)["metrics"]
    metrics = outcome("test", insects_run, f"--data.root={tmp_path}")["metrics"]
    assert {name for name in metrics if "/acc/" in name} == {"test/acc/ant", "test/acc/cat"}
    assert (metrics["test/acc/ant"], metrics["test/acc/cat"]) == (own["test/acc/ant"], own["test/acc/cat"])


def test_data_of_other_classes_is_rejected_with_both_lists(
    insects: Path, insects_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(insects, other, ignore=shutil.ignore_patterns("*.txt", "*.json", "cache"))
    for stage in ("train", "val", "test"):
        (other / stage / "cat").rename(other / stage / "cats")
    before = sorted(insects_run.rglob("*"))
    for command in ("fit", "validate", "test"):
        options = [f"--run={insects_run}", f"--data.root={other}", "--trainer.max_epochs=3"]
        code, err = stop_of([command, *options], capsys)
        assert code == 2
        assert err == (
            f"error: Expected a checkpoint with the classes of the data, but {insects_run}/checkpoints/"
            f"{'last' if command == 'fit' else 'best'}.ckpt has no cats (and the data has no cat). Rename the "
            "classes (folders, or classes.txt), or use another checkpoint."
            + " To load only its weights, use --model.pretrained instead of --ckpt_path." * (command == "fit")
            + "\n"
        )
    assert sorted(insects_run.rglob("*")) == before


def test_resumed_training_uses_the_checkpoints_classes_and_normalisation(
    insects: Path, insects_run: Path, other_order: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/lenet/copy"
    shutil.copytree(insects_run, run)
    longer = ["--trainer.max_epochs=3", "--report=false"]
    cli = main(["fit", f"--run={run}", f"--data.root={other_order}", *longer])
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    known = torch.load(insects_run / "checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    for name in ("class_names", "mean", "std", "class_counts"):
        assert saved[name] == known[name]
    labels = dict(zip(cli.datamodule.datasets["train"].files, cli.datamodule.datasets["train"].targets, strict=True))
    assert all(CLASSES[label] == Path(file).parent.name for file, label in labels.items())

    shutil.copytree(insects, tmp_path / "few", ignore=shutil.ignore_patterns("*.txt", "*.json", "cache", "bee"))
    code, err = stop_of(["fit", f"--run={insects_run}", f"--data.root={tmp_path / 'few'}", *longer], capsys)
    assert code == 2
    assert err.endswith("last.ckpt, but it has no bee. Add images of them.\n")


def test_a_run_whose_checkpoint_names_no_normalize_is_tested_by_its_own_config(insects: Path, tmp_path: Path) -> None:
    transforms = (
        "[{class_path: torchvision.transforms.v2.ToDtype, init_args: {dtype: torch.float32, scale: true}},"
        " {class_path: torchvision.transforms.v2.Normalize, init_args: {mean: [0.5], std: [0.25]}}]"
    )
    options = ["--config=configs/lenet.yaml", "--data=datamodules.FolderDataModule", f"--data.root={insects}"]
    options += ["--data.num_workers=0", "--data.batch_size=16", "--trainer.max_epochs=1", "--report=false"]
    options += ["--data.normalize=false", f"--data.train_transforms={transforms}"]
    options += [f"--data.eval_transforms={transforms}", "--callbacks=false", f"--runs_dir={tmp_path}"]
    run = main(["fit", *options]).run_dir
    own = outcome("test", run)["metrics"]
    best = run / "checkpoints/best.ckpt"
    saved = torch.load(best, weights_only=True)
    saved["hyper_parameters"] |= {"mean": [0.0] * 3, "std": [1.0] * 3}  # as in checkpoints of earlier versions
    torch.save(saved, best)
    with pytest.warns(UserWarning, match="The checkpoint has no mean and std"):
        assert outcome("test", run)["metrics"] == own


def test_normalize_must_be_as_in_the_checkpoint(insects_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = stop_of(["test", f"--run={insects_run}", "--data.normalize=false"], capsys)
    assert code == 2
    assert err == "error: Expected --data.normalize true, as the checkpoint was trained, but got false.\n"


def test_pretrained_head_of_the_same_classes_in_another_order_is_reported(
    insects: Path, insects_run: Path, other_order: Path, tmp_path: Path
) -> None:
    options = [f"--config={insects_run}/config.yaml", f"--runs_dir={tmp_path}", "--trainer.max_epochs=1"]
    options += [f"--model.pretrained={insects_run}/checkpoints/best.ckpt"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*another order")
        main(["fit", *options])
    with pytest.warns(UserWarning, match=r"best\.ckpt was trained on these classes in another order"):
        main(["fit", *options, f"--data.root={other_order}"])


def test_images_of_another_size_are_reported(insects_run: Path) -> None:
    with pytest.warns(UserWarning, match="Images have 33 pixels, but the checkpoint was trained on images of 32"):
        outcome("test", insects_run, "--data.image_size=33")


def test_embeddings_are_evaluated_on_other_classes(fast: list[str], insects: Path, tmp_path: Path) -> None:
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--callbacks=false"]
    run = main(["fit", "--config=configs/metric.yaml", *fast[2:], *quick, f"--runs_dir={tmp_path}"]).run_dir
    other = ["--data=datamodules.FolderDataModule", f"--data.root={insects}", "--data.batch_size=8"]
    cli = main(["test", f"--run={run}", *other, "--report=false"])
    known = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]
    assert (cli.datamodule.mean, cli.model.mean.flatten().tolist()) == (known["mean"], pytest.approx(known["mean"]))


def test_data_is_matched_in_python_too(sample_root: Path) -> None:
    data = SampleDataModule(root=str(sample_root), num_workers=0, cache="none")
    names = [*"9876543210", "none"]
    data.match(names, [0.0] * 3, [0.5] * 3)
    data.setup("test")
    images, targets = next(iter(data.test_dataloader()))
    own = SampleDataModule(root=str(sample_root), num_workers=0)
    own.setup("test")
    images_of_own, targets_of_own = next(iter(own.test_dataloader()))
    assert torch.equal(targets, 9 - targets_of_own)
    torch.testing.assert_close(0.5 * images, images_of_own * own.std[0] + own.mean[0])
    assert (data.num_classes, data.class_counts) == (11, [*own.class_counts[::-1], 0])
    assert data.digest == own.digest
    with pytest.raises(DataError, match=r"Expected classes in .* that the network knows, but got 9\."):
        data.match([*"012345678"], [0.0] * 3, [0.5] * 3)
