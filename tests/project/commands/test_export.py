"""An exported file gives the probabilities of the checkpoint, or is not written."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import onnxruntime
import pytest
import torch
from test_predict import QUICK, lines_of
from test_readme import block, photo
from torch import Tensor, nn
from training import module_of

from lightning_modules import ImageClassifier
from project.__main__ import main
from project.errors import RunError
from project.inference import export
from project.inference.export import READERS, TOLERANCE, WRITERS, export_classifier, varied_images

NETWORKS = {
    "LeNet": "network: lightning_modules.networks.LeNet\ntta: [crops]",
    "ResNet": "network: {class_path: lightning_modules.networks.ResNet, init_args: {depth: 20}}\nchannels_last: true\n"
    "tta: [flip, translate]",
    "LSTM": "network: {class_path: lightning_modules.networks.Recurrent, init_args: {cell: lstm, bidirectional: true, "
    "hidden_size: 8, num_layers: 2}}",
    "SqueezeNet": "network: {class_path: lightning_modules.networks.ZooNetwork, init_args: {function: "
    "torchvision.models.squeezenet1_1}}\ncompile: true",
}


class Branching(nn.Module):
    """A network with another branch for bright batches."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.fc(images.mean((2, 3)))
        return x if images.mean() < 0 else -x


class Broken(nn.Module):
    """A network that returns NaN."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images.mean((2, 3))) * torch.inf * 0


FAST = {("LeNet", "torch_export")}


@pytest.mark.parametrize(
    ("network", "kind"),
    [pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow) for pair in product(NETWORKS, WRITERS)],
)
def test_file_gives_the_networks_probabilities_for_any_batch_size(network: str, kind: str, tmp_path: Path) -> None:
    classifier = module_of("ImageClassifier", NETWORKS[network]).eval()
    assert isinstance(classifier, ImageClassifier)
    for parameter in classifier.network.parameters():  # so that probabilities of random weights differ between images
        parameter.data.mul_(1.5)
    path = tmp_path / "new" / "model.file"
    assert export_classifier(classifier, kind, path) < TOLERANCE
    assert [file.name for file in path.parent.iterdir()] == ["model.file"]
    answer = READERS[kind](path)
    for count in (1, 3, 33):
        images = varied_images(count, 32)
        got = torch.as_tensor(answer(images))
        assert got.shape == (count, 3)
        assert torch.allclose(got, classifier.classify(images), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "kind", "message"),
    [
        (Branching, "torch_export", "cannot be exported (Could not guard on data-dependent expression"),
        (Branching, "onnx", "Branching cannot be exported ("),
        (Broken, "torch_export", "they differ by nan"),
    ],
)
def test_network_that_a_format_does_not_support_is_an_error_and_leaves_the_older_file(
    network: type[nn.Module], kind: str, message: str, make_classifier: Callable[..., ImageClassifier], tmp_path: Path
) -> None:
    (tmp_path / "model").write_text("old")
    with pytest.raises(RunError) as caught:
        export_classifier(make_classifier(network=network).eval(), kind, tmp_path / "model")
    assert message in str(caught.value)
    assert "Try another --format" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_a_run_whose_transforms_convert_to_floats_is_not_exported(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "floats.yaml"
    to_float = "{class_path: torchvision.transforms.v2.ToDtype, init_args: {dtype: torch.float32}}"  # of 0 to 255
    overlay.write_text(
        "data:\n  init_args:\n    normalize: false\n"
        f"    train_transforms: [{to_float}]\n    eval_transforms: [{to_float}]\n"
    )
    run = main(["fit", *fast, f"--config={overlay}", *QUICK, f"--runs_dir={tmp_path / 'runs'}"]).run_dir
    with pytest.raises(SystemExit, match="2"):
        main(["export", f"--run={run}", "--format=torch_export"])
    assert "Expected --data.eval_transforms that keep images uint8, or normalise them by" in capsys.readouterr().err
    assert not (run / "export").exists()


def test_views_are_included_and_missing_transforms_are_printed(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = tmp_path / "views.yaml"
    overlay.write_text(
        "model:\n  init_args:\n    tta: [flip]\n"
        "data:\n  init_args:\n    eval_transforms:\n"
        "    - {class_path: torchvision.transforms.v2.CenterCrop, init_args: {size: 32}}\n"
    )
    run = main(["fit", *fast, f"--config={overlay}", *QUICK, f"--runs_dir={tmp_path / 'runs'}"]).run_dir
    path = main(["export", f"--run={run}", "--format=torch_export"])
    assert "Views        flip: averaged in the file\nTransforms   CenterCrop are not" in capsys.readouterr().out
    model, images = torch.export.load(path).module(), varied_images(4, 32)
    assert torch.allclose(model(images), model(images.flip(-1)), atol=1e-6)


def test_existing_files_are_not_overwritten(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", f"--run={finished_run}", "--format=torch_export"]
    first, second = main(command), main(command)
    before = first.read_bytes()
    assert first.parent == second.parent
    assert first != second
    lines = lines_of([*command, f"--output={first}"], capsys)
    assert lines == [f"error: Expected a new file at --output, but {first} exists. Use another name, or remove it."]
    assert first.read_bytes() == before


@pytest.mark.slow
def test_example_of_the_pages_needs_no_code_of_the_project(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [main(["export", f"--run={finished_run}", f"--format={kind}"]) for kind in WRITERS]
    out = capsys.readouterr().out
    assert out.count("Checked      40 random images in batches of 1, 2, 7, 30 by ") == 2
    assert out.count("largest difference of a probability ") == 2
    for path in paths:
        shutil.copy(path, tmp_path / f"model{path.suffix}")
    (inputs,) = onnxruntime.InferenceSession(paths[-1]).get_inputs()
    assert (inputs.name, inputs.type, inputs.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    photo(tmp_path / "photo.jpg")
    code = block("python", "onnxruntime")
    code += "\nimport sys\nassert not {'project', 'lightning_modules', 'lightning'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert len(names) == 2
    assert names[0] == names[1] in list("0123456789")


def test_missing_packages_are_named(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    command = ["export", f"--run={finished_run}", "--format=onnx", f"--output={tmp_path / 'new/model'}"]
    lines = lines_of(command, capsys)
    packages = "onnx onnxscript onnxruntime"
    assert lines == [f"error: Expected {', '.join(packages.split())} for --format onnx. Use pip install {packages}."]
    assert not list(tmp_path.iterdir())
