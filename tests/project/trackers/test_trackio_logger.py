"""Runs of Trackio, read back from its database. They are skipped where it is not installed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from tracked import fit_resume_and_test, state

from project.errors import RunError
from project.trackers.trackio_logger import TrackioLogger

# its releases up to 0.43 need Pillow below 13, so it is not in requirements-dev.lock; importing it sets its directory
pytestmark = pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")


@pytest.fixture(autouse=True)
def _no_directory_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACKIO_DIR", raising=False)


@pytest.mark.slow
def test_a_run_is_continued_and_changes_no_bit(
    fast: list[str], plain_state: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    run = fit_resume_and_test(fast, tmp_path / "runs", "--config=configs/trackio.yaml", "--trainer.logger.tags=[small]")
    from trackio.sqlite_storage import SQLiteStorage

    name = f"{run.parent.name}/{run.name}"
    assert list(run.glob("trackio/*.db"))
    assert json.loads((run / "run.json").read_text())["trackers"]["TrackioLogger"]["id"] == name
    assert SQLiteStorage.get_runs("image-classifiers") == [name]
    config = SQLiteStorage.get_run_config("image-classifiers", name)
    assert config["model.init_args.optimizer.init_args.lr"] == 0.05
    assert config["git_commit"] == json.loads((run / "run.json").read_text())["git"]["commit"]
    logs = SQLiteStorage.get_logs("image-classifiers", name)
    values = {key: [row[key] for row in logs if key in row] for row in logs for key in row}
    assert [row["step"] for row in logs if "train/loss_step" in row] == list(range(8))
    assert (len(values["val/acc"]), len(values["test/acc"])) == (2, 1)
    kinds = {"weights/conv1.weight": "histogram", "kernels/conv1": "image", "class_report/val": "markdown"}
    for tag, kind in (kinds | {"kernels_video/conv1": "video"}).items():
        assert values[tag][0]["_type"] == f"trackio.{kind}"
    assert not [str(each.message) for each in recwarn if "TrackioLogger" in str(each.message)]
    assert state(run) == plain_state

    with pytest.raises(RunError, match="but this process writes to"):  # Trackio reads its directory once
        _ = TrackioLogger(save_dir=str(tmp_path / "another")).experiment
