"""How a command ends, in words for the person at the command line."""

import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

import datamodules
from callbacks.finite_loss import NotFiniteError
from project.cli.distributed import is_first_to_fail, is_loss_of_another, leave_at_once, rank
from project.cli.error_messages import is_of_another_network, one_line, parser_message, root_cause, short_traceback
from project.errors import DiskFullError, RunError, UsageError, debugging
from project.resume.signals import GracefulShutdown, Stopped, world_size

USER_ERRORS = (datamodules.DataError, DiskFullError, MisconfigurationException, NotFiniteError, RunError, OSError)


def is_of_use(record: logging.LogRecord) -> bool:
    """Return whether a log record is none of Lightning's tips, and about no TPU or loading of data."""
    return not record.getMessage().startswith(("💡 Tip", "TPU available", "Loading `train_dataloader`"))


def is_no_echo(record: logging.LogRecord) -> bool:
    """Tell whether a log record is not "Received SIGTERM" for a Ctrl-C, of which Lightning is told as of one."""
    stopper = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    pressed = isinstance(stopper, GracefulShutdown) and stopper.number == signal.SIGINT
    return not (pressed and "Received SIGTERM" in record.getMessage())


@contextmanager
def report_errors(args: list[str]) -> Iterator[None]:
    """Turn an error into words for the person at the command line.

    Args:
        args: Command line that the errors are about.

    Raises:
        SystemExit: With code 2 for a mistake of the user, told in one line; with code 1 for any other error, told by
            the frames of its traceback that are the user's or the project's.
    """
    # on every run: a warning about Lightning's own use of torch's internals, and its advertisements
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # Lightning calls functions that jsonargparse 5, which pyproject.toml excludes, will not have
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.pytorch\.cli")
    warnings.filterwarnings("ignore", message="`torch.jit.trace", category=FutureWarning)  # TensorBoard's graphs use it
    warnings.filterwarnings(
        "ignore", message="Checkpoint directory .* is not empty"
    )  # nor is that of a run that goes on
    warnings.filterwarnings("ignore", message=".*The WeightAveraging state cannot be restored")  # nor is it needed
    # about defaults that Parser leaves out of configs
    warnings.filterwarnings("ignore", message="\\s*Unable to serialize instance")
    # of the loss, by which a checkpoint alone is built anew
    warnings.filterwarnings("ignore", message="Attribute '.*' is an instance of `nn.Module`")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(is_of_use)
    logging.getLogger("lightning.pytorch.trainer.connectors.signal_connector").addFilter(is_no_echo)
    try:
        yield
    except Stopped as stopped:
        if debugging():
            raise
        code = 0 if rank() else stopped.exit_code  # of Lightning's launcher: rank zero is killed once another fails
        leave_at_once(code)
        raise SystemExit(code) from None
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
        print(f"error: {parser_message(str(error), args, error.options)}", file=sys.stderr)
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
    elif isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
        print(
            f"error: {str(error).strip(' .')}: it loads images, and may have run out of memory. Give fewer "
            "--data.num_workers or a smaller --data.batch_size.",
            file=sys.stderr,
        )
        return 1
    else:
        print(short_traceback(error), file=sys.stderr)
        return 1
    return 2
