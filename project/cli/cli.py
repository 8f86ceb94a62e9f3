"""LightningCLI with run directories, links from data to module, and errors in one line."""

import importlib
import json
import pkgutil
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import LambdaCallback, LearningRateMonitor, ModelCheckpoint, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from rich import print as rich_print

import callbacks
from atomic_files import write_atomically
from callbacks.finite_loss import TerminateOnNaN
from project import COMMANDS
from project.cli.check_config import check_config, class_of
from project.cli.devices import Devices
from project.cli.distributed import follow_parent, is_rank_zero
from project.cli.error_handling import report_errors
from project.cli.monitors import MonitorCheck, is_of_training, is_of_validation
from project.cli.named_callbacks import callback_names, default_callbacks
from project.cli.overhead import NoProfiler, set_hook_names_directly
from project.cli.parser import LINKED, Parser, check_text, parse_given, text_of
from project.cli.progress import DurationOnCPU, NetworkSummary, Progress, metrics_table
from project.errors import RunError, debugging
from project.report import write_report
from project.resume.changes import Changes, changes_of, check_seed, check_unfinished
from project.resume.check_checkpoint import check_classes, check_weights, data_of, facts_of
from project.resume.checkpoint import Checkpoint, EpochKeeper, read_resume_state
from project.resume.checkpoint_io import report_full_disk, use_atomic_io
from project.resume.csv_logger import Table, open_table, truncate
from project.resume.override_settings import OverrideSettings
from project.resume.run_option import expand_run
from project.resume.signals import SIGNALS, GracefulShutdown, Stopped
from project.runs import record
from project.runs.config import BEST, CONFIG, LAST, PREVIOUS_CONFIGS, RESULTS, load_config, read_yaml, setting
from project.runs.folders import (
    create_folder,
    name_of,
    paths_from_here,
    run_of_checkpoint,
    times_tested,
    working_directory,
)
from project.runs.metrics import digest_of, same_data
from project.runs.options import OF_LENGTH, OF_STARTING, OF_TRAINING
from project.runs.summary import shell_command, summary

OPTIONS = "[--config FILE ...] [--option VALUE ...]"
HELP = "Options of the model, the data, callbacks, the run (such as --config), checkpoints and the Trainer, in order."


def run(args: list[str]) -> "CLI":
    """Run fit, validate or test.

    All modules of ``callbacks`` are imported, so that their classes can be given by short names.

    Raises:
        SystemExit: See ``report_errors``.
    """
    follow_parent()
    with report_errors(args):
        for module in pkgutil.iter_modules(callbacks.__path__):  # including the user's own
            importlib.import_module(f"callbacks.{module.name}")
        torch.set_float32_matmul_precision("high")
        set_hook_names_directly()
        command = list(args)
        args[:] = expand_run(args)
        return CLI(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "allow_abbrev": False,
                **{name: {"usage": f"python -m project {name} {OPTIONS}", "description": HELP} for name in COMMANDS},
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=args,
            command=command,
        )


