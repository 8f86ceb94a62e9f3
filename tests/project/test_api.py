import json
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from command_line import stop_of
from PIL import Image
from torch import nn

from project import fit, load
from project.__main__ import main
from project.errors import RunError

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "tour.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]


class InPlace(nn.Module):
    """Applies an activation in place to the output of a layer."""

    def __init__(self, num_classes: int, fails: bool = False) -> None:
        super().__init__()
        if fails:
            raise LookupError("of the user")
        self.conv = nn.Conv2d(3, 4, 5)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(images).relu_().mean((2, 3)))


def settings_of(fast: list[str], runs: Path, **options: Any) -> dict[str, Any]:
    """Return the options of the fixture ``fast`` as a mapping, for a run without callbacks."""
    given = dict(option.removeprefix("--").split("=") for option in fast if "=" in option)
    return {"data": "datamodules.SampleDataModule", **given, "callbacks": False, "runs_dir": runs, **options}


def without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def test_fit_returns_the_same_results_twice_in_a_process_and_in_a_thread(fast: list[str], tmp_path: Path) -> None:
    settings = settings_of(fast, tmp_path)
    first, runs = fit("configs/lenet.yaml", settings), []
    thread = threading.Thread(target=lambda: runs.append(fit("configs/lenet.yaml", settings, {"test_after_fit": True})))
    thread.start()
    thread.join()
    runs.append(fit("configs/lenet.yaml", settings))
    assert [without_times(run.metrics) for run in runs] == [without_times(first.metrics)] * 2
    assert len({first.path, *(run.path for run in runs)}) == 3
    assert first.metrics["val/acc"] > 0
    assert first.result.state == "finished"
    assert runs[0].result.test is not None
    assert first.result.test is None


@pytest.mark.parametrize(
    "options",
    [
        {"trainer.max_epoch": 3},
        {"trainer.max_epochs": "many"},
        {"model.network": "lightning_modules.networks.LeNett"},
        {"data.root": "/dev/null/data"},
        {"model.optimizer.lr": 1e30, "model.lr_scheduler": None},
        {"config": "configs/lenett.yaml"},
    ],
)
def test_an_error_is_raised_with_the_message_of_the_command_line(
    options: dict[str, Any], fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RunError) as raised:
        fit("configs/lenet.yaml", settings_of(fast, tmp_path), options)
    assert "error: " not in capsys.readouterr().err
    words = [f"--{name}={'null' if value is None else value}" for name, value in options.items()]
    code, err = stop_of(["fit", *fast, "--callbacks=false", f"--runs_dir={tmp_path}", *words], capsys)
    assert code == 2
    assert err.splitlines()[-1] == f"error: {raised.value}"


def test_a_value_that_is_no_setting_is_rejected() -> None:
    with pytest.raises(RunError, match=r"what JSON can represent for trainer\.max_epochs, .*object"):
        fit("configs/lenet.yaml", {"trainer.max_epochs": object()})


def test_an_error_of_the_users_code_is_not_changed(fast: list[str], tmp_path: Path) -> None:
    options = {"model.network": InPlace, "model.network.fails": True}
    with pytest.raises(LookupError, match="of the user"):
        fit("configs/lenet.yaml", settings_of(fast, tmp_path), options)


def test_a_class_is_a_value_and_its_feature_maps_are_those_before_an_activation_in_place(
    fast: list[str], sample_root: Path, tmp_path: Path
) -> None:
    run = fit("configs/lenet.yaml", settings_of(fast, tmp_path), {"model.network": InPlace, "trainer.max_epochs": 1})
    classifier = load(run.path)
    file = images_of(sample_root)[0]
    maps = classifier.feature_maps(file)
    assert {name: tuple(each.shape) for name, each in maps.items()} == {"conv": (4, 28, 28), "head": (10,)}
    assert (maps["conv"] < 0).any()
    assert torch.equal(classifier.feature_maps(Image.open(file), "c*")["conv"], maps["conv"])
    assert not any(module._forward_hooks for module in classifier.module.modules())


def images_of(root: Path, count: int = 3) -> list[str]:
    """Return image files of the sample."""
    return [str(root / line.split()[0]) for line in (root / "test.txt").read_text().splitlines()[:count]]


def test_predictions_are_those_of_the_command(plain_run: Path, sample_root: Path, tmp_path: Path) -> None:
    files = images_of(sample_root)
    main(["predict", f"--run={plain_run}", f"--output={tmp_path}/out", *files])
    expected = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    for run in (plain_run, plain_run / "checkpoints/best.ckpt"):
        predictions = load(run).predict(files)
        assert [(each.file, each.name) for each in predictions] == [
            (each["file"], each["predicted"]) for each in expected
        ]
        for prediction, image in zip(predictions, expected, strict=True):
            assert list(prediction.probabilities.values()) == pytest.approx(image["probabilities"])
            assert prediction.probability == max(prediction.probabilities.values())


def test_pil_images_are_classified_like_their_files(plain_run: Path, sample_root: Path) -> None:
    files, classifier = images_of(sample_root), load(plain_run)
    predictions = classifier.predict([Image.open(file) for file in files])
    assert [each._replace(file=None) for each in classifier.predict(files)] == predictions
    turned = Image.open(files[0]).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # a camera's flag: turn by 90 degrees clockwise
    assert classifier.predict(turned) == predictions[:1]
    assert len(classifier.predict([Image.new(mode, (50, 90)) for mode in ("CMYK", "L", "RGBA", "P", "1")])) == 5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("gone.png", "gone.png is missing"),
        ([f"{ROOT}/README.md"], "README.md is not a readable image"),
        (f"{ROOT}/configs", "found none in .*configs"),
        ([], "found none in an empty list"),
    ],
)
def test_what_is_no_image_is_an_error(images: Any, message: str, plain_run: Path) -> None:
    with pytest.raises(RunError, match=f"Expected images, but .*{message}"):
        load(plain_run).predict(images)


def test_a_missing_run_checkpoint_or_layer_is_an_error(plain_run: Path, sample_root: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"Expected a run in .* for `last`, but found none"):
        load("last", tmp_path)
    with pytest.raises(RunError, match=r"lenet\.yaml is damaged or of another kind"):
        load("configs/lenet.yaml")
    with pytest.raises(RunError, match=r"Expected 'cnv1' to match a layer .* Among them are conv1"):
        load(plain_run).feature_maps(images_of(sample_root)[0], "cnv1")


def test_a_notebook_shows_the_report_of_a_run(fast: list[str], tmp_path: Path) -> None:
    pytest.importorskip("project.report")  # an extra
    settings = settings_of(fast, tmp_path)
    short = {"trainer.max_epochs": 1, "trainer.limit_train_batches": 1}
    assert "iframe" not in fit("configs/lenet.yaml", settings, short)._repr_html_()
    run = fit("configs/lenet.yaml", settings, short, {"report": True})
    page = run._repr_html_()
    assert page.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert page.count('"') == 6  # no quote of the report ends the attribute


def test_the_notebook_is_stored_without_outputs() -> None:
    for cell in CELLS:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    notebook = ModuleType("notebook")  # where its classes are
    monkeypatch.setitem(sys.modules, "notebook", notebook)
    for cell in CELLS:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), notebook.__dict__)
    assert notebook.__dict__["run"].result.test > 0.95
    assert notebook.__dict__["prediction"].name == Path(notebook.__dict__["file"]).parent.name
    assert len(list(tmp_path.glob("runs/lenet-sample/*/test"))) == 2
