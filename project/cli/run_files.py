"""Everything that fit, validate and test write to a run directory, except what callbacks and loggers write."""

import json
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from atomic_files import write_atomically
from project.cli.match_data import describe_data
from project.errors import RunError, shortened
from project.resume.csv_logger import Table, open_table, truncate
from project.resume.ranks import is_rank_zero
from project.resume.resume import Resume
from project.resume.signals import Stopped
from project.runs import record
from project.runs.config import CONFIG, PREVIOUS_CONFIGS, RESULTS, differences, load_config, setting
from project.runs.folders import create_folder, name_of
from project.runs.options import OF_STARTING
from project.runs.results import STAGES
from project.runs.summary import shell_command
from project.trackers.build import build_trackers, log_settings, records

HARMLESS = ("test_after_fit", "report", "trainer.logger")  # settings that change no result


class RunFiles(Callback):
    """The directory of a command, and config.yaml, run.json, metrics.csv and results.json in it. Rank zero writes them.

    A training writes to them from its first step on: a start that fails before leaves a resumed run unchanged, and
    nothing of a new one.

    Args:
        config: Options of the command.
        text: The config to save.
        command: Command line.
        resume: What the command starts from.
        data: Its data.

    Attributes:
        run_dir: The run directory. Ranks other than zero do not know the name of a new one.
        output_dir: Directory that the command writes to: the run directory for ``fit``; ``<run_dir>/test/<time>`` or
            ``<run_dir>/validate/<time>`` otherwise.
    """

    def __init__(self, config: Any, text: str, command: list[str], resume: Resume, data: LightningDataModule) -> None:
        self._config, self._text, self._command, self._resume, self._data = config, text, command, resume, data
        self._start = time.monotonic()
        self._has_begun = False
        self._table: Table | None = None
        self._trackers: dict[str, Logger] = {}
        self._places: dict[str, Any] = {}  # of the trackers, for run.json
        configs = [str(file) for file in config.get("config") or [] if file]  # None if --config is a string
        runs = Path(config.runs_dir) / name_of(configs)
        self.run_dir = self.output_dir = resume.run or runs
        if not is_rank_zero():
            return
        if resume.run is None:
            self.run_dir = self.output_dir = create_folder(runs, config.name)
        if resume.command != "fit":
            self.output_dir = create_folder(self.run_dir / resume.command)
            self._write(CONFIG, text)
        print(f"Run: {self.output_dir}", flush=True)

    def loggers(self, trackers: list[Any]) -> list[Logger]:
        """Return loggers that append to the files of a resumed run, and on rank zero its trackers."""
        # images of a validation are logged with the step of the checkpoint
        step = (self._resume.step or -1) + 1 if self._resume.is_resumed else None
        table = CSVLogger(self.output_dir, name="", version="")
        if is_rank_zero():
            self._table = open_table(table)
        board = TensorBoardLogger(self.output_dir, name="", version="", default_hp_metric=False, purge_step=step)
        if is_rank_zero():
            known = record.read(self.run_dir).get("trackers", {})
            self._trackers = build_trackers(trackers, self.run_dir, known)
        return [board, table, *self._trackers.values()]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that all ranks start from the same file, and print where the trackers, which have just started, write.

        Raises:
            RunError: A run that was started in between is the last run of this rank.
        """
        file = trainer.strategy.broadcast(self._resume.file)
        if file != self._resume.file:
            raise RunError(
                f"Expected all ranks to start from {file}, but one found {self._resume.file}, because another run was "
                "started in between. Name the run by its directory."
            )
        self._trackers = {name: logger for name, logger in self._trackers.items() if logger in trainer.loggers}
        self._places = records(self._trackers)
        for name, tracker in self._places.items():
            print(f"{name}: {tracker['place']}", flush=True)
        known = record.read(self.run_dir)
        if stage != TrainerFn.FITTING and self._places.keys() - known.get("trackers", {}).keys():
            log_settings(self._trackers, self._resume.settings, setting(known, "git.commit"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        if trainer.ckpt_path is not None:
            ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # and validated, when it was written
            epoch, step = trainer.current_epoch + 1 + ended, trainer.global_step
            print(f"Resuming at epoch {epoch}, step {step} ({trainer.ckpt_path}).", flush=True)
        self.begin()
        log_settings(self._trackers, self._resume.settings, setting(record.read(self.run_dir), "git.commit"))
        if self._table is not None and self._resume.is_resumed:
            truncate(self._table, self._resume.state.get("rows", 0))

    def begin(self) -> None:
        """Write run.json and config.yaml, and print what has changed since the run was started.

        Raises:
            RunError: Another process trains the run.
        """
        if self._has_begun or not is_rank_zero():
            return
        resume, run, data = self._resume, self.run_dir, describe_data(self._data)
        before = record.read(run)
        record.begin(
            run,
            self._command,
            working_directory=before.get("working_directory") or str(Path.cwd()),
            seed=self._config.seed_everything,
            hardware={
                **record.processor(),
                "threads": torch.get_num_threads(),
                "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
            },
            data=data,
            **({"trackers": trackers} if (trackers := before.get("trackers", {}) | self._places) else {}),
        )
        self._has_begun = True
        known = before.get("data") or {}
        if "digest" in known and known["digest"] != data["digest"]:
            rank_zero_warn(
                f"The images or their split have changed since {run} was started. Start a new run, if you can."
            )
        if resume.is_resumed and resume.file is None:
            print(f"{run} has no checkpoint yet. Training starts from scratch.")
        for key, old, new in resume.changes:
            print(f"Changed      {key}: {old} -> {new}")
        if resume.is_resumed:
            changes = differences(load_config(run), resume.settings)
            if any(not key.startswith((*OF_STARTING, *HARMLESS)) for key, *_ in changes):
                shutil.copy(run / CONFIG, create_folder(run / PREVIOUS_CONFIGS))
        self._write(CONFIG, self._text)

    def end(self, state: str, error: BaseException | None = None) -> None:
        """Write the final state of a training to run.json, or remove the directory of a new run that did not begin."""
        if not is_rank_zero() or self._resume.command != "fit":
            return
        reason = None if error is None else f"{type(error).__name__}: {shortened(error)}"
        with suppress(OSError):  # the disk may be full
            if self._has_begun:
                record.end(self.run_dir, state, time.monotonic() - self._start, reason)
            elif not self._resume.is_resumed:
                shutil.rmtree(self.run_dir)
        if isinstance(error, Stopped) and (self.run_dir / CONFIG).is_file():
            print(f"\nStopped. Resume:  {shell_command('project', 'fit', '--run', self.run_dir)}", file=sys.stderr)

    def write_results(self, metrics: dict[str, Any]) -> None:
        """Write results.json of a validation or test: metrics, checkpoint and data, from which results are read."""
        if not is_rank_zero():
            return
        results = {
            "checkpoint": self._resume.file,
            "checkpoint_digest": self._resume.digest,
            "epoch": self._resume.epoch,
            "step": self._resume.step,
            "data": describe_data(self._data),
            "limit_batches": self._config.trainer[f"limit_{STAGES[self._resume.command]}_batches"],
            "metrics": {name: float(value) for name, value in metrics.items()},
        }
        self._write(RESULTS, json.dumps(results, indent=2) + "\n")

    def _write(self, name: str, text: str) -> None:
        with write_atomically(self.output_dir / name) as partial:
            partial.write_text(text, encoding="utf-8")
