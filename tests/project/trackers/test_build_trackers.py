import csv
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import stop_of
from lightning.pytorch.loggers import Logger
from tracked import CALLBACKS, STEPS, state

from callbacks.tools.histogram import gather
from project.__main__ import main
from project.errors import RunError
from project.runs.results import read_result
from project.trackers import base, build
from project.trackers.base import BINS, protect, uniform_bins
from project.trackers.build import log_settings
from project.trackers.trackio_logger import TrackioLogger

QUIET = ["--callbacks=false", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
OWN = "--trainer.logger+=lightning.pytorch.loggers.CSVLogger"


class Server(Logger):
    """A tracker whose server is down."""

    name, version = "server", "1"
    calls = 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Fail."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.calls += 1
        raise ConnectionError("refused")


class Record(TrackioLogger):
    """A tracker that records its settings."""

    def log_settings(self, settings: dict[str, Any], commit: str | None) -> None:
        self.settings = settings


def test_a_logger_is_added_to_the_files_of_the_run(fast: list[str], tmp_path: Path) -> None:
    own = [OWN, f"--trainer.logger.save_dir={tmp_path}/own", OWN, f"--trainer.logger.save_dir={tmp_path}/second"]
    run = main(["fit", *fast, *QUIET, *own, f"--runs_dir={tmp_path}/runs"]).run_dir
    assert list(run.glob("events.out.tfevents.*"))
    tables = [run / "metrics.csv", *tmp_path.glob("own/**/metrics.csv"), *tmp_path.glob("second/**/metrics.csv")]
    accuracies = [[row["val/acc"] for row in csv.DictReader(table.open()) if row["val/acc"]] for table in tables]
    assert len(accuracies) == 3
    assert accuracies[0] == accuracies[1] == accuracies[2] != []
    assert "trackers" not in json.loads((run / "run.json").read_text())  # it has no run to continue
    assert "CSVLogger" not in read_result(run)[0].settings  # repeats may have different trackers


def test_a_tracker_that_only_a_comment_names_need_not_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    build.check_installed("trainer:  # without WandbLogger\n  max_epochs: 3")
    with pytest.raises(RunError, match="Expected the package wandb for WandbLogger"):
        build.check_installed("--config=mine.yaml\ntrainer:\n  logger: lightning.pytorch.loggers.WandbLogger")


@pytest.mark.parametrize("unknown", [[], ["--trainer.logger.unknown=1"]])
@pytest.mark.parametrize("overlay", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_with_its_command(
    overlay: str,
    unknown: list[str],
    fast: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None if name == overlay else find_spec(name))
    args = ["fit", *fast, *QUIET, f"--config=configs/{overlay}.yaml", f"--runs_dir={tmp_path}/runs"]
    code, error = stop_of([*args, *unknown], capsys)
    assert code == 2
    assert error.endswith(f"but it is not installed. Install it: python -m pip install {overlay}\n")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_an_unknown_tracker_is_reported_as_any_class(fast: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, error = stop_of(["fit", *fast, "--trainer.logger+=lightning.pytorch.loggers.WandLogger"], capsys)
    assert code == 2
    assert "Did you mean lightning.pytorch.loggers.WandbLogger?" in error


def test_errors_of_a_tracker_are_one_warning_and_a_count(
    fast: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = f"--trainer.logger={__name__}.Server"
    cli = main(["fit", *fast, *QUIET, logger, "--trainer.log_every_n_steps=1", f"--runs_dir={tmp_path}"])
    (server,) = [logger for logger in cli.trainer.loggers if isinstance(logger, Server)]
    assert server.calls == 1  # it is not called again for a minute
    texts = [str(warning.message) for warning in recwarn if "Server" in str(warning.message)]
    assert texts[0] == (
        "Server could not log_metrics (ConnectionError: refused). Training continues; it is tried again after 60 s."
    )
    assert texts[1].startswith("Server lacks the data of ")
    assert len(texts) == 2


def test_a_tracker_is_called_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PAUSE", 0.0)
    server = Server()
    protect(server)
    with pytest.warns(UserWarning, match="refused"):
        server.log_metrics({"a": 1.0}, 0)
    server.log_metrics({"a": 1.0}, 1)
    server.log_metrics({"a": 1.0}, 2)
    assert server.calls == 3
    with pytest.warns(UserWarning, match="of 3 calls"):
        server.finalize("success")


def test_settings_are_flat_and_have_no_passwords() -> None:
    tracker = Record()
    given = {"seed_everything": 0, "trainer": {"logger": [{"class_path": "a.B", "init_args": {"key": "x"}}], "a": None}}
    log_settings({"Record": tracker}, given | {"model": {"init_args": {"lr": 0.1, "sizes": [1, 2]}}}, "abc")
    assert tracker.settings == {"seed_everything": 0, "model.init_args.lr": 0.1, "model.init_args.sizes": "[1, 2]"}


def test_bins_of_equal_width_have_the_counts_of_the_values() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    histogram = gather({"a": values})["a"]
    counts, edges = uniform_bins(histogram)
    assert (len(counts), len(edges), counts.sum()) == (BINS, BINS + 1, 20_000)
    expected = np.histogram(values.numpy(), edges)[0]
    assert abs(counts - expected).max() < 150  # at most 10 % of a bucket is on the other side of an edge
    equal = gather({"a": torch.full((7,), 5.0)})["a"]
    counts, edges = uniform_bins(equal)
    assert counts.sum() == 7
    assert (np.diff(edges) >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["wandb", "mlflow"])
def test_a_killed_run_with_a_tracker_resumes_exactly(overlay: str, fast: list[str], tmp_path: Path) -> None:
    pytest.importorskip(overlay)
    paths = os.pathsep.join([str(Path().resolve()), str(Path("tests").resolve())])
    environment = os.environ | {"PYTHONPATH": paths, "WANDB_MODE": "offline"}
    fail = f"{{note: {tmp_path}/note, hook: on_train_epoch_end, how: kill, rank: 0}}"
    kill = f"{{class_path: failing.Fail, init_args: {fail}}}"
    args = ["fit", *fast, *CALLBACKS, *STEPS, f"--config=configs/{overlay}.yaml", f"--runs_dir={tmp_path}/runs"]
    command = [sys.executable, "-m", "project", *args, f"--trainer.callbacks={kill}"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    (run,) = tmp_path.glob("runs/*/*")
    before = json.loads((run / "run.json").read_text())["trackers"]
    command = [sys.executable, "-m", "project", "fit", f"--run={run}", "--trainer.callbacks=null"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    after = json.loads((run / "run.json").read_text())["trackers"]
    assert {name: entry["id"] for name, entry in after.items()} == {name: entry["id"] for name, entry in before.items()}
    plain = main(["fit", *fast, *CALLBACKS, *STEPS, f"--runs_dir={tmp_path}/plain"]).run_dir
    assert state(plain) == state(run)
