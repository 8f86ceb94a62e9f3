"""Trackio, Hugging Face's tracker, for which Lightning has no logger."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callbacks.tools.histogram import Histogram
from project.errors import RunError
from project.trackers.base import Tracker, restored, uniform_bins

VARIABLE = "TRACKIO_DIR"  # directory of Trackio's files


class TrackioLogger(Tracker):
    """Log to Trackio.

    Args:
        project: Project of the run.
        name: Name of the run.
        save_dir: Directory of Trackio's files.
        tags: Entries of the run's config.
        space_id: A Hugging Face Space, instead of local files.
        server_url: A Trackio server, instead of local files.
        group: Group of the run in the dashboard.
    """

    title, package = "TrackioLogger", "trackio"

    def __init__(
        self,
        project: str = "image-classifiers",
        name: str | None = None,
        save_dir: str | None = None,
        tags: list[str] | None = None,
        space_id: str | None = None,
        server_url: str | None = None,
        group: str | None = None,
    ) -> None:
        self._project, self._name, self._folder, self._tags = project, name, save_dir, tags
        self._options: dict[str, Any] = {"space_id": space_id, "server_url": server_url, "group": group}

    @classmethod
    def defaults(cls, name: str, folder: Path, identifier: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        local = {} if VARIABLE in os.environ else {"save_dir": str(folder / "trackio")}
        return {"name": identifier or name, **local}

    @property
    def name(self) -> str:
        return self._project

    @property
    def version(self) -> str | None:
        return self._name

    identifier = version

    @property
    def place(self) -> str:
        remote = self._options["space_id"] or self._options["server_url"]
        folder = self._folder or os.environ.get(VARIABLE)
        return remote or f"{VARIABLE}={folder} trackio show --project {self._project}"

    def open(self) -> Any:
        with restored(VARIABLE):
            if self._folder is not None:
                os.environ[VARIABLE] = str(Path(self._folder).absolute())  # read when trackio is imported
            import trackio
            from trackio.utils import TRACKIO_DIR
        if self._folder is not None and Path(self._folder).absolute() != TRACKIO_DIR:
            raise RunError(f"Expected one directory for Trackio, but this process writes to {TRACKIO_DIR} already.")
        run = trackio.init(self._project, self._name, resume="allow", embed=False, **self._options)
        self._config = dict(run.config)
        run.config.clear()  # otherwise, a test would replace the config of the training by this one
        return run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.experiment.config.update(vars(params) if hasattr(params, "__dict__") else params)

    def log_settings(self, settings: dict[str, Any], commit: str | None) -> None:
        tags = {"tags": self._tags} if self._tags else {}
        self.experiment.config.update(self._config | settings | tags | {"git_commit": commit})

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.experiment.log(dict(metrics), step=step)

    def log_image(self, tag: str, images: list[Any], step: int) -> None:
        import trackio

        for image in images:
            self.experiment.log({tag: trackio.Image(image)}, step=step)

    def add_histogram(self, tag: str, histogram: Histogram, step: int) -> None:
        import trackio

        self.experiment.log({tag: trackio.Histogram(np_histogram=uniform_bins(histogram))}, step=step)

    def add_text(self, tag: str, markdown: str, step: int) -> None:
        import trackio

        self.experiment.log({tag: trackio.Markdown(markdown)}, step=step)

    def add_video(self, tag: str, file: Path, step: int) -> None:
        import trackio

        self.experiment.log({tag: trackio.Video(str(file))}, step=step)

    def finalize(self, status: str) -> None:
        if self._opened is not None:
            import trackio

            trackio.finish()
            self._opened = None
