"""LightningCLI with run folders, links from data to module, and errors in one line."""

import importlib
import logging
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

import callbacks
import datamodules
from project import COMMANDS
from project.light import debugging
from project.messages import is_of_another_network, one_line, parser_message, root_cause, short_traceback
from project.parser import LINKED, Parser, UsageError
from project.profiler import NoProfiler
from project.progress import Progress
from project.ranks import (
    follow_parent,
    is_first_to_fail,
    is_loss_of_another,
    is_rank_zero,
    leave_at_once,
    rank,
    world_size,
)
from project.report import write_report
from project.runs import BEST, CONFIG, RunError, create_folder, expand_run, name_of, run_of_checkpoint, summary

OPTIONS = "[--config FILE ...] [--option VALUE ...]"
USER_ERRORS = (datamodules.DataError, MisconfigurationException, RunError, OSError)


class CLI(LightningCLI):
    """The commands fit, validate and test.

    Attributes:
        output_dir: Where the command writes: the run's folder, or below it ``test/<time>`` and the like.
        run_dir: The run's folder.
    """

    output_dir: Path
    run_dir: Path

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, with the Trainer's arguments that are not options."""
        commands = LightningCLI.subcommands()
        return {command: commands[command] for command in COMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add run folders, checkpoints and the links from data to module."""
        parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="validate, test: folder of a run, or `last`; its best checkpoint.",
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="fit: test the best checkpoint once at the end."
        )
        parser.add_argument(
            "--report", type=bool, default=True, help="fit, test: write report.html in the run's folder at the end."
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.monitor": "val/acc",
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.save_last": True,
                "checkpoint.auto_insert_metric_name": False,
            }
        )
        for name in LINKED:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then check what no type can say."""
        self.config = parser.parse_args(args)
        config = self.config[self.config.subcommand]
        for key in ("trainer", "model", "data"):
            if isinstance(config[key], list):
                raise MisconfigurationException(f"Expected keys and values below `{key}:`, but got a list.")
        if config.trainer.default_root_dir is not None:
            raise MisconfigurationException(
                "Expected no --trainer.default_root_dir, because runs lie in folders of their own: give --runs_dir."
            )
        if self.config.subcommand == "fit" and config.run is not None:
            raise MisconfigurationException(
                "Expected --run with validate or test, but got it with fit, which starts a new run. Take it away."
            )
        if config.ckpt_path is not None and not Path(config.ckpt_path).is_file():
            raise MisconfigurationException(
                f"Expected a checkpoint at --ckpt_path, but {config.ckpt_path} does not exist."
            )
        pretrained = config.get("model.init_args.pretrained")
        if pretrained is not None and config.ckpt_path is None and not Path(pretrained).is_file():
            raise MisconfigurationException(
                f"Expected a file of weights at --model.pretrained, but {pretrained} does not exist."
            )
        teacher = config.get("model.init_args.teacher")
        if teacher is not None and self.config.subcommand == "fit" and not Path(teacher).is_file():
            raise MisconfigurationException(f"Expected a checkpoint at --model.teacher, but {teacher} does not exist.")
        kept = config.checkpoint
        if kept.dirpath is not None or kept.filename != "best" or kept.save_top_k not in (0, 1):
            raise MisconfigurationException(
                "Expected --checkpoint.dirpath, filename and save_top_k as they are, because --run takes "
                "checkpoints/best.ckpt. To keep more, add a ModelCheckpoint to trainer.callbacks."
            )
        weights = config.ckpt_path or pretrained
        if self.config.subcommand != "fit" and weights is None:
            raise MisconfigurationException(
                f"Expected weights to {self.config.subcommand}: give --run last, --run FOLDER, --ckpt_path FILE or "
                "--model.pretrained FILE."
            )

    def _parse_ckpt_path(self) -> None:
        """Keep the config as it was given: Lightning would let the checkpoint's values win over the command line."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the run's folder and a trainer that writes into it.

        By now data and module exist, so that a mistake in them leaves no empty run behind.
        """
        command = self.subcommand
        assert command is not None
        config = self.config[command]
        self._make_folders(config)
        loggers: list[CSVLogger | TensorBoardLogger] = []
        if config.trainer.logger in (None, True):
            loggers = [
                CSVLogger(self.output_dir, name="", version=""),
                TensorBoardLogger(self.output_dir, name="", version="", default_hp_metric=False),
            ]
            kwargs["logger"] = loggers[::-1]
        if is_rank_zero():
            for logger in loggers:
                _ = logger.experiment  # the CSV logger warns if the folder is not empty when it begins
            if config.get("data.init_args.resplit"):  # done by now, and not to be done by whoever repeats the run
                config["data.init_args.resplit"] = False
            self._parser(command).save(config, self.output_dir / CONFIG, skip_none=False)
            print(f"Run: {self.output_dir}", flush=True)
        return super().instantiate_trainer(default_root_dir=str(self.output_dir), **kwargs)

    def _instantiate_trainer(self, config: dict[str, Any], always: list[Callback]) -> Trainer:
        """Give checkpoints their folder, and take a progress bar and a profiler that cost little."""
        if config["enable_checkpointing"] is False:
            always = [callback for callback in always if not isinstance(callback, ModelCheckpoint)]
        for callback in always:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run_dir / BEST.parent)
        if config["logger"] is False and isinstance(config["callbacks"], list):  # Lightning would refuse to start
            config["callbacks"] = [one for one in config["callbacks"] if not isinstance(one, LearningRateMonitor)]
        given = config["callbacks"] if isinstance(config["callbacks"], list) else [config["callbacks"]]
        if config["enable_progress_bar"] is not False and not any(isinstance(one, ProgressBar) for one in given):
            always = [*always, Progress()]
        config["profiler"] = config["profiler"] or NoProfiler()
        return super()._instantiate_trainer(config, always)

    def _make_folders(self, config: Any) -> None:
        """Set ``run_dir`` and ``output_dir``, and make them."""
        run = Path(config.run) if config.run is not None else None
        if run is None and config.ckpt_path is not None and self.subcommand != "fit":
            run = run_of_checkpoint(Path(config.ckpt_path))
        runs = Path(config.runs_dir) / name_of([str(path) for path in config.get("config") or []])
        if not is_rank_zero():  # other ranks write nothing, and learn the folder from rank zero's broadcast
            self.run_dir = self.output_dir = run or runs
            return
        self.run_dir = run or create_folder(runs)
        self.output_dir = self.run_dir
        if self.subcommand != "fit":
            self.output_dir = create_folder(self.run_dir / str(self.subcommand))

    @rank_zero_only
    def _finish(self, report: bool) -> None:
        config = self.config[self.subcommand]
        if report and config.report and not config.trainer.fast_dev_run:
            self._write_report()
        print(f"\n{summary(self.run_dir, self.output_dir)}", flush=True)

    def _write_report(self) -> None:
        """Write the report, or say why not: what was trained is not lost over a picture of it."""
        if not (self.run_dir / CONFIG).is_file():  # a test of weights that are no run's
            return
        try:
            write_report(self.run_dir)
        except Exception as error:  # whatever it is, the run is finished and its files are there
            if debugging():
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            rank_zero_warn(
                f"No report was written ({reason}). PROJECT_DEBUG=1 shows all of it: `report {self.run_dir}`."
            )

    def after_fit(self) -> None:
        """Say what came out."""
        # the folder that rank zero made, which the others learn here
        found = (str(self.run_dir), (self.run_dir / BEST).is_file())
        folder, has_best = self.trainer.strategy.broadcast(found)
        self.run_dir = Path(folder)
        if self.config["fit"].test_after_fit and has_best:
            run(["test", "--run", folder])
        else:
            self._finish(report=True)

    def after_validate(self) -> None:
        """Say what came out."""
        self._finish(report=False)

    def after_test(self) -> None:
        """Say what came out, in the run's report too."""
        self._finish(report=True)


