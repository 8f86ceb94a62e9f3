"""Files that are no checkpoints of the config's network, given to whole commands."""

import argparse
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from test_cli import stop_of
from test_safe_load import RunsCode

from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet
from project.__main__ import main


@pytest.fixture
def good(finished_run: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; to be changed at will."""
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
    "plain state_dict": (lambda good, folder: LeNet(10).state_dict(), "none of Lightning's.*as --model.pretrained"),
    "no version": (without("pytorch-lightning_version"), "none of Lightning's.*as --model.pretrained"),
    "no state_dict": (without("state_dict"), "is none of Lightning's"),
    "list": (lambda good, folder: [1, 2], "holds a list"),
    "another major version": (
        lambda good, folder: good | {"pytorch-lightning_version": "1.9.5"},
        r"was written by Lightning 1\.9\.5, and this is 2\..*as --model\.pretrained",
    ),
    "another number of classes": (
        of_three_classes,
        r"of another \(it tells 3 classes apart, the data has 10\): 2 mismatched \(fc3\.weight is \(3, 84\), not",
    ),
    "other layers": (
        of_other_layers,
        r"is of another: 1 missing in the file \(fc3\.weight\); 1 unexpected in the file \(network\.head\.weight\)",
    ),
}


def check_refusals(file: Path, message: str, fast: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that each command refuses a file in one line, and before it makes a folder."""
    runs = file.parent / "runs"
    for command in ("fit", "validate", "test"):
        code, err = stop_of([command, *fast, f"--ckpt_path={file}", f"--runs_dir={runs}"], capsys)
        assert code == 2
        assert err.count("\n") == 1, err
        assert err.startswith("error: Expected a checkpoint")
        assert str(file) in err
        assert "weights_only=" not in err  # torch's advice to load it unsafely
        assert re.search(message, err), err
        assert not runs.exists()


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_checkpoint_that_does_not_fit_is_refused_in_one_line(
    good: dict[str, Any],
    change: Callable,
    message: str,
    fast: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(change(good, tmp_path), tmp_path / "other.ckpt")
    check_refusals(tmp_path / "other.ckpt", message, fast, capsys)
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
def test_file_that_is_no_checkpoint_is_refused_in_one_line(
    content: bytes, message: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.ckpt").write_bytes(content)
    check_refusals(tmp_path / "other.ckpt", message, fast, capsys)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated_checkpoint_is_refused_in_one_line(
    share: float, finished_run: Path, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = (finished_run / "checkpoints/best.ckpt").read_bytes()
    (tmp_path / "other.ckpt").write_bytes(content[: int(len(content) * share)])
    check_refusals(tmp_path / "other.ckpt", "is damaged or of another kind", fast, capsys)


def test_checkpoint_with_a_flipped_bit_is_refused_in_one_line(
    finished_run: Path, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((finished_run / "checkpoints/best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "other.ckpt").write_bytes(content)
    check_refusals(tmp_path / "other.ckpt", "wrong checksum of", fast, capsys)


def test_folder_in_the_place_of_a_checkpoint_is_refused_in_one_line(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.ckpt").mkdir()
    check_refusals(tmp_path / "other.ckpt", "is a folder", fast, capsys)


def test_weights_alone_are_tested_but_not_resumed_from(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("optimizer_states", "lr_schedulers", "callbacks"):  # as ModelCheckpoint's save_weights_only leaves them
        del good[key]
    torch.save(good, tmp_path / "weights.ckpt")
    options = [*fast, f"--ckpt_path={tmp_path}/weights.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["fit", *options], capsys)
    assert code == 2
    assert "holds weights alone" in err
    assert not (tmp_path / "runs").exists()
    assert main(["test", *options]).trainer.callback_metrics["test/acc"] > 0.1


def test_own_objects_are_loaded_when_asked_for_and_with_a_warning(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good["hyper_parameters"]["mine"] = argparse.Namespace(lr=1)
    torch.save(good, tmp_path / "mine.ckpt")
    options = [*fast, f"--ckpt_path={tmp_path}/mine.ckpt", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["test", *options], capsys)
    assert code == 2
    assert "needs code of argparse.Namespace" in err
    assert "--weights_only false for a file of your own" in err
    with pytest.warns(UserWarning, match=r"whatever code is in .*mine\.ckpt will be run"):
        main(["test", *options, "--weights_only=false"])


def test_training_goes_on_from_a_checkpoint_that_fits(fast: list[str], tmp_path: Path) -> None:
    options = [*fast, "--trainer.callbacks=[]", "--model.lr_scheduler=null", f"--runs_dir={tmp_path}"]
    run = main(["fit", *options, "--trainer.max_epochs=1"]).run_dir
    cli = main(["fit", *options, f"--ckpt_path={run}/checkpoints/last.ckpt"])
    assert cli.trainer.global_step == 24


@pytest.mark.parametrize("option", ["--model.pretrained", "--model.teacher"])
def test_other_files_of_weights_with_code_are_refused_before_there_is_a_run(
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
def test_code_that_a_checkpoint_names_to_build_its_module_is_not_run(
    hostile: dict[str, Any],
    good: dict[str, Any],
    fast: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")  # runs once it is imported
    monkeypatch.syspath_prepend(tmp_path)
    good["hyper_parameters"] |= hostile
    file = tmp_path / "evil.ckpt"
    torch.save(good, file)
    teacher = ["--model=lightning_modules.Distiller", f"--model.teacher={file}"]
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


def test_code_that_hyperparameters_name_is_not_run(
    good: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hubconf.py").write_text(
        f"open({str(tmp_path / 'trace')!r}, 'w')\nfrom lightning_modules.networks import LeNet\n\n"
        "def net(num_classes):\n    return LeNet(num_classes)\n"
    )
    arguments = {"repo_or_dir": str(tmp_path), "model": "net", "source": "local"}
    good["hyper_parameters"]["network"] = {
        "class_path": "lightning_modules.networks.LibraryNetwork",
        "init_args": {"function": "torch.hub.load", "adapt_stem": False, "arguments": arguments},
    }
    file = tmp_path / "evil.ckpt"
    torch.save(good, file)
    options = [*fast, f"--runs_dir={tmp_path}/runs"]
    main(["test", *options, f"--ckpt_path={file}"])
    main(["fit", *options, f"--ckpt_path={file}", "--trainer.max_epochs=2", "--trainer.callbacks=[]"])
    main(["test", *options, f"--model.pretrained={file}"])
    capsys.readouterr()
    for command in (["predict", "a.png"], ["export", "--format=onnx"]):
        with pytest.raises(SystemExit, match="2"):
            main([*command, f"--ckpt_path={file}"])
        assert "evil.ckpt names torch.hub.load to be called, which need not be a part" in capsys.readouterr().err
    assert not (tmp_path / "trace").exists()
    ImageClassifier.load_from_checkpoint(file)  # SECURITY.md warns of this
    assert (tmp_path / "trace").exists()
