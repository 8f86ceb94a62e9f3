"""Runs of Weights & Biases, read back from the files that `wandb sync` uploads."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import stop_of
from tracked import STEPS, fit_resume_and_test, state

from project.__main__ import main

wandb = pytest.importorskip("wandb")
OFFLINE = ["--config=configs/wandb.yaml", "--trainer.logger.offline=true", "--trainer.logger.tags=[small]"]
BLOCK, HEADER = 32768, 7  # bytes of LevelDB's log format, which the files have


def records(file: Path) -> Iterator[Any]:
    """Yield the records of a .wandb file."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, parts = file.read_bytes(), HEADER, b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(parts)
            parts = b""


def history(folder: Path) -> dict[str, list[Any]]:
    """Return all logged values by name."""
    values: dict[str, list[Any]] = {}
    for record in records(next(folder.glob("*.wandb"))):
        for item in record.history.item:
            values.setdefault("/".join(item.nested_key) or item.key, []).append(json.loads(item.value_json))
    return values


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not read the settings and keys of the user who runs the tests, nor those of the test before."""
    wandb.teardown()
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.mark.slow
def test_an_offline_run_is_continued_and_changes_no_bit(
    fast: list[str], plain_state: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    run = fit_resume_and_test(fast, tmp_path / "runs", *OFFLINE)
    first, second, test = sorted(run.glob("wandb/offline-run-*"))
    identifier = json.loads((run / "run.json").read_text())["trackers"]["WandbLogger"]["id"]
    assert {folder.name.rpartition("-")[2] for folder in (first, second, test)} == {identifier}

    values = history(first)
    assert {"train/loss_step", "val/acc", "epoch"} <= values.keys()
    assert len(values["train/loss_step"]) == 4
    assert values["weights/conv1.weight/_type"] == ["histogram"]
    assert values["kernels/conv1/_type"] == ["images/separated"]
    assert values["class_report/val/_type"] == ["html-file"]
    assert {file.parent.name for file in first.rglob("media/**/*.*")} >= {"kernels", "class_report"}
    assert history(second)["kernels_video/conv1/_type"] == ["video-file"]
    assert len(history(second)["val/acc"]) == 1
    assert len(history(test)["test/acc"]) == 1

    entries = list(records(next(first.glob("*.wandb"))))
    last = [record.run for record in entries if record.HasField("run")][-1]
    assert (last.display_name, last.project) == (f"{run.parent.name}/{run.name}", "image-classifiers")
    commit = json.loads((run / "run.json").read_text())["git"]["commit"]
    assert set(last.tags) == {"small", f"git-{commit[:8]}"}
    config = {item.key or "/".join(item.nested_key): item.value_json for each in entries for item in each.config.update}
    assert json.loads(config["model.init_args.optimizer.init_args.lr"]) == 0.05
    assert json.loads(config["trainer.max_epochs"]) == 1
    assert not [each for each in recwarn if "takes no" in str(each.message)]  # it takes all media of these callbacks
    assert state(run) == plain_state
    assert not {path.name for path in Path().iterdir()} & {"wandb", "mlruns", "mlflow.db"}


@pytest.mark.slow
def test_a_run_without_a_network_is_recorded_offline(
    fast: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr("project.trackers.wandb_tracker.START_SECONDS", 3)
    with pytest.warns(UserWarning, match="WandbLogger does not reach its server, so this run is offline"):
        run = main(["fit", *fast, "--callbacks=false", *STEPS, OFFLINE[0], f"--runs_dir={tmp_path}/runs"]).run_dir
    (folder,) = run.glob("wandb/offline-run-*")
    assert len(history(folder)["val/acc"]) == 2


def test_without_a_key_the_command_that_sets_it_is_named(
    fast: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    code, error = stop_of(["fit", *fast, "--callbacks=false", OFFLINE[0], f"--runs_dir={tmp_path}/runs"], capsys)
    assert code == 2
    assert "error: Expected WandbLogger to start, but got UsageError: No API key configured. Use `wandb login`" in error
    assert not list(tmp_path.glob("runs/*/*"))