def is_no_advertisement(record: logging.LogRecord) -> bool:
    """Tell whether a log record is none of Lightning's tips to install another product."""
    return "Tip: For seamless" not in record.getMessage()


@contextmanager
def told_shortly(args: list[str]) -> Iterator[None]:
    """Turn an error into words for the person at the command line.

    Args:
        args: Command line that the errors are about.

    Raises:
        SystemExit: With code 2 for a mistake of the user, told in one line; with code 1 for any other error, told by
            the frames of its traceback that are the user's or the project's.
    """
    # on every run: a warning about Lightning's own use of torch's internals, and its advertisements
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="`torch.jit.trace", category=FutureWarning)  # TensorBoard's graphs use it
    warnings.filterwarnings("ignore", message=".*The WeightAveraging state cannot be restored")  # nor is it needed
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_no_advertisement)
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted. What is half done does not count: start the command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:  # whatever it is, a person reads it: told short, raised whole by PROJECT_DEBUG
        code = 1
        first = is_first_to_fail()
        if not debugging() and first:
            if world_size() > 1 and not is_loss_of_another(error):
                print(f"Rank {rank()} of {world_size()} failed first:", file=sys.stderr)
            code = tell(root_cause(error), args)
        leave_at_once(code)
        if debugging():
            if world_size() > 1:
                error.add_note(f"(rank {rank()} of {world_size()})")
            raise
        raise SystemExit(code) from error


def tell(error: BaseException, args: list[str]) -> int:
    """Print an error, and return the code to exit with: 2 for a mistake of the user, 1 for any other."""
    if isinstance(error, UsageError):
        print(f"error: {parser_message(str(error), args)}", file=sys.stderr)
    elif isinstance(error, USER_ERRORS):
        print(f"error: {one_line(error)}", file=sys.stderr)
    elif is_of_another_network(error):
        first = " ".join(str(error).split())[:200]
        print(f"error: Expected a checkpoint of the config's network, but got another's: {first} ...", file=sys.stderr)
    elif is_loss_of_another(error):
        print(
            "error: Another process of this training is gone and did not say why: was it killed, for want of memory? "
            f"Rank {rank()} noticed: {' '.join(str(error).split())}",
            file=sys.stderr,
        )
        return 1
    else:
        print(short_traceback(error), file=sys.stderr)
        return 1
    return 2


def run(args: list[str]) -> CLI:
    """Run a command of Lightning's.

    All files of ``callbacks`` are imported: a class is found by its short name once its module is.

    Raises:
        SystemExit: See ``told_shortly``.
    """
    follow_parent()
    with told_shortly(args):
        for module in pkgutil.iter_modules(callbacks.__path__):  # the user's own among them
            importlib.import_module(f"callbacks.{module.name}")
        torch.set_float32_matmul_precision("high")
        if args[0] != "fit":
            args[:] = expand_run(args)
        return CLI(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "allow_abbrev": False,
                **{name: {"usage": f"python -m project {name} {OPTIONS}"} for name in COMMANDS},
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            args=args,
        )
