"""Folders of runs as ``fit`` and ``test`` leave them, as far as lists of runs read them."""

import csv
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from project.runs import record
from project.runs.config import BEST, RESULTS
from project.runs.folders import TIME
from project.runs.metrics import digest_of

CONFIG = """# lightning.pytorch==2.6.6
seed_everything: {seed}
trainer: {{max_epochs: 3, limit_test_batches: {limit}}}
model: {{class_path: lightning_modules.ImageClassifier, init_args: {{lr: {lr}, pretrained: null}}}}
data: {{class_path: datamodules.SampleDataModule, init_args: {{root: {root}}}}}
runs_dir: {folder}
ckpt_path: {weights}
"""


def write_run(
    folder: Path,
    vals: Sequence[float] = (0.5, 0.75, 0.7),
    seed: int | str = 0,
    lr: float = 0.1,
    root: str = "data/sample",
    metric: str = "acc",
    **told: Any,
) -> Path:
    """Write a run with a validation an epoch; ``told`` is for run.json, which is not written without.

    It was started when its name says so, unless told.
    """
    folder.mkdir(parents=True)
    config = CONFIG.format(seed=seed, lr=lr, root=root, folder=folder.parents[1], limit="null", weights="null")
    (folder / "config.yaml").write_text(config)
    rows: list[list[object]] = []
    for epoch, val in enumerate(vals):
        rows += [["", 0.1, 9, "", "", ""], [epoch, "", 9, "", 2.5, ""]]  # of a step: learning rate, loss
        rows += [[epoch, "", 10, "", "", val], [epoch, "", 10, 0.9, "", ""]]
    _write(folder / "metrics.csv", ["epoch", "lr", "step", f"train/{metric}", "train/loss_step", f"val/{metric}"], rows)
    if told:
        with suppress(ValueError):  # a name of the user's own
            told = {"started": datetime.strptime(folder.name[:19], TIME).astimezone().isoformat()} | told
        (folder / record.FILE).write_text(json.dumps(told))
    return folder


def write_test(
    run: Path,
    value: float,
    time: str = "2026-11-22_00-00-00",
    metric: str = "acc",
    weights: str = "",
    limit: str = "null",
    **found: Any,
) -> Path:
    """Write what a test of a run leaves, by default of its best checkpoint; ``found`` is for results.json too."""
    folder = run / "test" / time
    folder.mkdir(parents=True)
    weights = weights or f"{run}/checkpoints/best.ckpt"
    config = CONFIG.format(seed=0, lr=0.1, root="data/sample", folder="runs", limit=limit, weights=weights)
    (folder / "config.yaml").write_text(config)
    _write(folder / "metrics.csv", ["epoch", "step", f"test/{metric}", 'test/acc/"a, b"'], [[0, 0, value, 0.5]])
    (folder / RESULTS).write_text(json.dumps({"metrics": {f"test/{metric}": value}} | found))
    return folder


def write_best(run: Path, epoch: int) -> dict[str, Any]:
    """Write a file in place of the best checkpoint of an epoch; return what results.json of its test holds."""
    file = run / BEST
    file.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", str(epoch))
    return {"checkpoint_digest": digest_of(file), "epoch": epoch}


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:  # rows end as CSVLogger's
        csv.writer(file).writerows([header, *rows])
