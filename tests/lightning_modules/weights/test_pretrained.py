import io
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors.torch import save, save_file
from torch import nn
from training import trainer_of

from lightning_modules.networks import LeNet
from lightning_modules.weights.pretrained import load_weights, read_state_dict
from project.__main__ import main


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def load_pretrained(network: nn.Module, file: str, whole: bool = False) -> None:
    load_weights(network, read_state_dict(file), file, whole)


def renamed(state: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(state: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


WRAPS = {
    "Lightning": lambda state: {"state_dict": renamed(state, "network."), "epoch": 3},
    "compiled Lightning": lambda state: {"state_dict": renamed(state, "network._orig_mod.")},
    "another LightningModule": lambda state: {"state_dict": renamed(state, "model.") | {"loss.w": torch.ones(1)}},
    "DataParallel": lambda state: renamed(state, "module."),
    "average": lambda state: {"n_averaged": torch.tensor(3)} | renamed(state, "module."),
    "PyTorch's tutorial": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
    "other repositories": lambda state: {"net": renamed(state, "module."), "acc": 93.0},
    "parameters": lambda state: {name: nn.Parameter(value) for name, value in state.items()},
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_state_dict_is_loaded_from_any_wrapper(tmp_path: Path, wrap) -> None:
    source, target = LeNet(10), LeNet(10)
    torch.save(wrap(source.state_dict()), tmp_path / "net.pkl")
    load_pretrained(target, str(tmp_path / "net.pkl"), whole=True)
    assert equal(source, target)


@pytest.mark.parametrize(("suffix", "zipped"), [("pkl", True), ("pth.tar", False), ("safetensors", None)])
@pytest.mark.filterwarnings("error")
def test_file_of_any_age_and_suffix_is_loaded(tmp_path: Path, suffix: str, zipped: bool | None) -> None:
    source, target = LeNet(10), LeNet(10)
    file = tmp_path / f"net.{suffix}"
    if zipped is None:
        save_file(renamed(source.state_dict(), "model."), file)
    else:
        torch.save(source.state_dict(), file, _use_new_zipfile_serialization=zipped)
    load_pretrained(target, str(file))
    assert equal(source, target)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_network_whose_own_names_begin_like_a_prefix_is_loaded(tmp_path: Path, prefix: str) -> None:
    source, target = (nn.ModuleDict({"module": LeNet(10)}) for _ in range(2))
    torch.save(renamed(source.state_dict(), prefix), tmp_path / "net.pt")
    load_pretrained(target, str(tmp_path / "net.pt"), whole=True)
    assert equal(source, target)


def test_two_networks_in_a_file_are_not_confused(tmp_path: Path) -> None:
    student, teacher, target = LeNet(10), LeNet(10), LeNet(10)
    for first, second in [(student, teacher), (teacher, student)]:
        state = {first: renamed(first.state_dict(), "network."), second: renamed(second.state_dict(), "teacher.")}
        torch.save(state[first] | state[second], tmp_path / "net.pt")
        load_pretrained(target, str(tmp_path / "net.pt"))
        assert equal(first, target)


def test_matching_tensors_are_loaded_and_others_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, state = LeNet(10), LeNet(100).state_dict()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    del state["conv1.bias"]
    others = {f"extra{i}": torch.zeros(1) for i in range(9)}
    torch.save(state | {"fc2.bias": 0.5, "epoch": 3} | others, tmp_path / "net.pkl")
    load_pretrained(target, str(tmp_path / "net.pkl"))
    out = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "6 of the network's 10 tensors loaded from" in out
    assert "loaded 6 conv1.weight, conv2.weight, conv2.bias, fc1.weight, fc1.bias, fc2.weight" in out
    assert "mismatched 3 fc2.bias is float, not (84,), fc3.weight is (100, 84), not (10, 84), fc3.bias is" in out
    assert "missing in the file 1 conv1.bias" in out
    assert f"unexpected in the file 10 epoch, {', '.join(list(others)[:7])}, and 2 more" in out
    for name, value in target.state_dict().items():
        left = name in ("conv1.bias", "fc2.bias", "fc3.weight", "fc3.bias")
        assert torch.equal(value, before[name] if left else state[name])


def test_weights_for_evaluation_must_be_complete(tmp_path: Path) -> None:
    torch.save(LeNet(100).state_dict(), tmp_path / "net.pkl")
    target = LeNet(10)
    before = target.fc1.weight.clone()
    with pytest.raises(MisconfigurationException, match=r"8 of the network's 10 .*2 mismatched \(fc3\.weight is"):
        load_pretrained(target, str(tmp_path / "net.pkl"), whole=True)
    assert torch.equal(before, target.fc1.weight)
    torch.save({"module.other": torch.zeros(1)}, tmp_path / "net.pkl")
    with pytest.raises(MisconfigurationException, match=r"got 0 of .* loaded from [^,]*; 10 missing .*\(module\.other"):
        load_pretrained(target, str(tmp_path / "net.pkl"))


STATE = LeNet(10).state_dict()
SAVED, LEGACY, SAFE = saved(STATE), saved(STATE, _use_new_zipfile_serialization=False), save(STATE)


def torchscript() -> bytes:
    with warnings.catch_warnings(action="ignore"):  # about the deprecated format
        return torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save_to_buffer()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


NO_WEIGHTS = {
    "missing": ("net.pkl", None, r"cannot be read \(No such file"),
    "empty": ("net.pkl", b"", "is empty"),
    "web page": ("net.pkl", b"\n<!DOCTYPE html><html></html>", "is a web page"),
    "text": ("net.pkl", b"version https://git-lfs.github.com/spec/v1", "damaged or of another kind"),
    "truncated": ("net.pth", SAVED[: len(SAVED) // 2], "is damaged .*failed finding central directory"),
    "flipped byte": ("net.pth", flipped(SAVED), "is damaged .*wrong checksum"),
    "truncated legacy": ("net.pth", LEGACY[:-9], "is damaged .*unexpected EOF"),
    "TorchScript": ("net.pt", torchscript(), "is damaged or of another kind"),
    "whole network": ("net.pt", saved(LeNet(10)), r"needs code of lightning_modules\.networks\.lenet\.LeNet"),
    "list": ("net.pt", saved([1, 2]), "holds a list"),
    "optimizer": ("net.pt", saved({"state": {0: torch.zeros(1)}, "param_groups": []}), "holds state, param_groups"),
    "nothing": ("net.pt", saved({}), "holds nothing"),
    "truncated safetensors": ("net.safetensors", SAFE[:-9], "is damaged .*deserializing header"),
    "safetensors without that suffix": ("net.pt", SAFE, "damaged or of another kind"),
}


@pytest.mark.parametrize(("name", "content", "message"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_file_without_a_state_dict_is_reported_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str, recwarn: pytest.WarningsRecorder
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MisconfigurationException, match=message) as caught:
        load_pretrained(LeNet(10), str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's message advises to load it unsafely
    assert not recwarn.list


def test_weights_of_a_checkpoint_replace_those_of_a_file(
    make_classifier: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    module = make_classifier(pretrained="lenet.pkl")
    module.on_load_checkpoint({})
    assert module.pretrained is None
    assert not caplog.messages  # of load_from_checkpoint, which names no file
    module = make_classifier(pretrained="lenet.pkl")
    module.trainer = trainer_of()
    module.on_load_checkpoint({})
    assert "lenet.pkl is not loaded, because the weights of the checkpoint replace it." in caplog.messages


def test_recipe_uses_published_weights_and_reports_a_missing_file(
    sample_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Path("configs/finetune_lenet.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    args = ["fit", f"--config={recipe}", "--data=datamodules.SampleDataModule", f"--data.root={sample_root}"]
    args += ["--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--callbacks=false"]
    with pytest.raises(SystemExit):
        main(args)
    err = capsys.readouterr().err
    assert err.startswith("error: Expected a file of weights at --model.pretrained, but lenet.pkl does not exist.")
    assert err.count("\n") == 1

    source = LeNet(10)
    torch.save(source.state_dict(), "lenet.pkl")
    trainer = main(args).trainer
    assert "10 of the network's 10 tensors loaded from lenet.pkl" in capsys.readouterr().out
    peaks = {group["name"]: group["max_lr"] for group in trainer.optimizers[0].param_groups}
    assert peaks["fc3"] == pytest.approx(10 * peaks["default"])
    moved = (trainer.model.network.fc2.weight - source.fc2.weight).abs().max()
    assert 0 < moved < 1e-3  # almost unchanged since loading
