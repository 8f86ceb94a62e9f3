"""Runs of MLflow, read back from a local database and from a server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import stop_of
from lightning.pytorch import Callback, LightningModule, Trainer
from tracked import STEPS, fit_resume_and_test, state

from callbacks.tools import warn_once
from project.__main__ import main

mlflow = pytest.importorskip("mlflow")
OVERLAY = "--config=configs/mlflow.yaml"


class KillServer(Callback):
    """End the processes of a server after a training step."""

    def __init__(self, group: int, step: int) -> None:
        self.group, self.step = group, step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.killpg(self.group, signal.SIGKILL)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Start a server, and return its address and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "server").mkdir()
    store = f"--backend-store-uri=sqlite:///{tmp_path}/server/all.db"
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1", store]
    few = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # starts in half the time
    process = subprocess.Popen(command, cwd=tmp_path / "server", env=few, start_new_session=True)
    end = time.monotonic() + 300
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            break
        except OSError:
            time.sleep(0.5)
    yield f"http://127.0.0.1:{port}", process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tracked(run: Path) -> dict[str, str]:
    return json.loads((run / "run.json").read_text())["trackers"]["MLFlowLogger"]


@pytest.mark.slow
def test_a_local_run_is_continued_and_changes_no_bit(
    fast: list[str],
    plain_state: str,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warn_once.cache_clear()
    monkeypatch.setattr("project.trackers.mlflow_tracker.BATCH", 40)  # of about 100
    run = fit_resume_and_test(fast, tmp_path / "runs", OVERLAY, "--trainer.logger.tags={small: net}")
    client = mlflow.MlflowClient(f"sqlite:///{run}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "image-classifiers"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (tracked(run)["id"], "FINISHED")
    assert found.info.run_name == f"{run.parent.name}/{run.name}"
    assert len(found.data.params) > 80
    assert found.data.params["model.init_args.optimizer.init_args.lr"] == "0.05"
    commit = json.loads((run / "run.json").read_text())["git"]["commit"]
    expected = {"small": "net", "mlflow.source.git.commit": commit, "changed.trainer.max_epochs": "2"}
    assert found.data.tags.items() >= expected.items()
    history = client.get_metric_history(found.info.run_id, "train/loss_step")
    assert [metric.step for metric in history] == list(range(8))
    assert len(client.get_metric_history(found.info.run_id, "test/acc")) == 1
    artifacts = run / "mlflow" / found.info.run_id / "artifacts"
    names = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*")}
    assert "videos/kernels_video/conv1/conv1.gif" in names
    assert "texts/class_report/val_000004.md" in names
    assert any(name.startswith("images/kernels~conv1+step+4+") for name in names)

    texts = [str(each.message) for each in recwarn if "takes no" in str(each.message)]
    assert texts == ["MLFlowLogger takes no histograms. TensorBoard has everything."]  # once in a process
    assert state(run) == plain_state
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert not {path.name for path in Path().iterdir()} & {"wandb", "mlruns", "mlflow.db", "mlartifacts"}


@pytest.mark.slow
def test_a_server_that_ends_does_not_end_training_but_prevents_a_start(
    fast: list[str],
    tmp_path: Path,
    server: tuple[str, subprocess.Popen],
    recwarn: pytest.WarningsRecorder,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri, process = server
    quiet = [
        "--callbacks=false",
        *STEPS,
        OVERLAY,
        f"--trainer.logger.tracking_uri={uri}",
        f"--runs_dir={tmp_path}/runs",
    ]
    run = main(["fit", *fast, *quiet, "--trainer.max_epochs=1"]).run_dir
    place = tracked(run)
    assert place["place"].startswith(f"{uri}/#/experiments/")
    client = mlflow.MlflowClient(uri)
    assert len(client.get_metric_history(place["id"], "train/loss_step")) == 4
    assert client.get_run(place["id"]).data.tags["mlflow.runName"] == f"{run.parent.name}/{run.name}"
    assert not (run / "mlflow.db").exists()

    kill = f"{{class_path: test_mlflow_tracker.KillServer, init_args: {{group: {process.pid}, step: 6}}}}"
    start = time.monotonic()
    main(["fit", f"--run={run}", "--trainer.max_epochs=2", f"--trainer.callbacks+={kill}"])
    assert time.monotonic() - start < 60
    texts = [str(each.message) for each in recwarn if "MLFlowLogger" in str(each.message)]
    assert texts[0].startswith("MLFlowLogger could not log_metrics (MlflowException: API request to ")
    assert texts[-1].startswith("MLFlowLogger lacks the data of ")
    assert len(texts) == 2
    assert json.loads((run / "run.json").read_text())["state"] == "finished"

    code, error = stop_of(["fit", f"--run={run}", "--trainer.max_epochs=3"], capsys)
    assert code == 2
    assert "error: Expected MLFlowLogger to start, but got MlflowException: API request to " in error
    assert len([line for line in error.splitlines() if line.startswith("error")]) == 1


def test_a_database_that_cannot_be_written_is_reported_before_training(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "--trainer.logger.tracking_uri=sqlite:////proc/gone/all.db"
    args = ["fit", *fast, "--callbacks=false", OVERLAY, uri, f"--runs_dir={tmp_path}/runs"]
    code, error = stop_of(args, capsys)
    assert code == 2
    assert "error: Expected MLFlowLogger to start" in error, error
    assert not list(tmp_path.glob("runs/*/*"))
