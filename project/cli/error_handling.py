"""Turn exceptions into messages and exit codes."""

import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

import datamodules
from callbacks.finite_loss import NotFiniteError
from project.cli.error_messages import one_line, parser_message, root_cause, short_traceback
from project.errors import DiskFullError, RunError, UsageError, debugging
from project.resume.ranks import is_loss_of_another, leave_at_once, rank, world_size
from project.resume.signals import GracefulShutdown, Stopped

USER_ERRORS = (datamodules.DataError, DiskFullError, MisconfigurationException, NotFiniteError, RunError, OSError)

# messages of Lightning's about the command line: validation after the end of an epoch, torchrun with other devices
LIGHTNING = "`val_check_interval`|does not match the world size"


def is_of_use(record: logging.LogRecord) -> bool:
    """Return whether a log record is none of Lightning's tips, and about no TPU or loading of data."""
    return not record.getMessage().startswith(("💡 Tip", "TPU available", "Loading `train_dataloader`"))


def is_no_echo(record: logging.LogRecord) -> bool:
    """Return whether a log record is not the "Received SIGTERM" that Lightning logs for a Ctrl-C in training."""
    handler = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    ctrl_c = isinstance(handler, GracefulShutdown) and handler.number == signal.SIGINT
    return not (ctrl_c and "Received SIGTERM" in record.getMessage())


@contextmanager
def report_errors(args: list[str]) -> Iterator[None]:
    """Print an error for the user, and exit. Warnings that no user can act on are hidden.

    Args:
        args: Command line that the errors are about.

    Raises:
        SystemExit: With code 2 for a user error, printed in one line; with code 1 for any other error, printed with the
            frames of its traceback that belong to the user's files or the project's. With 128 + n after signal n.
    """
    # Lightning's own use of torch's internals, on every run
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # Lightning calls functions that jsonargparse 5 removes; pyproject.toml excludes that version
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
    warnings.filterwarnings("ignore", message="`torch.jit.trace", category=FutureWarning)  # TensorBoard's graphs use it
    warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")  # as expected in a resumed run
    warnings.filterwarnings("ignore", message=".*The WeightAveraging state cannot be restored")  # it is not needed
    # defaults that Parser leaves out of configs
    warnings.filterwarnings("ignore", message="\\s*Unable to serialize instance")
    # the loss is saved as a hyperparameter, so that load_from_checkpoint needs no arguments
    warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_of_use)
    logging.getLogger("lightning.pytorch.trainer.connectors.signal_connector").addFilter(is_no_echo)
    try:
        yield
    except Stopped as stopped:
        if debugging():
            raise
        code = 0 if rank() else stopped.exit_code  # Lightning's launcher kills rank zero if another rank fails
        leave_at_once(code)
        raise SystemExit(code) from None
    except Exception as error:  # printed in short; PROJECT_DEBUG raises it
        code = 1
        if not debugging():
            if world_size() > 1:
                print(f"Rank {rank()} of {world_size()} failed:", file=sys.stderr)
            code = print_error(root_cause(error), args)
        leave_at_once(code)
        if debugging():
            if world_size() > 1:
                error.add_note(f"(rank {rank()} of {world_size()})")
            raise
        raise SystemExit(code) from error


def print_error(error: BaseException, args: list[str]) -> int:
    """Print an error, and return the exit code: 2 for a user error, 1 for any other."""
    if isinstance(error, UsageError):
        print(f"error: {parser_message(str(error), args, error.options)}", file=sys.stderr)
    elif isinstance(error, USER_ERRORS) or (isinstance(error, ValueError) and re.search(LIGHTNING, str(error))):
        print(f"error: {one_line(error)}", file=sys.stderr)
    elif is_loss_of_another(error):
        print(
            "error: Another rank exited. Its error is above or below; if there is none, it may have run out of memory. "
            f"This rank reports: {' '.join(str(error).split())}",
            file=sys.stderr,
        )
        return 1
    elif isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
        print(
            f"error: {str(error).strip(' .')}. It may have run out of memory. Reduce --data.num_workers or "
            "--data.batch_size.",
            file=sys.stderr,
        )
        return 1
    else:
        print(short_traceback(error), file=sys.stderr)
        return 1
    return 2
