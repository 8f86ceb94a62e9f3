"""Write run directories like those of ``fit`` and ``test``, with the files that lists of runs read."""

import csv
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from project.runs import record
from project.runs.config import BEST, RESULTS
from project.runs.folders import TIME, all_runs
from project.runs.metrics import digest_of
from project.runs.results import Result, read_result

CONFIG = """# lightning.pytorch==2.6.6
seed_everything: {seed}
trainer: {{max_epochs: 3}}
model: {{class_path: lightning_modules.ImageClassifier, init_args: {{lr: {lr}, pretrained: null}}}}
data: {{class_path: datamodules.SampleDataModule, init_args: {{root: {root}}}}}
runs_dir: {folder}
"""


def write_run(
    folder: Path,
    vals: Sequence[float] = (0.5, 0.75, 0.7),
    seed: int | str = 0,
    lr: float = 0.1,
    root: str = "data/sample",
    metric: str = "acc",
    **info: Any,
) -> Path:
    """Write a run with a validation in each epoch.

    ``info`` is the content of run.json, which is not written if it is empty. The start is that in the name of the
    directory, unless ``info`` has another.
    """
    folder.mkdir(parents=True)
    config = CONFIG.format(seed=seed, lr=lr, root=root, folder=folder.parents[1])
    (folder / "config.yaml").write_text(config)
    rows: list[list[object]] = []
    for epoch, val in enumerate(vals):
        rows += [["", 0.1, 9, "", "", ""], [epoch, "", 9, "", 2.5, ""]]  # a step: learning rate, loss
        rows += [[epoch, "", 10, "", "", val], [epoch, "", 10, 0.9, "", ""]]
    header = ["epoch", "lr", "step", f"train/{metric}", "train/loss_step", f"val/{metric}"]
    with (folder / "metrics.csv").open("w", newline="") as file:  # line ends as in CSVLogger
        csv.writer(file).writerows([header, *rows])
    if info:
        with suppress(ValueError):  # a name chosen by the user
            info = {"started": datetime.strptime(folder.name[:19], TIME).astimezone(UTC).isoformat()} | info
        (folder / record.FILE).write_text(json.dumps(info))
    return folder


def write_test(
    run: Path, value: float, time: str = "2026-11-22_00-00-00", metric: str = "acc", weights: str = "", **results: Any
) -> Path:
    """Write results.json of a test, by default of the best checkpoint, with the fields ``results``."""
    folder = run / "test" / time
    folder.mkdir(parents=True)
    content = {"checkpoint": weights or f"{run}/{BEST}", "metrics": {'test/acc/"a, b"': 0.5, f"test/{metric}": value}}
    (folder / RESULTS).write_text(json.dumps(content | results))
    return folder


def write_best(run: Path, epoch: int) -> dict[str, Any]:
    """Write a fake best checkpoint of an epoch, and return the fields of its test for results.json."""
    file = run / BEST
    file.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", str(epoch))
    return {"checkpoint_digest": digest_of(file), "epoch": epoch}


def results_of(runs_dir: Path) -> list[Result]:
    """Return the results of all runs; each must be readable."""
    results = [read_result(run) for run in all_runs(runs_dir)]
    assert not any(problems for _, problems in results)
    return [result for result, _ in results]
