"""Diagnose a training before it starts."""

from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo
from jsonargparse.typing import PositiveFloat
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from project.cli.cli import CLI, run
from project.cli.match_data import match_data
from project.doctor.messages import report, terminal
from project.doctor.preflight import PreFlight
from project.doctor.run import RESULT, known_causes, write_result
from project.errors import RunError
from project.resume.rng import random_state, set_random_state
from project.runs.folders import create_folder


class Doctor(CLI):
    """``fit`` without a run directory, training and callbacks: a ``PreFlight`` takes their place."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--silence", type=str, default="", help="doctor: causes that are no alarms, with commas.")
        parser.add_argument("--treat", action=ActionYesNo, default=False, help="doctor: try the remedy of the alarm.")
        parser.add_argument("--minutes", type=PositiveFloat, default=5.0, help="doctor: time for --treat.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        if self.resume.file is not None:
            raise RunError("Expected no --run and no --ckpt_path for doctor, because it examines a new training.")
        self.silenced = known_causes(filter(None, self.config["fit"].silence.split(",")))
        match_data(self.datamodule, self.resume, self.trained, self.published)
        self.datamodule.num_workers = 0  # it reads a few images
        self.model.use_compile = False  # of ImageModule; it would take longer than all checks
        return LightningCLI.instantiate_trainer(self)

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        quiet: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_model_summary", "fast_dev_run"), False
        )
        quiet |= {"enable_progress_bar": False, "num_sanity_val_steps": 0, "min_epochs": None, "min_steps": None}
        one = {"devices": 1, "num_nodes": 1, "strategy": "auto", "profiler": None, "precision": "32-true"}
        self.preflight = PreFlight()
        return Trainer(**config | quiet | one | {"callbacks": [self.preflight, self.stopper]})

    def after_fit(self) -> None:
        """Do nothing: there is no run."""


def doctor(args: list[str]) -> Path:
    """Print a diagnosis, write it to doctor.json, and return the path of that file."""
    state = random_state()
    try:
        cli: Any = run(["fit", *args], Doctor)
        result, config = report(cli.preflight.facts, cli.preflight.failed, cli.silenced), cli.config["fit"]
        path = create_folder(Path(config.runs_dir) / "doctor") / RESULT
        write_result(result, path)
        print("\n".join([*terminal(result), f"Result: {path}"]), flush=True)
        if config.treat:
            from project.cli.trial import try_remedy  # a subclass of Doctor

            print(try_remedy(args, result, config.minutes), flush=True)
            write_result(result, path)
    finally:
        set_random_state(state)
    return path
