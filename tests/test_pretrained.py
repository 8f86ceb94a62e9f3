from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_modules.networks import LeNet
from lightning_modules.pretrained import load_pretrained


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {
            "state_dict": {f"network.{name}": value for name, value in state.items()} | {"loss.w": state["fc3.bias"]}
        },
        lambda state: {f"module.{name}": value for name, value in state.items()},
    ],
    ids=["plain", "checkpoint", "DataParallel"],
)
def test_state_dict_is_loaded_whatever_saved_it(tmp_path: Path, wrap) -> None:
    source, target = LeNet(10), LeNet(10)
    torch.save(wrap(source.state_dict()), tmp_path / "net.pkl")
    load_pretrained(target, str(tmp_path / "net.pkl"))
    assert equal(source, target)


def test_what_matches_is_loaded_and_what_does_not_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, target = LeNet(100), LeNet(10)
    state = source.state_dict()
    del state["conv1.bias"]
    torch.save(state | {"extra": torch.zeros(1)}, tmp_path / "net.pkl")
    with caplog.at_level("INFO"):
        load_pretrained(target, str(tmp_path / "net.pkl"))
    assert torch.equal(source.fc2.weight, target.fc2.weight)
    assert "7 of the network's 10 tensors" in caplog.text
    assert "fc3.weight is (100, 84), not (10, 84)" in caplog.text
    assert "1 not in the file (conv1.bias)" in caplog.text
    assert "1 not in the network (extra)" in caplog.text


def test_what_is_measured_must_be_whole(tmp_path: Path) -> None:
    torch.save(LeNet(100).state_dict(), tmp_path / "net.pkl")
    with pytest.raises(MisconfigurationException, match="8 of the network's 10"):
        load_pretrained(LeNet(10), str(tmp_path / "net.pkl"), whole=True)


def test_nothing_that_matches_is_an_error(tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "net.pkl")
    with pytest.raises(MisconfigurationException, match=r"weights of LeNet at --model\.pretrained, but got 0 of"):
        load_pretrained(LeNet(10), str(tmp_path / "net.pkl"))


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04K*."])
def test_file_that_is_no_state_dict_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pkl").write_bytes(content)
    with pytest.raises(MisconfigurationException, match=r"net\.pkl"):
        load_pretrained(LeNet(10), str(tmp_path / "net.pkl"))


def test_file_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(LeNet(10), tmp_path / "net.pkl")  # a whole module, which needs code to be loaded
    with pytest.raises(MisconfigurationException, match="cannot be loaded safely"):
        load_pretrained(LeNet(10), str(tmp_path / "net.pkl"))


def test_missing_file_is_named() -> None:
    with pytest.raises(MisconfigurationException, match=r"gone\.pkl does not exist"):
        load_pretrained(LeNet(10), "gone.pkl")
