"""What fit, validate and test do: LightningCLI with run directories, exact resume, and errors in one line."""

import importlib
import pkgutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

import callbacks
from callbacks.finite_loss import TerminateOnNaN
from project import COMMANDS
from project.cli.check_config import check_config
from project.cli.error_handling import report_errors
from project.cli.library_weights import find_published, normalization_of
from project.cli.match_data import match_data, trained_data
from project.cli.monitors import MonitorCheck
from project.cli.named_callbacks import callback_names, expand_callbacks, with_named
from project.cli.options import PARSERS, add_options
from project.cli.overhead import NoProfiler, reduce_overhead
from project.cli.parser import Parser, parse, text_to_save
from project.cli.precision import set_precision
from project.cli.progress import NetworkSummary, print_metrics, progress
from project.cli.run_files import RunFiles
from project.doctor.watch import add_judgement
from project.errors import UsageError, debugging, shortened
from project.resume.checkpoint import Checkpoint, EpochKeeper
from project.resume.checkpoint_io import use_atomic_io
from project.resume.override_settings import overrides
from project.resume.ranks import follow_rank_zero, is_rank_zero
from project.resume.resume import Resume, expand_run
from project.resume.signals import SIGNALS, GracefulShutdown, Stopped
from project.runs.command_line import config_files
from project.runs.config import BEST, CONFIG, read_yaml
from project.runs.summary import summary
from project.trackers.build import check_installed, entries_of


def run(args: list[str], kind: "type[CLI] | None" = None, errors: Any = report_errors) -> "CLI":
    """Run fit, validate or test, or a subclass of ``CLI`` that does something else with their options.

    All modules of ``callbacks`` are imported, for their short names. ``errors``: ``report_errors`` or ``raise_errors``.
    """
    with errors(args):
        follow_rank_zero()
        for module in pkgutil.iter_modules(callbacks.__path__):  # including the user's own
            importlib.import_module(f"callbacks.{module.name}")
        torch.set_float32_matmul_precision("high")
        reduce_overhead()
        command = list(args)
        args[:] = expand_callbacks(expand_run(args))
        return (kind or CLI)(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False, **PARSERS},
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=args,
            command=command,
            errors=errors,
        )


