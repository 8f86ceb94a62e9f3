"""Options of data in complete commands, and mistakes in them, which are reported in one line."""

import json
from pathlib import Path

import pytest
import torch
from command_line import stop_of

from project.__main__ import main

FLOAT = "{class_path: torchvision.transforms.v2.ToDtype, init_args: {dtype: torch.float32, scale: true}}"
NORMALIZE = "{class_path: torchvision.transforms.v2.Normalize, init_args: {mean: [0.5], std: [0.2]}}"
NORMALIZED = f"[{FLOAT}, {NORMALIZE}]"
MISTAKES = {
    "cache: gpu": "Expected Literal['none', 'disk', 'device'] for cache, but got gpu",
    "image_size: 0": "Expected PositiveInt for image_size, but got 0",
    "folds: 1": "Expected --data.folds of 2 or more",
    "cahce: disk": "Did you mean cache?",
    "batch_transforms: [{class_path: datamodules.RandomCorp}]": "Did you mean datamodules.RandomCrop?",
    "batch_transforms: [{class_path: datamodules.RandomCrop, init_args: {pading: 1}}]": "Did you mean padding?",
    "batch_transforms: [{class_path: datamodules.RandomCrop, init_args: {padding: -1}}]": "Expected NonNegativeInt for",
    "batch_transforms: [{class_path: datamodules.Cutout, init_args: {size: 40}}]": "but got one that is 8 larger",
    "batch_transforms: [torchvision.transforms.v2.RandomHorizontalFlip]": "Expected list[BatchTransform]",
    "train_transforms: [torchvision.transforms.v2.RandomCorp]": "Did you mean torchvision.transforms.v2.RandomCrop?",
    "train_transforms: [{class_path: torchvision.transforms.v2.RandomApply, init_args: {transforms: "
    "[torchvision.transforms.v2.RandomFlip]}}]": "torchvision.transforms.v2 has no 'RandomFlip'",
    "train_transforms: [{class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 40}}]": (
        "RandomCrop failed on Tensor torch.uint8 (3, 32, 32)"
    ),
    f"train_transforms: {NORMALIZED}": "normalised twice: --data.train_transforms contain a Normalize. Remove it",
    f"eval_transforms: [{{class_path: torchvision.transforms.v2.Compose, init_args: {{transforms: {NORMALIZED}}}}}]": (
        "normalised twice: --data.eval_transforms contain a Normalize."
    ),
    "train_transforms: [{class_path: torchvision.transforms.v2.RandomApply, init_args: {transforms: "
    f"{NORMALIZED}}}}}]": "use --data.normalize false",
    f"{{normalize: false, train_transforms: {NORMALIZED}}}": "Expected the same Normalize in --data.train_transforms",
    "train_transforms: [{class_path: torchvision.transforms.v2.ToDtype, init_args: {dtype: torch.float32}}]": (
        "Expected floats of 0 to 1 from per-image transforms, but white becomes 255. Set `scale: true` of ToDtype"
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_reported_in_one_line(
    mistake: str, sample_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(f"data:\n  class_path: datamodules.SampleDataModule\n  init_args:\n    {mistake}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["preview", f"--config={overlay}", f"--data.root={sample_root}", f"--output={tmp_path / 'p.png'}"])
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert MISTAKES[mistake] in lines[-1]
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]


@pytest.mark.parametrize("command", ["prepare", "preview"])
def test_the_data_of_a_run_is_not_prepared_again_in_another_directory(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/lenet/2026-11-28_10-00-00"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("data: {class_path: datamodules.SampleDataModule, init_args: {root: digits}}\n")
    (run / "run.json").write_text(json.dumps({"working_directory": str(tmp_path)}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, err = stop_of([command, f"--config={run}/config.yaml"], capsys)
    assert code == 2
    assert (
        f"Expected the data of {run} in digits, but it is not in this directory. Run the command in {tmp_path}" in err
    )
    assert list(Path().iterdir()) == []


def test_prepare_takes_transforms_without_types_as_fit_does(sample_root: Path) -> None:
    flip = "{class_path: torchvision.transforms.RandomHorizontalFlip, init_args: {p: 1}}"
    nested = f"[{{class_path: torchvision.transforms.Compose, init_args: {{transforms: [{flip}]}}}}]"
    options = ["--data=datamodules.SampleDataModule", f"--data.root={sample_root}", f"--data.train_transforms={nested}"]
    data = main(["prepare", *options])
    image = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    assert torch.equal(data.train_transforms[0](image), image.flip(2))


def test_views_of_five_crop_are_accepted_by_fit_and_test(fast: list[str], tmp_path: Path) -> None:
    overlay = tmp_path / "views.yaml"
    overlay.write_text(
        "data:\n  init_args:\n    eval_transforms:\n"
        "    - {class_path: torchvision.transforms.v2.Pad, init_args: {padding: 2}}\n"
        "    - {class_path: torchvision.transforms.v2.FiveCrop, init_args: {size: 32}}\n"
    )
    run = main(
        [
            "fit",
            *fast,
            f"--config={overlay}",
            "--trainer.max_epochs=1",
            "--callbacks=false",
            f"--runs_dir={tmp_path / 'runs'}",
        ]
    )
    tested = main(["test", "--run", str(run.run_dir)])
    images, _ = next(iter(tested.datamodule.test_dataloader()))
    assert images.shape[1:] == (5, 3, 32, 32)
    assert tested.trainer.callback_metrics["test/acc"] > 0


def test_a_network_for_another_image_size_is_an_error(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *fast, f"--data.root={tmp_path}", "--data.image_size=48", f"--runs_dir={tmp_path / 'runs'}"])
    assert stopped.value.code == 2
    assert "LeNet does not accept images of 48x48 pixels" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
