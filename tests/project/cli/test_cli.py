"""Run complete commands on the sample, in this process."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import stop_of
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.preparation.index import read_index
from lightning_modules import ImageClassifier
from lightning_modules.networks import LeNet
from project.__main__ import main
from project.cli.precision import fast_bfloat16
from project.runs.config import load_config, setting

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--callbacks=false"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_module(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Write users_module.py, which can be imported during a test."""
    (folder / "users_module.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "users_module", raising=False)


def test_run_directory_holds_config_record_metrics_and_checkpoints(finished_run: Path) -> None:
    names = {path.name for path in finished_run.iterdir()}
    assert {"config.yaml", "checkpoints", "metrics.csv", "run.json"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {path.name for path in (finished_run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert finished_run.parent.name == "lenet"
    columns = set(rows(finished_run)[0])
    assert {"train/loss_step", "train/loss", "train/acc", "val/loss", "val/acc", "lr-SGD/default"} <= columns


def test_averaged_weights_are_validated_saved_and_tested(fast: list[str], tmp_path: Path) -> None:
    average = ["--callbacks=false", "--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.decay=0.9"]
    cli = main(["fit", *fast, *average, f"--runs_dir={tmp_path}"])
    checkpoint = torch.load(cli.run_dir / "checkpoints/best.ckpt", weights_only=True)
    accuracy = max(float(row["val/acc"]) for row in rows(cli.run_dir) if row.get("val/acc"))
    bias = "network.fc3.bias"
    assert not torch.equal(checkpoint["state_dict"][bias], checkpoint["current_model_state"][bias])
    validated = main(["validate", "--run", str(cli.run_dir)])
    assert validated.trainer.callback_metrics["val/acc"].item() == pytest.approx(accuracy)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_warnings_as_errors_do_not_fail_a_command(
    fast: list[str], sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "all")  # not only the first of a process
    options = ["--trainer.callbacks=[callbacks.EMA]", "--model.loss=torch.nn.MSELoss", "--trainer.max_epochs=1"]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
    assert (run / "checkpoints/best.ckpt").is_file()
    main(["test", f"--run={run}"])
    data = ["--data=datamodules.SampleDataModule", f"--data.root={sample_root}"]
    main(["prepare", "--config=configs/resnet.yaml", *data])  # its model and callbacks are ignored
    main(["predict", f"--run={run}", str(sample_root / read_index(sample_root / "test.txt")[0][0])])


def test_fit_prints_the_run_its_accuracies_and_the_next_commands(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = main(["fit", *fast, *QUICK, f"--runs_dir={tmp_path}", "--test_after_fit=true"])
    lines = capsys.readouterr().out.strip().splitlines()[-4:]
    assert [line.split()[0] for line in lines] == ["Run", "Accuracy", "Measured", "TensorBoard"]  # it is tested already
    assert lines[0].split()[1] == str(cli.run_dir)
    (test,) = (cli.run_dir / "test").iterdir()
    assert f"test {float(rows(test)[-1]['test/acc']):.2%} by {cli.run_dir}/checkpoints/best.ckpt" in lines[2]
    assert lines[3].endswith(f"-m tensorboard.main --logdir {cli.run_dir}")


@pytest.mark.parametrize("command", ["validate", "test"])
def test_last_run_is_evaluated_with_its_best_checkpoint(finished_run: Path, command: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.iterdir() if path.is_file()}
    cli = main([command, "--run", "last", f"--runs_dir={finished_run.parents[1]}", "--report=false"])
    assert cli.run_dir == finished_run
    assert cli.output_dir.parent == finished_run / command
    assert cli.config[command].ckpt_path == str(finished_run / "checkpoints/best.ckpt")
    assert (cli.output_dir / "results.json").is_file()
    if command == "validate":
        best = max(float(row["val/acc"]) for row in rows(finished_run) if row["val/acc"])
        assert float(rows(cli.output_dir)[-1]["val/acc"]) == pytest.approx(best)
    assert {path: path.stat().st_mtime_ns for path in finished_run.iterdir() if path.is_file()} == before


def test_checkpoint_in_a_run_uses_the_runs_config_which_options_override(finished_run: Path) -> None:
    options = ["--callbacks=false", "--data.batch_size=7", "--trainer.limit_test_batches=2", "--report=false"]
    cli = main(["test", f"--ckpt_path={finished_run}/checkpoints/last.ckpt", *options])
    assert cli.output_dir.parent.resolve() == finished_run / "test"
    assert (cli.datamodule.batch_size, cli.trainer.num_test_batches) == (7, [2])
    assert cli.trainer.current_epoch == 1  # of the checkpoint, for captions and metrics
    assert (cli.output_dir / "metrics.csv").read_text().splitlines()[1].startswith("1,")


@pytest.mark.parametrize("name", ["1e-3", "é #1"])
def test_a_run_directory_may_have_any_name(
    name: str, fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["fit", "--config", str(Path("configs/lenet.yaml").absolute()), *fast[2:], *QUICK, "--runs_dir", name]
    monkeypatch.chdir(tmp_path)
    run = main(args).run_dir
    assert load_config(run)["runs_dir"] == name
    assert main(["test", "--run=last", f"--runs_dir={name}"]).run_dir == run


UNUSUAL = [
    (["Timer", "duration=00:00:10:00"], "interval", "step"),
    (["StochasticWeightAveraging", "swa_lrs=1e-3"], "device", "cpu"),
]


@pytest.mark.parametrize(("callback", "key", "value"), UNUSUAL, ids=["Timer", "StochasticWeightAveraging"])
def test_callbacks_with_unusual_arguments_train_and_test(
    callback: list[str], key: str, value: str, fast: list[str], tmp_path: Path
) -> None:
    options = [
        *(*QUICK, f"--trainer.callbacks=lightning.pytorch.callbacks.{callback[0]}"),
        *(f"--trainer.callbacks.{argument}" for argument in callback[1:]),
    ]
    run = main(["fit", *fast, *options, f"--runs_dir={tmp_path}"]).run_dir
    saved = load_config(run)["trainer"]["callbacks"]
    assert (saved[0] if isinstance(saved, list) else saved)["init_args"][key] == value
    main(["test", f"--run={run}"])


USERS = """import torch
from lightning.pytorch import LightningModule
from torch import nn

class Network(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.network = Network(10)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


DEFAULTS = """
class Defaults(Network):
    def __init__(
        self, num_classes, act=nn.ReLU(), acts=[nn.ReLU()], fn=lambda x: x, dtype=torch.float32
    ):
        super().__init__(num_classes)
        assert (act(torch.ones(1)) == acts[0](fn(torch.ones(1)))).all()
        assert dtype is torch.float32
"""


def test_defaults_that_yaml_cannot_represent_are_restored(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, USERS + DEFAULTS)
    run = main(["fit", *fast, *QUICK, "--model.network=users_module.Defaults", f"--runs_dir={tmp_path}"]).run_dir
    assert set(load_config(run)["model"]["init_args"]["network"]["init_args"]) == {"dtype"}
    main(["test", f"--run={run}"])


def test_a_leading_tilde_is_expanded_in_every_path(
    fast: list[str], sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").symlink_to(sample_root)
    torch.save(LeNet(10).state_dict(), home / "net.pkl")
    (home / "mine.yaml").write_text("data: {init_args: {root: ~/data}}\nmodel: {init_args: {pretrained: ~/net.pkl}}\n")
    args = [*fast, *QUICK, f"--config={home}/mine.yaml"]
    args[1] = str(Path(args[1]).absolute())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(home))
    run = main(["fit", *args, "--runs_dir=~/runs"]).run_dir
    assert run.parents[1] == home / "runs"
    config = load_config(run)
    assert [setting(config, f"{key}") for key in ("runs_dir", "data.init_args.root", "model.init_args.pretrained")] == [
        f"{home}/{name}" for name in ("runs", "data", "net.pkl")
    ]
    shorter = f"~/{run.relative_to(home)}"
    assert main(["test", f"--run={shorter}"]).run_dir == run
    assert main(["test", f"--ckpt_path={shorter}/checkpoints/best.ckpt"]).run_dir.resolve() == run.resolve()
    main(["predict", f"--run={shorter}", "~/data/images", "--output=~/predicted"])
    assert (home / "predicted/predictions.csv").is_file()
    assert not list(Path().iterdir())


def test_a_run_is_used_from_another_directory_only_if_its_data_exists_there(
    fast: list[str],
    sample_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere"
    for folder in (start, elsewhere):
        folder.mkdir()
    (start / "data").symlink_to(sample_root)
    args = ["fit", *fast, *QUICK, "--data.root=data"]
    args[2] = str(Path(args[2]).absolute())
    monkeypatch.chdir(start)
    run = main(args).run_dir.absolute()
    monkeypatch.chdir(elsewhere)
    best, config = f"{run}/checkpoints/best.ckpt", f"--config={run}/config.yaml"
    for command in (["test", f"--run={run}"], ["validate", f"--ckpt_path={best}"], ["fit", config]):
        code, err = stop_of(command, capsys)
        assert code == 2
        assert err.endswith(f" Run the command in {start}, or set --data.root.\n")
    main(["predict", f"--run={run}", str(sample_root / "images")])  # needs no data
    assert main(["validate", f"--run={run}", f"--data.root={sample_root}"]).datamodule.root == sample_root
    assert not list(elsewhere.iterdir())
    (elsewhere / "data").symlink_to(sample_root)
    assert main(["test", f"--run={run}"]).run_dir == run


def test_a_checkpoint_alone_classifies_a_png(finished_run: Path, sample_root: Path, tmp_path: Path) -> None:
    shutil.copy(finished_run / "checkpoints/best.ckpt", tmp_path)
    cli = main(["test", f"--run={finished_run}", "--trainer.enable_progress_bar=false"])
    module = ImageClassifier.load_from_checkpoint(tmp_path / "best.ckpt").eval()
    assert module.class_names == list("0123456789")
    right = 0
    entries = read_index(sample_root / "test.txt")
    for path, label in entries:
        pixels = np.array(Image.open(sample_root / path))
        probabilities = module.classify(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        assert probabilities.sum().item() == pytest.approx(1)
        right += probabilities.argmax().item() == label
    assert right / len(entries) == pytest.approx(cli.trainer.callback_metrics["test/acc"].item())


def test_published_weights_are_evaluated_without_a_run(fast: list[str], tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = LeNet(10)
    torch.save(network.state_dict(), tmp_path / "net.pkl")
    cli = main(["test", *fast, f"--model.pretrained={tmp_path}/net.pkl", f"--runs_dir={tmp_path}/runs"])
    assert torch.equal(cli.model.network.fc3.weight, network.fc3.weight)
    assert cli.output_dir.parent.name == "test"
    assert not (cli.run_dir / "config.yaml").exists()  # so that `last` does not find it


def test_checkpoint_overrides_the_pretrained_weights_it_started_from(fast: list[str], tmp_path: Path) -> None:
    torch.save(LeNet(10).state_dict(), tmp_path / "net.pkl")
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    fitted = main(["fit", *fast, *quick, f"--model.pretrained={tmp_path}/net.pkl", f"--runs_dir={tmp_path}/runs"])
    (tmp_path / "net.pkl").unlink()  # the run does not need it
    tested = main(["test", f"--run={fitted.run_dir}"])
    assert torch.equal(tested.model.network.fc3.weight, fitted.model.network.fc3.weight)


def test_no_logger_leaves_config_and_checkpoints_in_the_run(fast: list[str], tmp_path: Path) -> None:
    cli = main(
        ["fit", *fast, *QUICK, "--callbacks.learning_rate=true", "--trainer.logger=false", f"--runs_dir={tmp_path}"]
    )
    names = {path.name for path in cli.run_dir.iterdir()} - {"uncommitted.diff"}
    assert names == {"config.yaml", "run.json", ".lock", "checkpoints"}


def test_fast_dev_run_and_no_checkpoints_succeed(fast: list[str], tmp_path: Path) -> None:
    main(["fit", *fast, "--trainer.fast_dev_run=true", f"--runs_dir={tmp_path}"])
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1"]
    cli = main(["fit", *fast, *quick, "--trainer.enable_checkpointing=false", f"--runs_dir={tmp_path}"])
    assert not (cli.run_dir / "checkpoints").exists()


BASE = ["--config=configs/resnet.yaml"]
MISTAKES = {
    "--data=datamodules.SampleDataModul": "Did you mean datamodules.SampleDataModule?",
    "--data=SampleDataModul": "Did you mean datamodules.SampleDataModule?",
    "--model.network=lightning_modules.networks.ResNett": "Did you mean lightning_modules.networks.ResNet?",
    "--trainer.callbacks+=callback.ConfusionMatrix": "Did you mean callbacks.ConfusionMatrix?",
    "--config=configs/sampel.yaml": "Expected a file, but configs/sampel.yaml does not exist. Did you mean config",
    "--trainer.max_epochs=many": "Expected int for trainer.max_epochs, but got many.",
    "--model.network.depth=21": "Expected Literal[18, 20, 32, 34, 44, 50, 56, 110] for depth, but got 21.",
    "--model.loss=[1]": "Expected Module for loss, but got [1].",
    "--trainer.callbacks=[5]": "Expected list[Callback], Callback for trainer.callbacks, but got [5].",
    "--data.batch_size=0": "Expected PositiveInt for batch_size, but got 0.",
    "--data.batch_size=many": "Expected PositiveInt for batch_size, but got many.",
    "--seed_everything=-1": "-1 is not in bounds, numpy accepts from 0 to 4294967295. Change --seed_everything.",
    "--model.param_groups=[{lr: 1}]": "Expected a value for pattern in model.param_groups, but got none.",
    "--model.lr_scheduler=torch.optim.lr_scheduler.StepLR": "Expected a value for step_size in model.lr_scheduler",
    "--model.network=lightning_modules.networks.ZooNetwork": "Expected a value for function in model, but got none.",
    "--ckpt_path=gone.ckpt": "gone.ckpt does not exist",
    "--model.pretrained=gone.pkl": "Expected a file of weights at --model.pretrained, but gone.pkl does not exist.",
    "configs/lenet.yaml": "Expected --config before a config file, but got configs/lenet.yaml: --config configs/lenet",
}


@pytest.mark.parametrize("option", MISTAKES)
def test_mistake_is_one_line_with_the_closest_valid_name(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = stop_of(["fit", *BASE, option], capsys)
    assert code == 2
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert MISTAKES[option] in err


WEIGHTED = ["--model.loss=torch.nn.CrossEntropyLoss", "--model.loss.weight=[1,2,1,1,1,1,1,1,1,0.5]"]


def test_weights_of_classes_are_saved_as_numbers(fast: list[str], tmp_path: Path) -> None:
    run = main(["fit", *fast, *WEIGHTED, "--trainer.max_epochs=1", f"--runs_dir={tmp_path}"]).run_dir
    again = main(["fit", f"--run={run}", "--trainer.max_epochs=2"])
    assert again.model.loss.weight.tolist() == [1, 2, 1, 1, 1, 1, 1, 1, 1, 0.5]
    saved = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["loss"]["init_args"]["weight"] == again.model.loss.weight.tolist()
    module = ImageClassifier.load_from_checkpoint(run / "checkpoints/best.ckpt")
    assert torch.equal(module.loss.weight, again.model.loss.weight)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fit"], "Put --config configs/resnet.yaml, or another recipe, before all overlays."),
        (["fit", "--config=configs/sample.yaml"], "Put --config configs/resnet.yaml, or another recipe, before"),
        (["test", *BASE], "--run last"),
        (["test"], "--run last"),
        (["test", "--run"], "a value for --run"),
        (["test", "--run=last", "--runs_dir=nowhere"], "but found none"),
        (["validate", "--run=nowhere"], "but got nowhere"),
    ],
)
def test_missing_options_are_named(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = stop_of(args, capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {max_epochs: 3\nmodel: [", "{}:2 is not YAML"),
        ("# nothing yet\n", "lines in {}, but it is empty"),
        ("trainer: [1]\n", "Expected keys and values below `trainer:`, but got a list."),
    ],
)
def test_mistake_in_a_file_is_named_with_its_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    code, err = stop_of(["fit", *BASE, f"--config={tmp_path}/mine.yaml"], capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert message.format(tmp_path / "mine.yaml") in err


def test_users_network_replaces_that_of_a_recipe(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_module(tmp_path, monkeypatch, USERS)
    cli = main(["fit", *BASE, *fast[2:], *QUICK, f"--runs_dir={tmp_path}", "--model.network=users_module.Network"])
    assert type(cli.model.network).__name__ == "Network"


def test_users_module_is_trained(fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module(tmp_path, monkeypatch, USERS)
    options = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--checkpoint.monitor=null"]
    cli = main(["fit", *fast[2:], *options, "--model=users_module.Module", f"--runs_dir={tmp_path}"])
    assert cli.trainer.global_step == 2


def test_sample_stacks_on_a_recipe_and_trains_its_network(sample_root: Path, tmp_path: Path) -> None:
    configs = ["--config=configs/resnet20.yaml", "--config=configs/sample.yaml", f"--data.root={sample_root}"]
    options = [*QUICK, "--data.num_workers=0", "--trainer.enable_progress_bar=false", "--test_after_fit=false"]
    cli = main(["fit", *configs, *options, "--report=false", f"--runs_dir={tmp_path}"])
    assert cli.trainer.global_step == 1
    assert type(cli.model.network).__name__ == "ResNet"
    assert cli.run_dir.parent.name == "resnet20-sample"


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_precision_is_the_users(precision: str, fast: list[str], tmp_path: Path) -> None:
    cli = main(["fit", *fast, *QUICK, f"--trainer.precision={precision}", f"--runs_dir={tmp_path}"])
    assert cli.trainer.callback_metrics["train/loss"] > 0


def test_precision_follows_what_is_faster_on_the_cpu_and_is_recorded(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for feature, cpu, is_faster in (
        ("amx_bf16", "Intel(R) Xeon(R)", True),
        ("avx512_bf16", "Intel(R) Xeon(R)", False),
        ("avx2", "AMD EPYC", False),
        ("avx512_bf16", "AMD EPYC", True),
    ):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda feature=feature: {feature: True})
        monkeypatch.setattr("project.cli.precision.processor", lambda cpu=cpu: {"cpu": cpu})
        assert (fast_bfloat16("cpu") is not None) == is_faster
    cli = main(["fit", *fast, *QUICK, "--auto_precision=true", f"--runs_dir={tmp_path}"])
    assert cli.trainer.precision == setting(load_config(cli.run_dir), "trainer.precision") == "bf16-mixed"


BROKEN = """from lightning.pytorch import Callback


class Mine(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch:
            self.answer = 1 / 0
"""


def test_error_in_a_callback_is_reported_with_its_own_frame_and_keeps_the_run_intact(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_module(tmp_path, monkeypatch, BROKEN)
    options = ["--trainer.callbacks+=users_module.Mine", "--callbacks=false", "--callbacks.confusion_matrix=true"]
    code, err = stop_of(["fit", *fast, *options, f"--runs_dir={tmp_path}/runs"], capsys)
    assert code == 1
    assert "users_module.py" in err
    assert "self.answer = 1 / 0" in err
    assert "error: ZeroDivisionError: division by zero" in err
    assert "site-packages" not in err.split("Traceback")[-1].split("error:")[0]
    (run,) = (tmp_path / "runs/lenet").iterdir()
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    ImageClassifier.load_from_checkpoint(run / "checkpoints/last.ckpt")
    scalars = EventAccumulator(str(run)).Reload()
    assert len(scalars.Scalars("val/acc")) == 1
    assert "confusion_matrix/val" in scalars.Tags()["images"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (BROKEN.replace("1 / 0", "open('gone.json')"), ["gone.json", "users_module.py:7"]),
        ("import os\nimport numpyy\n\nclass Mine: pass\n", ["No module named 'numpyy'", "users_module.py:2"]),
    ],
    ids=["missing file", "broken import"],
)
def test_mistake_in_a_users_module_is_reported_with_its_line(
    source: str,
    words: list[str],
    fast: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_module(tmp_path, monkeypatch, source)
    options = ["--callbacks=false", "--trainer.callbacks=users_module.Mine", f"--runs_dir={tmp_path}/runs"]
    code, err = stop_of(["fit", *fast, "--trainer.limit_train_batches=1", *options], capsys)
    assert code == 2
    assert all(word in err.splitlines()[-1] for word in words), err


def test_help_of_fit_begins_with_the_options_of_model_and_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    out = capsys.readouterr().out
    options = ["--trainer.max_epochs", "--model.optimizer", "--model.pretrained", "--data.archive", "--data.batch_size"]
    for option in [*options, "--runs_dir", "--checkpoint.save_last", "--config", "--print_config"]:
        assert option in out
    assert "--model.class_names" not in out
    options = ("--model.optimizer", "--data.batch_size", "--runs_dir", "--model.help", "--checkpoint", "--trainer")
    places = [out.index(f"\n  {option}") for option in options]
    assert places == sorted(places)
    assert out.index("Options of ImageClassifier") < 3 * 80  # after the usage and a description
    assert "known subclasses" not in out