class CLI(LightningCLI):
    """The commands fit, validate and test; Lightning calls the methods in the order below.

    Attributes:
        resume: The run and the checkpoint that the command starts from.
        files: What the command writes, to ``output_dir`` in ``run_dir``, the run directory.
    """

    resume: Resume
    files: RunFiles
    run_dir: Path
    output_dir: Path

    def __init__(self, *args: Any, command: list[str], errors: Any, **kwargs: Any) -> None:
        self.command, self.errors = command, errors
        self.callback_names = callback_names(kwargs["args"])
        self.trained: dict[str, Any] = {}  # properties of the data that the checkpoint was trained on
        self.stopper = GracefulShutdown()
        try:
            with self.stopper:
                super().__init__(*args, **kwargs)
        except BaseException as error:
            if hasattr(self, "files"):
                self.files.end("interrupted" if isinstance(error, Stopped) else "failed", error)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, each with the arguments of its Trainer method that are not options."""
        commands = LightningCLI.subcommands()
        return {command: commands[command] for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_options(parser, self.callback_names, lambda: self.trained)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, check what types cannot express, and read the checkpoint."""
        try:
            self.config = parse(parser, args)
        except UsageError:  # the options of a tracker are unknown if it is not installed
            check_installed("\n".join([*args, *(file.read_text(errors="replace") for file in config_files(args))]))
            raise
        config = self.config[command := self.config.subcommand]
        check_config(command, config, given=lambda: parser.parse_args(args, defaults=False)[command])
        set_precision(config)
        self.trackers = entries_of(config.trainer.logger)
        check_installed(str(self.trackers))
        self.published = find_published(config)
        self.text = text_to_save(self._parser(command), command, config)
        self.resume = Resume(command, config, read_yaml(self.text))
        config.trainer.logger = config.trainer.logger is not False  # trackers are created with the run directory
        self.trained = trained_data(self.resume, config.model.class_path) or normalization_of(config, self.published)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would override options with the checkpoint's values."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Match the data to the checkpoint, then create the command's directory and a trainer that writes to it."""
        config = self.config[self.subcommand]
        match_data(self.datamodule, self.resume, self.trained, self.published)
        self.files = RunFiles(config, self.text, self.command, self.resume, self.datamodule)
        self.run_dir, self.output_dir = self.files.run_dir, self.files.output_dir
        if config.trainer.logger:
            kwargs["logger"] = self.files.loggers(self.trackers)
        return super().instantiate_trainer(default_root_dir=str(self.output_dir), **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        """Set the directory of checkpoints, and add the default progress bar, profiler and callbacks."""
        if config["enable_checkpointing"] is False:
            always = [callback for callback in always if not isinstance(callback, ModelCheckpoint)]
        for callback in always:
            if isinstance(callback, Checkpoint):
                callback.dirpath, callback.settings = str(self.run_dir / BEST.parent), self.resume.settings
        given = with_named(config["callbacks"], self.config_init[self.subcommand].get("callbacks"), self.model)
        if config["logger"] is False:  # Lightning would raise
            given = [item for item in given if not isinstance(item, LearningRateMonitor)]
        if config["enable_progress_bar"] is not False and not any(isinstance(item, ProgressBar) for item in given):
            always = [*always, progress()]
        if config["enable_model_summary"] is not False and not any(isinstance(item, ModelSummary) for item in given):
            always = [*always, NetworkSummary()]
            config["enable_model_summary"] = False  # or Lightning reports that there is one already
        if not any(isinstance(item, TerminateOnNaN) for item in given):
            always = [*always, TerminateOnNaN()]
        add_judgement(given)
        # the first three run before all other callbacks
        config["callbacks"] = [self.files, MonitorCheck(), EpochKeeper(), *given]
        config["profiler"] = config["profiler"] or NoProfiler()
        trainer = super()._instantiate_trainer(config, [*always, *overrides(self.resume), self.stopper])
        use_atomic_io(trainer, self.resume.file, self.resume.take_checkpoint())
        return trainer

    def after_fit(self) -> None:
        """Test if asked to, print the results, and write the report."""
        self.files.begin()  # if there was nothing left to train
        for callback in self.trainer.early_stopping_callbacks:
            if callback.stopped_epoch and is_rank_zero():
                print(f"Stopped early at epoch {callback.stopped_epoch + 1}.", flush=True)
        state, tested = "finished", self.run_dir if (self.run_dir / BEST).is_file() else None
        try:
            if self.config["fit"].test_after_fit and (tested := self.trainer.strategy.broadcast(tested)):
                run(["test", "--run", str(tested)], errors=self.errors)
            else:
                self._finish(report=True)
        except (SystemExit, KeyboardInterrupt) as stop:
            if getattr(stop, "code", 130) in [128 + number for number in SIGNALS]:  # the test is not done yet
                state = "interrupted"
            raise
        finally:
            self.files.end(state)

    def before_validate(self) -> None:
        """Set the epoch of the checkpoint, which Lightning restores only in fit, for captions and metrics.csv."""
        if self.resume.epoch is not None:
            self.trainer.fit_loop.epoch_progress.current.completed = self.resume.epoch - 1

    before_test = before_validate

    def validate(self, verbose: bool, **kwargs: Any) -> None:
        """Validate, and print the metrics. Lightning calls this method instead of ``Trainer.validate``."""
        print_metrics(self.trainer.validate(verbose=False, **kwargs), verbose)

    def test(self, verbose: bool, **kwargs: Any) -> None:
        """Test, and print the metrics. Lightning calls this method instead of ``Trainer.test``."""
        print_metrics(self.trainer.test(verbose=False, **kwargs), verbose)

    def after_validate(self) -> None:
        self.files.write_results(self.trainer.callback_metrics)
        self._finish(report=self.subcommand == "test")

    after_test = after_validate

    @rank_zero_only
    def _finish(self, report: bool) -> None:
        """Write the report, and print the summary. A report that fails must not fail a finished run."""
        config = self.config[self.subcommand]
        if find_spec("project.report") is None or config.trainer.fast_dev_run or not (self.run_dir / CONFIG).is_file():
            report = False  # a test of weights outside a run directory has no config
        if report and config.report:
            try:
                importlib.import_module("project.report").write_report(self.run_dir)
            except Exception as error:  # the files of the run are complete
                if debugging():
                    raise
                how = f"To see why, run `report {self.run_dir}` with PROJECT_DEBUG=1"
                rank_zero_warn(f"No report was written ({type(error).__name__}: {shortened(error)}). {how}.")
        print(f"\n{summary(self.run_dir, self.output_dir)}", flush=True)
