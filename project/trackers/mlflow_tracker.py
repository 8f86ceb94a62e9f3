"""MLflow."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_warn

from project.trackers.base import Tracker, restored

LONGEST = 500  # characters of a parameter on servers before MLflow 2.8; later ones take 6,000
BATCH = 100  # parameters or tags of a request
URI = "MLFLOW_TRACKING_URI"
ENVIRONMENT = {  # a server that does not answer must not stop training for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",  # it draws from Python's random numbers
    "MLFLOW_DISABLE_TELEMETRY": "true",  # the same, in a thread of its own
}


class MLFlowTracker(Tracker, MLFlowLogger):
    """Lightning's MLFlowLogger, which also takes images, videos and texts; by default in files of the run directory."""

    title, package = "MLFlowLogger", "mlflow"

    @classmethod
    def defaults(cls, name: str, folder: Path, identifier: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        run = {"run_name": name, "run_id": identifier}
        if given.keys() & {"tracking_uri", "save_dir"} or URI in os.environ:
            return run
        from mlflow.utils.file_utils import path_to_local_sqlite_uri

        return run | {
            "tracking_uri": path_to_local_sqlite_uri(folder / "mlflow.db"),
            "artifact_location": (folder / "mlflow").resolve().as_uri(),
        }

    def open(self) -> Any:
        from mlflow.exceptions import MlflowException

        if self._run_id is not None:
            try:
                self._mlflow_client.update_run(self._run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                rank_zero_warn(f"{self._tracking_uri} has no run {self._run_id}, so {self.title} starts a new one.")
                self._run_id = None
        with restored(URI):  # MLflow sets it
            return MLFlowLogger.experiment.__get__(self)

    @property
    def identifier(self) -> str | None:
        return self._run_id

    @property
    def place(self) -> str:
        if self._tracking_uri.startswith("http"):
            return f"{self._tracking_uri}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"mlflow ui --backend-store-uri {self._tracking_uri}"

    def log_settings(self, settings: dict[str, Any], commit: str | None) -> None:
        from mlflow.entities import Param, RunTag

        client, run_id = self.experiment, self.run_id
        known = client.get_run(run_id).data.params  # which cannot be changed
        values = {re.sub(r"[^\w.:/ -]", "_", key)[:250]: str(value)[:LONGEST] for key, value in settings.items()}
        params = [Param(key, value) for key, value in values.items() if key not in known]
        tags = [
            RunTag(f"changed.{key}"[:250], value) for key, value in values.items() if known.get(key, value) != value
        ]
        if commit is not None:
            tags.append(RunTag("mlflow.source.git.commit", commit))
        for start in range(0, max(len(params), len(tags)), BATCH):
            batch = slice(start, start + BATCH)
            client.log_batch(run_id, params=params[batch], tags=tags[batch])

    def log_image(self, tag: str, images: list[Any], step: int) -> None:
        for image in images:
            self.experiment.log_image(self.run_id, image, key=re.sub(r"[^\w./ -]", "_", tag), step=step)

    def add_text(self, tag: str, markdown: str, step: int) -> None:
        """Write a text to the artifacts of the run."""
        self.experiment.log_text(self.run_id, markdown, f"texts/{tag}_{step:06}.md")

    def add_video(self, tag: str, file: Path, step: int) -> None:
        """Write a GIF file to the artifacts of the run."""
        self.experiment.log_artifact(self.run_id, str(file), f"videos/{tag}")
