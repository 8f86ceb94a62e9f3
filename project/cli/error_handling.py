"""Turn exceptions into messages and exit codes."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

import datamodules
from callbacks.finite_loss import NotFiniteError
from project.cli.error_messages import one_line, parser_message, root_cause, short_traceback
from project.errors import RunError, UsageError, debugging, shortened
from project.resume.ranks import leave_at_once, rank, world_size
from project.resume.signals import Stopped

USER_ERRORS = (datamodules.DataError, MisconfigurationException, NotFiniteError, RunError, OSError)

# errors of Lightning and torch that need no traceback: what to do, and the exit code
ADVICE = {
    "`val_check_interval`|does not match the world size": ("", 2),
    "is not in bounds, numpy accepts": ("Change --seed_everything.", 2),
    r"Error\(s\) in loading state_dict": (
        "Use the settings that it was trained with, or --model.pretrained to load only the network.",
        2,
    ),
    r"DataLoader worker \(pid": ("It may have run out of memory. Reduce --data.num_workers or --data.batch_size.", 1),
    r"C(\+\+)? compiler": ("Install gcc and g++, or use --model.compile false.", 2),
}
HIDDEN_WARNINGS: tuple[dict[str, Any], ...] = (
    {"message": ".*LeafSpec"},  # Lightning's own use of torch's internals, on every run
    # Lightning calls functions that jsonargparse 5 removes; pyproject.toml excludes that version
    {"category": DeprecationWarning, "module": r"lightning\.pytorch\.cli"},
    {"message": "`torch.jit.trace", "category": FutureWarning},  # TensorBoard's graphs use it
    {"message": "Checkpoint directory .* is not empty"},  # as expected in a resumed run
    {"message": ".*The WeightAveraging state cannot be restored"},  # it is not needed
    {"message": "\\s*Unable to serialize instance"},  # defaults that Parser leaves out of configs
    # the loss is saved as a hyperparameter, so that load_from_checkpoint needs no arguments
    {"message": "Attribute '.*' is an instance of `nn.Module`"},
)


def is_of_use(record: logging.LogRecord) -> bool:
    """Return whether a log record is none of Lightning's tips, and about no TPU, loading of data or SIGTERM.

    ``GracefulShutdown`` reports signals; Lightning would report SIGTERM for a Ctrl-C too.
    """
    useless = ("💡 Tip", "TPU available", "Loading `train_dataloader")
    return not record.getMessage().startswith(useless) and "Received SIGTERM" not in record.getMessage()


@contextmanager
def report_errors(args: list[str]) -> Iterator[None]:
    """Print an error of a command line, and exit. Warnings that no user can act on are hidden.

    Raises:
        SystemExit: With code 2 for a user error, printed in one line; with code 1 for any other error, printed with the
            frames of its traceback that belong to the user's files or the project's. With 128 + n after signal n.
    """
    _hide_warnings()
    try:
        yield
    except Stopped as stopped:
        if debugging():
            raise
        code = 0 if rank() else stopped.exit_code  # Lightning's launcher kills rank zero if another rank fails
        leave_at_once(code)
        raise SystemExit(code) from None
    except Exception as error:  # printed in short; PROJECT_DEBUG raises it
        rank_text = f"Rank {rank()} of {world_size()} failed:" if world_size() > 1 else ""
        if debugging():
            if rank_text:
                error.add_note(rank_text)
            leave_at_once(1)
            raise
        message, code = message_of(root_cause(error), args)
        print(f"{rank_text}\n{message}".strip(), file=sys.stderr)
        leave_at_once(code)
        raise SystemExit(code) from error


@contextmanager
def raise_errors(args: list[str]) -> Iterator[None]:
    """Raise errors in a program of the user's; ``report_errors`` does the same for the command line.

    Raises:
        RunError: For a user error, with the message that the command line prints. Other errors are not changed.
        KeyboardInterrupt: After a signal.
    """
    _hide_warnings()
    try:
        yield
    except Stopped as stopped:
        raise KeyboardInterrupt(str(stopped)) from stopped
    except Exception as error:  # only its message is replaced
        cause = root_cause(error)
        message, code = message_of(cause, args)
        if code != 2:
            raise cause from cause.__cause__  # without what jsonargparse wrapped it in
        raise RunError(message.removeprefix("error: ")) from (error if debugging() else None)


def _hide_warnings() -> None:
    for warning in HIDDEN_WARNINGS:
        warnings.filterwarnings("ignore", **warning)
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").addFilter(is_of_use)


def message_of(error: BaseException, args: list[str]) -> tuple[str, int]:
    """Return the message of an error, and the exit code: 2 for a user error, 1 for any other."""
    text = " ".join(str(error).split())
    if isinstance(error, UsageError):
        return f"error: {parser_message(str(error), args)}", 2
    if isinstance(error, USER_ERRORS):
        return f"error: {one_line(error)}", 2
    for pattern, (advice, code) in ADVICE.items():
        if isinstance(error, RuntimeError | ValueError) and re.search(pattern, text):
            return f"error: {shortened(error).rstrip(' .')}. {advice}".strip(), code
    return short_traceback(error), 1