class CLI(LightningCLI):
    """The commands fit, validate and test.

    Attributes:
        output_dir: Directory that the command writes to: the run directory for ``fit``; ``<run_dir>/test/<time>`` or
            ``<run_dir>/validate/<time>`` otherwise.
        run_dir: The run directory.
    """

    output_dir: Path
    run_dir: Path

    def __init__(self, *args: Any, command: list[str], **kwargs: Any) -> None:
        self.command = command
        self.callback_names = callback_names(kwargs["args"])
        self.changes: Changes = []  # from the settings that a checkpoint was trained with
        self.resume_state: dict[str, Any] = {}  # see read_resume_state
        self.settings: dict[str, Any] = {}
        self.weights: dict[str, Any] = {}  # path, digest, epoch, step and hyperparameters of the checkpoint in use
        self.checkpoint_data: dict[str, Any] = {}  # class names, mean and std of the data that it was trained on
        self.table: Table | None = None
        self.training = False
        self.stopper = GracefulShutdown()
        self.start_time = time.monotonic()
        try:
            with self.stopper:
                super().__init__(*args, **kwargs)
        except BaseException as error:  # record in the run directory how the run ended
            if hasattr(self, "run_dir") and self.subcommand == "fit":
                state = "interrupted" if isinstance(error, Stopped) else "failed"
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                with suppress(OSError):  # the disk may be full
                    if self.training or self.config["fit"].run is None:
                        record.end(self.run_dir, state, time.monotonic() - self.start_time, reason)
                    else:  # a failed start leaves a resumed run unchanged
                        record.roll_back(self.run_dir)
                if isinstance(error, Stopped):
                    self._print_resume_command()
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, each with the arguments of its Trainer method that are not options."""
        commands = LightningCLI.subcommands()
        return {command: commands[command] for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add options for run directories and checkpoints, and link arguments of data to the module."""
        assert parser.groups is not None
        for name in ("model", "data"):  # instead of the first lines of the docstrings of Lightning's base classes
            parser.groups[name].title = f"Class of the {name}"
        parser.add_argument("--runs_dir", type=str, default="runs", help="Directory of all runs.")
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="Run directory, its name in runs_dir, `last` or `best`. validate, test: use its best checkpoint. "
            "fit: resume it; `auto` resumes the latest unfinished run of this command line, or starts a new one.",
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="fit: test the best checkpoint once at the end."
        )
        parser.add_argument(
            "--report", type=bool, default=True, help="fit, test: write report.html in the run directory at the end."
        )
        group = parser.add_argument_group(
            "Callbacks by name",
            "--callbacks.NAME.ARGUMENT VALUE, --callbacks.NAME false, or --callbacks.NAME CLASS for your own; "
            "--callbacks.NAME.help CLASS lists arguments, and --callbacks false switches all off. Names: "
            f"{', '.join(self.callback_names)}.",
        )
        for name in self.callback_names:
            kind, default = Callback | Literal[False] | None, default_callbacks().get(name)
            group.add_argument(f"--callbacks.{name}", type=kind, default=default)
        group._group_actions.clear()  # the help has one paragraph for all; jsonargparse saves no hidden options
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/acc",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.enable_version_counter": False,
            }
        )
        for name in LINKED:

            def prefer_checkpoint(value: Any, name: str = name) -> Any:
                trained_value = self.checkpoint_data.get(name)
                return value if trained_value is None else trained_value

            link = f"data.{name}", f"model.init_args.{name}", prefer_checkpoint
            parser.link_arguments(*link, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then check what types cannot express."""
        self.config = parser.parse_args(args)
        config = self.config[self.config.subcommand]
        for key in ("trainer", "model", "data", "callbacks"):
            if isinstance(config.get(key), list):
                raise RunError(f"Expected keys and values below `{key}:`, but got a list.")
        if config.trainer.default_root_dir is not None:
            raise RunError(
                "Expected no --trainer.default_root_dir, because each run has its own directory. Use --runs_dir."
            )
        check_config(
            self.config.subcommand,
            config,
            given=lambda: parse_given(parser, args)[self.config.subcommand],
        )
        options = config.checkpoint
        monitor, given = str(options.monitor), options.save_on_train_epoch_end
        if is_of_training(monitor) or (given is None and config.trainer.limit_val_batches == 0):
            options.save_on_train_epoch_end = True  # a training metric is not logged yet after a validation
        elif given is None and (options.monitor is None or is_of_validation(monitor)):
            options.save_on_train_epoch_end = False  # otherwise Lightning decides
        check_text(self._parser(self.config.subcommand), self._text_of(config))
        if self.config.subcommand == "fit":
            self._compare_with_run()
        if config.ckpt_path is not None and not Path(config.ckpt_path).is_file():
            what = "is a directory" if Path(config.ckpt_path).is_dir() else "does not exist"
            raise RunError(f"Expected a checkpoint at --ckpt_path, but {config.ckpt_path} {what}.")
        pretrained = config.get("model.init_args.pretrained")
        if pretrained is not None and config.ckpt_path is None and not Path(pretrained).is_file():
            raise RunError(f"Expected a file of weights at --model.pretrained, but {pretrained} does not exist.")
        teacher = config.get("model.init_args.teacher")  # before data is downloaded
        if teacher is not None and self.config.subcommand == "fit" and not Path(teacher).is_file():
            raise RunError(f"Expected a checkpoint at --model.teacher, but {teacher} does not exist.")
        if options.dirpath is not None or options.filename != "best" or options.save_top_k not in (0, 1):
            raise RunError(
                "Expected the defaults of --checkpoint.dirpath, filename and save_top_k, because --run uses "
                "checkpoints/best.ckpt. To keep more checkpoints, add a ModelCheckpoint to trainer.callbacks."
            )
        weights = config.ckpt_path or pretrained
        if self.config.subcommand != "fit" and weights is None:
            raise RunError(
                f"Expected weights to {self.config.subcommand}. Set --run last, best or DIRECTORY, --ckpt_path FILE or "
                "--model.pretrained FILE."
            )
        if config.ckpt_path is not None or self.config.subcommand != "fit":
            self.weights = {"file": weights, **facts_of(str(weights), config.weights_only is not False)}
            self.checkpoint_data = data_of(self.weights.get("hyper_parameters", {}), class_of(config.model))
            self.weights["digest"] = digest_of(Path(weights))  # a training may replace the file during a test

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would override the command line with the checkpoint's values."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Create the run directory and a trainer that writes to it.

        Data and module are instantiated before, so an error in them leaves no empty run directory.
        """
        command = self.subcommand
        assert command is not None
        config = self.config[command]
        check_weights(command, config, self.model)
        self._match_data(command)
        self._make_folders(config)
        if command == "fit" and is_rank_zero():
            self._begin_record(config)
        loggers: list[CSVLogger | TensorBoardLogger] = []
        if config.trainer.logger in (None, True):
            step = self.resume_state.get("step", 0) if command == "fit" and config.run is not None else None
            table = CSVLogger(self.output_dir, name="", version="")
            board = TensorBoardLogger(self.output_dir, name="", version="", default_hp_metric=False, purge_step=step)
            loggers = [table, board]
            kwargs["logger"] = loggers[::-1]
        if is_rank_zero():
            if loggers:
                self.table = open_table(table)
                _ = board.experiment
            if command != "fit" or config.run is None:
                self._save_config(config)
            print(f"Run: {self.output_dir}", flush=True)
        return super().instantiate_trainer(default_root_dir=str(self.output_dir), **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        """Set the directory of checkpoints, and add the default progress bar, profiler and callbacks."""
        if config["enable_checkpointing"] is False:
            always = [callback for callback in always if not isinstance(callback, ModelCheckpoint)]
        for callback in always:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run_dir / BEST.parent)
        given = config["callbacks"] if isinstance(config["callbacks"], list) else [config["callbacks"]]
        named = vars(self.config_init[self.subcommand].get("callbacks", Namespace()))
        classes = {type(item) for item in given}  # an entry of trainer.callbacks replaces the default of its class
        replaced = {name for name in default_callbacks() if type(named.get(name)) in classes}
        given = [item for name, item in named.items() if isinstance(item, Callback) and name not in replaced] + given
        if config["logger"] is False:  # Lightning would raise
            given = [item for item in given if not isinstance(item, LearningRateMonitor)]
        if config["enable_progress_bar"] is not False and not any(isinstance(item, ProgressBar) for item in given):
            always = [*always, Progress()]
        if config["enable_model_summary"] is not False and not any(isinstance(item, ModelSummary) for item in given):
            always = [*always, NetworkSummary()]
            config["enable_model_summary"] = False  # or Lightning reports that there is one already
        if not any(isinstance(item, TerminateOnNaN) for item in given):
            always = [*always, TerminateOnNaN()]
        always = [*always, Devices(), *self._overrides(), self.stopper]
        always = [*always, LambdaCallback(on_train_start=self._begin_training)]
        for callback in always:
            if isinstance(callback, Checkpoint):
                callback.settings = self.settings
        # these two run before all other callbacks
        config["callbacks"] = [MonitorCheck(), EpochKeeper(), *(item for item in given if item is not None)]
        config["profiler"] = config["profiler"] or NoProfiler()
        trainer = super()._instantiate_trainer(config, always)
        use_atomic_io(trainer, config["plugins"])
        if isinstance(trainer.accelerator, CPUAccelerator):
            trainer.callbacks.append(DurationOnCPU())  # type: ignore[attr-defined]  # set elsewhere in Lightning
        return trainer

    def _match_data(self, command: str) -> None:
        """Set the classes and the normalisation of the data to those of the checkpoint.

        Raises:
            DataError: --data.normalize contradicts the checkpoint.
            RunError: The data has other classes, or its transforms are fitted to other images.
        """
        if self.weights:
            self._check_fitted()
        if not self.checkpoint_data:
            return
        data, names = self.datamodule, self.checkpoint_data["class_names"]
        if names is not None:
            check_classes(str(self.weights["file"]), names, data, training=command == "fit")
        if hasattr(data, "match"):
            data.match(names, self.checkpoint_data["mean"], self.checkpoint_data["std"])
        size = self.weights["hyper_parameters"].get("image_size")
        if (given := getattr(data, "image_size", size)) != size:
            rank_zero_warn(f"Images have {given} pixels, but the checkpoint was trained on images of {size} pixels.")

    def _check_fitted(self) -> None:
        """Check that transforms are fitted to the images that the checkpoint was trained on.

        Raises:
            RunError: The data is not the run's.
        """
        data = self.datamodule
        options = ("train_transforms", "eval_transforms")
        transforms = [transform for option in options for transform in getattr(data, option, None) or []]
        names = [type(transform).__name__ for transform in transforms if hasattr(transform, "fit")]
        if not names:
            return
        file, described = str(self.weights["file"]), self._describe_data()
        run = self.config[self.subcommand].run or run_of_checkpoint(Path(file))
        of_run = (record.read(Path(run)).get("data") if run is not None else None) or {}
        if not of_run.get("digest"):
            rank_zero_warn(
                f"{names[0]} is fitted to the training images of {described['root']}. It is unknown whether {file} was "
                "trained on them, because its run has no run.json that records the data."
            )
        elif not same_data(of_run, described):
            raise RunError(
                f"Expected the data that {file} was trained on ({of_run['root']}), because {names[0]} is fitted to its "
                f"training images, but got {described['root']}. Set --data.root to the data of the run. To classify "
                "other images, use `predict`, which fits to the data of the run."
            )

    def _make_folders(self, config: Any) -> None:
        """Set ``run_dir`` and ``output_dir``, and create them."""
        run = Path(config.run) if config.run is not None else None
        if run is None and config.ckpt_path is not None and self.subcommand != "fit":
            run = run_of_checkpoint(Path(config.ckpt_path))
        configs = filter(None, config.get("config") or [])  # None if --config is a string instead of a file
        runs = Path(config.runs_dir) / name_of(list(map(str, configs)))
        if not is_rank_zero():  # other ranks write nothing; rank zero broadcasts the directory
            self.run_dir = self.output_dir = run or runs
            return
        self.run_dir = run or create_folder(runs)
        self.output_dir = self.run_dir
        if self.subcommand != "fit":
            self.output_dir = create_folder(self.run_dir / str(self.subcommand))

    def _compare_with_run(self) -> None:
        """Collect the settings that the command line changes from those that the checkpoint was trained with.

        They may differ from the run's config, which also records starts that wrote no checkpoint.

        Raises:
            RunError: The run does not exist, or cannot be resumed with these settings.
        """
        config = self.config["fit"]
        settings = read_yaml(self._text_of(config))
        self.settings = {key: value for key, value in settings.items() if key not in OF_STARTING}
        run = Path(config.run) if config.run is not None else None
        if run is not None and not (run / CONFIG).is_file():
            raise RunError(f"Expected a run directory with {CONFIG} at --run, but got {run}.")
        if config.ckpt_path is not None:
            self.resume_state = read_resume_state(Path(config.ckpt_path), weights_only=config.weights_only is not False)
        before = self.resume_state.get("settings") or (load_config(run) if run is not None else None)
        if before is None:  # a new run, or a checkpoint without settings
            return
        self.changes = changes_of(before, self.settings)
        if config.ckpt_path is not None:
            check_seed(self.changes)
        if run is not None:
            check_unfinished(run, before, self.settings)

    def _begin_record(self, config: Any) -> None:
        """Write run.json, and report what has changed since the run was started."""
        data = self._describe_data()
        info = record.read(self.run_dir)
        before = info.get("data") or {}
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        record.begin(
            self.run_dir,
            self.command,
            working_directory=working_directory(self.run_dir) if config.run is None else info.get("working_directory"),
            seed=config.seed_everything,
            hardware={**record.processor(), "threads": torch.get_num_threads(), "devices": devices},
            data=data,
        )
        if "digest" in before and not same_data(before, data):
            rank_zero_warn(
                f"The images or their split have changed since {self.run_dir} was started, so its metrics are not "
                "comparable. Start a new run, unless the change is intended."
            )
        if config.run is not None and config.ckpt_path is None:
            print(f"{self.run_dir} has no checkpoint yet. Training starts from scratch.")
        for key, old, new in self.changes:
            print(f"Changed      {key}: {old} -> {new}")

    def _describe_data(self) -> dict[str, Any]:
        data = self.datamodule
        digests = {name: getattr(data, name, None) for name in ("digest", "index_digest")}
        return {"class": type(data).__name__, "root": str(getattr(data, "root", "")), **digests}

    def _overrides(self) -> list[Callback]:
        """Return a callback that overrides settings of the checkpoint if the command line changes some."""
        keys = [key for key, *_ in self.changes if key.startswith(OF_TRAINING)]
        if self.subcommand != "fit" or self.config["fit"].ckpt_path is None or not (keys or not self.resume_state):
            return []  # a checkpoint of another program has no settings
        forget_moments = "model.init_args.optimizer.class_path" in keys
        return [OverrideSettings(forget_moments, bool(keys) and all(key in OF_LENGTH for key in keys))]

    def before_validate(self) -> None:
        """Set the epoch of the checkpoint, which Lightning restores only in fit, for captions and metrics.csv."""
        if epoch := self.weights.get("epoch"):
            self.trainer.fit_loop.epoch_progress.current.completed = epoch - 1

    before_test = before_validate

    def _text_of(self, config: Any) -> str:
        """Return the config that reproduces this command, without the options that apply only to this start."""
        config = config.clone()
        if config.get("data.init_args.overwrite_split"):
            config["data.init_args.overwrite_split"] = False
        if self.config.subcommand == "fit" and config.run is not None:
            for key, path in paths_from_here(Path(config.run)).items():
                if config.get(key) == path:
                    config[key] = setting(load_config(Path(config.run)), key)
            config.run = config.ckpt_path = None
        return text_of(self._parser(self.config.subcommand), config)

    def _save_config(self, config: Any) -> None:
        resumed = self.subcommand == "fit" and config.run is not None
        if resumed and changes_of(load_config(self.run_dir), self.settings):
            shutil.copy(self.run_dir / CONFIG, create_folder(self.run_dir / PREVIOUS_CONFIGS))
        with write_atomically(self.output_dir / CONFIG) as partial:
            partial.write_text(self._text_of(config), encoding="utf-8")

    def _begin_training(self, trainer: Trainer, *_: Any) -> None:
        """Broadcast the run directory, and update the files of a resumed run, which a failed start must not change."""
        self.training = True
        if trainer.ckpt_path is not None and is_rank_zero():
            ended = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch  # and validated, when it was written
            epoch, step = trainer.current_epoch + 1 + ended, trainer.global_step
            print(f"Resuming at epoch {epoch}, step {step} ({trainer.ckpt_path}).", flush=True)
        self.run_dir = Path(trainer.strategy.broadcast(str(self.run_dir)))
        if self.config["fit"].run is not None and is_rank_zero():
            if self.table is not None:
                truncate(self.table, self.resume_state.get("rows", 0))
            self._save_config(self.config["fit"])

    def _print_resume_command(self) -> None:
        if self.subcommand == "fit" and is_rank_zero() and (self.run_dir / CONFIG).is_file():
            last = self.run_dir / LAST
            state = f"; the last checkpoint is {last}" if last.is_file() else ", before the first checkpoint"
            command = shell_command("project", "fit", "--run", self.run_dir)
            print(f"\nStopped{state}. Resume:  {command}", file=sys.stderr)

    @rank_zero_only
    def _finish(self, report: bool) -> None:
        config = self.config[self.subcommand]
        if report and config.report and not config.trainer.fast_dev_run:
            self._write_report()
        print(f"\n{summary(self.run_dir, self.output_dir)}", flush=True)

    def _write_report(self) -> None:
        """Write the report; warn if that fails, because the report must not fail a finished run."""
        if not (self.run_dir / CONFIG).is_file():  # a test of weights outside a run directory
            return
        try:
            write_report(self.run_dir)
        except Exception as error:  # the files of the run are complete
            if debugging():
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            rank_zero_warn(
                f"No report was written ({reason}). To see why, run `report {self.run_dir}` with PROJECT_DEBUG=1."
            )

    def fit(self, **kwargs: Any) -> None:
        """Train. Lightning calls this method instead of ``Trainer.fit``."""
        with report_full_disk(lambda: self.run_dir):
            try:
                self.trainer.fit(**kwargs)
            except ValueError as error:
                if "`val_check_interval`" not in str(error):
                    raise
                raise RunError(
                    "Expected --trainer.val_check_interval of at most the number of batches in an epoch "
                    f"({self.trainer.num_training_batches}), but got {self.trainer.val_check_interval}. To count "
                    "batches across epochs, add --trainer.check_val_every_n_epoch null."
                ) from error

    def after_fit(self) -> None:
        """Test if asked to, print the results, and write the report."""
        state = "finished"
        for callback in self.trainer.early_stopping_callbacks:
            if callback.stopped_epoch and is_rank_zero():
                print(f"Stopped early at epoch {callback.stopped_epoch + 1}.", flush=True)
        try:
            if self.config["fit"].test_after_fit and self.trainer.strategy.broadcast((self.run_dir / BEST).is_file()):
                run(["test", "--run", str(self.run_dir)])
            else:
                self._finish(report=True)
        except SystemExit as stop:
            if stop.code in [128 + number for number in SIGNALS]:  # the test is not done yet
                state = "interrupted"
            raise
        finally:
            record.end(self.run_dir, state, time.monotonic() - self.start_time)

    def validate(self, verbose: bool, **kwargs: Any) -> None:
        """Validate, and print the metrics. Lightning calls this method instead of ``Trainer.validate``."""
        self._print_metrics(self.trainer.validate(verbose=False, **kwargs), verbose)

    def test(self, verbose: bool, **kwargs: Any) -> None:
        """Test, and print the metrics. Lightning calls this method instead of ``Trainer.test``."""
        self._print_metrics(self.trainer.test(verbose=False, **kwargs), verbose)

    @rank_zero_only
    def _print_metrics(self, of_loaders: list[Mapping[str, float]], verbose: bool) -> None:
        """Print a table; Lightning's has up to 19 digits."""
        metrics = {name: value for of_loader in of_loaders for name, value in of_loader.items()}
        if verbose and metrics:
            rich_print(metrics_table(metrics))

    def after_validate(self) -> None:
        """Write and print the results."""
        self._write_results()
        self._finish(report=False)

    def after_test(self) -> None:
        """Write and print the results, with the number of tests of this run, and update the report."""
        self._write_results(times_tested=times_tested(self.run_dir) + 1)
        self._finish(report=True)

    @rank_zero_only
    def _write_results(self, **facts: int) -> None:
        """Write results.json: metrics, checkpoint and data."""
        config = self.config[self.subcommand]
        results = {
            "checkpoint": config.ckpt_path or config.get("model.init_args.pretrained"),
            "checkpoint_digest": self.weights["digest"],
            "epoch": self.weights.get("epoch"),
            "step": self.weights.get("step"),
            "data": self._describe_data(),
            **facts,
            "metrics": {name: float(value) for name, value in self.trainer.callback_metrics.items()},
        }
        with write_atomically(self.output_dir / RESULTS) as partial:
            partial.write_text(json.dumps(results, indent=2) + "\n")
