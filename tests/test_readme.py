import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callbacks
from project.__main__ import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, word: str) -> str:
    """Return the code block of the README that contains a word."""
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if word in code)


def test_callback_of_the_readme_logs(fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gradient_norm.py").write_text(block("python", "class GradientNorm"))
    (tmp_path / "mine.yaml").write_text(block("yaml", "GradientNorm"))
    monkeypatch.setattr(callbacks, "__path__", [*callbacks.__path__, str(tmp_path)])
    own_test: dict[str, Any] = {}
    exec(block("python", "test_gradient_norm"), own_test)
    own_test["test_gradient_norm_is_logged"](fast, tmp_path / "test")
    options = ["--config", f"{tmp_path}/mine.yaml", "--trainer.max_epochs=1", f"--runs_dir={tmp_path}/runs"]
    cli = main(["fit", *fast, *options])
    events = EventAccumulator(str(cli.run_dir)).Reload()
    assert len(events.Scalars("gradient_norm")) == 3
    assert all(scalar.value > 0 for scalar in events.Scalars("gradient_norm"))
    assert "confusion_matrix/val" in events.Tags()["images"]  # the recipe's callbacks are still active


def test_param_groups_of_the_readme_are_taken(fast: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block("yaml", "param_groups"))
    options = ["--config", f"{tmp_path}/mine.yaml", "--trainer.fast_dev_run=true", f"--runs_dir={tmp_path}/runs"]
    cli = main(["fit", *fast, *options])
    groups = {group["name"]: group for group in cli.trainer.optimizers[0].param_groups}
    assert list(groups) == ["conv1", "fc3", "bias", "default"]
    assert groups["fc3"]["weight_decay"] == 0
    assert not cli.model.network.conv1.weight.requires_grad  # until its epoch


def test_network_of_the_readme_is_taken(fast: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(block("yaml", "ZooNetwork"))
    options = ["--config", f"{tmp_path}/mine.yaml", "--trainer.fast_dev_run=true", f"--runs_dir={tmp_path}/runs"]
    cli = main(["fit", *fast, *options, "--callbacks=false", "--data.batch_size=4"])
    assert type(cli.model.network).__name__ == "VGG"


OPTIONS = re.findall(r"`(--(?:model|trainer|data\.batch_transforms\+)[.=][^`]+)`", README)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_of_the_readme_is_accepted(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"FILE": "README.md", "my_file.MyNetwork": "lightning_modules.networks.NiN"}
    words = [files.get(word, word) for word in option.split()]
    with pytest.raises(SystemExit):  # --print_config would not check required arguments of classes
        main(["fit", "--config=configs/lenet.yaml", *words, "--ckpt_path=gone.ckpt"])
    assert "gone.ckpt does not exist" in capsys.readouterr().err


def test_torchrun_is_kept_from_the_options_of_fit() -> None:
    lines = re.findall(r"^torchrun .*", README, re.MULTILINE)
    assert lines
    assert all(" -m -- project " in line for line in lines)


def test_the_readme_names_many_options() -> None:
    assert len(OPTIONS) > 15


def test_checkpoint_of_the_readme_names_a_class(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("cat.png")
    (tmp_path / "best.ckpt").write_bytes((finished_run / "checkpoints/best.ckpt").read_bytes())
    exec(block("python", "load_from_checkpoint"), {})
    assert capsys.readouterr().out.strip() in list("0123456789")


def test_pictures_and_pages_of_the_readme_exist() -> None:
    paths = re.findall(r"\]\(([^)]+)\)", README)
    assert len(paths) >= 3
    for path in paths:
        assert (ROOT / path).is_file(), path


def test_every_folder_of_the_tree_exists() -> None:
    folders = re.findall(r"^(\w+)/ {2,}", README, re.MULTILINE)
    assert len(folders) == 7
    for folder in folders:
        assert (ROOT / folder).is_dir(), folder
