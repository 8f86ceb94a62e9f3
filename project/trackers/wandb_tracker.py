"""Weights & Biases."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.tools.histogram import Histogram
from project.errors import shortened
from project.trackers.base import Tracker, uniform_bins

START_SECONDS, END_SECONDS = 20, 120  # longest waits for the server; the defaults are 90, and no limit


class WandbTracker(Tracker, WandbLogger):
    """Lightning's WandbLogger, which also takes histograms and texts, and works offline if there is no network."""

    title, package = "WandbLogger", "wandb"

    @classmethod
    def defaults(cls, name: str, folder: Path, identifier: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        return {"name": name, "save_dir": str(folder), "id": identifier}

    def open(self) -> Any:
        import wandb

        if self._offline:  # Lightning would set an environment variable, which also applies to later runs
            self._offline, self._wandb_init["mode"] = False, "offline"
        self._wandb_init.pop("anonymous", None)  # wandb warns of it, even if it is None
        if self._wandb_init.get("settings") is None:
            self._wandb_init["settings"] = wandb.Settings(init_timeout=START_SECONDS, finish_timeout=END_SECONDS)
        try:
            run = WandbLogger.experiment.__get__(self)
        except wandb.errors.CommError as error:
            wandb.teardown()  # the failed start still uses the identifier
            self._wandb_init["mode"] = "offline"
            run = WandbLogger.experiment.__get__(self)
            rank_zero_warn(f"{self.title} does not reach its server, so this run is offline ({shortened(error, 100)}).")
        self._wandb_init["id"] = run.id
        return run

    @property
    def identifier(self) -> str | None:
        return self._wandb_init["id"]

    @property
    def place(self) -> str:
        run = self.experiment
        return f"offline; upload it with: wandb sync {run.settings.sync_dir}" if run.offline else str(run.url)

    def log_settings(self, settings: dict[str, Any], commit: str | None) -> None:
        self.experiment.config.update(settings, allow_val_change=True)
        if commit is not None and (tag := f"git-{commit[:8]}") not in (self.experiment.tags or ()):
            self.experiment.tags = (*(self.experiment.tags or ()), tag)

    def add_histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        import wandb

        self.experiment.log({tag: wandb.Histogram(np_histogram=uniform_bins(histogram)), "trainer/global_step": step})

    def add_text(self, tag: str, markdown: str, step: int) -> None:
        import wandb

        page = wandb.Html(f"<pre>{html.escape(markdown)}</pre>")
        self.experiment.log({tag: page, "trainer/global_step": step})

    def add_video(self, tag: str, file: Path, step: int) -> None:
        import wandb

        self.experiment.log({tag: wandb.Video(str(file), format="gif"), "trainer/global_step": step})

    def finalize(self, status: str) -> None:
        super().finalize(status)  # uploads checkpoints with log_model
        if self._opened is not None:
            self._opened.finish(exit_code=int(status != "success"))
            self._opened = self._experiment = None  # a test in this process opens it again
