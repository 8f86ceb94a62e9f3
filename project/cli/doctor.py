"""Diagnose a training before it starts."""

from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo
from jsonargparse.typing import PositiveFloat
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from project.cli.cli import CLI, run
from project.cli.match_data import match_data
from project.doctor.messages import report
from project.doctor.preflight import PreFlight
from project.doctor.run import RESULT, known_causes, write_result
from project.errors import RunError
from project.runs.config import read_yaml
from project.runs.folders import create_folder

OFF = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar", "fast_dev_run")
TRAINER: dict[str, Any] = {  # options that a trainer without files replaces
    **dict.fromkeys(OFF, False),
    **dict.fromkeys(("min_epochs", "min_steps", "max_time", "profiler"), None),
    "num_sanity_val_steps": 0,
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
}


class Doctor(CLI):
    """``fit`` without a run directory, training and callbacks: a ``PreFlight`` takes their place."""

    replaced = TRAINER | {"precision": "32-true"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--silence", type=str, default="", help="doctor: causes that are no alarms, with commas.")
        parser.add_argument("--treat", action=ActionYesNo, default=False, help="doctor: try the remedy of the alarm.")
        parser.add_argument("--minutes", type=PositiveFloat, default=5.0, help="doctor: time for --treat.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        if self.resume.file is not None:
            raise RunError("Expected no --run and no --ckpt_path for doctor, because it examines a new training.")
        self.silenced = known_causes(self.config["fit"].silence)
        match_data(self.datamodule, self.resume, self.trained, self.published)
        self.datamodule.num_workers = 0  # it reads a few images
        self.model.use_compile = False  # of ImageModule; it would take longer than all checks
        return LightningCLI.instantiate_trainer(self)

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        if config["sync_batchnorm"]:  # with one device, Lightning would not
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        return Trainer(**config | self.replaced | {"callbacks": [*self.callbacks_of(config), self.stopper]})

    def callbacks_of(self, config: dict[str, Any]) -> list[Callback]:
        """Return the callbacks instead of those of the config."""
        self.preflight = PreFlight()
        return [self.preflight]

    def after_fit(self) -> None:
        """Do nothing: there is no run."""


def of_settings(args: list[str]) -> tuple[dict[str, Any], Path, Any]:
    """Diagnose a training with the options of ``fit``; write the result, and return it, its file and the options."""
    with isolate_rng():
        cli: Any = run(["fit", *args], Doctor)
    options = cli.config["fit"]
    result = report(cli.preflight.facts, cli.preflight.failed, cli.silenced, read_yaml(cli.text))
    path = create_folder(Path(options.runs_dir) / "doctor") / RESULT
    write_result(result, path)
    return result, path, options
