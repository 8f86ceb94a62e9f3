"""``doctor``: examine data, network, loss and optimizer before training, and say what is wrong."""

from pathlib import Path


def run(args: list[str]) -> Path:
    """Print a diagnosis, and return the path of its doctor.json.

    Raises:
        SystemExit: The command line is invalid, or the network cannot be built.
    """
    from project.cli.doctor import doctor  # imports torch, which takes seconds

    return doctor(args)
