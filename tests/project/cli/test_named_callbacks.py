from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import stop_of
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule

from callbacks import EMA, FeatureMaps, GradCAM, Histograms
from lightning_modules import ImageClassifier
from project.__main__ import main
from project.cli import named_callbacks
from project.cli.named_callbacks import default_callbacks, with_named

ALL_OFF = dict.fromkeys(default_callbacks(), False)
EARLY = "lightning.pytorch.callbacks.EarlyStopping"


class Marker(Callback):
    """A user's callback."""


@pytest.fixture
def parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that returns the callbacks of a command line with an overlay, as --print_config shows them."""

    def parse(options: list[str], overlay: str = "") -> dict[str, Any]:
        (tmp_path / "overlay.yaml").write_text(overlay)
        overlays = ["--config", f"{tmp_path}/overlay.yaml"] if overlay else []
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", "configs/lenet.yaml", *overlays, *options, "--print_config"])
        assert not stop.value.code
        return yaml.safe_load(capsys.readouterr().out)["callbacks"]

    return parse


def test_an_argument_of_a_callback_is_changed_by_its_name(parse: Any) -> None:
    default = parse([])
    assert default["histograms"]["init_args"]["every_n_epochs"] is None
    option = parse(["--callbacks.histograms.every_n_epochs", "5"])
    overlay = parse([], "callbacks: {histograms: {every_n_epochs: 5}}")
    assert option == overlay
    assert option["histograms"]["init_args"].pop("every_n_epochs") == 5
    default["histograms"]["init_args"].pop("every_n_epochs")
    assert option == default


def test_a_callback_is_switched_off_and_on_by_its_name(parse: Any) -> None:
    default = parse([])
    off = parse(["--callbacks.feature_maps", "false"])
    assert off == default | {"feature_maps": False} == parse([], "callbacks: {feature_maps: false}")
    assert parse(["--callbacks.feature_maps", "true"], "callbacks: {feature_maps: false}") == default
    again = parse(["--callbacks.learning_rate=false", "--callbacks.learning_rate=true"])
    assert again["learning_rate"]["init_args"]["log_momentum"] is True  # with the arguments of callbacks.yaml


def test_all_callbacks_are_switched_off_at_once(parse: Any) -> None:
    assert parse(["--callbacks", "false"]) == parse(["--callbacks=false"]) == parse([], "callbacks: false") == ALL_OFF
    only = parse(["--callbacks", "false", "--callbacks.throughput", "true"])
    assert [name for name, entry in only.items() if entry] == ["throughput"]
    own = parse(["--callbacks", "false"], f"callbacks: {{early: {{class_path: {EARLY}, init_args: {{monitor: x}}}}}}")
    assert own == ALL_OFF | {"early": False}


def test_a_later_option_overrides_an_earlier_one(parse: Any) -> None:
    marker = ["--callbacks.marker", "test_named_callbacks.Marker"]
    assert parse([*marker, "--callbacks", "false"]) == ALL_OFF | {"marker": False}
    assert parse(["--callbacks.histograms.every_n_epochs=2", "--callbacks.histograms=false"])["histograms"] is False
    assert parse(["--callbacks.histograms=true", "--callbacks=false"]) == ALL_OFF


def test_a_config_may_be_text(parse: Any) -> None:
    assert parse(["--config", "{callbacks: false}"]) == ALL_OFF
    own = parse(["--config", "{callbacks: {marker: {class_path: test_named_callbacks.Marker}}}"])
    assert own["marker"] == {"class_path": "test_named_callbacks.Marker"}
    long = Path("configs/resnet.yaml").read_text() + "#" * 5000  # longer than a file name may be
    assert parse(["--config", long])["ema"]["class_path"] == "callbacks.EMA"


def test_there_may_be_no_default_callbacks(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_callbacks, "DEFAULTS", tmp_path / "none.yaml")
    trainer = main(["fit", *fast, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).trainer
    assert not any(isinstance(item, Histograms | FeatureMaps) for item in trainer.callbacks)
    assert "Did you mean --trainer.max_epochs?" in stop_of(["fit", *fast, "--trainer.max_epoch=1"], capsys)[1]


def test_ones_own_callback_needs_a_file_and_an_entry(parse: Any, fast: list[str], tmp_path: Path) -> None:
    own = parse([], "callbacks: {marker: test_named_callbacks.Marker}")
    assert own == parse(["--callbacks.marker", "test_named_callbacks.Marker"])
    options = ["--callbacks=false", "--callbacks.marker=test_named_callbacks.Marker", "--trainer.max_epochs=1"]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"])
    assert sum(type(item) is Marker for item in run.trainer.callbacks) == 1
    resumed = main(["fit", "--run", str(run.run_dir), "--trainer.max_epochs=2"])  # its config.yaml has the entry
    assert sum(type(item) is Marker for item in resumed.trainer.callbacks) == 1


def test_a_callback_in_the_list_of_the_trainer_replaces_the_default(
    make_classifier: Callable[..., ImageClassifier], caplog: pytest.LogCaptureFixture
) -> None:
    maps, ema, cam, module = FeatureMaps(), EMA(), GradCAM(), make_classifier()
    named = Namespace(feature_maps=FeatureMaps(), grad_cam=cam, mistakes=False, mine=Marker(), embeddings=None)
    assert with_named([maps, ema], named, module) == [cam, named.mine, maps, ema]
    assert with_named(ema, None, module) == [ema]
    assert with_named(None, None, module) == []
    with caplog.at_level("INFO"):
        assert with_named(None, named, LightningModule()) == [named.feature_maps, named.mine]
    assert "Off, because LightningModule is not an ImageClassifier: grad_cam." in caplog.text


def test_a_named_callback_is_checked_like_others(fast: list[str], tmp_path: Path) -> None:
    early = ["--callbacks=false", f"--callbacks.early={EARLY}", "--callbacks.early.monitor=val/acc"]
    trainer = main(["fit", *fast, *early, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).trainer
    (stopping,) = trainer.early_stopping_callbacks
    assert stopping.mode == "max"  # completed by the name of the metric


@pytest.mark.parametrize(
    ("options", "overlay", "message"),
    [
        (["--callbacks"], "", "but got no value."),
        ([], "callbacks: [callbacks.GradCAM]", "Expected keys and values below `callbacks:`, but got a list."),
        (["--callbacks", "GradCAM"], "", "Expected --callbacks false, or --callbacks.NAME with a name of"),
        (["--callbacks.mine", "callbacks.Nothing"], "", "callbacks has no 'Nothing'"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    options: list[str], overlay: str, message: str, fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "overlay.yaml").write_text(overlay or "seed_everything: 0")
    code, err = stop_of(
        ["fit", *fast, "--config", f"{tmp_path}/overlay.yaml", *options, f"--runs_dir={tmp_path}"], capsys
    )
    assert code == 2
    assert message.format(tmp_path) in err
    assert err.count("\n") == 1


def test_callbacks_that_are_off_stay_off_in_a_resumed_run(fast: list[str], tmp_path: Path) -> None:
    own = ["--callbacks.marker=test_named_callbacks.Marker", "--callbacks=false", "--trainer.max_epochs=1"]
    run = main(["fit", *fast, *own, f"--runs_dir={tmp_path}"]).run_dir
    assert yaml.safe_load((run / "config.yaml").read_text())["callbacks"] == ALL_OFF | {"marker": False}
    for command in (["fit", "--run", str(run), "--trainer.max_epochs=2"], ["test", "--run", str(run)]):
        trainer = main(command).trainer
        assert not any(isinstance(item, Histograms | Marker) for item in trainer.callbacks)
