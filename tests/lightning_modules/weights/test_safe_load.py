import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from failing import RunsCode

from lightning_modules.weights.safe_load import LoadError, check_names, load_safely


def test_tensors_and_plain_values_are_loaded(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "names": ["a"], "weights": torch.ones(2)}, tmp_path / "a.ckpt")
    loaded = load_safely(tmp_path / "a.ckpt")
    assert (loaded["epoch"], loaded["names"], loaded["weights"].tolist()) == (3, ["a"], [1, 1])


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_never_run(tmp_path: Path, how: str, forced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if forced:  # a common workaround for old files
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
    if how == "pickle":
        file.write_bytes(pickle.dumps(RunsCode(trace), protocol=2))
    else:
        torch.save({"state_dict": RunsCode(trace)}, file, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(LoadError, match="needs code of"):
        load_safely(file)
    assert not trace.exists()
    torch.load(file, weights_only=False) if how != "pickle" else pickle.loads(file.read_bytes())
    assert trace.exists()  # the code was real


def test_file_that_would_unpack_to_more_than_it_has_is_refused(tmp_path: Path) -> None:
    saved = io.BytesIO()
    torch.save({"weights": torch.zeros(1_000_000)}, saved)
    with zipfile.ZipFile(saved) as plain, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "a.pt").stat().st_size < 10_000
    with pytest.raises(LoadError, match="would unpack to more bytes than it has"):
        load_safely(tmp_path / "a.pt")


def test_the_reason_for_a_read_error_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^cannot be read \(Is a directory"):
        load_safely(tmp_path)
    with pytest.raises(LoadError, match=r"^cannot be read \(No such file"):
        load_safely(tmp_path / "gone.ckpt")


@pytest.mark.parametrize(
    "network",
    [
        {
            "class_path": "lightning_modules.networks.LeNet",
            "init_args": {"pattern": "conv1.weight", "act": "torch.nn.GELU"},
        },
        {"class_path": "lightning_modules.networks.ZooNetwork", "init_args": {"function": "timm.models.resnet18"}},
        {"class_path": "failing.MyNetwork", "init_args": {"names": ["a.b", "fc3.*", "e.g. os.system", ".os"]}},
        "torchvision.models.resnet18",
    ],
)
def test_a_checkpoint_may_name_parts_of_networks_and_files_of_your_own(network: Any) -> None:
    check_names({"hyper_parameters": {"network": network, "class_names": ["os.path", "re"]}})
    check_names({"state_dict": {}})
    check_names(["os.path"])


@pytest.mark.parametrize(
    "path", ["torch.hub.load", "os.system", "sys.exit", "json.loads", "numpy.load", "yaml.unsafe_load"]
)
def test_a_checkpoint_that_names_other_code_is_refused(path: str) -> None:
    for network in (path, {"class_path": path}, {"init_args": {"arguments": [{"deep": (path,)}]}}):
        with pytest.raises(LoadError, match=f"calls {path}, which is not known"):
            check_names({"hyper_parameters": {"network": network}})
