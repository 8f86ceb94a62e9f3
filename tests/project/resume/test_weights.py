"""Files that are not checkpoints of the config's network, given to complete commands."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import stop_of
from failing import RunsCode

from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet
from project.__main__ import main


@pytest.fixture
def good(plain_run: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, which tests may change."""
    return torch.load(plain_run / "checkpoints/best.ckpt", weights_only=True)


def with_code(good: dict[str, Any], folder: Path) -> dict[str, Any]:
    return good | {"callbacks": RunsCode(folder / "trace")}


def of_three_classes(good: dict[str, Any], folder: Path) -> dict[str, Any]:
    for name in ("network.fc3.weight", "network.fc3.bias"):
        good["state_dict"][name] = good["state_dict"][name][:3]
    good["hyper_parameters"]["class_names"] = ["a", "b", "c"]
    return good


def without(key: str) -> Callable:
    return lambda good, folder: {name: value for name, value in good.items() if name != key}


WRONG = {
    "code": (with_code, "needs code of .* to be run"),
    "plain state_dict": (
        lambda good, folder: LeNet(10).state_dict(),
        "has no state_dict, pytorch-lightning_version.*use --model.pretrained",
    ),
    "no state_dict": (without("state_dict"), "has no state_dict"),
    "list": (lambda good, folder: [1, 2], "has no state_dict"),
    "another number of classes": (
        of_three_classes,
        r"has no 0, 1, 2, 3, 4, 5, 6, 7, and 2 more \(and the data has no a, b, c\)\. Rename the classes",
    ),
}


def check_rejections(file: Path, message: str, fast: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that each command rejects a file in one line, before it creates a directory."""
    runs = file.parent / "runs"
    for command in ("fit", "test"):
        code, err = stop_of([command, *fast, f"--ckpt_path={file}", f"--runs_dir={runs}"], capsys)
        assert (code, err.count("\n")) == (2, 1), err
        assert re.search(f"^error: Expected a checkpoint.*{file}.*{message}", err), err
        assert "weights_only=" not in err  # torch suggests to load it unsafely
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


def flip_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "is damaged or of another kind"),
        (flip_bit, "wrong checksum of"),
    ],
)
def test_damaged_checkpoint_is_rejected_in_one_line(
    damage: Callable[[bytes], bytes],
    message: str,
    plain_run: Path,
    fast: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "other.ckpt").write_bytes(damage((plain_run / "checkpoints/best.ckpt").read_bytes()))
    check_rejections(tmp_path / "other.ckpt", message, fast, capsys)


def test_weights_without_optimizer_are_tested_but_not_resumed(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("optimizer_states", "lr_schedulers", "callbacks"):  # as ModelCheckpoint with save_weights_only
        del good[key]
    torch.save(good, tmp_path / "weights.ckpt")
    options = [*fast, f"--ckpt_path={tmp_path}/weights.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["fit", *options], capsys)
    assert code == 2
    assert "has no optimizer_states, lr_schedulers. To load only its weights, use --model.pretrained" in err
    assert not (tmp_path / "runs").exists()
    assert main(["test", *options]).trainer.callback_metrics["test/acc"] > 0.1


def test_objects_of_the_user_are_loaded_with_weights_only_false_and_a_warning(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good["hyper_parameters"]["mine"] = argparse.Namespace(lr=1)
    torch.save(good, tmp_path / "mine.ckpt")
    options = [*fast, f"--ckpt_path={tmp_path}/mine.ckpt", f"--runs_dir={tmp_path}/runs"]
    _, err = stop_of(["test", *options], capsys)
    assert "needs code of argparse.Namespace" in err
    assert "--weights_only false for a file of your own" in err
    with pytest.warns(UserWarning, match=r"executes any code in .*mine\.ckpt"):
        main(["test", *options, "--weights_only=false"])


@pytest.mark.parametrize("option", ["--model.pretrained", "--model.teacher"])
def test_other_files_of_weights_with_code_are_rejected_before_training(
    option: str, good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(with_code(good, tmp_path), tmp_path / "evil.ckpt")
    recipe = "configs/distill.yaml" if option == "--model.teacher" else "configs/lenet.yaml"
    options = [f"{option}={tmp_path}/evil.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["fit", f"--config={recipe}", *fast[2:], *options], capsys)
    assert code == 2
    assert re.search(r"evil.ckpt needs code of .*\n$", err)
    assert not (tmp_path / "trace").exists()
    assert not list((tmp_path / "runs").glob("*/*"))


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
    for command in [["predict", "a.png"], ["export", "--format=onnx"]]:
        with pytest.raises(SystemExit, match="2"):
            main([*command, f"--ckpt_path={file}"])
        assert "evil.ckpt calls torch.hub.load, which is not known to be a part" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
    ImageClassifier.load_from_checkpoint(file)  # SECURITY.md warns of this
    assert (tmp_path / "trace").exists()
