"""Read the curves, distributions and pictures of a run directory. Imports no torch."""

import base64
import csv
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from project.errors import RunError
from project.runs.config import load_config
from project.runs.metrics import METRICS, PER_EPOCH
from project.runs.results import Result, read_result, tests_of

QUANTILES = ("minimum", "16%", "median", "84%", "maximum")  # columns of distributions.csv
SHOWN_OTHERWISE = ("kernels_split", "confusion_matrix_normalised")  # kinds of pictures
LIMIT = 2_000_000  # bytes of all pictures of a run; 2.7 MB in base64


class Picture(NamedTuple):
    """A picture embedded in the page."""

    caption: str
    width: int
    height: int
    data: str  # data URL, "" if it is left out


@dataclass
class Run:
    """Content of a run directory, or of a test's.

    Attributes:
        folder: The directory.
        config: The resolved config; empty if the file is.
        result: Results and state.
        test: The latest test of the present best.ckpt that has results.
    """

    folder: Path
    config: dict[str, Any]
    result: Result
    test: "Run | None" = None

    @property
    def stages(self) -> list[tuple["Run", str]]:
        """The run and its test, each with the stage in the names of its files."""
        return [(self, "val"), *([(self.test, "test")] if self.test else [])]

    @cached_property
    def scalars(self) -> dict[str, list[tuple[int, float]]]:
        """Steps and values of each scalar in metrics.csv."""
        scalars: dict[str, list[tuple[int, float]]] = {}
        for row in self.table(METRICS):
            for tag, value in row.items():
                with suppress(ValueError):  # an empty cell, or a damaged row
                    scalars.setdefault(tag, []).append((int(row.get("step", "")), float(value)))
        return {tag: series for tag, series in scalars.items() if series and tag != "step"}

    @cached_property
    def epoch_ends(self) -> dict[int, int]:
        """Last step of each finished epoch, by the number of the epoch, from 1."""
        epochs = {step: int(value) + 1 for step, value in self.scalars.get("epoch", [])}
        for tag in PER_EPOCH:
            if ends := {epochs[step]: step for step, _ in self.scalars.get(tag, []) if step in epochs}:
                return ends
        return {}

    def epochs(self, steps: np.ndarray) -> np.ndarray:
        """Convert steps ``(N,)`` to epochs, float ``(N,)``: 1.0 is the last step of the first epoch."""
        known = sorted((step, epoch) for epoch, step in self.epoch_ends.items())
        ends = np.array([(-1, 0), *known], float)  # step 0 is the first of epoch 1
        later = ends[-1] + 1000 * (ends[-1] - ends[-2])  # an epoch that is not finished is like the last one
        return np.interp(steps, *np.vstack([ends, later]).T)

    @cached_property
    def distributions(self) -> dict[str, dict[int, list[float]]]:
        """Quantiles of each tensor by epoch; a resumed run repeats epochs, which replaces the later ones."""
        series: dict[str, dict[int, list[float]]] = {}
        for row in self.table("distributions.csv"):
            with suppress(ValueError, KeyError):  # a row that was cut by a kill
                epoch, values = int(row["epoch"]), [float(row[name]) for name in QUANTILES]
                before = {number: old for number, old in series.get(row["tag"], {}).items() if number < epoch}
                series[row["tag"]] = before | {epoch: values}
        return series

    @cached_property
    def files(self) -> dict[str, Path]:
        """File of the latest picture of each tag, in the order of drawing, which is that of the network."""
        files, root = {}, self.folder / "pictures"
        for file in sorted(root.rglob("*")):
            if file.suffix in (".png", ".gif"):
                tag = file.parent if file.stem.startswith("epoch_") else file.with_suffix("")
                files[str(tag.relative_to(root))] = file
        return dict(sorted(files.items(), key=lambda item: item[1].stat().st_mtime_ns))

    @cached_property
    def pictures(self) -> dict[str, list[Picture]]:
        """Pictures of the run and its test by kind, the first part of the tag; without data beyond ``LIMIT``.

        The caption of a picture is the description in its file, or else its path.
        """
        kinds: dict[str, list[Picture]] = {}
        free, files = LIMIT, {tag: file for run, _ in self.stages for tag, file in run.files.items()}
        for tag in sorted(files, key=lambda tag: tag.startswith("kernels")):  # each layer has several
            file, (kind, _, layer) = files[tag], tag.partition("/")
            if kind in SHOWN_OTHERWISE or (kind == "kernels" and f"kernels_colour/{layer}" in files):
                continue
            content, path = file.read_bytes(), file.relative_to(self.folder)
            with Image.open(file) as image:
                caption, data = image.info.get("Description") or str(path), ""
                if len(content) <= free:
                    free -= len(content)
                    data = f"data:image/{file.suffix[1:]};base64,{base64.b64encode(content).decode()}"
                else:
                    caption += f" (left out to limit the size of this page: {path})"
                kinds.setdefault(kind, []).append(Picture(caption, *image.size, data))
        return kinds

    def table(self, name: str) -> list[dict[str, str]]:
        """Return the complete rows of a CSV file in the directory; an empty list if it does not exist."""
        try:
            text = (self.folder / name).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(lines)]


def read_run(folder: Path) -> Run:
    """Read a run, finished or not.

    Raises:
        RunError: The config is not YAML.
    """
    run = Run(folder, load_config(folder), read_result(folder)[0])
    with suppress(RunError):  # a damaged file, which `runs` reports
        for test in tests_of(folder):
            if not test.is_old:
                run.test = Run(test.folder, load_config(test.folder), run.result)
    return run
