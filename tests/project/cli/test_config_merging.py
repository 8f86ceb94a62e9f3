"""Which arguments remain when a config or an option replaces a class or a list."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.__main__ import main

LENET = ["--config=configs/lenet.yaml"]
LINE = "torch.optim.AdamW replaces torch.optim.SGD, and does not inherit its arguments: lr 0.05, weight_decay 0.0001."
ADAMW, LR = ["--model.optimizer", "torch.optim.AdamW"], ["--model.optimizer.lr", "0.003"]
OVERLAY = "model: {init_args: {optimizer: {%sclass_path: torch.optim.AdamW}}}"


def parse(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    """Return the complete config of a command line."""
    with pytest.raises(SystemExit):
        main(["fit", *args, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def printed_lines(capsys: pytest.CaptureFixture[str], *args: str) -> list[str]:
    """Return the lines printed for a command line that is parsed and then rejected."""
    with pytest.raises(SystemExit):
        main(["fit", *args, "--ckpt_path=gone.ckpt"])
    printed = capsys.readouterr()
    assert "gone.ckpt does not exist" in printed.err
    return printed.out.splitlines()


@pytest.mark.parametrize(
    ("options", "overlay", "lr"),
    [
        (ADAMW, "", 0.001),
        ([*ADAMW, *LR], "", 0.003),
        ([], OVERLAY % "", 0.001),
        (LR, OVERLAY % "", 0.003),
    ],
)
def test_a_new_optimizer_has_its_own_lr_or_the_given_one(
    options: list[str], overlay: str, lr: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(overlay)
    args = [*LENET, *([f"--config={tmp_path}/mine.yaml"] if overlay else []), *options]
    optimizer = parse(capsys, *args)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.AdamW"
    assert (optimizer["init_args"]["lr"], optimizer["init_args"]["weight_decay"]) == (lr, 0.01)
    assert printed_lines(capsys, *args) == [LINE]


def test_an_argument_before_its_class_is_reported_as_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_lines(capsys, *LENET, *LR, *ADAMW) == [LINE.replace("0.05", "0.003")]


def test_arguments_given_by_the_overlay_are_not_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(OVERLAY % "init_args: {lr: 0.003, weight_decay: 0.1}, ")
    assert printed_lines(capsys, *LENET, f"--config={tmp_path}/mine.yaml") == []
    assert printed_lines(capsys, *LENET, *LR) == []
    assert printed_lines(capsys, "--config=configs/airbench.yaml", "--config=configs/airbench_sgd.yaml") == []


@pytest.mark.parametrize(
    ("recipe", "options", "line"),
    [
        ("resnet", ["--model.network=lightning_modules.networks.WideResNet"], ": depth 18."),
        ("airbench", ["--model.loss=torch.nn.NLLLoss"], ": reduction sum."),
        ("airbench_cpu", ["--data=datamodules.FolderDataModule", "--data.root=x"], ": image_size 29."),
        ("metric", ["--model=lightning_modules.ImageClassifier"], ": loss torch.nn.TripletMarginLoss."),
    ],
)
def test_a_class_does_not_inherit_the_arguments_of_the_class_it_replaces(
    recipe: str, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (printed,) = printed_lines(capsys, f"--config=configs/{recipe}.yaml", *options)
    assert printed.endswith(line)


def test_arguments_of_a_common_base_class_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import torch\n\n\nclass Mine(torch.optim.SGD):\n    pass\n"
    (tmp_path / "users_optimizer.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_optimizer", raising=False)
    options = ["--data=datamodules.FolderDataModule", "--data.root=x", "--model.optimizer=users_optimizer.Mine"]
    alone, changed = (
        parse(capsys, "--config=configs/resnet.yaml"),
        parse(capsys, "--config=configs/resnet.yaml", *options),
    )
    for name in ("batch_size", "cache", "batch_transforms"):
        assert changed["data"]["init_args"][name] == alone["data"]["init_args"][name]
    assert changed["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.1


@pytest.mark.parametrize("on_command_line", [False, True])
def test_list_items_inherit_nothing_from_the_replaced_list(
    on_command_line: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = "{data: {init_args: {batch_transforms: [{class_path: datamodules.RandomCrop, init_args: {padding: 4}}]}}, "
    recipe += "trainer: {callbacks: [{class_path: callbacks.Histograms, init_args: {every_n_epochs: 7}}]}, "
    recipe += "model: {init_args: {param_groups: [{pattern: conv1.*, lr: 3.0}, {pattern: fc3.*, freeze: true}]}}}"
    (tmp_path / "recipe.yaml").write_text(recipe)
    lists = {
        "data.batch_transforms": "[datamodules.RandomCrop]",
        "trainer.callbacks": "[callbacks.GradientFlow]",
        "model.param_groups": '[{pattern: "fc1.*"}, {pattern: "fc2.*"}]',
    }
    (tmp_path / "overlay.yaml").write_text("\n".join(f"{key}: {value}" for key, value in lists.items()))
    options = [part for key, value in lists.items() for part in (f"--{key}", value)]
    overlay = options if on_command_line else ["--config", f"{tmp_path}/overlay.yaml"]
    config = parse(capsys, *LENET, "--config", f"{tmp_path}/recipe.yaml", *overlay)
    assert config["data"]["init_args"]["batch_transforms"][0]["init_args"]["padding"] is None
    assert config["trainer"]["callbacks"][0]["init_args"]["every_n_epochs"] is None
    assert [(group["lr"], group["freeze"]) for group in config["model"]["init_args"]["param_groups"]] == [
        (None, False)
    ] * 2


def test_options_apply_to_the_item_that_was_appended_last(capsys: pytest.CaptureFixture[str]) -> None:
    added = ["--data.batch_transforms+=datamodules.Cutout", "--data.batch_transforms.size=8"]
    transforms = parse(capsys, *LENET, *added)["data"]["init_args"]["batch_transforms"]
    assert [transform["init_args"].get("padding") for transform in transforms] == [4, None, None]
    assert transforms[2]["init_args"]["size"] == 8
