"""Turn exceptions into messages and exit codes."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities.exceptions import MisconfigurationException

import datamodules
from callbacks.finite_loss import NotFiniteError
from project.cli.error_messages import one_line, parser_message, root_cause, short_traceback
from project.errors import RunError, UsageError, debugging, shortened
from project.resume.ranks import leave_at_once, rank, world_size
from project.resume.signals import Stopped

USER_ERRORS = (datamodules.DataError, MisconfigurationException, NotFiniteError, RunError, OSError)

# messages of Lightning's about the command line: validation after the end of an epoch, torchrun with other devices
LIGHTNING = "`val_check_interval`|does not match the world size"


def is_of_use(record: logging.LogRecord) -> bool:
    """Return whether a log record is none of Lightning's tips, and about no TPU, loading of data or SIGTERM.

    ``GracefulShutdown`` reports signals; Lightning would report SIGTERM for a Ctrl-C too.
    """
    useless = ("💡 Tip", "TPU available", "Loading `train_dataloader`")
    return not record.getMessage().startswith(useless) and "Received SIGTERM" not in record.getMessage()


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
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").addFilter(is_of_use)
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


def message_of(error: BaseException, args: list[str]) -> tuple[str, int]:
    """Return the message of an error, and the exit code: 2 for a user error, 1 for any other."""
    text = " ".join(str(error).split())
    if isinstance(error, UsageError):
        return f"error: {parser_message(str(error), args, error.options)}", 2
    if isinstance(error, USER_ERRORS) or (isinstance(error, ValueError) and re.search(LIGHTNING, text)):
        return f"error: {one_line(error)}", 2
    if match := re.match(r"(\S+) is not in bounds, numpy accepts (from \d+ to \d+)", text):  # Lightning's
        return f"error: Expected --seed_everything {match[2]}, but got {match[1]}.", 2
    if isinstance(error, RuntimeError) and text.startswith("Error(s) in loading state_dict"):  # such as of the loss
        advice = "Use the settings that it was trained with, or --model.pretrained to load only the network"
        return f"error: Expected a checkpoint of this module, but got {shortened(error)} {advice}.", 2
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker (pid"):
        advice = "It may have run out of memory. Reduce --data.num_workers or --data.batch_size"
        return f"error: {text.strip(' .')}. {advice}.", 1
    if isinstance(error, RuntimeError) and (match := re.search(r".*\bC(\+\+)? compiler.*", str(error))):
        advice = "Install gcc and g++, or use --model.compile false"
        return f"error: Expected a compiler for --model.compile true, but got: {match[0].strip(' .')}. {advice}.", 2
    return short_traceback(error), 1
