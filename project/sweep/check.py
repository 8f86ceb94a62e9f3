"""Check the command lines of the trials of a sweep before any of them runs. Imports torch."""

from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from io import StringIO

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule, seed_everything

from project.cli.cli import CLI, run
from project.cli.monitors import is_of_validation
from project.cli.parser import Parser
from project.errors import RunError


class Check(CLI):
    """Parses and checks a command line of ``fit``, and prepares its data, without training."""

    def _set_seed(self) -> None:
        seed = self.config["fit"].seed_everything
        seed_everything(0 if seed is False else int(seed), verbose=False)

    def instantiate_classes(self) -> None:
        config = self.config["fit"]
        if config.get("data.init_args.fold") and config.get("data.init_args.folds", 0) is None:
            raise RunError("Expected --data.folds with --data.fold, but got none. Set --data.folds to their number.")
        parser = Parser()
        parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False)
        parser.instantiate(Namespace(data=config.data)).data.prepare_data()

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""


def check(command_lines: Sequence[list[str]]) -> tuple[str, str]:
    """Check command lines of ``fit``; return the metric of the best checkpoint, and "min" or "max".

    Raises:
        RunError: It is not a metric of validation.
        SystemExit: One of them would fail; the message is that of ``fit``.
    """
    checkpoint = Namespace()
    for i, args in enumerate(command_lines):
        with redirect_stdout(StringIO()) if i else nullcontext():  # the others would repeat the notes of the first
            checkpoint = run(list(args), Check).config["fit"].checkpoint
    if not is_of_validation(str(checkpoint.monitor)):
        raise RunError(f"Expected a metric of validation for a sweep, such as val/acc, but got {checkpoint.monitor}.")
    return checkpoint.monitor, checkpoint.mode
