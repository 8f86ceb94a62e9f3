"""Read a run directory into plain data. Imports no torch."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from project.report.events import Events, Picture, Scalar, read_events
from project.runs.config import BEST, CONFIG, load_config, setting
from project.runs.folders import tests_of
from project.runs.metrics import PER_EPOCH, age_text, best_row, circumstances, is_number, moment_of


class Best(NamedTuple):
    """Result of the best validation."""

    metric: str  # "acc" or "loss"
    epoch: float  # from 1
    value: float


@dataclass
class Run:
    """Content of a run directory.

    Attributes:
        folder: The run directory.
        config: The resolved config; empty if the file is.
        config_text: Content of the config file, with comments about versions.
        events: Content of the event files; scalars are from metrics.csv if there are no event files.
        tests: Tests in ``test/<time>``, the one to report last, without tests of a best.ckpt that was replaced.
        old_test: Note about a test of a replaced best.ckpt, if there are no other tests.
    """

    folder: Path
    config: dict[str, Any]
    config_text: str
    events: Events
    tests: list["Run"] = field(default_factory=list)
    old_test: str = ""

    @property
    def name(self) -> str:
        """Return "<config>/<time>"."""
        folder = self.folder.absolute()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def test(self) -> "Run | None":
        """Return the latest test that has results."""
        return next((test for test in reversed(self.tests) if test.scalars), None)

    @property
    def scalars(self) -> dict[str, list[Scalar]]:
        return self.events.scalars

    @property
    def pictures(self) -> dict[str, Picture]:
        """Return the latest image of each tag, including those of the latest test."""
        return self.events.pictures | (self.test.events.pictures if self.test else {})

    @property
    def minutes(self) -> float:
        """Return the training time, without the time between starts."""
        return self.events.seconds / 60

    @property
    def epochs_trained(self) -> int:
        """Return the number of finished epochs."""
        return max(self.epoch_ends, default=0)

    def setting(self, key: str) -> Any:
        """Return a value of the config by its dotted key, or None."""
        return setting(self.config, key)

    @cached_property  # it reads all logged steps
    def epoch_ends(self) -> dict[int, int]:
        """Return the last step of each finished epoch, by the number of the epoch, from 1."""
        epochs = {scalar.step: int(scalar.value) + 1 for scalar in self.scalars.get("epoch", [])}
        for tag in PER_EPOCH:
            ends = {epochs[scalar.step]: scalar.step for scalar in self.scalars.get(tag, []) if scalar.step in epochs}
            if ends:
                return ends
        return {}

    def epochs(self, steps: Sequence[int]) -> np.ndarray | None:
        """Convert steps of scalars to epochs, float ``(N,)``; None if the epochs are unknown.

        1.0 is the end of the first epoch. Scalars are logged with their step, from 0. Images and histograms are logged
        with the number of completed steps: subtract 1.
        """
        ends = self.epoch_ends
        if not ends:
            return None
        known = sorted((step, epoch) for epoch, step in ends.items())
        x, y = np.array([(-1, 0), *known], float).T  # step 0 is the first of epoch 1
        rate = (y[-1] - y[-2]) / max(x[-1] - x[-2], 1)
        after = np.array(steps, float)
        return np.where(after > x[-1], y[-1] + (after - x[-1]) * rate, np.interp(after, x, y))

    def best(self) -> Best | None:
        """Return accuracy, or else loss, of the validation of the best checkpoint; see ``best_row``."""
        monitor, mode = (str(self.setting(f"checkpoint.{name}")) for name in ("monitor", "mode"))
        epochs = {scalar.step: scalar.value for scalar in self.scalars.get("epoch", [])}
        rows = [
            {"step": scalar.step, "epoch": epochs.get(scalar.step, 0), tag: scalar.value}
            for tag in dict.fromkeys((monitor, "val/acc", "val/loss"))
            for scalar in self.scalars.get(tag, [])
        ]
        for metric in ("acc", "loss"):
            best = best_row(rows, metric, monitor, mode, moment_of(self.folder / BEST))
            if best is not None:
                at = self.epochs([int(best["step"])])
                return Best(metric, float("nan") if at is None else float(at[0]), best[f"val/{metric}"])
        return None

    def table(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a CSV file in the run directory; an empty list if it does not exist."""
        try:
            with (self.folder / name).open(newline="", encoding="utf-8", errors="replace") as file:
                return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
        except FileNotFoundError:
            return []


def read_run(folder: Path) -> Run:
    """Read a run, finished or not.

    Raises:
        RunError: The config is not YAML.
    """
    config = load_config(folder)
    run = Run(folder, config, (folder / CONFIG).read_text(), read_events(folder))
    if not run.scalars:
        run.events.scalars = _scalars_of_csv(run.table("metrics.csv"))
    tests = [(test, circumstances(test)) for test in tests_of(folder)]
    run.tests = [read_run(test) for test, setup in tests if not setup.is_old]
    run.old_test = age_text(tests[-1][1]) if tests and not run.tests else ""
    return run


def _scalars_of_csv(rows: list[dict[str, str]]) -> dict[str, list[Scalar]]:
    """Return scalars from rows of CSVLogger, for runs without TensorBoard."""
    scalars: dict[str, list[Scalar]] = {}
    for row in rows:
        for tag, value in row.items():
            if tag != "step" and is_number(value) and is_number(row.get("step", "")):
                scalars.setdefault(tag, []).append(Scalar(int(row["step"]), float("nan"), float(value)))
    return scalars
