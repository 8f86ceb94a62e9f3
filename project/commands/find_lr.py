"""``find-lr``: suggest a learning rate from the loss at increasing ones."""

from pathlib import Path


def run(args: list[str]) -> Path:
    """Draw the loss over a factor on all learning rates, print a suggestion, and return the picture's path.

    Raises:
        SystemExit: The command line is invalid, or the network cannot be trained.
    """
    from project.cli.lr_range import find_lr  # imports torch, which takes seconds

    return find_lr(args)
